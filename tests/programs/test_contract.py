"""The contract of programs finds out those that break it, each by the test that is about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.privacy.plan import OpeningTerms
from privagg.programs.answers import Answer
from privagg.programs.sums import IntMatrix
from privagg.programs.sums_program import NoisySum, SumsProgram
from tests.programs.contract import Case, ProgramContract

VALUES = np.array([0.0, 1.0, -1.0, 0.25, 1 / 3, 0.9, -0.6, 0.5, 0.1, 7.0])


class Squares:
    """An honest program: two rounds, each value clamped to [-1, 1], and its square."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        value = np.clip(records, -1.0, 1.0)
        pair = np.stack([value, value * value], axis=1) * float(state[0]) * 0.7
        return np.trunc(pair * 1000.0).astype(np.int64)


def case(program: type[Any], **changes: Any) -> Case:
    terms = OpeningTerms(
        state=1, length=2, sensitivity_grid=1000, largest_grid=1000, noise_multiplier="0"
    )
    facts: dict[str, Any] = {
        "program": program,
        "openings": (terms, terms),
        "records": VALUES,
        "take": lambda values, places: values[places],
        "states": (np.ones(1), np.full(1, 0.8)),
    }
    return Case(**facts | changes)


class TestSquares(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        return case(Squares)


class ByPosition(Squares):
    """Adds a record's place among those handed over."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        return super().integers(number, state, records) + np.arange(len(records))[:, None]


class Standardised(Squares):
    """Scales by the batch's own statistics."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        return super().integers(number, state, records / max(np.abs(records).max(), 1.0))


class Remembers(Squares):
    """Keeps something of the records it has seen, as a personal head or a control variate would."""

    def __init__(self) -> None:
        self._seen = 0.0

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        seen, self._seen = self._seen, self._seen + float(records.sum())
        return super().integers(number, state, records + seen)


class Draws(Squares):
    """Draws a coin for each record."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        coins = np.random.default_rng().integers(0, 2, (len(records), 2))
        return super().integers(number, state, records) + coins


class Longer(Squares):
    """States a smaller norm than its records have."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        return 2 * super().integers(number, state, records)


class Shy(Squares):
    """States a hundred times the norm that its records have."""

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        return super().integers(number, state, records) // 100


@pytest.mark.parametrize(
    ("program", "test"),
    [
        (ByPosition, "test_a_row_is_its_records_alone"),
        (Standardised, "test_a_row_is_its_records_alone"),
        (Draws, "test_a_row_is_its_records_alone"),
        (Remembers, "test_earlier_rounds_and_other_records_leave_nothing"),
        (Longer, "test_rows_are_within_what_the_plan_charges"),
        (Shy, "test_some_record_comes_near_the_bound"),
    ],
)
def test_what_breaks_the_contract_is_found_out(program: type[Any], test: str) -> None:
    honest, broken = case(Squares), case(program)
    getattr(ProgramContract(), test)(honest)
    with pytest.raises(AssertionError):
        getattr(ProgramContract(), test)(broken)


class Summed(Squares, SumsProgram):
    """An honest whole job of the same two rounds: the state halves, the answer is a sum."""

    name = "summed"
    level = 0.95
    asked: Any = {"scale": 1}  # noqa: RUF012

    @classmethod
    def of(cls, asked: Any) -> Any:
        if asked != {"scale": 1}:
            raise ValueError("not its own")
        return cls()

    def openings(self, noise_multiplier: Any) -> Any:
        return case(Squares).openings

    def step(self, number: int, state: Any, found: NoisySum) -> Any:
        return state / 2

    def answers(self, sums: Any) -> Any:
        return (Answer({"name": "sum", "of": int(sums[0].total[0])}, ()),)


class HandsOn(Summed):
    """Puts the sum of its records into the state, without the noise that was charged."""

    seen = 0

    def integers(self, number: int, state: Any, records: Any) -> IntMatrix:
        rows = super().integers(number, state, records)
        self.seen += int(rows.sum())
        return rows

    def step(self, number: int, state: Any, found: NoisySum) -> Any:
        return state / 2 + self.seen


class Answers(HandsOn):
    """Answers by it."""

    def step(self, number: int, state: Any, found: NoisySum) -> Any:
        return state / 2

    def answers(self, sums: Any) -> Any:
        return (Answer({"name": "sum", "of": self.seen}, ()),)


class Trusts(Summed):
    """Takes what a plan pins at its word."""

    @classmethod
    def of(cls, asked: Any) -> Any:
        return cls() if asked["scale"] == 1 else 1 / 0


@pytest.mark.parametrize(
    ("program", "test", "error"),
    [
        (HandsOn, "test_state_and_answers_follow_from_opened_sums_alone", AssertionError),
        (Answers, "test_state_and_answers_follow_from_opened_sums_alone", AssertionError),
        (Trusts, "test_what_a_plan_pins_is_its_own_or_refused", (ArithmeticError, KeyError)),
    ],
)
def test_a_whole_job_that_breaks_the_contract_is_found_out(
    program: type[Any], test: str, error: Any
) -> None:
    getattr(ProgramContract(), test)(case(Summed))
    with pytest.raises(error):
        getattr(ProgramContract(), test)(case(program))


def test_a_program_that_lies_about_its_norm_still_moves_no_sum_further(tmp_path: Path) -> None:
    """The suite is for its author; whoever is charged is protected whatever the program does."""
    from privagg.programs.sums import bounded

    broken = case(Longer)
    rows = broken.integers(Longer(), 1, list(range(len(VALUES))))
    held = bounded(rows, len(rows), broken.openings[0])
    assert ((rows**2).sum(axis=1) > 1000**2).any()
    assert ((held**2).sum(axis=1) <= 1000**2).all()
