"""What a site keeps at home from round to round, for algorithms that have such a thing.

It is never sent. Each round starts from what an *earlier* round left: an attempt that is made
again, after a stop or a kill, starts where the first one did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from privagg.encoding.planned import RoundId

Arrays = Mapping[str, npt.NDArray[Any]]


class Home(Protocol):
    """Where a site's own state lies."""

    def load(self, run: str, before: int) -> Arrays | None:
        """What the last round before this one left; None where none did.

        Args:
            run: whose rounds.
            before: number of the round that is about to be computed.
        """

    def save(self, round_id: RoundId, arrays: Arrays) -> None:
        """Keep what a round leaves.

        Args:
            round_id: (run, round, attempt).
            arrays: by name; private.
        """


def alike(kept: Arrays | None, own: Arrays) -> bool:
    """Whether what was kept has the names and shapes of what a site has now.

    Args:
        kept: None where nothing was.
        own: the site's present arrays.
    """
    shapes = {name: values.shape for name, values in own.items()}
    return kept is not None and {name: each.shape for name, each in kept.items()} == shapes


class Remembered:
    """A home in this process alone: for rehearsals and tests; a site's is in its folder."""

    def __init__(self) -> None:
        self._kept: dict[RoundId, Arrays] = {}

    def load(self, run: str, before: int) -> Arrays | None:
        """See `Home.load`."""
        earlier = [place for place in self._kept if place[0] == run and place[1] < before]
        return self._kept[max(earlier, key=lambda place: place[1:])] if earlier else None

    def save(self, round_id: RoundId, arrays: Arrays) -> None:
        """See `Home.save`."""
        self._kept[round_id] = dict(arrays)
