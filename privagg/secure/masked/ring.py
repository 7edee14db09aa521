"""Which sites have masks in common, and whether what is left of them still hangs together.

Up to 32 sites all have. Above, sites stand on a ring and have masks in common with the k/2 next
ones on either side (Bell et al., "Secure single-server aggregation with (poly)logarithmic
overhead", CCS 2020; there the graph is random and k holds but for a small probability). Here k
holds *by count*: the aggregator says who dropped out, so it would say so of just those who cut a
site off. Two listed sites next to each other on what is left of the ring have no mask in common
exactly where k/2 places in a row between them are gone. To cut the ring in two takes two such gaps,
k places; n - m dropouts and c colluders do not fill them where k > n - m + c.

Sites check the list that they are shown all the same (`fewest_that_cut`): the rule's numbers are
promises about a round, a list is what happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FULL_UP_TO = 32
"""Sites up to which all have masks in common: key traffic grows with the square of neighbours."""


def neighbours_by_count(dropouts: int, colluders: int) -> int:
    """The least even k that so many dropouts and colluders cannot cut: above their sum."""
    least = dropouts + colluders + 1
    return least + least % 2


def neighbours_of(members: Sequence[str], neighbours: int, run: str) -> list[list[int]]:
    """Places of the sites with which each has masks in common, in order.

    Args:
        members: sites asked, in roster order.
        neighbours: k, even unless it reaches all others.
        run: draws the ring's order, so that sites next to each other on the roster, which may go
            away together, are apart on it. No guarantee hangs on it.
    """
    count = len(members)
    if neighbours >= count - 1:
        return [[other for other in range(count) if other != place] for place in range(count)]
    order, found = ring_order(members, run), [[0]] * count
    for at, place in enumerate(order):
        reach = range(1, neighbours // 2 + 1)
        found[place] = sorted(order[(at + side * far) % count] for far in reach for side in (1, -1))
    return found


def ring_order(members: Sequence[str], run: str) -> list[int]:
    """Places of the members in the order in which they stand on a run's ring."""
    seed = hashlib.sha256(b"privagg/masked/ring/1\0" + run.encode()).digest()
    drawn = [hashlib.sha256(seed + member.encode()).digest() for member in members]
    return sorted(range(len(members)), key=drawn.__getitem__)


def fewest_that_cut(members: Sequence[str], neighbours: int, run: str, listed: set[int]) -> int:
    """Fewest listed sites without which some others have no masks in common with the rest.

    Args:
        members, neighbours, run: as for `neighbours_of`.
        listed: places of the sites whose masks are in the sum.

    Returns:
        The number; as many as there are members where none can cut the others apart.
    """
    count, half = len(members), neighbours // 2
    if neighbours >= count - 1:
        return count
    alive = np.array([place in listed for place in ring_order(members, run)], dtype=np.int64)
    return _fewest(alive, half)


def _fewest(alive: NDArray[np.int64], half: int) -> int:
    """Fewest of the living in two separate gaps of `half` places with one alive on either side.

    Args:
        alive: 0 or 1 (n,), around the ring.
        half: places in a row that cut it.
    """
    count = alive.size
    around = np.concatenate(([0], np.cumsum(np.concatenate((alive, alive)))))
    held = around[half : half + count] - around[:count]  # alive in the gap from each place on
    best = count
    for first in range(count):
        start = np.arange(first + half, first + count - half + 1)  # of the second gap
        between = around[start] - around[first + half]
        # From the second gap's end around to the first gap's start.
        total = around[count]
        beyond = total - held[first] - between - held[start % count]
        cuts = (between > 0) & (beyond > 0)
        if cuts.any():
            best = min(best, int((held[first] + held[start % count])[cuts].min()))
    return best
