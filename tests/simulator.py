"""A federation in memory for attack stories: real messages, keys and ledgers, no training.

Every site's contribution is a known integer vector, so that a sum can be checked to the last bit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.audit.methods import Remembering
from privagg.audit.work import Work
from privagg.config.plan import requirement_of
from privagg.identity.keys import Identity, Roster
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
from privagg.privacy.plan import AgreedPlan, DistributedPlan, SiteTerms, TrainingPlan
from privagg.privacy.randomness import SystemRandomness
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.key_statement import KeyTerms, RunKey
from privagg.protocol.mask_holder import MaskHolder
from privagg.protocol.peers import PeerCheckpoints
from privagg.protocol.pins import Pins
from privagg.protocol.round import run_round
from privagg.protocol.site import Site
from privagg.protocol.transport import Reply
from privagg.run.keying import key_of_run
from privagg.secure.opening import DecryptionKey, KeyGenerator, key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Buffer, Parameters
from tests.approvals import FOR_EVER, approve_plan

NAMES = ("north", "east", "south", "west")
DIMENSION = 5
TRAINING = {
    "dimension": DIMENSION,
    "rounds": 20,
    "clip_norm_l2": Decimal(1),
    "noise_multiplier": Decimal(4),
}
ACCOUNTANT = Remembering(CertifiedAccountant(), lambda event, delta: 0, Work(10**9))
"""Sites charge the same events, in one story after the other: each is bounded once."""


def opened_rounds(store: Path) -> list[tuple[str, int, int]]:
    """(run, round, attempt) of everything a key holder's store says was opened."""
    with closing(sqlite3.connect(store)) as database:
        return database.execute(
            "SELECT run, round, attempt FROM opening WHERE answer IS NOT NULL ORDER BY 1, 2"
        ).fetchall()


class KnownLearner:
    """Contributes the same vector every time and counts how often it was asked."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values
        self.calls = 0

    def contribution(self, parameters: Any, randomness: Any, place: Any) -> NDArray[np.int64]:
        self.calls += 1
        return self.values.copy()


class Watched(KeyGenerator):
    """A scheme's key generator whose keys a story can see."""

    def __init__(self, generator: KeyGenerator) -> None:
        self._generator = generator
        self.made: list[DecryptionKey] = []

    def generate_key(self, parameters: Parameters) -> DecryptionKey:
        self.made.append(self._generator.generate_key(parameters))
        return self.made[-1]

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> DecryptionKey:
        return self._generator.load_decryption_key(parameters, data)


@dataclass
class Wire:
    """A transport that a test can tamper with: each hook maps a frame to a frame or to None."""

    handlers: dict[str, Callable[[bytes], bytes]]
    answers: dict[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)
    seen: dict[str, list[bytes]] = field(default_factory=dict)
    posted: dict[str, bytes] = field(default_factory=dict)

    def post(self, frames: Mapping[str, bytes]) -> None:
        for party, frame in frames.items():
            self.posted[party] = self.handlers[party](frame)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        for party, frame in requests.items():
            answer: bytes | None = self.handlers[party](frame)
            assert answer is not None
            self.seen.setdefault(party, []).append(answer)
            if party in self.answers:
                answer = self.answers[party](answer)
            yield Reply(party, answer, "" if answer is not None else "vanished")


class Simulation:
    """Four sites, a coordinator and a key holder under one plan."""

    def __init__(
        self,
        folder: Path,
        *,
        kind: type[AgreedPlan] = DistributedPlan,
        scheme_name: str = "plaintext",
        budget: str = "1000",
        names: tuple[str, ...] = NAMES,
        **plan: Any,
    ) -> None:
        self.folder = folder
        self.names = names
        self.scheme = scheme(scheme_name)
        self.opener = "coordinator" if self.scheme.every_site else "key-holder"
        facts: dict[str, Any] = {
            "sites": [SiteTerms(name=name, records=40) for name in names],
            **(TRAINING if issubclass(kind, TrainingPlan) else {}),
            "delta": Decimal("1e-5"),
            "custody": "every-site" if self.scheme.every_site else "authority",
            "scheme": scheme_name,
            **({"sampling_rate": Decimal("0.5")} if kind is DistributedPlan else {}),
            **plan,
        }
        self.plan: Any = kind.model_validate(facts)
        self.watched = Watched(key_generator(scheme_name))
        requirement = requirement_of(self.plan, security_bits=128)
        rule = {
            "minimum_survivors": self.plan.minimum_survivors,
            "colluders": self.plan.colluders,
        }
        options = rule if self.scheme.every_site else {}
        self.parameters = self.scheme.choose_parameters(requirement, **options)
        self.day = "2026-11-27"
        self.until = FOR_EVER
        self.keys: dict[str, tuple[RunKey, str]] = {}
        self.identities = {n: Identity.generate(n) for n in (*names, "coordinator", "key-holder")}
        self.roster = Roster.of(*self.identities.values())
        self.learners = {
            name: KnownLearner(np.arange(DIMENSION, dtype=np.int64) * (i + 1) - 3)
            for i, name in enumerate(names)
        }
        self.ledgers = {name: self._ledger(name, Decimal(budget)) for name in names}
        self.sites = {name: self.site(name) for name in names}
        self.key_holder = None if self.scheme.every_site else self.make_key_holder()
        self.keeper = CheckpointKeeper.open(folder / "kept.sqlite")
        handlers = {name: lambda data, name=name: self.sites[name].handle(data) for name in names}
        if not self.scheme.every_site:
            handlers["key-holder"] = lambda data: self.key_holder.handle(data)
        self.wire = Wire(handlers)
        self.begin("run-1")

    def begin(self, run: str) -> None:
        """Begin a run, or resume it: what the coordinator knows now is what it kept durably.

        Every site takes the run's key at once, so that a story may speak to one alone.
        """
        self.run = run
        self.watch = CheckpointWatch(self.keeper, self.roster)
        identity = self.identities["coordinator"]
        self.keys[run] = key_of_run(self.terms, run, identity, self.wire)
        for seen in self.wire.seen.values():
            seen.pop()  # what a story looks at begins after this
        self.wire.post(dict.fromkeys(self.names, self.run_key.frame))

    @property
    def run_key(self) -> RunKey:
        """The present run's key, as it was stated."""
        return self.keys[self.run][0]

    @property
    def key(self) -> DecryptionKey:
        """The present run's secret."""
        found = {key.encryption_key.key_id: key for key in self.watched.made}
        return found[self.run_key.key_id]

    @property
    def terms(self) -> KeyTerms:
        return KeyTerms(
            roster=self.roster,
            coordinator="coordinator",
            opener=self.opener,
            plan=self.plan,
            scheme=self.scheme,
            parameters=self.parameters,
        )

    def _budget_key(self, name: str) -> BudgetKey:
        return BudgetKey(name, self.plan.unit.value)

    def _ledger(self, name: str, budget: Decimal) -> Ledger:
        ledger = Ledger.create(
            self.folder / f"{name}.sqlite",
            name,
            signing_key=self.identities[name].key,
            accountant=ACCOUNTANT,
        )
        approve_plan(ledger, self._budget_key(name), self.plan.digest, budget)
        return ledger

    def site(self, name: str, **changes: Any) -> Site:
        pins = Pins(
            roster=self.roster,
            coordinator="coordinator",
            plan_digest=self.plan.digest,
            opener=self.opener,
        )
        facts: dict[str, Any] = {
            "identity": self.identities[name],
            "pins": pins,
            "plan": self.plan,
            "learner": self.learners[name],
            "scheme": self.scheme,
            "parameters": self.parameters,
            "ledger": self.ledgers[name],
            "randomness": SystemRandomness(),
            "key_holder": self.make_mask_holder(name) if self.scheme.every_site else None,
            **changes,
        }
        return Site(**facts)

    def make_mask_holder(self, name: str) -> MaskHolder:
        return MaskHolder(
            self.plan,
            identity=self.identities[name],
            key_generator=self.watched,
            parameters=self.parameters,
            until=lambda: self.until,
            today=lambda: self.day,
            roster=self.roster,
            aggregator="coordinator",
            opener=self.opener,
            store=self.folder / f"{name}-openings.sqlite",
        )

    def make_key_holder(self) -> KeyHolder:
        return KeyHolder(
            self.plan,
            identity=self.identities["key-holder"],
            key_generator=self.watched,
            parameters=self.parameters,
            until=lambda: self.until,
            today=lambda: self.day,
            roster=self.roster,
            aggregator="coordinator",
            store=self.folder / "openings.sqlite",
            checkpoints=PeerCheckpoints(
                CheckpointKeeper.open(self.folder / "key-holder-kept.sqlite"), self.roster
            ),
        )

    @property
    def job(self) -> Job:
        return Job(
            run=self.run,
            plan=self.plan,
            scheme=self.scheme,
            key=self.run_key,
            key_gone=self.keys[self.run][1],
            identity=self.identities["coordinator"],
            roster=self.roster,
            opener=self.opener,
            watch=self.watch,
        )

    def round(self, number: int = 1, attempt: int = 1) -> RoundOutcome:
        return run_round(
            self.job, self.wire, np.zeros(DIMENSION), round_number=number, attempt=attempt
        )

    def expected_update(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        total = sum(self.learners[name].values for name in names)
        factor = -self.plan.unit_per_grid / self.plan.divisor(names)
        return np.asarray(total, dtype=np.float64) * float(factor)

    def charges(self, name: str) -> int:
        return self.ledgers[name].spent(self._budget_key(name)).charges
