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


class Counted:
    """A transport, and how many bytes of frames it carries, those of retries included.

    What the carrier wraps around a frame (Flower's messages, TLS) is not in the figures. A posted
    frame counts when it is posted, its answer when that comes.

    Args:
        inner: carries the frames.
        sent: party -> bytes sent to it; added to.
        came: party -> bytes that came from it; added to.
    """

    def __init__(self, inner: Transport, *, sent: dict[str, int], came: dict[str, int]) -> None:
        self._inner, self._sent, self._came = inner, sent, came

    def post(self, frames: Mapping[str, bytes]) -> None:
        """See `Transport.post`."""
        self._count(frames)
        self._inner.post(frames)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """See `Transport.exchange`."""
        self._count(requests)
        for reply in self._inner.exchange(requests):
            size = sum(len(frame) for frame in (*reply.posted, reply.data or b""))
            self._came[reply.party] = self._came.get(reply.party, 0) + size
            yield reply

    def _count(self, frames: Mapping[str, bytes]) -> None:
        for party, frame in frames.items():
            self._sent[party] = self._sent.get(party, 0) + len(frame)


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
