"""Torch's process-wide settings, borrowed and given back: threads, determinism, its generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def deterministic_torch() -> Iterator[None]:
    """One thread, deterministic algorithms and whole float32 while it lasts; then as before."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    precision = torch.get_float32_matmul_precision()
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Every kernel writes what it returns; filling it first costs a tenth of a step.
    memory.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        memory.fill_uninitialized_memory = filled
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
