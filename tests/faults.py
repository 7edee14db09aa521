"""What happens to a coordinator's process, not in it: it is killed at one of its exchanges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from privagg.protocol.transport import Reply


class Killed(BaseException):
    """The coordinator's process ends here."""


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
