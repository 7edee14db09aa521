"""What does a release cost, and is there budget left? Units, plans, noise, accountants, ledger.

Read `unit`, `events` and `guarantee` first: what is protected, what a round was, and what is said
of it. Then `plan` (the only source of sampler, clip, noise and event), `accountants` with
`certified` (from events to a proven epsilon) and `ledger` (charged before anything is released).
"""
