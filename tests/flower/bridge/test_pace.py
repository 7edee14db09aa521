"""Pace: never slower than Flower, quick after a message, and a bell that nobody need hear."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("flwr")

from flwr.supercore.superexec import run_superexec
from flwr.supernode import start_client_internal

from privagg.flower.bridge import pace
from privagg.flower.bridge.pace import APP_SECONDS, LEAST_SECONDS, Bell, NodePace

FLOWERS = 3.0
"""A SuperNode's pause between two questions."""


class Clock:
    """Seconds that pass only in pauses."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def pace(self) -> NodePace:
        return NodePace(self.sleep, lambda: self.now)


def test_a_node_without_messages_pauses_as_flower_does() -> None:
    clock = Clock()
    node = clock.pace()
    for _ in range(5):
        node.sleep(FLOWERS)
    assert clock.pauses == [FLOWERS] * 5


def test_after_a_message_it_asks_soon_and_then_ever_less_often() -> None:
    clock = Clock()
    node = clock.pace()
    node.sleep(0.5)
    assert clock.pauses == [APP_SECONDS]
    worked, clock.pauses = clock.now, []
    while clock.now < worked + 60:
        node.sleep(FLOWERS)
    assert clock.pauses[0] == LEAST_SECONDS
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[-1] == FLOWERS
    # Whenever the next message comes, it waits for a sixth of what passed until then.
    now = 0.0
    for pause in clock.pauses:
        assert pause <= max(LEAST_SECONDS, (now + APP_SECONDS) / 6 + 1e-9)
        now += pause
    assert len(clock.pauses) < 45  # Flower pauses 20 times in a minute


def test_a_bell_wakes_its_listener_and_is_heard_once(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "tasks")
    bell.ring()  # nobody listens yet
    sleep = bell.listener()
    threading.Timer(0.2, bell.ring).start()
    started = time.monotonic()
    sleep(60.0)
    assert time.monotonic() - started < 30
    started = time.monotonic()
    sleep(0.3)
    assert time.monotonic() - started >= 0.3


def test_a_bell_that_rang_before_the_pause_ends_it(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "tasks")
    sleep = bell.listener()
    for _ in range(3):
        bell.ring()
        started = time.monotonic()
        sleep(60.0)
        assert time.monotonic() - started < 30


def test_a_bell_that_cannot_ring_stops_nobody(tmp_path: Path) -> None:
    Bell(tmp_path).ring()
    Bell(tmp_path / "none" / "tasks").ring()
    bell = Bell(tmp_path / "tasks")
    sleep = bell.listener()
    (tmp_path / "tasks").unlink()
    sleep(0.05)
    bell.ring()
    sleep(60.0)


def test_flowers_loops_get_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(start_client_internal, "_pull_and_store_message", _pull := _Pull())
    for program in (start_client_internal, run_superexec):
        monkeypatch.setattr(program, "time", time)
    pace.pace_superexec()
    pace.pace_node()
    assert isinstance(start_client_internal.__dict__["time"], NodePace)
    listen = run_superexec.__dict__["time"].sleep
    _pull.run = 7
    assert start_client_internal.__dict__["_pull_and_store_message"](state=None) == 7
    listen(60.0)
    _pull.run = None
    assert start_client_internal.__dict__["_pull_and_store_message"](state=None) is None
    started = time.monotonic()
    listen(0.3)
    assert time.monotonic() - started >= 0.3


class _Pull:
    """Flower's own, which brings a message of a run, or none."""

    run: int | None = None
    __name__ = "_pull_and_store_message"

    def __call__(self, **_: object) -> int | None:
        return self.run


@pytest.mark.parametrize("install", [pace.pace_node, pace.pace_superexec])
def test_a_release_of_flower_without_the_hooks_starts_nothing(
    install: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    for program in (start_client_internal, run_superexec):
        monkeypatch.setattr(program, "time", SimpleNamespace(sleep=time.sleep))
    assert callable(install)
    with pytest.raises(SystemExit, match="no hook for privagg's pace"):
        install()
