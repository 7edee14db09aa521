"""The aggregator and the coordinator's steps; ciphertext and public parameters only."""
