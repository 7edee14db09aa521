"""Torch's process-wide settings, borrowed and given back: threads, determinism, its generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def deterministic_torch() -> Iterator[None]:
    """One thread and deterministic algorithms while the context lasts; then as it was before."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextlib.contextmanager
def layer_randomness(seed: int) -> Iterator[None]:
    """Seeds what layers draw from (initial values, dropout) while it lasts; then as it was before.

    Only the CPU's generator is touched: torch.manual_seed also queues a call for devices, with a
    stack trace, and never lets go of it.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
