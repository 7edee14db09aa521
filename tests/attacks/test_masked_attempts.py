"""Masked sums that do not open at once: who would stop every attempt, or spoil the next one.

Each story is told twice: with the rule, and with the rule taken out, when the attack succeeds.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from privagg.audit.agreed import Agreements
from privagg.privacy.ledger import Ledger
from privagg.protocol import unmasking
from privagg.protocol.frames import parse_header, read_message
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.messages import Consent, Release, Upload
from privagg.protocol.statements import StatementStore
from privagg.run import rounds
from privagg.run.journal import Journal
from privagg.run.record import RunRecorder
from privagg.run.results import RoundReport
from privagg.secure.masked import site as sites
from privagg.secure.masked.recovery import MaskedRecovery
from tests.attacks.test_masked_sums import unbind
from tests.faults import Killed
from tests.protocol.test_unmasking import Stages, check, contradicting, masked
from tests.simulator import DIMENSION, Simulation

SEVEN = tuple("abcdefg")


class Runner:
    """The coordinator of a run, with its record and its journal on disk.

    Attributes:
        outcomes: of every attempt that it made.
        killed_after: attempt whose end is recorded and nothing after it.
    """

    def __init__(self, simulation: Simulation, job: Job | None = None) -> None:
        self.simulation, self.job = simulation, job or simulation.job
        folder = simulation.folder / "coordinator"
        folder.mkdir(exist_ok=True)
        path, key = folder / "record.sqlite", self.job.identity.key
        open_ledger = Ledger.open if path.exists() else Ledger.create
        who = {} if path.exists() else {"owner": "coordinator"}
        ledger = open_ledger(path, **who, signing_key=key)
        self.record = RunRecorder(ledger, self.job.run, StatementStore.beside(folder))
        self.journal = Journal(folder)
        self.outcomes: list[RoundOutcome] = []
        self.killed_after = 0

    def run(self, number: int = 1, attempts: int = 2) -> RoundOutcome:
        """A round with its retries."""
        runner = rounds.RoundRunner(
            self.job, self.simulation.wire, self.record, journal=self.journal, attempts=attempts
        )
        return runner.run(number, np.zeros(DIMENSION), self._ended)

    def _ended(self, outcome: RoundOutcome) -> None:
        self.outcomes.append(outcome)
        self.record.keep(outcome.statements)
        self.record.round(RoundReport(outcome.summary(), {}, {}, 0.0))
        if outcome.attempt == self.killed_after:
            raise Killed


@pytest.mark.parametrize("rule", [True, False])
def test_a_liar_that_contradicts_and_then_keeps_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Of a and g one lies, and nobody can tell which; six of seven have to open the sum."""
    if not rule:
        leave_out = MaskedRecovery.leave_out
        monkeypatch.setattr(
            MaskedRecovery, "leave_out", lambda self, summed, _: leave_out(self, summed, {})
        )
    simulation = masked(tmp_path, names=SEVEN, dropouts=1, colluders=1)
    contradicting(simulation, "a", "g")
    lie = simulation.wire.answers["a"]

    def lie_once(frame: bytes) -> bytes | None:
        header = read_message(frame, simulation.roster).header
        return lie(frame) if isinstance(header, Upload) else None

    simulation.wire.answers["a"] = lie_once
    runner = Runner(simulation)
    last = runner.run(attempts=3)
    first = runner.outcomes[0]
    assert "5 of 6 contributors consent" in first.reason
    assert "commit to different seeds" in first.refusals["g"]
    assert check(simulation, last) == rule, last.reason
    assert len(runner.outcomes) == (2 if rule else 3)
    if rule:
        assert last.survivors == SEVEN[1:]
        assert "with the fewest left out" in last.refusals["a"]


def dealing_badly(monkeypatch: pytest.MonkeyPatch, part: str, made: Any) -> None:
    """Site b does one part of its masking in another way."""
    mask, real = sites.MaskedSite.mask, getattr(sites, part)

    def masking(self: Any, values: Any, site: str, *rest: Any) -> Any:
        with monkeypatch.context() as patch:
            if site == "b":
                patch.setattr(sites, part, lambda *given: made(real, *given))
            return mask(self, values, site, *rest)

    monkeypatch.setattr(sites.MaskedSite, "mask", masking)


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize(
    ("part", "made", "told"),
    [
        (
            "deal",
            lambda deal, seeds, *rest: deal(np.zeros_like(seeds), *rest),
            "it dealt shares of another seed than it had committed to",
        ),
        (
            "seal",
            lambda seal, key, *rest: seal(bytes(32), *rest),
            "it sealed shares that more sites cannot open than may collude",
        ),
    ],
)
def test_a_dealer_of_bad_shares_goes_on_dealing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool, part: str, made: Any, told: str
) -> None:
    """Its shares give another seed than it committed to, or nobody can open them: no sum opens."""
    dealing_badly(monkeypatch, part, made)
    simulation = masked(tmp_path, names=SEVEN, dropouts=1, colluders=1)
    runner = Runner(simulation)
    first = runner.run(1)
    assert told in first.refusals["b"]
    assert "a seed of 'b' stays closed" in first.reason
    if not rule:
        runner.job.convicted.clear()
    second = runner.run(2)
    assert check(simulation, second) == rule, second.reason
    charges = [simulation.charges(name) for name in SEVEN]
    assert charges == [2, 1 if rule else 2, 2, 2, 2, 2, 2]
    if rule:
        assert second.survivors == tuple("acdefg")
        assert second.refusals["b"] == first.refusals["b"]


@pytest.mark.parametrize("rule", [True, False])
def test_a_dealer_that_contradicts_one_site_and_seals_badly_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Of four sites three open a sum: d is left out for a, and b alone cannot open a's shares."""
    mask, seal, commit = sites.MaskedSite.mask, sites.seal, sites.attached.commit

    def masking(self: Any, values: Any, site: str, *rest: Any) -> Any:
        keys = iter([bytes(32), None, None])  # for b, c and d
        seeds = iter([None, None, None, bytes(32)])  # its own, those with b, c and d
        with monkeypatch.context() as patch:
            if site == "a":
                patch.setattr(sites, "seal", lambda key, *what: seal(next(keys) or key, *what))
                patch.setattr(sites.attached, "commit", lambda seed: commit(next(seeds) or seed))
            return mask(self, values, site, *rest)

    monkeypatch.setattr(sites.MaskedSite, "mask", masking)
    simulation = masked(tmp_path, names=tuple("abcd"), dropouts=1, colluders=1)
    runner = Runner(simulation)
    first = runner.run(1)
    assert "a seed of 'a' stays closed: 2 good shares of 3" in first.reason
    assert not runner.job.convicted
    if not rule:
        runner.job.failures.clear()
    second = runner.run(2)
    assert check(simulation, second) == rule, second.reason
    if rule:
        assert second.survivors == tuple("bcd")


def half_opened(tmp_path: Path) -> tuple[Simulation, Stages]:
    """Five of seven vanish before they release; a and b have released by then."""
    simulation = masked(tmp_path, names=SEVEN, dropouts=2, colluders=2)
    stages = Stages(simulation)
    stages.gone = dict.fromkeys("cdefg", 2)
    return simulation, stages


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("rule", [True, False])
def test_who_released_uploads_in_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool, restarted: bool
) -> None:
    """A site sets its store back and contributes again: the bundle would show two lists of its."""
    if not rule:
        monkeypatch.setattr(rounds, "_released", lambda *_: set())
    simulation, stages = half_opened(tmp_path)
    runner = Runner(simulation)
    runner.killed_after = 1
    with pytest.raises(Killed):
        runner.run()
    stages.gone = {}
    unbind(simulation, "a")
    if not restarted:
        runner.killed_after = 0
    last = (Runner(simulation) if restarted else runner).run()
    assert check(simulation, last)
    assert ("a" in last.survivors) == (not rule)
    released = [
        header
        for statement in runner.record.statements
        if isinstance(header := parse_header(statement.kind, statement.header.encode()), Release)
    ]
    twice = len({each.list_digest for each in released if each.sender == "a"})
    assert twice == (1 if rule else 2)
    assert simulation.charges("a") == twice


def test_nobody_is_charged_for_an_attempt_that_too_few_could_open(tmp_path: Path) -> None:
    simulation = masked(tmp_path, names=SEVEN, dropouts=1, colluders=1)
    job = simulation.job
    job.convicted.update(dict.fromkeys("ab", "it lied"))
    outcome = Runner(simulation, job).run(attempts=1)
    assert (
        "5 sites are left, a sum needs 6; none was asked: a: it lied; b: it lied" in outcome.reason
    )
    assert [simulation.charges(name) for name in SEVEN] == [0] * 7


@pytest.mark.parametrize("rule", [True, False])
def test_a_coordinator_killed_between_two_attempts_makes_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """That the first stopped is recorded; it may be tried again, as if nobody had been killed."""
    if not rule:
        monkeypatch.setattr(Job, "may_be_tried_again", lambda *_: False)
        monkeypatch.setattr(unmasking.Job, "may_be_tried_again", lambda *_: False)
    simulation, stages = half_opened(tmp_path)
    runner = Runner(simulation)
    runner.killed_after = 1
    with pytest.raises(Killed):
        runner.run()
    stages.gone = {}
    last = Runner(simulation).run()
    assert check(simulation, last) == rule, last.reason
    assert last.attempt == (2 if rule else 1)


def test_a_coordinator_killed_after_the_last_attempt_makes_no_other(tmp_path: Path) -> None:
    simulation, stages = half_opened(tmp_path)
    runner = Runner(simulation)
    runner.killed_after = 1
    with pytest.raises(Killed):
        runner.run(attempts=1)
    stages.gone = {}
    charges = [simulation.charges(name) for name in SEVEN]
    last = Runner(simulation).run(attempts=1)
    assert (last.outcome, last.attempt) == ("stopped", 1)
    assert [simulation.charges(name) for name in SEVEN] == charges


@pytest.mark.parametrize("rule", [True, False])
def test_a_list_that_looks_full_in_the_bundle(tmp_path: Path, rule: bool) -> None:
    """The coordinator leaves out the consents, and the card of the site that was missing."""
    simulation = masked(tmp_path, names=SEVEN, dropouts=1, colluders=1)
    simulation.wire.answers["g"] = lambda frame: None
    outcome = simulation.round(1)
    assert check(simulation, outcome)
    job, keyed = simulation.job, SEVEN if rule else SEVEN[:-1]
    report: Any = SimpleNamespace(run=job.run, key_id_of=lambda number: job.key_id)
    shown = {True: Agreements(report, simulation.plan), False: Agreements(report, simulation.plan)}
    for statement in outcome.statements:
        header = parse_header(statement.kind, statement.header.encode())
        for with_consents, agreed in shown.items():
            if isinstance(header, Upload):
                agreed.uploads[(1, 1), header.sender] = statement
            elif isinstance(header, Release) or (isinstance(header, Consent) and with_consents):
                agreed.take(header)
    ended: Any = outcome
    assert shown[True]._is_proved(ended, job.parameters, SEVEN)
    assert shown[False]._is_proved(ended, job.parameters, keyed) == (not rule)
