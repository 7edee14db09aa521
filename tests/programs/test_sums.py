"""A site's part in a sum over records: exact bounds, one record's reach, records that fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privagg.privacy.plan import OpeningTerms, SiteTerms, SumsPlan
from privagg.privacy.plan.sums import norm_of
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs import sums
from privagg.programs.sums import (
    NUMBERS_TOGETHER,
    TOGETHER,
    IntMatrix,
    Placed,
    SumsLearner,
    bounded,
    bounded_sum,
)

PLACE = ("run", 1, 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


def terms(length: int, norm: int, largest: int, multiplier: str = "0") -> OpeningTerms:
    return OpeningTerms(
        length=length, sensitivity_grid=norm, largest_grid=largest, noise_multiplier=multiplier
    )


@settings(max_examples=200, deadline=None)
@given(arrays(np.int64, (5, 6), elements=INT64), st.integers(1, 2**24), st.data())
def test_no_row_exceeds_its_bounds(rows: IntMatrix, norm: int, data: st.DataObject) -> None:
    limit = terms(6, norm, data.draw(st.integers(1, norm)))
    found = bounded(rows, 5, limit)
    for before, after in zip(rows.tolist(), found.tolist(), strict=True):
        assert sum(z * z for z in after) <= norm**2
        assert all(abs(z) <= limit.largest_grid for z in after)
        assert all(
            0 <= a * (1 if b >= 0 else -1) <= abs(b) for a, b in zip(after, before, strict=True)
        )
        clipped = [max(-limit.largest_grid, min(limit.largest_grid, z)) for z in before]
        if sum(z * z for z in clipped) <= norm**2:
            assert after == clipped


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int64, (5, 3), elements=st.one_of(st.integers(-3, 3), INT64)),
    st.lists(st.permutations(range(6)), min_size=5, max_size=5),
    st.integers(1, 2**24),
    st.one_of(st.none(), st.lists(st.integers(1, 5), min_size=1, max_size=6)),
)
def test_placed_rows_are_the_same_rows(
    values: Any, orders: Any, norm: int, moves: list[int] | None
) -> None:
    """Bounded and added up as the rows in full, at any places."""
    limit = terms(6, norm, norm)
    if moves:
        moves = sorted(moves, reverse=True)
        facts = {"sensitivity_grid": norm_of(moves), "largest_grid": moves[0]}
        limit = limit.model_copy(update={**facts, "moves": tuple(moves)})
    places = np.sort(np.array(orders, dtype=np.int64)[:, :3], axis=1)
    found = bounded_sum(Placed(places, values), 5, limit)
    np.testing.assert_array_equal(found, bounded(Placed(places, values).dense(6), 5, limit).sum(0))


@pytest.mark.parametrize(
    "places",
    [[[0, 0]], [[1, 0]], [[-1, 0]], [[0, 6]], [[0]], [0, 1], [[0.0, 1.0]]],
)
def test_places_named_twice_or_out_of_range_are_refused(places: Any) -> None:
    """Two integers at one place would add up to more than either was held against."""
    with pytest.raises(ValueError, match="places"):
        bounded_sum(Placed(np.array(places), np.array([[5, 5]])), 1, terms(6, 9, 9))


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int64, (5, 6), elements=st.one_of(st.integers(-3, 3), INT64)),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_no_row_moves_more_than_its_moves(rows: IntMatrix, moves: list[int]) -> None:
    """Against sorting each row by itself; what is within them stays, and nothing is raised."""
    moves = sorted(moves, reverse=True)
    limit = OpeningTerms(
        length=6, sensitivity_grid=norm_of(moves), largest_grid=moves[0],
        noise_multiplier="0", moves=tuple(moves),
    )  # fmt: skip
    found = bounded(rows, 5, limit)
    padded = moves + [0] * (6 - len(moves))
    for before, after in zip(rows.tolist(), found.tolist(), strict=True):
        sizes = sorted((abs(z) for z in after), reverse=True)
        assert all(size <= most for size, most in zip(sizes, padded, strict=True))
        assert all(
            0 <= a * (1 if b >= 0 else -1) <= abs(b) for a, b in zip(after, before, strict=True)
        )
        wanted = sorted((abs(z) for z in before), reverse=True)
        if all(size <= most for size, most in zip(wanted, padded, strict=True)):
            assert after == before
    np.testing.assert_array_equal(
        np.stack([bounded(row[None], 1, limit)[0] for row in rows]), found
    )


@pytest.mark.parametrize("wrong", [np.zeros((3, 6)), np.zeros((2, 6), np.int64), np.zeros(6, int)])
def test_only_integers_of_the_planned_shape_are_taken(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a program owes int64"):
        bounded(wrong, 3, terms(6, 9, 9))


class Rows:
    """A program whose records are what they add; with a negative first cell it fails."""

    def integers(self, number: int, state: Any, records: IntMatrix) -> IntMatrix:
        if (records[:, 0] < 0).any():
            raise ArithmeticError("no")
        return records


def learner(records: IntMatrix, multiplier: str = "0") -> SumsLearner:
    plan = SumsPlan.model_validate(
        {
            "sites": (SiteTerms(name="a", records=5000), SiteTerms(name="b", records=5000)),
            "openings": (terms(4, 50, 40, multiplier), terms(9, 1, 1)),
            "delta": "1e-5", "scheme": "bfv", "custody": "authority", "colluders": 0,
        }
    )  # fmt: skip
    return SumsLearner(plan, "a", Rows(), records)


def contribution(records: IntMatrix, multiplier: str = "0") -> Any:
    return learner(records, multiplier).contribution(
        np.zeros(0), DeterministicRandomness(b"s"), PLACE
    )


def test_what_memory_a_round_takes_tells_no_number_of_records() -> None:
    """A site whose process ends for want of memory is asked again, free of charge."""
    wide, asked = NUMBERS_TOGETHER // 5, []

    class Wide:
        def integers(self, number: int, state: Any, records: IntMatrix) -> IntMatrix:
            asked.append(len(records))
            return np.broadcast_to(records[:, :1], (len(records), wide)).copy()

    plan = SumsPlan.model_validate(
        {
            "sites": (SiteTerms(name="a", records=9), SiteTerms(name="b", records=9)),
            "openings": (terms(wide, 2**12, 9),),
            "delta": "1e-5", "scheme": "bfv", "custody": "authority", "colluders": 0,
        }
    )  # fmt: skip
    made = SumsLearner(plan, "a", Wide(), np.ones((9, 1), np.int64)).contribution(
        np.zeros(0), DeterministicRandomness(b"s"), PLACE
    )
    assert asked == [5, 4]
    assert (made == 9).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2 * TOGETHER), st.lists(st.integers(0, 90), min_size=4, max_size=4))
def test_a_record_moves_the_sum_by_its_own_row(place: int, added: list[int]) -> None:
    records = np.random.default_rng(1).integers(0, 60, (2 * TOGETHER, 4))
    row = np.array([added], dtype=np.int64)
    more = np.insert(records, place, row, axis=0)
    moved = contribution(more) - contribution(records)
    np.testing.assert_array_equal(moved[:4], bounded(row, 1, terms(4, 50, 40))[0])
    assert int((moved.astype(object) ** 2).sum()) <= 50**2
    assert (moved[4:] == 0).all()


def test_a_record_that_cannot_be_computed_adds_nothing_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = np.random.default_rng(2).integers(0, 20, (300, 4))
    spoilt = np.insert(records, 123, [[-1, 7, 7, 7]], axis=0)
    told: list[str] = []
    monkeypatch.setattr(sums._OWNERS_LOG, "warning", lambda text, *more: told.append(text))
    np.testing.assert_array_equal(contribution(spoilt), contribution(records))
    assert [text[:22] for text in told] == ["a record adds nothing,"]


def test_a_program_cannot_leave_one_records_word_in_the_state_for_the_next() -> None:
    class Writes:
        def integers(self, number: int, state: Any, records: IntMatrix) -> IntMatrix:
            state += records[:, :1].sum()
            return np.full((len(records), 4), int(state[0]), np.int64)

    openings = (terms(4, 50, 40).model_copy(update={"state": 1}), terms(9, 1, 1))
    plan = learner(np.zeros((1, 4), np.int64))._plan.model_copy(update={"openings": openings})
    records = np.ones((2 * TOGETHER, 4), np.int64)
    state = np.zeros(1)
    for _ in range(2):
        found = SumsLearner(plan, "a", Writes(), records).contribution(
            state, DeterministicRandomness(b"s"), PLACE
        )
        assert not found.any()  # it adds nothing rather than a sum of what it has read
    assert not state.any()


def test_every_round_is_asked_of_the_same_slices_in_order() -> None:
    """Of which a program may remember what it reads; the records beside them are others'."""

    class Remembers:
        def integers(self, number: int, state: Any, records: IntMatrix) -> IntMatrix:
            asked.append(records)
            return np.repeat(records[:, :1], 4, axis=1)

    asked: list[IntMatrix] = []
    plan, records = learner(np.zeros((1, 4), np.int64))._plan, np.arange(3 * TOGETHER)[:, None]
    made = SumsLearner(plan, "a", Remembers(), records)
    for _ in range(2):
        made.contribution(np.zeros(0), DeterministicRandomness(b"s"), PLACE)
    first, again = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    assert [*map(id, first)] == [*map(id, again)]
    np.testing.assert_array_equal(np.concatenate(first), records)


def test_no_record_at_all_is_still_noise() -> None:
    nothing = contribution(np.zeros((0, 4), np.int64), multiplier="3")
    assert (nothing[:4] != 0).any()
    assert (nothing[4:] == 0).all()
    some = contribution(np.full((7, 4), 2, np.int64), multiplier="3")
    np.testing.assert_array_equal((some - nothing)[:4], [14] * 4)
