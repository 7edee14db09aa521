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
Failures = Mapping[int, int]


def fewest_to_leave_out(against: Graph, failures: Failures) -> set[int]:
    """The fewest sites without which nobody contradicts anybody; the same for the same graph.

    Of as few, those that failed most often: whoever contradicts an honest site and then keeps
    silent stops one attempt by that, and not the next.

    Args:
        against: site -> whom it contradicts, both ways.
        failures: site -> how often it was listed and then did not help to open the sum.

    Returns:
        As few as can be where `SEARCHED_UP_TO` suffice.
    """
    for most in range(SEARCHED_UP_TO + 1):
        found = _cover(against, most, failures)
        if found is not None:
            return found
    gone, left = set[int](), against
    while busiest := _busiest(left, failures):
        gone.add(busiest[0])
        left = without(left, {busiest[0]})
    return gone


def _cover(against: Graph, most: int, failures: Failures) -> set[int] | None:
    """Of the covers of at most so many sites one with most failures; None where there is none."""
    busiest = _busiest(against, failures)
    if busiest is None:
        return set()
    place, others = busiest
    if sum(map(len, against.values())) > 2 * most * len(others):
        return None  # each of so few sites ends as many contradictions as this one, at most
    best: set[int] | None = None
    for taken in ({place}, set(others)):
        if len(taken) > most:
            continue
        rest = _cover(without(against, taken), most - len(taken), failures)
        if rest is not None and (
            best is None or _total(taken | rest, failures) > _total(best, failures)
        ):
            best = taken | rest
        if best is not None and not failures:
            break
    return best


def _total(places: Set[int], failures: Failures) -> int:
    return sum(failures.get(place, 0) for place in places)


def _busiest(against: Graph, failures: Failures) -> tuple[int, Set[int]] | None:
    """Who contradicts most others, and whom; None where nobody does."""

    def order(place: int) -> tuple[int, int, int]:
        return len(against[place]), failures.get(place, 0), -place

    place = max(against, key=order, default=None)
    return (place, against[place]) if place is not None and against[place] else None


def without(against: Graph, gone: Set[int]) -> dict[int, Set[int]]:
    """The contradictions of all others."""
    return {place: others - gone for place, others in against.items() if place not in gone}
