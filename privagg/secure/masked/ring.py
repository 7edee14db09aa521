"""Which sites have masks in common, and whether what is left of them still hangs together.

Up to 32 sites all have. Above, sites stand on a ring and have masks in common with the k/2 next
ones on either side (a graph of few neighbours: Bell et al., "Secure single-server aggregation with
(poly)logarithmic overhead", CCS 2020). Two listed sites next to each other on what is left of the
ring have no mask in common exactly where k/2 places in a row between them are gone; to cut the
ring in two takes two such gaps.

It is the aggregator who says which sites dropped out, and it would name just those that cut a site
off. So no guarantee rests on chance: every site counts, on the very list that it is shown, how many
of the listed would have to collude to cut the others in two (`fewest_that_cut`), and releases
nothing where the rule's colluders could. Chance decides only how often an honest aggregator's list
is refused, or leaves too few holders of a seed: `enough_neighbours` keeps that below 2^-30 a round.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from math import comb

import numpy as np

FULL_UP_TO = 32
"""Sites up to which all have masks in common: key traffic grows with the square of neighbours."""


LOSS_BITS = 30
"""A round with as many dropouts as planned, whoever they are, is lost less often than 1 in 2^30."""

_MOST_EXACT = 10_000  # sites up to which chances are computed; above, neighbours hold by count


def enough_neighbours(asked: int, dropouts: int, colluders: int) -> int:
    """The least even k with which a round with random dropouts is as good as never lost.

    Args:
        asked: n, sites on the ring.
        dropouts: D of them drop out, by the time of the release.
        colluders: c, so that c + 1 shares open a seed.

    Returns:
        k; never more than where D dropouts and c colluders cannot cut the ring whoever they are.
    """
    by_count = dropouts + colluders + 1
    by_count += by_count % 2
    least = colluders + 2 - colluders % 2  # above c, or colluders alone could cut every list
    if asked <= _MOST_EXACT:
        for neighbours in range(least, min(by_count, asked - 1), 2):
            lost = _lost_of_all(asked, dropouts, colluders, neighbours)
            if lost << LOSS_BITS <= comb(asked, dropouts):
                return neighbours
    return by_count


def _lost_of_all(asked: int, dropouts: int, colluders: int, neighbours: int) -> int:
    """A bound on how many of all C(n, D) sets of dropouts lose a round.

    Union over the n (n - k + 1) / 2 pairs of separate gaps of k/2 places, of which at most c are
    left, and over the n sites, of whose k + 1 holders at most c are left.
    """
    pairs = asked * (asked - neighbours + 1) // 2
    cut = _sets_with(asked, dropouts, neighbours, neighbours - colluders)
    short = _sets_with(asked, dropouts, neighbours + 1, neighbours + 1 - colluders)
    return pairs * cut + asked * short


def _sets_with(asked: int, dropouts: int, inside: int, least: int) -> int:
    """Sets of dropouts of which at least so many are among certain `inside` sites."""
    counts = range(least, min(inside, dropouts) + 1)
    return sum(comb(inside, x) * comb(asked - inside, dropouts - x) for x in counts)


@lru_cache(maxsize=8)  # where one process is many sites, all of them ask for the same
def neighbours_of(
    members: tuple[str, ...], neighbours: int, run: str
) -> tuple[tuple[int, ...], ...]:
    """Places of the sites with which each has masks in common, in order.

    Args:
        members: sites asked, in roster order.
        neighbours: k, even unless it reaches all others.
        run: draws the ring's order, so that sites next to each other on the roster, which may go
            away together, are apart on it. No guarantee hangs on it.
    """
    count = len(members)
    if neighbours >= count - 1:
        return tuple(tuple(o for o in range(count) if o != place) for place in range(count))
    order, reach = ring_order(members, run), range(1, neighbours // 2 + 1)
    found = {
        place: tuple(sorted(order[(at + side * far) % count] for far in reach for side in (1, -1)))
        for at, place in enumerate(order)
    }
    return tuple(found[place] for place in range(count))


@lru_cache(maxsize=8)
def ring_order(members: tuple[str, ...], run: str) -> tuple[int, ...]:
    """Places of the members in the order in which they stand on a run's ring."""
    seed = hashlib.sha256(b"privagg/masked/ring/1\0" + run.encode()).digest()
    drawn = [hashlib.sha256(seed + member.encode()).digest() for member in members]
    return tuple(sorted(range(len(members)), key=drawn.__getitem__))


def fewest_that_cut(members: tuple[str, ...], neighbours: int, run: str, listed: set[int]) -> int:
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
    return _fewest(tuple(place in listed for place in ring_order(members, run)), half)


@lru_cache(maxsize=8)
def _fewest(listed: tuple[bool, ...], half: int) -> int:
    """Fewest of the listed in two separate gaps of `half` places with one listed on either side.

    Args:
        listed: whether each place is, around the ring.
        half: places in a row that cut it.
    """
    alive, count = np.array(listed, dtype=np.int64), len(listed)
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
