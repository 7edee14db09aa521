"""What did the institutions agree on, and what follows from it on this machine?

Read `schema` first: every section of the file. `data` holds the sections about records, `faults`
says in words what is wrong with a file; none of these three loads torch. `plan` turns a
configuration into a plan with calibrated noise, and `setup` is what everything that drives, records
or approves a job is handed: configuration, plan, scheme, parameters, records; frozen.
"""
