"""What is one party on one machine, and how is it opened?

Read `folder` first: what lies where, and what a party believes of the others; `local` says where a
run in one process keeps its parties' folders. `open` is the one way from a folder to a site, a key
holder or a ledger. `approving` is the owner's part, `samples` what a site keeps for its owner
alone, `ready` says whether a local job may begin.
"""
