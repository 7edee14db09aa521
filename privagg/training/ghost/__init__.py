"""Exact ghost clipping: sums of clipped per-record gradients that are mostly never formed.

`taps` catches what enters and leaves each layer, `layers` says what each record's gradient is made
of there, `pieces` puts it on an integer grid, and `clipping` bounds every record's whole integer
norm in exact arithmetic and adds the records up. The argument is `proofs/exact-ghost.md`.
"""
