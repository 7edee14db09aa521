"""Whom to leave out where sites contradict each other and no signature says who lies.

Of two sites whose commitments differ one is dishonest at least. So the dishonest ones cover all
contradictions, and the smallest cover is no larger: however c colluders contradict others, c sites
are left out at most, themselves counted.

Source: the search tree for vertex covers, Downey and Fellows, "Parameterized Complexity", 1999,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

SEARCHED_UP_TO = 12
"""Sites that an exact search leaves out, at most; beyond, whoever contradicts most goes first."""

Graph = Mapping[int, Set[int]]


def fewest_to_leave_out(against: Graph) -> set[int]:
    """The fewest sites without which nobody contradicts anybody; the same for the same graph.

    Args:
        against: site -> whom it contradicts, both ways.

    Returns:
        As few as can be where `SEARCHED_UP_TO` suffice.
    """
    for most in range(SEARCHED_UP_TO + 1):
        found = _cover(against, most)
        if found is not None:
            return found
    found, left = set[int](), against
    while busiest := _busiest(left):
        found.add(busiest[0])
        left = without(left, {busiest[0]})
    return found


def _cover(against: Graph, most: int) -> set[int] | None:
    """A cover of at most so many sites; None where there is none."""
    busiest = _busiest(against)
    if busiest is None:
        return set()
    place, others = busiest
    if sum(map(len, against.values())) > 2 * most * len(others):
        return None  # each of so few sites ends as many contradictions as this one, at most
    for taken in ({place}, set(others)):
        if len(taken) <= most:
            rest = _cover(without(against, taken), most - len(taken))
            if rest is not None:
                return taken | rest
    return None


def _busiest(against: Graph) -> tuple[int, Set[int]] | None:
    """Who contradicts most others, and whom; None where nobody does."""
    place = max(against, key=lambda each: (len(against[each]), -each), default=None)
    return (place, against[place]) if place is not None and against[place] else None


def without(against: Graph, gone: Set[int]) -> dict[int, Set[int]]:
    """The contradictions of all others."""
    return {place: others - gone for place, others in against.items() if place not in gone}
