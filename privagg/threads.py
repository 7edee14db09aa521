"""One place that decides how many threads a pass over memory uses, and runs it over them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

_ENVIRONMENT = "PRIVAGG_THREADS"
_MIN_BYTES_A_THREAD = 1 << 20  # below a megabyte, waking a thread costs more than it saves


def available_cpus() -> int:
    """Processors this process may run on, or what PRIVAGG_THREADS says (at least 1)."""
    wanted = os.environ.get(_ENVIRONMENT, "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads_for(work_bytes: int) -> int:
    """Threads worth using for a pass over `work_bytes` bytes."""
    worth = work_bytes // _MIN_BYTES_A_THREAD
    return 1 if worth <= 1 else min(available_cpus(), worth)  # small work asks no system


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=workers, thread_name_prefix="privagg")


if hasattr(os, "register_at_fork"):
    # A forked child inherits the pool object but not its threads: waiting on them would hang.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_split(job: Callable[[int, int, int], None], items: int, parts: int) -> None:
    """Run `job(part, start, stop)` over `parts` near-equal slices of `range(items)`, in threads.

    The first exception is raised when all have ended.

    Args:
        job: must release the GIL to gain anything.
        items: how many there are to split.
        parts: at most so many slices; never more than items.
    """
    parts = max(1, min(parts, items))
    bounds = [items * part // parts for part in range(parts + 1)]
    if parts == 1:
        job(0, 0, items)
        return
    pool = _pool(parts - 1)
    rest = [pool.submit(job, p, bounds[p], bounds[p + 1]) for p in range(1, parts)]
    try:
        job(0, bounds[0], bounds[1])
    finally:
        errors = [future.exception() for future in rest]
    for error in errors:
        if error is not None:
            raise error
