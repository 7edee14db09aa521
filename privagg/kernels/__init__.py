"""Sums over encrypted tensors at the speed of memory: no keys, no policy, no I/O."""
