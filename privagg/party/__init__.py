"""What is one party on one machine, and how is it made or opened?

Read `folder` first: what lies where, and what a party believes of the others. `make` turns a
configuration and what is a party's own into a site or a key holder; `open` does that from a folder.
`approving` is the owner's part, `budgets` and `ready` say whether a job may begin.
"""
