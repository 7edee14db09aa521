"""What can be asked of the sites, and what becomes of the opened sum?

`program` says what a job is. The first one is training by gradients: `training` is the sites' half,
clipped and noised gradients, updates or votes as integers; `gradient` the coordinator's, which
steps along their mean by one of the `optimizers`. `sums` is the sites' half of programs over
records; `sums_program` is what such a program is, `registry` finds one by name, and `answering`
is the coordinator's half. `questions` is the first of them.
"""
