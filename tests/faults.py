"""What happens to a process, not in it: it is killed at one of its exchanges or writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from privagg.protocol.transport import Reply


class Killed(BaseException):
    """The process ends here."""


class Fragile:
    """A transport under which the coordinator is killed.

    Args:
        inner: what carries the frames.
        lives: exchanges that it survives.
        before: killed before the next one is asked, or once its answers are in.
    """

    def __init__(self, inner: Any, lives: int, *, before: bool) -> None:
        self.inner, self.lives, self.before = inner, lives, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """As `Transport.exchange`, while it lives."""
        if self.lives == 0 and self.before:
            raise Killed
        replies = list(self.inner.exchange(requests))
        if self.lives == 0:
            raise Killed
        self.lives -= 1
        yield from replies


class Writes:
    """Counts what this process does to files, by Python's own audit events, and can end it there.

    A hook cannot be taken away again, so that there is one, which does nothing unless it is armed.
    What SQLite writes raises no such event.
    """

    CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"})
    _installed: Writes | None = None

    def __init__(self) -> None:
        self.lives: int | None = None
        self.seen = 0

    @classmethod
    @contextmanager
    def ending_after(cls, lives: int) -> Iterator[Writes]:
        """The first `lives` changes are made, and none after them."""
        if cls._installed is None:
            cls._installed = cls()
            sys.addaudithook(cls._installed._heard)
        watch = cls._installed
        watch.lives, watch.seen = lives, 0
        try:
            yield watch
        finally:
            watch.lives = None

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if self.lives is None:
            return
        if event == "open":
            if not args[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in self.CHANGES:
            return
        if self.seen >= self.lives:
            raise Killed
        self.seen += 1
