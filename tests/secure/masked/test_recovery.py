"""The right sum or a named stop, whoever vanishes and whoever lies."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import pytest

from privagg.errors import CohortError
from privagg.secure.masked.rule import Rule
from tests.secure.masked.worlds import World

RULES = (Rule.choose(7, 4, 0), Rule.choose(7, 5, 2), Rule.choose(7, 6, 1))
BEFORE_UPLOAD, BEFORE_CONSENT, BEFORE_RELEASE = range(3)


@pytest.mark.parametrize("rule", RULES, ids=["4-of-7", "5-of-7", "6-of-7"])
def test_every_three_that_vanish_leave_the_right_sum_or_a_named_stop(rule: Rule) -> None:
    """All subsets of up to three sites, each at any of three stages: 1,156 cases a rule."""
    world, found = World.of(rule), Counter[str]()
    released: dict[tuple[str, tuple[str, ...]], bytes] = {}
    for count in range(4):
        for who in combinations(world.names, count):
            for stages in product(range(3), repeat=count):
                gone = dict(zip(who, stages, strict=True))
                found[_outcome(world, gone, released)] += 1
    assert sum(found.values()) == 1156
    assert set(found) <= {"right", "too few listed", "too few consents", "too few shares"}
    assert found["right"] == _expected(rule)


def _outcome(
    world: World, gone: dict[str, int], released: dict[tuple[str, tuple[str, ...]], bytes]
) -> str:
    stay = 3
    listed = tuple(n for n in world.names if gone.get(n, stay) != BEFORE_UPLOAD)
    recovery = world.recovery(listed)
    try:
        recovery.require_list(listed)
    except CohortError:
        return "too few listed"
    consents = [n for n in listed if gone.get(n, stay) > BEFORE_CONSENT]
    if recovery.needs_consent(listed) and len(consents) < world.parameters.rule.least:
        return "too few consents"
    releases = {}
    for name in listed:
        if gone.get(name, stay) <= BEFORE_RELEASE:
            continue
        if (name, listed) not in released:
            released[name, listed] = world.release(name, listed, recovery)
        releases[name] = released[name, listed]
    opened = recovery.unmask(world.total(listed), listed, releases)
    assert not opened.wrong
    if opened.total is None:
        assert "good shares" in opened.problem
        return "too few shares"
    assert opened.total.tolist() == world.sum_of(listed).tolist()
    return "right"


def _expected(rule: Rule) -> int:
    """Cases that the rule promises to open, counted from its numbers alone."""
    opened = 0
    for count in range(4):
        for who in combinations(range(rule.asked), count):
            for stages in product(range(3), repeat=count):
                at = Counter(stages)
                listed = rule.asked - at[BEFORE_UPLOAD]
                consents = listed - at[BEFORE_CONSENT]
                releases = consents - at[BEFORE_RELEASE]
                agreed = listed == rule.asked or consents >= rule.least
                opened += listed >= rule.least and agreed and releases >= rule.threshold
                assert len(who) == count
    return opened
