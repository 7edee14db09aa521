"""Where a site trains: on its CPU, with how many threads, or on an accelerator; its own choice.

A device that is named is used, or refused before anything is charged. `auto` takes a CUDA device
where there is one and the caller's test passes on it, else the CPU: with as many threads as torch
has in this process (`OMP_NUM_THREADS`, `torch.set_num_threads`; at most `PRIVAGG_THREADS`), or with
one where the test fails with several. It was written without a card at hand: the code for CUDA runs
on devices without data in tests, and was not run on a card.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from privagg.errors import ConfigError, ModelError
from privagg.threads import available_cpus
from privagg.training.declared import DeviceName

_Found = TypeVar("_Found")

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


@dataclass(frozen=True)
class Device:
    """Where a site trains.

    Args:
        torch: torch's device.
        threads: CPU threads of torch's kernels.
    """

    torch: torch.device
    threads: int = 1

    @property
    def name(self) -> str:
        """The processor, and what torch's kernels use of it."""
        if self.torch.type == "cpu":
            return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        if self.torch.type == "cuda":
            return f"cuda {torch.cuda.get_device_name(self.torch)} (CUDA {torch.version.cuda})"
        return f"{self.torch.type} {platform.machine()}"


ONE_THREAD = Device(torch.device("cpu"))
"""The CPU, with one thread."""


def devices_for(asked: DeviceName) -> tuple[Device, ...]:
    """What a choice may stand for on this machine, best first; at least one.

    Raises:
        ConfigError: the device that is named is not there.
    """
    threads = max(1, min(torch.get_num_threads(), available_cpus()))
    cpu = [Device(torch.device("cpu"), threads)] + ([ONE_THREAD] if threads > 1 else [])
    if asked == "cpu":
        return tuple(cpu)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked != "auto" and not there[asked]:
        raise ConfigError(
            f"device = {asked!r}: torch {torch.__version__} sees no such device on this machine; "
            'set device = "cpu" or "auto" in party.toml, or install a torch built for it'
        )
    if asked == "mps" or (asked == "auto" and not there["cuda"]):
        return (Device(torch.device("mps"), threads),) if asked == "mps" else tuple(cpu)
    # Without it cuBLAS may add in another order from call to call, and torch refuses to use it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    card = Device(torch.device("cuda", torch.cuda.current_device()), threads)
    return (card,) if asked == "cuda" else (card, *cpu)


def settle(asked: DeviceName, test: Callable[[Device], _Found]) -> tuple[Device, _Found]:
    """The first device of a choice that passes a test, and what the test found there.

    Args:
        asked: the site's choice.
        test: raises ConfigError (or ModelError, which is one) where the device cannot be used.

    Raises:
        ConfigError: the device that is named is not there.
        ConfigError, ModelError: the test's, of the last device that came into question.
    """
    *others, last = devices_for(asked)
    for device in others:
        try:
            return device, test(device)
        except ConfigError as error:
            told = f"{device.name}, threads {device.threads}"
            _OWNERS_LOG.warning("not trained on %s: %s", told, error)
    try:
        return last, test(last)
    except ModelError as error:
        if last.torch.type == "cpu":
            raise
        raise ModelError(f'device = "{asked}" ({last.name}): {error}') from error
