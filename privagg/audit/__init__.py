"""What an outsider checks: re-derivation of every figure from the ledgers."""
