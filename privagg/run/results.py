"""What a run reports while it lasts, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from privagg.encoding.vectors import FloatVector
from privagg.protocol.job import RoundOutcome


@dataclass(frozen=True)
class RoundReport:
    """What a caller is given after each round.

    Attributes:
        outcome: how the round ended, in summary: a run that kept every update would grow by one
            model a round.
        metrics: figures on the table declared public; empty where there is none.
        epsilon: site -> (spent so far over all jobs, budget), as its ledger says; empty where the
            ledgers lie on other machines.
        encrypt_seconds: wall-clock seconds all sites together took to encrypt; 0 where they are on
            other machines, which do not say.
        committed: where `epsilon` is empty: site -> epsilon that this run alone has charged by its
            plan, at most; see `CommittedSpending`.
    """

    outcome: RoundOutcome
    metrics: Mapping[str, float]
    epsilon: Mapping[str, tuple[Decimal, Decimal]]
    encrypt_seconds: float
    committed: Mapping[str, Decimal] = field(default_factory=dict)


def outcome_facts(outcome: RoundOutcome) -> dict[str, Any]:
    """How an attempt at a round ended, as JSON values: public, and nothing as large as a model."""
    return {
        "round": outcome.round,
        "attempt": outcome.attempt,
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "cohort": list(outcome.cohort),
        "survivors": list(outcome.survivors),
        "refusals": dict(outcome.refusals),
        "bytes_up": dict(outcome.bytes_up),
        "bytes_down": dict(outcome.bytes_down),
        "upload_bytes": dict(outcome.upload_bytes),
        "exchanges": outcome.exchanges,
        "opening_asked": outcome.opening_asked,
        # The time a whole round takes depends on private data, so it is written nowhere.
        "seconds": {name: spent for name, spent in outcome.seconds.items() if name != "round"},
    }


def outcome_of(facts: Mapping[str, Any]) -> RoundOutcome:
    """The summary that `outcome_facts` wrote down.

    Raises:
        KeyError, TypeError: these are no such facts.
    """
    return RoundOutcome(
        round=facts["round"],
        attempt=facts["attempt"],
        cohort=tuple(facts["cohort"]),
        outcome=facts["outcome"],
        reason=facts["reason"],
        survivors=tuple(facts["survivors"]),
        refusals=dict(facts["refusals"]),
        bytes_up=dict(facts["bytes_up"]),
        bytes_down=dict(facts["bytes_down"]),
        upload_bytes=dict(facts["upload_bytes"]),
        seconds=dict(facts["seconds"]),
        exchanges=facts["exchanges"],
        opening_asked=facts["opening_asked"],
    )


@dataclass
class RunResult:
    """What a run left behind.

    Attributes:
        run: its identifier.
        outcome: `finished`, or `stopped` where a round stopped by the plan's rule.
        reason: why it stopped; empty where it did not.
        parameters: float64 (d,), the model after the last opened round.
        metrics: figures on the public table after the last opened round.
        rounds: every attempt, in order.
        missing: site -> why its ledger did not come; with any of these there is no report yet.
        model, answers, report_json, report_html, bundle: files written, in the run's own folder,
            where no other run replaces them; a run leaves a model or answers.
        shown: the folder where copies of them lie until another run's take their place; None where
            there are none.
        ledgers: party -> ledger file, where it lies on this machine.
        selected: the round whose model was released, where evaluations between rounds chose it.
    """

    run: str
    outcome: str
    reason: str
    parameters: FloatVector
    metrics: dict[str, float] = field(default_factory=dict)
    rounds: list[RoundReport] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    model: Path | None = None
    answers: Path | None = None
    report_json: Path | None = None
    report_html: Path | None = None
    bundle: Path | None = None
    shown: Path | None = None
    ledgers: dict[str, Path] = field(default_factory=dict)
    selected: int | None = None

    def left(self, what: str, path: Path) -> None:
        """Name the file that the run ends with.

        Args:
            what: `model` or `answers`.
            path: the file.
        """
        if what == "answers":
            self.answers = path
        else:
            self.model = path
