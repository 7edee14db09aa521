"""From ledgers to what an outsider reads."""
