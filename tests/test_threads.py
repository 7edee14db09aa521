"""Splitting work over threads: every item once, errors raised."""

from __future__ import annotations

import threading

import pytest

from privagg.threads import available_cpus, run_split, threads_for


@pytest.mark.parametrize(("items", "parts"), [(1, 1), (10, 3), (3, 10), (7, 2)])
def test_every_item_is_done_once(items: int, parts: int) -> None:
    done: list[int] = []
    lock = threading.Lock()

    def job(part: int, start: int, stop: int) -> None:
        with lock:
            done.extend(range(start, stop))

    run_split(job, items, parts)
    assert sorted(done) == list(range(items))


def test_an_error_in_any_part_is_raised() -> None:
    def job(part: int, start: int, stop: int) -> None:
        if part == 1:
            raise KeyError("part 1")

    with pytest.raises(KeyError):
        run_split(job, 4, 3)


def test_small_work_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVAGG_THREADS", "4")
    assert available_cpus() == 4
    assert threads_for(1000) == 1
    assert threads_for(1 << 30) == 4
    monkeypatch.setenv("PRIVAGG_THREADS", "zero")
    assert available_cpus() >= 1
