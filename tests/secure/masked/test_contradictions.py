"""The fewest sites to leave out, against all subsets; colluders choose whom they contradict."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import combinations

import pytest

from privagg.secure.masked.contradictions import SEARCHED_UP_TO, fewest_to_leave_out


def graph(pairs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for one, other in pairs:
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return found


def covers(chosen: Iterable[int], pairs: Iterable[tuple[int, int]]) -> bool:
    return all({*pair} & {*chosen} for pair in pairs)


def test_no_smaller_choice_ends_all_contradictions() -> None:
    draw = random.Random(1)
    for _ in range(200):
        every = list(combinations(range(8), 2))
        pairs = draw.sample(every, draw.randrange(0, 14))
        found = fewest_to_leave_out(graph(pairs), {})
        assert covers(found, pairs)
        for smaller in combinations(range(8), len(found) - 1) if found else ():
            assert not covers(smaller, pairs)


def test_of_as_few_those_go_that_failed_most_often() -> None:
    draw = random.Random(3)
    for _ in range(200):
        every = list(combinations(range(8), 2))
        pairs = draw.sample(every, draw.randrange(1, 14))
        failures = {place: draw.randrange(3) for place in range(8)}
        found = fewest_to_leave_out(graph(pairs), failures)
        others = (o for o in combinations(range(8), len(found)) if covers(o, pairs))
        assert covers(found, pairs)
        assert sum(failures[p] for p in found) == max(sum(failures[p] for p in o) for o in others)


def test_c_liars_have_at_most_c_left_out_however_they_choose() -> None:
    draw = random.Random(2)
    for colluders in (1, 3, SEARCHED_UP_TO):
        for _ in range(5):
            pairs = [
                (liar, other)
                for liar in range(colluders)
                for other in draw.sample(range(colluders, 200), draw.randrange(1, colluders + 1))
            ]
            assert len(fewest_to_leave_out(graph(pairs), {})) <= colluders


@pytest.mark.parametrize("of", [2, 3, 5])
@pytest.mark.timeout(60)
def test_beyond_the_search_a_cover_is_found_all_the_same(of: int) -> None:
    """Groups in which everybody contradicts everybody: what a search takes longest for."""
    groups = [range(of * at, of * (at + 1)) for at in range(SEARCHED_UP_TO + 5)]
    pairs = [pair for group in groups for pair in combinations(group, 2)]
    assert covers(fewest_to_leave_out(graph(pairs), {}), pairs)
