"""When Flower's loops look again: soon where something is to come, seldom where nothing happens.

Flower has a SuperNode ask for messages every three seconds and look for its app's answer every
half, and what starts apps ask for tasks every second. A round waits for all of these. Here

- a SuperNode asks again after a sixth of the time that has passed since its last message, never
  later than Flower would: a round of a second is asked about often, one of an hour is not;
- it looks for its app's answer, which lies in its own memory, every few milliseconds;
- it wakes what starts apps when there is a task, by a file in the party's own folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

NEAR_SECONDS = 1.0
"""A pause of Flower's below this is one for something on this machine."""
APP_SECONDS, LEAST_SECONDS, PART = 0.01, 0.2, 1 / 6
BELL, BELL_SECONDS = "tasks", 0.02


class NodePace:
    """In the place of the module `time` in a SuperNode's loop.

    Args:
        sleep, clock: let seconds pass, and say how many have.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._worked = -float("inf")

    def sleep(self, seconds: float) -> None:
        """Pause no longer than Flower would."""
        now = self._clock()
        if seconds < NEAR_SECONDS:
            self._worked = now
            self._sleep(min(seconds, APP_SECONDS))
        else:
            self._sleep(min(seconds, max(LEAST_SECONDS, PART * (now - self._worked))))


class Bell:
    """A file that grows when it rings, by which one of a party's processes wakes another.

    A pipe or a socket would wake at once, and stand in the way of whoever copies the folder.

    Args:
        path: in a folder that only the party's user opens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def ring(self) -> None:
        """Wake whoever listens; where that fails, it looks by itself a little later."""
        with suppress(OSError), self._path.open("ab") as file:
            file.write(b".")

    def listener(self) -> Callable[[float], None]:
        """What sleeps for so many seconds, or until the bell rings."""
        self._path.write_bytes(b"")
        heard = 0

        def sleep(seconds: float) -> None:
            nonlocal heard
            until = time.monotonic() + seconds
            while (rung := self._rung()) == heard and (left := until - time.monotonic()) > 0:
                time.sleep(min(BELL_SECONDS, left))
            heard = rung

        return sleep

    def _rung(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0


def pace_node() -> None:
    """Have the SuperNode that this process is about to run pause, and ring, as said above.

    Raises:
        SystemExit: this release of Flower has no place for it.
    """
    from flwr.supernode import start_client_internal as program

    bell, loop = _bell(), program.start_client_internal
    pull: Callable[..., int | None] = program._pull_and_store_message
    _require(pull.__name__ in loop.__code__.co_names)
    _replace_time(program, loop, program._push_messages, pace=NodePace())

    def pull_and_ring(**options: Any) -> int | None:
        run = pull(**options)
        if run is not None:
            bell.ring()
        return run

    program.__dict__[pull.__name__] = pull_and_ring


def pace_superexec() -> None:
    """Have the SuperExec that this process is about to run listen for the bell.

    Raises:
        SystemExit: this release of Flower has no place for it.
    """
    from flwr.supercore.superexec import run_superexec as program

    pace = SimpleNamespace(sleep=_bell().listener())
    _replace_time(program, program.run_superexec, pace=pace)


def _bell() -> Bell:
    from flwr.supercore.utils import get_flwr_home

    return Bell(get_flwr_home() / BELL)


def _replace_time(program: ModuleType, *loops: Any, pace: object) -> None:
    _require(program.__dict__.get("time") is time)
    _require(all({"time", "sleep"} <= set(loop.__code__.co_names) for loop in loops))
    program.__dict__["time"] = pace


def _require(there: bool) -> None:
    if not there:
        raise SystemExit(
            "this release of flwr has no hook for privagg's pace; use flwr 1.41 or 1.42"
        )
