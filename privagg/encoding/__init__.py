"""How do floats become integers of bounded norm that add up exactly, and sums floats again?

Read `grid` first (scale, exact sensitivity, clamp), then `quantize` (few bits a coordinate) with
`transforms` (public masks and rotations); `planned` makes them from a plan, and `packing` puts
several integers into one word of a ciphertext. The arguments are proofs/sensitivity.md and
proofs/capacity.md.
"""
