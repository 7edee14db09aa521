"""What every program over sums must stand, whoever wrote it.

Subclass `ProgramContract` in a test module, with a `Case`; `ShardsContract` where a program is over
shards. A program from another package does the same. `test_contract.py` shows that the suite finds
out programs that break what they may claim.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from privagg import Federation
from privagg.config.asking import SumsSetup
from privagg.config.setup import Setup
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError
from privagg.party.approving import Terms, approve_here, last_day
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.plan import OpeningTerms, SiteTerms, SumsPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.answers import answer_facts
from privagg.programs.shards import ShardsLearner
from privagg.programs.sums import IntMatrix, Placed, RecordProgram, SumsLearner, bounded
from privagg.programs.sums_program import AnsweringProgram, NoisySum, ShardsProgram
from privagg.protocol.round import run_round
from privagg.protocol.site import Site
from privagg.run.local import How, Run
from privagg.run.unfinished import unfinished_runs
from privagg.training.draws import Draws
from tests.run.kills import in_child
from tests.run.small import RUN, SEED, write_small
from tests.simulator import NAMES, Simulation


@dataclass(frozen=True)
class Case:
    """A program with what it is tried on.

    Args:
        program: makes a fresh one; it is asked for more than one.
        openings: its rounds, without noise.
        records: rows of made-up records, of any type that `take` understands, extremes among them,
            and for shards some that differ from others in their last bit alone.
        take: records by their places, in this order; places may repeat.
        states: a public state for each round.
    """

    program: Callable[[], Any]
    openings: tuple[OpeningTerms, ...]
    records: Any
    take: Callable[[Any, list[int]], Any]
    states: tuple[Any, ...] = field(default=())

    def state(self, number: int) -> Any:
        return self.states[number - 1] if self.states else np.zeros(self.openings[number - 1].state)

    def rounds(self) -> Iterator[tuple[int, OpeningTerms]]:
        yield from enumerate(self.openings, 1)

    def integers(self, program: RecordProgram, number: int, places: list[int]) -> IntMatrix:
        rows = program.integers(number, self.state(number), self.take(self.records, places))
        length = self.openings[number - 1].length
        return rows.dense(length) if isinstance(rows, Placed) else rows

    def votes(self, program: ShardsProgram, number: int, places: list[int], seed: int) -> IntVector:
        draws = DeterministicRandomness(seed).stream("shard")
        return program.votes(number, self.state(number), self.take(self.records, places), draws)

    def ask(self, program: Any, number: int, places: list[int]) -> None:
        """Whatever it gives for some records."""
        if isinstance(program, ShardsProgram):
            self.votes(program, number, places, 0)
        else:
            self.integers(program, number, places)


class JobContract:
    """What every whole job must stand, whatever its sums are over; `case` is the subclass's."""

    @pytest.fixture
    def case(self) -> Case:
        raise NotImplementedError

    @pytest.mark.parametrize("scheme", ["plaintext", "bfv", "ckks", "paillier", "masked"])
    def test_every_scheme_opens_the_same_sums(
        self, case: Case, scheme: str, tmp_path: Path
    ) -> None:
        """A whole round of each opening: charged once, and opened to the very sum."""
        simulation = SumsSimulation(tmp_path, case, scheme)
        for number, terms in case.rounds():
            outcome = simulation.open(number)
            assert (outcome.outcome, outcome.reason) == ("opened", "")
            expected = np.zeros(simulation.plan.upload_dimension, dtype=np.int64)
            expected[: terms.length] = sum(self.sum_of(case, number, name) for name in NAMES)
            np.testing.assert_array_equal(outcome.total, expected)
        assert [simulation.charges(name) for name in NAMES] == [len(case.openings)] * len(NAMES)

    def test_state_and_answers_follow_from_opened_sums_alone(self, case: Case) -> None:
        """A program that hands on what it saw of records, under less noise than is charged."""
        fresh, used = self.whole(case), self.whole(case)
        everybody, sums = list(range(len(case.records))), list[NoisySum]()
        for number, terms in case.rounds():
            total = self.sum_of(case, number, NAMES[0])
            sums.append(NoisySum(total, float(terms.sensitivity_grid), (NAMES[0],)))
            case.ask(used, number, everybody[::2])
            steps = [each.step(number, case.state(number), sums[-1]) for each in (fresh, used)]
            np.testing.assert_array_equal(*steps)
        told = [json.dumps([*map(answer_facts, each.answers(sums))]) for each in (fresh, used)]
        assert told[0] == told[1]

    def test_what_a_plan_pins_is_its_own_or_refused(self, case: Case) -> None:
        """Whatever stands there: no other error than those of values and configurations."""
        program = self.whole(case)
        asked = json.loads(json.dumps(program.asked))
        assert type(program).of(asked).asked == program.asked
        for strange in changed(asked):
            try:
                made = type(program).of(strange)
            except (ValueError, ConfigError):
                continue
            assert type(made).of(made.asked).asked == made.asked
            assert made.openings(Decimal(1))

    def test_a_coordinator_that_is_killed_ends_with_the_same_answers(
        self, case: Case, tmp_path: Path
    ) -> None:
        """In the middle of the rounds, and the resumed one not again: charged once a round."""
        self.whole(case)
        killed_at(case, tmp_path, lambda writes: [writes * 2 // 5])

    @pytest.mark.nightly
    @pytest.mark.timeout(36000)
    def test_a_coordinator_that_is_killed_anywhere_ends_with_the_same_answers(
        self, case: Case, tmp_path: Path
    ) -> None:
        """At every write, between rounds and in them."""
        self.whole(case)
        killed_at(case, tmp_path, lambda writes: list(range(1, writes + 1)))

    def sum_of(self, case: Case, number: int, site: str) -> IntVector:
        """What a site adds without noise, int64 (n,)."""
        raise NotImplementedError

    def whole(self, case: Case) -> AnsweringProgram:
        """The program, where it is a whole job; else there is no job to speak of."""
        program = case.program()
        if not isinstance(program, AnsweringProgram):
            pytest.skip("the sites' half of a program has no plan, state or answers of its own")
        return program


class ProgramContract(JobContract):
    """The suite of programs over records."""

    def sum_of(self, case: Case, number: int, site: str) -> IntVector:
        rows = case.integers(case.program(), number, list(range(len(case.records))))
        total: IntVector = bounded(rows, len(rows), case.openings[number - 1]).sum(axis=0)
        return total

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


class ShardsContract(JobContract):
    """The suite of programs over shards."""

    def sum_of(self, case: Case, number: int, site: str) -> IntVector:
        return np.stack(parts(case, number, everybody(case), site=site)).sum(axis=0)

    def test_votes_are_their_shards_alone(self, case: Case) -> None:
        """The same bits alone, after other shards and rounds, in any order, and asked again."""
        for number, terms in case.rounds():
            groups = shards_of(case, terms)
            alone = [case.votes(case.program(), number, *group) for group in groups]
            for order in (groups, groups[::-1], groups):
                used = case.program()
                for other, _ in case.rounds():
                    for group in order[::2]:
                        case.votes(used, other, *group)
                for votes, group in zip(alone, groups, strict=True):
                    np.testing.assert_array_equal(case.votes(used, number, *group), votes)

    def test_one_record_moves_one_shards_part_by_what_is_charged(self, case: Case) -> None:
        """Each record left out, twice there, standing elsewhere, or in the place of another."""
        for number, terms in case.rounds():
            places = everybody(case)
            for key in range(3):
                before = parts(case, number, places, key=key)
                assert not moved(before, parts(case, number, places[::-1], key=key), terms)
                for place in places:
                    rest = [other for other in places if other != place]
                    for after in (rest, [*places, place], [place, *places]):
                        assert moved(before, parts(case, number, after, key=key), terms) <= 1
                    changed = [*rest[:place], rest[place - 1], *rest[place:]]
                    assert moved(before, parts(case, number, changed, key=key), terms) <= 2

    def test_votes_are_within_what_the_plan_charges(self, case: Case) -> None:
        """No vector is shrunk: what a program states of its shards is what they have."""
        for number, terms in case.rounds():
            for group in shards_of(case, terms):
                votes = case.votes(case.program(), number, *group)[None]
                np.testing.assert_array_equal(bounded(votes, 1, terms), votes)

    def test_some_shard_comes_near_the_bound(self, case: Case) -> None:
        """A sensitivity that no change of a shard comes near is noise for nothing."""
        for number, terms in case.rounds():
            votes = [case.votes(case.program(), number, *each) for each in shards_of(case, terms)]
            furthest = max(((a - b) ** 2).sum() for a in votes for b in votes)
            assert furthest**0.5 >= 0.5 * terms.sensitivity_grid

    def test_what_a_site_sends_moves_by_what_is_charged_under_its_noise(self, case: Case) -> None:
        """The whole contribution, with the same key, draws and noise."""
        places = everybody(case)
        for number, terms in case.rounds():
            for place in places:
                one, other = (
                    contribution(case, number, some)
                    for some in (places, [each for each in places if each != place])
                )
                assert ((one - other) ** 2).sum() <= terms.sensitivity_grid**2
            assert (contribution(case, number, places) != self.sum_of(case, number, NAMES[0])).any()


def everybody(case: Case) -> list[int]:
    return list(range(len(case.records)))


def shards_of(case: Case, terms: OpeningTerms) -> list[tuple[list[int], int]]:
    """Shards with the seeds of what they draw: no record, each one alone, halves, all of them."""
    places = everybody(case)
    groups = [[], *([place] for place in places), places[::2], places[1::2], places, places * 2]
    return [(group, seed) for seed, group in enumerate(groups)]


def learner_and_draws(
    case: Case, number: int, places: list[int], site: str, key: int, noise: str = "0"
) -> tuple[ShardsLearner, Draws, FloatVector]:
    """A site's part, what it draws in a round, and the round's state."""
    openings = [{**each.model_dump(), "noise_multiplier": noise} for each in case.openings]
    plan = SumsPlan.model_validate(
        {
            "sites": [SiteTerms(name=name, records=10**6) for name in NAMES],
            "openings": openings, "delta": "1e-5", "scheme": "bfv", "custody": "authority",
        }
    )  # fmt: skip
    made = ShardsLearner(plan, site, case.program(), case.take(case.records, places))
    round_id = ("run-1", number, 1)
    return made, Draws(DeterministicRandomness(key), round_id, site, plan), case.state(number)


def parts(
    case: Case, number: int, places: list[int], *, site: str = NAMES[0], key: int = 0
) -> list[IntVector]:
    """What each shard of a site adds."""
    made, draws, state = learner_and_draws(case, number, places, site, key)
    return list(made.parts(number, state, case.openings[number - 1], draws))


def contribution(case: Case, number: int, places: list[int]) -> IntVector:
    """What a site sends, noise included."""
    made, _, state = learner_and_draws(case, number, places, NAMES[0], 0, "1.5")
    return made.contribution(state, DeterministicRandomness(0), ("run-1", number, 1))


def moved(before: list[IntVector], after: list[IntVector], terms: OpeningTerms) -> int:
    """How many shards' parts differ; none by more than is charged."""
    distances = [((a - b) ** 2).sum() for a, b in zip(before, after, strict=True)]
    assert max(distances) <= terms.sensitivity_grid**2
    return int(np.count_nonzero(distances))


HOSTILE = (None, True, -1, 0.5, 10**40, "", "x" * 1000, [], [[]], {}, {"name": {}})


def changed(value: Any) -> Iterator[Any]:
    """A JSON value with one part of it left out, added or in the place of another's."""
    yield from HOSTILE if not isinstance(value, dict) else ()
    if isinstance(value, dict):
        yield {**value, "no such setting": 1}
        for key, inner in value.items():
            yield {other: each for other, each in value.items() if other != key}
            yield from ({**value, key: each} for each in changed(inner))
    elif isinstance(value, list):
        for place, inner in enumerate(value[:2]):
            yield from ([*value[:place], each, *value[place + 1 :]] for each in changed(inner))


def setup_of(case: Case, folder: Path) -> SumsSetup:
    """A job of two sites with the case's records each, as a configuration would make it."""
    path, program = folder / "small.toml", case.program()
    program.begin = lambda: case.state(1)  # type: ignore[attr-defined]  # some are handed theirs

    class OfCase(SumsSetup):
        job: ClassVar[str] = "questions"
        command: ClassVar[str] = "ask"
        epsilon = Decimal(50)
        sums = program

        @classmethod
        def is_in(cls, setup: Setup) -> bool:
            return True

        def require_there(self) -> None:
            pass

        def lines_of(self, site: str) -> Any:
            return case.take(case.records, list(range(len(case.records))))

    return OfCase.of(Federation.from_toml(path).setup)


def killed_at(case: Case, folder: Path, which: Callable[[int], list[int]]) -> None:
    """Kill a job at each of these writes, resume it, and compare with one that was left alone."""
    base, result = folder / "b", folder / "result"

    def prepare() -> None:
        write_small(base)
        terms = Terms("t", "a test", last_day(), without_guarantee=True, overlaps="a test")
        approve_here(setup_of(case, base), terms, None, None)

    def begin_or_go_on(here: Path) -> Callable[[], Any]:
        def work() -> Any:
            setup = setup_of(case, here)
            left = unfinished_runs(setup.output)
            if not left and (setup.output / "answers.json").exists():
                return {}
            how: How = "resume" if left else "new"
            made = Run(setup, DeterministicRandomness(SEED), RUN, how=how).drive(None)
            assert made.answers is not None
            ledgers = local_ledgers(setup.output)
            charged = [
                sum(isinstance(entry.payload, Charge) for entry in ledgers[name].entries())
                for name in setup.plan.names
            ]
            return {"answers": made.answers.read_bytes(), "charged": charged}

        return work

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privagg.report.write.can_draw", lambda: False)
        in_child(prepare, result)
        shutil.copytree(base, folder / "w")
        expected, writes = in_child(begin_or_go_on(folder / "w"), result)
        assert expected["charged"] == [len(case.openings)] * 2
        for step in which(len(writes)):
            here = folder / f"k{step}"
            shutil.copytree(base, here)
            done = in_child(begin_or_go_on(here), result, dies_at=step)
            if done is not None:  # how many writes there are differs by a few from run to run
                assert (done[0], len(done[1]) < step) == (expected, True)
                continue
            found, _ = in_child(begin_or_go_on(here), result)
            if found:  # else it was over already
                assert found == expected, f"killed at {step}, {writes[step - 1]}"
            shutil.rmtree(here)


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
        program = self.case.program()
        kind: Any = ShardsLearner if isinstance(program, ShardsProgram) else SumsLearner
        facts = {
            "learner": kind(self.plan, name, program, everybody),
            "randomness": DeterministicRandomness(0),  # what a shard is, is drawn
        }
        return super().site(name, **facts | changes)

    def open(self, number: int) -> Any:
        return run_round(self.job, self.wire, self.case.state(number), round_number=number)
