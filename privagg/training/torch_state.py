"""Torch's process-wide settings, borrowed and given back: threads, determinism, its generator."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from privagg.errors import ConfigError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for them, in malloc.h
_WARN, _ERROR = 1, 2  # torch's names for modes of determinism


@cache
def _keep_freed_memory() -> None:
    """Lets glibc keep up to 2 GiB that were freed: every step takes the same memory again.

    A page that is given back is zeroed and mapped anew, which can cost a fifth of a step. Other
    libraries for memory are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc takes
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


def _set_deterministic(mode: int) -> None:
    """Torch's debug mode of determinism, and its compiler's where a model's code has loaded that.

    The second call sets what the first does, but loads the compiler, in a second, to tell it so.
    """
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == _WARN)
    else:
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def deterministic_torch(threads: int = 1) -> Iterator[None]:
    """Deterministic algorithms, none chosen by timing, and whole float32; then as before.

    Args:
        threads: CPU threads of torch's kernels while it lasts.
    """
    _keep_freed_memory()
    before = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    precision = torch.get_float32_matmul_precision()
    filled = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    _set_deterministic(_ERROR)
    # Every kernel writes what it returns; filling it first costs a tenth of a step.
    memory.fill_uninitialized_memory = False
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        memory.fill_uninitialized_memory = filled
        torch.set_num_threads(before)
        _set_deterministic(deterministic)


def require_no_autocast() -> None:
    """Refuses mixed precision: a site's sums are proved for whole float32.

    Raises:
        ConfigError: autocast is on.
    """
    on = [kind for kind in ("cpu", "cuda", "mps") if torch.is_autocast_enabled(kind)]
    if on:
        raise ConfigError(
            f"torch.autocast is on for {', '.join(on)}, and per-record gradients are clipped in "
            "whole float32; train outside of it. Nothing was charged"
        )


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
