"""Medians of jobs that take turns, so that a noisy machine is noisy for all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def medians(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every job over `rounds` rounds in which each runs once.

    Every job runs once beforehand, so that compilation and first touches of memory do not count.
    """
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def metered(job: Callable[[], object], spent: list[float]) -> Callable[[], object]:
    """The job, noting the processor time that all threads of this process took."""

    def run() -> object:
        started = time.process_time()
        try:
            return job()
        finally:
            spent.append(time.process_time() - started)

    return run


def peak_mib() -> float:
    """This process' peak resident memory so far; of its program alone, unlike getrusage's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
