"""What every program over records must stand, whoever wrote it.

Subclass `ProgramContract` in a test module, with a `Case`. A program from another package does the
same. `test_contract.py` shows that the suite finds out programs that break what they may claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.privacy.plan import OpeningTerms, SiteTerms, SumsPlan
from privagg.programs.sums import IntMatrix, RecordProgram, SumsLearner, bounded
from privagg.protocol.round import run_round
from privagg.protocol.site import Site
from tests.simulator import NAMES, Simulation


@dataclass(frozen=True)
class Case:
    """A program with what it is tried on.

    Args:
        program: makes a fresh one; it is asked for more than one.
        openings: its rounds, without noise.
        records: rows of made-up records, of any type that `take` understands, extremes among them.
        take: records by their places, in this order; places may repeat.
        states: a public state for each round.
    """

    program: Callable[[], RecordProgram]
    openings: tuple[OpeningTerms, ...]
    records: Any
    take: Callable[[Any, list[int]], Any]
    states: tuple[Any, ...] = field(default=())

    def state(self, number: int) -> Any:
        return self.states[number - 1] if self.states else np.zeros(self.openings[number - 1].state)

    def rounds(self) -> Iterator[tuple[int, OpeningTerms]]:
        yield from enumerate(self.openings, 1)

    def integers(self, program: RecordProgram, number: int, places: list[int]) -> IntMatrix:
        return program.integers(number, self.state(number), self.take(self.records, places))


class ProgramContract:
    """The suite; `case` is the subclass's."""

    @pytest.fixture
    def case(self) -> Case:
        raise NotImplementedError

    def test_a_row_is_its_records_alone(self, case: Case) -> None:
        """The same bits alone, in any order, among any number of others, and asked again."""
        count = len(case.records)
        backwards = list(range(count))[::-1]
        doubled = [place for place in range(count) for _ in range(2)]
        for number, _ in case.rounds():
            program = case.program()
            together = case.integers(program, number, list(range(count)))
            alone = [case.integers(case.program(), number, [place])[0] for place in range(count)]
            np.testing.assert_array_equal(together, np.stack(alone))
            again = case.integers(program, number, backwards)
            np.testing.assert_array_equal(again[::-1], together)
            np.testing.assert_array_equal(case.integers(program, number, doubled)[::2], together)

    def test_earlier_rounds_and_other_records_leave_nothing(self, case: Case) -> None:
        """What a program was asked before, of other records or in other rounds, moves no row."""
        half = list(range(len(case.records) // 2))
        rest = list(range(len(half), len(case.records)))
        for number, _ in case.rounds():
            fresh = case.integers(case.program(), number, half)
            used = case.program()
            for other, _ in case.rounds():
                case.integers(used, other, rest)
            np.testing.assert_array_equal(case.integers(used, number, half), fresh)

    def test_rows_are_within_what_the_plan_charges(self, case: Case) -> None:
        """No row is shrunk: what a program states of its records is what they have."""
        for number, terms in case.rounds():
            rows = case.integers(case.program(), number, list(range(len(case.records))))
            np.testing.assert_array_equal(bounded(rows, len(case.records), terms), rows)

    def test_some_record_comes_near_the_bound(self, case: Case) -> None:
        """A stated norm that nothing comes near is noise for nothing."""
        for number, terms in case.rounds():
            rows = case.integers(case.program(), number, list(range(len(case.records))))
            norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
            assert norms.max() >= 0.5 * terms.sensitivity_grid

    @pytest.mark.parametrize("scheme", ["plaintext", "bfv", "ckks", "paillier"])
    def test_every_scheme_opens_the_same_sums(
        self, case: Case, scheme: str, tmp_path: Path
    ) -> None:
        """A whole round of each opening: charged once, and opened to the very sum."""
        simulation = SumsSimulation(tmp_path, case, scheme)
        for number, terms in case.rounds():
            outcome = simulation.open(number)
            assert (outcome.outcome, outcome.reason) == ("opened", "")
            rows = case.integers(case.program(), number, list(range(len(case.records))))
            expected = np.zeros(simulation.plan.upload_dimension, dtype=np.int64)
            expected[: terms.length] = bounded(rows, len(rows), terms).sum(axis=0) * len(NAMES)
            np.testing.assert_array_equal(outcome.total, expected)
        assert [simulation.charges(name) for name in NAMES] == [len(case.openings)] * len(NAMES)


class SumsSimulation(Simulation):
    """Four sites with the same records, and no noise, so that a sum is known to the last bit."""

    def __init__(self, folder: Path, case: Case, scheme: str) -> None:
        self.case = case
        super().__init__(
            folder,
            kind=SumsPlan,
            scheme_name=scheme,
            budget="Infinity",
            sites=[SiteTerms(name=name, records=len(case.records)) for name in NAMES],
            openings=case.openings,
        )

    def site(self, name: str, **changes: Any) -> Site:
        everybody = self.case.take(self.case.records, list(range(len(self.case.records))))
        learner = SumsLearner(self.plan, name, self.case.program(), everybody)
        return super().site(name, **{"learner": learner, **changes})

    def open(self, number: int) -> Any:
        return run_round(self.job, self.wire, self.case.state(number), round_number=number)
