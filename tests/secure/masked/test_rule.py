"""Which plans the rule takes, and what the ring's neighbours are worth."""

from __future__ import annotations

import random
from itertools import combinations
from math import comb

import pytest

from privagg.errors import CohortError, ParameterError
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.ring import enough_neighbours, fewest_that_cut, neighbours_of
from privagg.secure.masked.rule import Rule
from privagg.secure.scheme import Occasion


@pytest.mark.parametrize(
    ("asked", "colluders", "dropouts", "neighbours", "threshold"),
    [(64, 6, 6, 14, 7), (200, 10, 10, 22, 11), (200, 20, 20, 40, 21), (1000, 50, 50, 74, 51)],
)
def test_neighbours_of_a_ring(
    asked: int, colluders: int, dropouts: int, neighbours: int, threshold: int
) -> None:
    rule = Rule.choose(asked, asked - dropouts, colluders)
    assert (rule.neighbours, rule.threshold) == (neighbours, threshold)
    assert rule.always_consents
    assert rule.readers == colluders + 1


def test_up_to_32_sites_all_are_neighbours_and_a_full_list_needs_no_consents() -> None:
    rule = Rule.choose(32, 26, 3)
    assert rule.is_full
    assert rule.threshold == 32 - 26 + 3 + 1
    assert rule.may_be_missing() == {"list": 6, "consent": 6, "release": 22}
    asking = Rule.choose(32, 26, 3, always_consents=True)
    assert asking.threshold == 4


def test_what_the_rule_takes_is_what_opens_one_list_only() -> None:
    """Every plan of up to 12 sites, by counting consents and shares as an aggregator would."""
    for n in range(2, 13):
        for m in range(2, n + 1):
            for c in range(m - 1):
                if 2 * (m - c) <= n - c:  # honest sites consent once, colluders to both lists
                    with pytest.raises(ParameterError, match="could both be opened"):
                        Rule.choose(n, m, c)
                    continue
                rule = Rule.choose(n, m, c)
                # Honest sites that may have released for the full list beside a list of m.
                beside = (n - c) - (m - c)
                assert beside + c < rule.threshold <= m


@pytest.mark.parametrize("always", [False, True])
def test_of_two_attempts_one_is_opened(always: bool) -> None:
    """Every plan of up to 9 sites: how many honest sites may release in the first attempt.

    Whoever released masks for no second one; where consents are always asked, whoever consented.
    """
    for n in range(2, 10):
        for m in range(2, n + 1):
            for c in range(m - 1):
                if 2 * m <= n + c:
                    continue
                rule = Rule.choose(n, m, c, always_consents=always)
                for released in range(n - c + 1):
                    opened = released + c >= rule.threshold
                    # Before the first of them released, m consented, c of whom may be colluders.
                    bound = max(released, m - c if released else 0) if always else released
                    assert not (opened and n - bound >= m)
                # Were the round bound by releases alone, c + 1 shares would be too few.
                one = 1 + c >= rule.threshold and n - 1 >= m
                assert one == (always and n > m)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((10, 6, 2), "at least 7 must be in a sum; allow at most 3 dropouts"),
        ((3, 3, 2), "a single honest site"),
        ((1, 1, 0), "asked must be a whole number"),
        ((7, 8, 0), "least must be"),
        ((7, 5, True), "colluders must be"),
        (("7", 5, 1), "asked must be"),
        ((600, 590, 255), "at most 255 can hold"),
    ],
)
def test_other_plans_are_refused_with_what_to_change(numbers: tuple, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Rule.choose(*numbers)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"neighbours": 13}, "even number above 6"),
        ({"neighbours": 6}, "even number above 6"),
        ({"always_consents": False}, "needs consents"),
        ({"neighbours": 64}, "more than there are sites"),
        ({"always_consents": 1}, "true or false"),
    ],
)
def test_a_rule_from_outside_is_checked(changed: dict, words: str) -> None:
    facts = Rule.choose(64, 58, 6).to_dict()
    assert Rule.from_dict(facts) == Rule.choose(64, 58, 6)
    with pytest.raises(ParameterError, match=words):
        Rule.from_dict({**facts, **changed})


def test_a_cut_is_what_a_search_through_the_graph_finds() -> None:
    draw = random.Random(1)
    for _ in range(60):
        count, neighbours = draw.randint(6, 11), draw.choice([2, 4])
        members = tuple(f"s{number}" for number in range(count))
        beside = neighbours_of(members, neighbours, "run")
        assert all(len(set(some)) == min(neighbours, count - 1) for some in beside)
        assert all(place in beside[other] for place, some in enumerate(beside) for other in some)
        listed = set(draw.sample(range(count), draw.randint(3, count)))
        found = fewest_that_cut(members, neighbours, "run", listed)
        assert found == _searched(beside, listed, count)


def _searched(beside: tuple[tuple[int, ...], ...], listed: set[int], none: int) -> int:
    for size in range(len(listed) - 1):
        for taken in combinations(listed, size):
            left = listed - set(taken)
            reached, todo = set(), [min(left)]
            while todo:
                at = todo.pop()
                if at not in reached:
                    reached.add(at)
                    todo.extend(set(beside[at]) & left)
            if reached != left:
                return size
    return none


def test_the_chance_of_losing_a_round_is_bounded() -> None:
    """Every set of dropouts of a small ring, against the union bound that chooses neighbours."""
    count, dropouts, colluders = 14, 4, 2
    members = tuple(f"s{number}" for number in range(count))
    for neighbours in (4, 6):
        bound = _union_bound(count, dropouts, colluders, neighbours)
        beside = neighbours_of(members, neighbours, "run")
        lost = 0
        for gone in combinations(range(count), dropouts):
            listed = set(range(count)) - set(gone)
            held = (len(listed & {place, *beside[place]}) for place in listed)
            cut = fewest_that_cut(members, neighbours, "run", listed) <= colluders
            lost += cut or min(held) < colluders + 1
        assert lost <= bound
    assert lost == 0 or neighbours < dropouts + colluders + 1
    assert enough_neighbours(count, dropouts, colluders) <= dropouts + colluders + 2


def _union_bound(count: int, dropouts: int, colluders: int, neighbours: int) -> int:
    def sets(inside: int) -> int:
        least = inside - colluders
        return sum(
            comb(inside, x) * comb(count - inside, dropouts - x)
            for x in range(least, min(inside, dropouts) + 1)
        )

    pairs = count * (count - neighbours + 1) // 2
    return pairs * sets(neighbours) + count * sets(neighbours + 1)


def test_a_list_that_colluders_could_cut_is_refused_at_the_site() -> None:
    """The aggregator names as dropouts just those between which one site stands."""
    rule = Rule.choose(64, 58, 6)
    members = tuple(f"s{number}" for number in range(64))
    graph = Graph(Rule(64, 56, 6, 12, True), Occasion("run", 1, 1, members))
    victim = 20
    gone = set(graph.neighbours[victim][:8])  # of 12 neighbours: 4 are left, of 6 that may collude
    listed = [name for place, name in enumerate(members) if place not in gone]
    with pytest.raises(CohortError, match="cut the others in two"):
        graph.require_list(listed)
    good = Graph(rule, Occasion("run", 1, 1, members))
    assert len(good.require_list(members[6:])) == 58


def test_lists_are_of_members_in_order() -> None:
    members = tuple("abcdefg")
    graph = Graph(Rule.choose(7, 5, 1), Occasion("run", 1, 1, members))
    for bad in ("abcd", "abcdx", "bacde", "aabcde"):
        with pytest.raises(CohortError):
            graph.require_list(tuple(bad))
    with pytest.raises(CohortError, match="sites are asked"):
        Graph(Rule.choose(7, 5, 1), Occasion("run", 1, 1, members[:4]))
