"""How far a site has come within a round, for whoever watches on its own machine.

What is told are public numbers: of a round's batches, which all run whoever is sampled, or of a
client's local steps, how many are done. When they are done is seen on that machine alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Watcher = Callable[["Progress"], None]

_WATCHERS: list[Watcher] = []

SECONDS = 10.0
"""At least so long between two lines of a log."""


@dataclass
class Progress:
    """One site's work in one round.

    Args:
        site: its name in the plan.
        round: its number.
        of: batches or steps of the whole round, at least 1.
        done: of them; counted by `advance`.
    """

    site: str
    round: int
    of: int
    done: int = 0

    def advance(self) -> None:
        """One more is done; watchers are told."""
        self.done += 1
        for watcher in tuple(_WATCHERS):
            watcher(self)

    @property
    def text(self) -> str:
        """The same in words."""
        return f"round {self.round}: {self.done} of {self.of} batches done at {self.site}"


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Tells a watcher of every batch in this process while it lasts.

    Args:
        watcher: called in the thread that trains; it should return at once, and never raise.
    """
    _WATCHERS.append(watcher)
    try:
        yield
    finally:
        _WATCHERS.remove(watcher)


def every_while(write: Callable[[str], None], seconds: float = SECONDS) -> Watcher:
    """A watcher that writes a line now and then, and none of a round that is soon over.

    Args:
        write: gets the line.
        seconds: between two lines, and before the first one of a round.
    """
    last: tuple[tuple[str, int], float] = (("", 0), 0.0)

    def watch(progress: Progress) -> None:
        nonlocal last
        now, key = time.monotonic(), (progress.site, progress.round)
        if last[0] != key:
            last = key, now
        elif now - last[1] >= seconds:
            last = key, now
            write(progress.text)

    return watch
