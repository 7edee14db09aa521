"""How does all this run over Flower, ours or somebody else's app?

Read `apps` first (what Flower starts at each party), then `lead` (a run at its coordinator) and
`submit` (started and followed from a shell); `resident` keeps a party's process alive between
messages. `doors` and `strategy_run` serve an app and a strategy that are not ours. `bridge` alone
imports flwr; `deploy` makes the folders and processes of a federation across machines.
"""
