"""What the coordinator writes down of a run: entries of its own ledger, public facts only."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from privagg.config.setup import Setup
from privagg.encoding.vectors import IntVector, sum_text
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Payload, Released, RoundEnded
from privagg.privacy.plan import Epoch
from privagg.protocol.job import Job
from privagg.protocol.key_statement import RunKey
from privagg.protocol.messages import Statement
from privagg.protocol.names import COORDINATOR
from privagg.protocol.statements import StatementStore
from privagg.run.results import RoundReport


class RunRecorder:
    """Writes the record of one run.

    Args:
        ledger: the coordinator's.
        run: its identifier.
        statements: where what the parties signed in the run is kept.
    """

    def __init__(self, ledger: Ledger, run: str, statements: StatementStore) -> None:
        self.ledger = ledger
        self._kept = statements
        self._run = run

    def _add(self, kind: str, **values: Any) -> None:
        self.ledger.record(kind, {"run": self._run, **values})

    def ever(self, kind: str) -> bool:
        """Whether the run has an entry of a kind that tells of a whole run."""
        found = (payload for payload in self._payloads() if payload.kind == kind)
        return any(getattr(payload, "run", None) == self._run for payload in found)

    def _payloads(self) -> Iterator[Payload]:
        return (entry.payload for entry in self.ledger.entries())

    def cohorts(self) -> Iterator[tuple[tuple[int, int], tuple[str, ...]]]:
        """Each attempt recorded so far, as (round, attempt), and the sites that were asked."""
        for payload in self._payloads():
            if isinstance(payload, RoundEnded) and payload.run == self._run:
                yield (payload.round, payload.attempt), tuple(payload.facts["cohort"])

    def start(self, setup: Setup, job: Job, generator: str) -> None:
        """What the run is about.

        Args:
            setup: what is run.
            job: the run's public facts.
            generator: name of the sites' source of randomness.
        """
        plan = job.plan
        # Rosters of an epoch follow from those of the largest one, which no epoch's key may be of.
        whole = setup.parameters if setup.scheme.every_site else job.parameters
        self._add(
            "run-started",
            facts={
                "federation": setup.config.federation.name,
                "plan": plan.canonical_json,
                "plan_digest": plan.digest,
                "scheme": {
                    "name": setup.scheme.name,
                    "protects": setup.scheme.protects,
                    "security_bits": job.parameters.security_bits,
                    "key_id": job.key_id,
                    "payload_bytes": job.parameters.payload_bytes,
                    "attachment_bytes": job.parameters.attachment_bytes,
                    "explanation": job.parameters.explain(),
                    "parameters": whole.to_dict(),
                },
                "custody": plan.custody.value,
                "custody_plainly": plan.custody_plainly,
                "opener": setup.opener,
                "parties": dict(job.roster.keys),
                "public_table": _public_table(setup),
                "attestations": [a.model_dump() for a in setup.config.attestations],
                **_cards(job),
                "generator": generator,
                "versions": {
                    "privagg": version("privagg"),
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                },
            },
        )

    def has_roster(self, first: int) -> bool:
        """Whether it is recorded that the roster changed before this round."""
        return self.ledger.recorded("roster", (self._run, first))

    def roster(self, job: Job, before: Epoch, now: Epoch) -> None:
        """Who joined and who left between two rounds.

        Args:
            job: as it goes on: under the key of the rounds to come.
            before, now: the epochs on either side.
        """
        self._add(
            "roster",
            first_round=now.first,
            joined=tuple(name for name in now.names if name not in before.names),
            left=tuple(name for name in before.names if name not in now.names),
            facts={"sites": list(now.names), "key_id": job.key_id, **_cards(job)},
        )

    def keep_key(self, key: RunKey) -> None:
        """Keep the signed statements of the run's key, those of the sites' cards included."""
        self.keep([*key.cards, key.statement])

    def keep(self, statements: Iterable[Statement]) -> None:
        """Keep what the parties signed in an attempt, before its end is recorded."""
        self._kept.keep(statements)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Everything that the parties signed in the run, as far as it was kept."""
        return self._kept.of(self._run)

    def round(self, report: RoundReport, total: IntVector | None = None) -> None:
        """How an attempt at a round ended; written once, also where a coordinator resumes.

        Args:
            report: how it ended.
            total: int64 (n,), the opened sum where the record is to hold it.
        """
        outcome = report.outcome
        if self.ledger.recorded("round", (self._run, outcome.round, outcome.attempt)):
            return
        self._add(
            "round",
            round=outcome.round,
            attempt=outcome.attempt,
            outcome=outcome.outcome,
            reason=outcome.reason,
            facts={
                "cohort": list(outcome.cohort),
                "survivors": list(outcome.survivors),
                "refusals": [
                    {"site": site, "message": text} for site, text in outcome.refusals.items()
                ],
                "metrics": dict(report.metrics) or None,
                "bytes_up": outcome.bytes_up,
                "bytes_down": outcome.bytes_down,
                "upload_bytes": outcome.upload_bytes,
                # The time a whole round takes depends on private data, so it is never recorded.
                "seconds": {
                    "encrypt": report.encrypt_seconds,
                    **{name: outcome.seconds.get(name, 0.0) for name in ("add", "open")},
                },
                "exchanges": outcome.exchanges,
                **({} if total is None else {"opened": sum_text(total)}),
            },
        )

    def end_of(self, number: int, attempt: int) -> RoundEnded | None:
        """How an attempt is recorded to have ended; None where it is not."""
        entry = self.ledger.entry_about("round", (self._run, number, attempt))
        ended = entry.payload if entry is not None else None
        return ended if isinstance(ended, RoundEnded) else None

    def released_digest(self, what: str = "model") -> str | None:
        """SHA-256 (hex) of the model or answers that the run is recorded to have released last."""
        found = None
        for payload in self._payloads():
            if isinstance(payload, Released) and payload.facts.get("run") == self._run:
                found = str(payload.facts[f"{what}_sha256"])
        return found

    def released(
        self,
        what: str,
        path: Path,
        digest: str,
        metrics: Mapping[str, float],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Which model or answers left the federation; the same one is written once.

        Args:
            what: `model` or `answers`.
            path: its file.
            digest: SHA-256 (hex) of the file.
            metrics: figures on the public table; empty where there are none.
            more: further public facts of the release.
        """
        facts = {
            "run": self._run,
            f"{what}_file": path.name,
            f"{what}_sha256": digest,
            "metrics": dict(metrics) or None,
            **(more or {}),
        }
        if self.released_digest(what) != digest:
            self.ledger.record("released", {"what": what, "who": COORDINATOR, "facts": facts})

    def finish(self, outcome: str, reason: str) -> None:
        """How the run ended."""
        self._add("run-finished", outcome=outcome, reason=reason)


def _cards(job: Job) -> dict[str, dict[str, str]]:
    """Site -> the key on its card, in hexadecimal: with it a verifier makes the run's key again."""
    cards = {site: card.hex() for site, card in job.key.members.items()}
    return {"cards": cards} if cards else {}


def _public_table(setup: Setup) -> dict[str, Any] | None:
    """The table declared public: its name, and its size, which is public too."""
    evaluation, records = setup.config.public_table, setup.public_records
    if records is None:
        return None
    name = evaluation.name if evaluation is not None else "given in the program"
    return {"name": name, "rows": len(records)}
