"""Slots: their number against scipy's tail, their law by enumeration, and what a plan charges."""

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from itertools import permutations, product
from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from privagg.privacy.plan.slots import overflow_chance, slot_batches
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training.draws import place_records


def exact_tail(trials: int, rate: Fraction, least: int) -> Fraction:
    return sum(
        (comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(least, trials + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize("records", [1, 2, 17, 120, 400])
@pytest.mark.parametrize("rate", ["0.001", "0.05", "0.3", "0.9", "1"])
@pytest.mark.parametrize("rows", [1, 8, 64])
def test_the_slots_are_the_least_that_are_enough(records: int, rate: str, rows: int) -> None:
    q = Decimal(rate)
    chance = overflow_chance(delta=Decimal("1e-5"), steps=100, sampling_rate=q)
    batches = slot_batches(records=records, sampling_rate=q, physical_batch=rows, chance=chance)
    allowed = Fraction(chance)
    assert exact_tail(records - 1, Fraction(q), batches * rows) <= allowed
    assert batches == 1 or exact_tail(records - 1, Fraction(q), (batches - 1) * rows) > allowed


@pytest.mark.parametrize(
    ("records", "rate", "rows"),
    [(50_000, "0.01", 1), (10**6, "0.004", 64), (10**7, "0.3", 512), (10**9, "0.0001", 1)],
)
def test_of_many_records_too_the_slots_are_the_least(records: int, rate: str, rows: int) -> None:
    """Held against scipy's survival function, which has some 12 digits there."""
    q = Decimal(rate)
    chance = overflow_chance(delta=Decimal("1e-6"), steps=500, sampling_rate=q)
    batches = slot_batches(records=records, sampling_rate=q, physical_batch=rows, chance=chance)
    enough, too_few = binom.sf(np.array([batches, batches - 1]) * rows - 1, records - 1, float(q))
    assert 0 < enough * (1 - 1e-9) <= float(chance) < too_few * (1 + 1e-9)


class Fixed:
    """A stream that gives these words."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self._words = np.array(words, dtype=np.uint64)

    def uint64(self, n: int) -> np.ndarray:
        return self._words[:n]


def test_the_law_of_slots_by_enumeration() -> None:
    """All orders of the words: n + 1 records restricted to n lie as n records alone lie."""
    slots = 4
    for sampled in ([0, 1, 2], [0, 2], [1]):
        laws = []
        for present in (sampled, [*sampled, 9], [9, *sampled]):
            law: Counter[tuple[int, ...]] = Counter()
            for words in permutations(range(slots)):
                placed = place_records(Fixed(words), np.array(present), slots)
                assert sorted(placed[placed >= 0]) == sorted(present)
                law[tuple(np.flatnonzero(placed == r)[0] for r in sampled)] += 1
            laws.append(law)
        assert laws[0] == laws[1] == laws[2]
        assert len(set(laws[0].values())) == 1  # uniform


def test_the_others_sample_and_slots_keep_their_law_whether_or_not_one_is_sampled() -> None:
    """Every outcome of two records' coins and of the slots, given the added record's coin."""
    slots, laws = 3, {}
    for added in (False, True):
        law: Counter[tuple[int, ...]] = Counter()
        for coins, words in product(product((False, True), repeat=2), permutations(range(slots))):
            placed = place_records(Fixed(words), np.flatnonzero([added, *coins]), slots)
            law[tuple(np.where(placed == 0, -1, placed))] += 1
        laws[added] = law
    assert laws[False] == laws[True]


def test_more_records_than_slots_are_chosen_alike() -> None:
    stream, law = DeterministicRandomness(7).stream("slots"), Counter()
    for _ in range(3000):
        placed = place_records(stream, np.arange(5), 2)
        assert len(set(placed)) == 2
        law.update(int(r) for r in placed)
    # 1200 each, standard deviation 27: fails by chance below 1e-7
    assert max(abs(count - 1200) for count in law.values()) < 160


def test_equal_words_are_drawn_again() -> None:
    draws = [(1, 1, 0), (2, 0, 1)]

    class Twice:
        def uint64(self, n: int) -> np.ndarray:
            return np.array(draws.pop(0), dtype=np.uint64)

    np.testing.assert_array_equal(place_records(Twice(), np.array([5]), 3), [-1, 5, -1])
    assert not draws


def test_what_is_charged_follows_from_the_plan_and_stays_negligible() -> None:
    chance = overflow_chance(delta=Decimal("1e-5"), steps=1000, sampling_rate=Decimal("0.1"))
    assert Fraction(chance) >= Fraction("1e-5") / 2**64 / 1000
    assert Fraction(chance) * 2**64 * 1000 <= Fraction("1e-5") * (1 + Fraction(1, 10**18))
    assert overflow_chance(delta=Decimal("1e-5"), steps=9, sampling_rate=Decimal(1)) == 0
