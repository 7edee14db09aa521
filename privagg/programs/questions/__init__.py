"""Questions to the sites' records; each figure of an answer has two intervals.

`question` is what a question is; `counts`, `moments`, `quantiles`, `covariance`, `linear`,
`logistic` and `poisson` are the kinds, told apart in `asked`; `columns` is how a site's table is
read, a record at a time, `design` how a regression reads it; `regression` is what the three share,
`newton` what those of several rounds do; `program` puts several questions into one asking with one
budget.
"""
