"""How messages get from one party to another: the only thing a runtime has to provide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from privagg.errors import PrivaggError

Handler = Callable[[bytes], bytes]
"""A party: one frame in, its answer out."""

MAX_POSTED = 32
"""Posted frames that wait for one party; beyond these the oldest is dropped."""


@dataclass(frozen=True)
class Reply:
    """What came back from one party.

    Args:
        party: whom the transport asked.
        data: the answering frame; None where the party did not answer.
        problem: why there is no answer, in words fit for a report.
        posted: answers to the frames that were posted to it before; empty bytes for a refusal.
    """

    party: str
    data: bytes | None
    problem: str = ""
    posted: tuple[bytes, ...] = ()


class Transport(Protocol):
    """Carries frames; knows nothing of what is in them.

    Exchanges are what costs time on a network, so what needs no answer rides along with the next.
    """

    def post(self, frames: Mapping[str, bytes]) -> None:
        """Have each party's frame delivered, at the latest with the next exchange with it.

        Its answer comes with that exchange's, as `Reply.posted`. A frame may come twice, and to a
        party that stays away never.
        """
        ...

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """Deliver each party's frame and yield the answers as they come.

        A party that cannot be reached or fails yields a `Reply` without data; it never raises.
        """
        ...


class Outbox:
    """Posted frames, kept until an exchange that carried them was answered."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[bytes]] = {}

    def post(self, frames: Mapping[str, bytes]) -> None:
        """Keep each party's frame for its next exchange; one that waits already is kept once."""
        for party, frame in frames.items():
            before = [other for other in self._waiting.get(party, ()) if other != frame]
            self._waiting[party] = [*before, frame][-MAX_POSTED:]

    def load(self, party: str, frame: bytes) -> list[bytes]:
        """What to send: everything that waits for the party, then `frame`."""
        return [*self._waiting.get(party, ()), frame]

    def delivered(self, party: str, sent: Sequence[bytes]) -> None:
        """The party answered an exchange that carried `sent`; none of that waits any longer."""
        left = [frame for frame in self._waiting.get(party, ()) if frame not in sent]
        self._waiting[party] = left


def answer_frames(handler: Handler, frames: Sequence[bytes]) -> list[bytes]:
    """Hand a party what came in one exchange.

    Returns:
        An answer to each frame. The last is the one that is waited for; the others were posted,
        and where the party raises on one of them, that answer is empty and hinders nothing.

    Raises:
        PrivaggError: as the party does on the last frame.
    """
    *posted, last = frames
    return [*(_answer_posted(handler, frame) for frame in posted), handler(last)]


def _answer_posted(handler: Handler, frame: bytes) -> bytes:
    try:
        return handler(frame)
    except PrivaggError:
        return b""
