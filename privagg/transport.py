"""How messages get from one party to another: the only thing a runtime has to provide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Reply:
    """What came back from one party.

    Args:
        party: whom the transport asked.
        data: the answering frame; None where the party did not answer.
        problem: why there is no answer, in words fit for a report.
    """

    party: str
    data: bytes | None
    problem: str = ""


class Transport(Protocol):
    """Carries frames; knows nothing of what is in them."""

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """Deliver each party's frame and yield the answers as they come.

        A party that cannot be reached or fails yields a `Reply` without data; it never raises.
        """
        ...
