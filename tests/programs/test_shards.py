"""Sums over shards: how records are dealt, exact bounds, and what the contract finds out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from privagg.errors import ConfigError
from privagg.privacy.plan import OpeningTerms, SiteTerms, SumsPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs import shards
from privagg.programs.answers import Answer
from privagg.programs.questions.columns import Columns
from privagg.programs.shards import deal, part_of
from privagg.programs.sums import bounded
from privagg.programs.sums_program import (
    NoisySum,
    ShardsProgram,
    opening_of_votes,
    openings_of,
)
from tests.programs.contract import Case, ShardsContract
from tests.programs.test_contract import Summed

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = np.array(
    [0.0, -1.0, 1.0, 0.3, 1 / 3, -0.6, 7.0, np.nextafter(0.3, 1), -np.nextafter(0, 1)]
)
NO_DRAWS = DeterministicRandomness(0).stream("shard")


def opening(**changes: Any) -> OpeningTerms:
    facts: dict[str, Any] = {
        "length": 4, "votes": 2, "weight": 1000, "shards": 3, "noise_multiplier": Decimal(0),
    } | changes  # fmt: skip
    return opening_of_votes(**facts)


class Signs(ShardsProgram):
    """An honest job of two rounds: is a shard's sum positive, and does a coin say so."""

    name = "signs"
    level = 0.95
    asked: Any = {"scale": 1}  # noqa: RUF012

    @classmethod
    def of(cls, asked: Any) -> Any:
        if asked != {"scale": 1}:
            raise ValueError("not its own")
        return cls()

    def openings(self, noise_multiplier: Any) -> Any:
        opened = opening(noise_multiplier=noise_multiplier)
        return (opened, opened)

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        positive, heads = shard.numbers("x").sum() > 0, draws.bytes(1)[0] < 128
        return np.array([positive, not positive, heads, not heads], dtype=np.int64) * 1000

    def answers(self, sums: Any) -> Any:
        return (Answer({"name": "sum", "of": int(sums[0].total[0])}, ()),)


def case(program: type[Any]) -> Case:
    return Case(
        program=program,
        openings=program().openings(Decimal(0)),
        records=VALUES,
        take=lambda values, places: Columns({"x": values[places]}, {}, len(places)),
    )


class WarmStart(Signs):
    """Begins at what the shard before left behind, as a model that is trained on would."""

    kept = 0.0

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        self.kept += float(shard.numbers("x").sum())
        votes = super().votes(number, state, shard, draws)
        return votes if int(self.kept * 1000) % 2 else votes[::-1].copy()


class Tosses(Signs):
    """Draws from a generator that all shards share."""

    def __init__(self) -> None:
        self.coins = np.random.default_rng(1)

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        self.coins.random(len(shard))
        return super().votes(number, state, shard, self.coins)


class Loud(Signs):
    """Votes for both."""

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        return np.full(4, 1000, dtype=np.int64)


class Against(Signs):
    """Takes votes away, which would move a sum twice as far."""

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        return super().votes(number, state, shard, draws) - 500


class Shy(Signs):
    """Casts hundredths of votes."""

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        return super().votes(number, state, shard, draws) // 100


class HandsOn(Signs):
    """Keeps a shard's sum in the state: less than the whole noise hides it."""

    seen = 0

    def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
        votes = super().votes(number, state, shard, draws)
        self.seen += int(votes[0])
        return votes

    def step(self, number: int, state: Any, found: NoisySum) -> Any:
        return np.array([self.seen])


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (WarmStart, "test_votes_are_their_shards_alone"),
        (WarmStart, "test_one_record_moves_one_shards_part_by_what_is_charged"),
        (Tosses, "test_votes_are_their_shards_alone"),
        (Loud, "test_votes_are_within_what_the_plan_charges"),
        (Against, "test_votes_are_within_what_the_plan_charges"),
        (Shy, "test_some_shard_comes_near_the_bound"),
        (HandsOn, "test_state_and_answers_follow_from_opened_sums_alone"),
    ],
)
def test_what_breaks_the_contract_is_found_out(program: type[Any], test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(ShardsContract(), test)(case(program))


@pytest.mark.parametrize(
    "test",
    [
        "test_votes_are_their_shards_alone",
        "test_one_record_moves_one_shards_part_by_what_is_charged",
        "test_votes_are_within_what_the_plan_charges",
        "test_some_shard_comes_near_the_bound",
        "test_what_a_site_sends_moves_by_what_is_charged_under_its_noise",
        "test_state_and_answers_follow_from_opened_sums_alone",
        "test_what_a_plan_pins_is_its_own_or_refused",
    ],
)
def test_an_honest_program_that_draws_stands_the_contract(test: str) -> None:
    getattr(ShardsContract(), test)(case(Signs))


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int64, (2, 6), elements=st.one_of(st.integers(-3, 2**24), INT64)),
    st.integers(1, 8), st.integers(1, 2**20),
)  # fmt: skip
def test_no_two_vectors_lie_further_apart_than_is_charged(
    rows: Any, votes: int, weight: int
) -> None:
    """Whatever two shards return; nothing is raised, and what is within the bounds stays."""
    terms = opening(length=6, votes=votes, weight=weight)
    one, other = (row.tolist() for row in bounded(rows, 2, terms))
    assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) <= terms.sensitivity_grid**2
    for before, after in zip(rows.tolist(), (one, other), strict=True):
        assert all(0 <= a <= max(b, 0) for a, b in zip(after, before, strict=True))
        if all(0 <= b <= weight for b in before) and 2 * sum(b * b for b in before) <= (
            terms.sensitivity_grid**2
        ):
            assert after == before


@pytest.mark.parametrize("votes", [1, 2, 7, 16])
def test_all_votes_cast_otherwise_are_the_very_sensitivity(votes: int) -> None:
    """sqrt(2 m) of one-hot votes: reached, and stated no higher than to the next integer."""
    terms = opening(length=2 * votes, votes=votes, weight=1000)
    one = np.tile([1000, 0], votes)
    other = np.tile([0, 1000], votes)
    np.testing.assert_array_equal(bounded(np.stack([one, other]), 2, terms), [one, other])
    exact = int(((one - other) ** 2).sum())
    assert (terms.sensitivity_grid - 1) ** 2 < exact == 2 * votes * 1000**2
    assert exact <= terms.sensitivity_grid**2


@given(st.lists(st.binary(max_size=3), max_size=30), st.binary(max_size=3), st.integers(1, 9))
def test_a_record_changes_no_other_records_shard(
    records: list[bytes], more: bytes, count: int
) -> None:
    """Each shard holds the same records, in the same order, but one that has one more."""
    before = [[records[place] for place in own] for own in deal(records, b"key", count)]
    for added in ([more, *records], [*records, more], [*records[::-1], more]):
        after = [[added[place] for place in own] for own in deal(added, b"key", count)]
        different = [place for place in range(count) if before[place] != after[place]]
        assert len(different) == 1
        assert sorted([*before[different[0]], more]) == after[different[0]]


def test_shards_are_even_and_another_key_deals_otherwise() -> None:
    """16 shards of 8,000 records: beyond 6 deviations of 22 in one of 10^7 tries."""
    records = [place.to_bytes(4) for place in range(8000)]
    dealt = [deal(records, key, 16) for key in (b"a", b"b")]
    assert all(abs(len(own) - 500) < 132 for each in dealt for own in each)
    assert dealt[0] != dealt[1]


def test_each_attempt_deals_by_a_key_that_nobody_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []
    monkeypatch.setattr(shards, "deal", lambda r, key, n: keys.append(key) or deal(r, key, n))
    facts = {
        "sites": [SiteTerms(name=name, records=9) for name in ("a", "b")], "delta": "1e-5",
        "openings": [opening()], "scheme": "bfv", "custody": "authority", "colluders": 0,
    }  # fmt: skip
    plan = SumsPlan.model_validate(facts)
    for site, attempt in (("a", 1), ("a", 2), ("b", 1)):
        learner = shards.ShardsLearner(plan, site, Signs(), case(Signs).take(VALUES, [0, 1, 2]))
        sent = learner.contribution(np.zeros(0), DeterministicRandomness(7), ("run", 1, attempt))
        assert sent[:2].sum() == sent[2:].sum() == 3000  # three shards vote, empty ones too
    assert len(set(keys)) == 3
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros(4), np.zeros(3, np.int64), np.zeros((1, 4), np.int64), None, "votes",
        MemoryError(), ZeroDivisionError(), RecursionError(),
    ],
)  # fmt: skip
def test_votes_that_cannot_be_computed_are_none(
    wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Signs):
        def votes(self, number: int, state: Any, shard: Any, draws: Any) -> Any:
            if isinstance(wrong, Exception):
                raise wrong
            return wrong

    told: list[str] = []
    monkeypatch.setattr(shards._OWNERS_LOG, "warning", lambda text, *more: told.append(text))
    shard = case(Signs).take(VALUES, [0])
    assert not part_of(Wrong(), 1, np.zeros(0), shard, NO_DRAWS, opening()).any()
    assert [text[:20] for text in told] == ["a shard adds nothing"]


def test_equal_records_have_the_same_bytes_and_others_not() -> None:
    """However a gap or zero is written; to the last bit, and whichever column it stands in."""
    numbers = {"x": np.array([0.0, -0.0, np.nan, -np.nan, 1.0, np.nextafter(1, 2), 0.0])}
    codes = {"w": np.array([1, 1, 1, 1, 0, 0, 0])}
    found = Columns(numbers, codes, 7).record_bytes()
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found)) == 5
    swapped = Columns({"w": codes["w"] + 0.0}, {"x": np.array([0, 0, 0, 0, 1, 1, 0])}, 7)
    assert swapped.record_bytes()[4] == found[4]  # by the columns' names, not by their kinds
    assert Columns(numbers, codes, 7)[[4, 0]].record_bytes() == [found[4], found[0]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shards": 0}, "greater than or equal to 1"),
        ({"shards": 10**4 + 1}, "less than or equal to 10000"),
        ({"largest_grid": 1415}, r"exceeds the norm 2000 of all of a shard's integers, times sqrt"),
        ({"moves": [2000], "largest_grid": 2000}, "shards vote under Gaussian noise"),
    ],
)
def test_an_opening_that_no_shards_have_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        OpeningTerms.model_validate(opening().model_dump() | changes)


def test_a_program_and_its_openings_are_of_one_kind() -> None:
    class Records(Signs):
        def openings(self, noise_multiplier: Any) -> Any:
            return (opening(), Summed().openings(noise_multiplier)[0])

    class Shards(Summed):
        def openings(self, noise_multiplier: Any) -> Any:
            return (opening(),)

    assert openings_of(Signs(), Decimal(1)) == Signs().openings(Decimal(1))
    with pytest.raises(ConfigError, match="is over shards, and its opening 2 states no shards"):
        openings_of(Records(), Decimal(1))
    with pytest.raises(ConfigError, match="is over records, and its opening 1 states 3 shards"):
        openings_of(Shards(), Decimal(1))


def test_what_a_plan_states_of_shards() -> None:
    """The clamp is that of the shards, whatever records are declared; rows rest on shards alone."""
    facts = {
        "sites": [SiteTerms(name=name, records=9) for name in ("a", "b")], "delta": "1e-5",
        "openings": [opening(noise_multiplier=Decimal(2))], "scheme": "bfv",
        "custody": "authority", "colluders": 0,
    }  # fmt: skip
    plan = SumsPlan.model_validate(facts)
    assert plan.contribution_bound(plan.site("a"), 1) == 3 * 1000
    assert plan.in_round(1).charge_facts["shards"] == 3
    assert "shards' bounded votes" in plan.contribution_plainly
    rows = plan.in_round(1).observers("a", 2)
    assert all(any("a shard's votes follow" in text for text in row.assumptions) for row in rows)
    (term,) = plan.total_committed("a").terms
    assert float(term.mechanism.noise_multiplier) == pytest.approx(2, rel=1e-3)
    assert float(term.mechanism.noise_multiplier) >= 2
    assert plan.in_round(1).noise.stddev_grid ** 2 * 2 >= (2 * 2000) ** 2
