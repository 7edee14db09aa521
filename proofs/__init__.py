"""Proofs of what the package promises, each bound to its code and tests by a hash."""
