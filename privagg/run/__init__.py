"""How does a job go from its start to its report? All that its coordinator does, and keeps.

Read `coordinator` first: rounds, the model's steps, the report. `rounds` makes one round with its
retries; `journal` keeps how far the run is, `record` what its own ledger says of it; `evidence`
collects the sites' ledgers at the end. `local` is a run in this process, `open` one over a network;
`tuning` is a search, `replay` the rounds of a strategy that is not ours, told again after a kill.
`outputs` is where the files of local runs lie, so that none takes another's place.
"""
