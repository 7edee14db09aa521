"""What can be asked of the sites, and what becomes of the opened sum?

Today one thing: `training`, a site's clipped and noised gradients, updates or votes as integers,
and `optimizers`, the step that the coordinator takes with their mean.
"""
