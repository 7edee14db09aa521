"""Questions to the sites' records; each figure of an answer has two intervals.

`question` is what a question is; `counts`, `moments` and `quantiles` are the kinds, told apart in
`asked`; `columns` is how a site's table is read, a record at a time; `program` puts several
questions into one asking with one budget.
"""
