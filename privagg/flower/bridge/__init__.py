"""Flower carries the messages: the only package that imports flwr."""
