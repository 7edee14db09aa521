"""How are encrypted tensors added at the speed of memory? No keys, no policy, no I/O.

Read `running_sum` first: the one calling form of every kernel. Then one kernel with its scheme in
mind: `counters` (plaintext), `packed_sums` (masked), `residues` with `layout` (CKKS and BFV),
`modular` with `lanes` (Paillier). `wide` (BFV) and `fixed_base` (Paillier) serve whoever encrypts
or opens. Modules that begin with an underscore are the inner loops.
"""
