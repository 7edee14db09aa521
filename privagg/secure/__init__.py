"""Secure aggregation schemes behind one contract, their keys, tensors and key holders."""
