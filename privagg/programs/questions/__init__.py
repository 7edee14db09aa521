"""Questions to the sites' records: counts, means, quantiles; each answer with two intervals.

`asked` says what can be asked and what is made of the opened sums; `columns` is how a site's table
is read, a record at a time; `program` puts several questions into one opening with one budget;
`asking` is the coordinator's half, which keeps the opened sum and writes the answers.
"""
