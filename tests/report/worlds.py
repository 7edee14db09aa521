"""Federations that were never trained: ledgers filled by the rules, for reports to be read from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.audit.signed import fingerprint_of
from privagg.digest import tree_digest
from privagg.identity.keys import Identity, Roster
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, ChargeRequest, Ledger, Receipt, RunKeyTaken
from privagg.privacy.plan import ClientPlan, DistributedPlan, TrainingPlan
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.protocol.frames import Message
from privagg.protocol.messages import KeyStatement, Opening, Statement, Upload
from privagg.report import Report, build_report
from privagg.report.accounting import Bounds
from tests.approvals import approve_plan

MADE = datetime(2026, 3, 14, 9, 30, tzinfo=UTC)
KEY_ID = "6d" * 32


class Remembering(Bounds):
    """The certified accountant, asked once for each event: a world's sites charge the same ones."""

    name = "certified"


SHARED = Remembering(CertifiedAccountant())
HOSPITALS = (("st-anna", 254), ("charite", 171), ("leuven", 144))


@dataclass
class World:
    """Ledgers of one federation and what went into them."""

    folder: Path
    plan: TrainingPlan
    federation: str = "breast-cancer-three-hospitals"
    run: str = "breast-cancer-3f9a2c41d07e"
    budget: Decimal = Decimal(2)
    generator: str = SystemRandomness.name
    protects: bool = True
    stopped: frozenset[int] = frozenset()
    dropped: dict[int, tuple[str, ...]] = field(default_factory=dict)
    attestations: tuple[dict[str, str], ...] = ()
    earlier_charges: int = 0
    searched: bool = False
    secure: bool = True
    outcome: str = "finished"
    reason: str = ""
    now: datetime = MADE - timedelta(hours=1)
    opener: str = "key-holder"
    decided: Literal["apart", "together", "never"] = "apart"

    def __post_init__(self) -> None:
        names = ("coordinator", "key-holder", *self.plan.names)
        self.identities = {name: Identity.generate(name) for name in names}
        self.owners: dict[str, Ed25519PrivateKey] = {}
        self.statements: list[Statement] = []
        self.receipts: dict[tuple[str, int], Receipt] = {}
        self.coordinator = self._ledger("coordinator")
        self.sites = {name: self._ledger(name) for name in self.plan.names}
        for name, ledger in self.sites.items():
            self._decide(name, ledger)
        for number in range(self.earlier_charges):
            for name in self.sites:
                self._charge(name, "earlier-run", number + 1)
        if self.searched:
            search = {
                "name": "learning rate", "runs": ["earlier-run"], "method": "composition",
                "who": "data science", "facts": {"grid": "0.1, 0.5"},
            }  # fmt: skip
            for ledger in (self.coordinator, self.sites["st-anna"]):
                ledger.record("tuning", search)

    def _ledger(self, name: str) -> Ledger:
        return Ledger.create(
            self.folder / f"{name}.sqlite",
            name,
            signing_key=self.identities[name].key,
            accountant=SHARED,
            clock=lambda: self.now,
        )

    def _decide(self, name: str, ledger: Ledger) -> None:
        """The owner approves the plan and sets the budget; before there were owners, anybody."""
        key, digest, delta = self._key(name), self.plan.digest, self.plan.delta
        if self.decided == "never":
            ledger.set_budget(key, self.budget, delta, who="board", why="policy 7")
            return
        person, acted_for = f"Dr. {name.title()}", ()
        if self.decided == "together":
            person, acted_for = "Dr. Ito", self.plan.names
        owner = self.owners.setdefault(name, Ed25519PrivateKey.generate())
        approve_plan(
            ledger, key, digest, self.budget, delta, owner=owner, who=person, acted_for=acted_for
        )

    def _key(self, name: str) -> BudgetKey:
        return BudgetKey(self.plan.site(name).dataset, self.plan.unit.value)

    def _charge(self, name: str, run: str, number: int) -> None:
        event = self.plan.committed_event(name)
        if not self.secure:
            event = DpEvent.once(Mechanism(kind="non-private"))
        receipt = self.sites[name].charge(
            ChargeRequest(
                run=run,
                round=number,
                attempt=1,
                dataset=self.plan.site(name).dataset,
                unit=self.plan.unit.value,
                event=event,
                plan_digest=self.plan.digest,
                facts=self.facts(name, number),
            )
        )
        if run == self.run:
            self.receipts[name, number] = receipt

    def facts(self, name: str, number: int) -> dict[str, Any]:
        """What a site states that it planned, as `privagg.protocol.site` does."""
        plan = self.plan
        return {
            "mode": plan.mode, "cohort": list(plan.names), "scheme": plan.scheme,
            "minimum_survivors": plan.minimum_survivors, "clip_norm_l2": str(plan.clip_norm_l2),
            "sensitivity_grid": plan.sensitivity_grid, "noise_stddev_grid": plan.noise_stddev_text,
            "noise_bound_grid": plan.noise.bound if plan.noise else 0,
            "upload_bound_grid": plan.upload_bound, "sum_bound_grid": plan.sum_bound,
            "key_id": KEY_ID, "security_bits": 128 if self.protects else 0,
            "custody": plan.custody.value, "generator": self.generator, "python": "3.11.9",
            "numpy": "2.3.1",
        }  # fmt: skip

    def upload(self, name: str, number: int) -> None:
        """A site trains, stores and signs its upload; the payload stands for an encrypted one."""
        receipt = self.receipts[name, number]
        payload = f"{name} {number}".encode()
        header = Upload(
            **self._heading(name, number), key_id=KEY_ID, key_part_digest=tree_digest(b""),
            receipt_hash=receipt.entry_hash, checkpoint=receipt.checkpoint,
            **self.attested(name, number),
        )  # fmt: skip
        self.sites[name].consume(receipt)
        self.sites[name].store_upload(receipt, payload)
        self.statements.append(Message.sign(self.identities[name], header, payload).statement)

    def attested(self, name: str, number: int) -> dict[str, str]:
        """What a site says of its noise in an upload."""
        return {"generator": self.generator, "noise_stddev_grid": self.plan.noise_stddev_text}

    def open(self, number: int, survivors: list[str], attempt: int = 1) -> None:
        """The key holder signs that it opened the survivors' sum."""
        header = Opening(
            **{**self._heading(self.opener, number), "attempt": attempt}, key_id=KEY_ID,
            request_sha256="00" * 32, contributors=tuple(survivors),
        )  # fmt: skip
        self.statements.append(Message.sign(self.identities[self.opener], header).statement)

    def state_key(self) -> None:
        """The key holder states the run's key, and every site takes it."""
        heading = {**self._heading(self.opener, 1), **self.key_facts()}
        header = KeyStatement.model_validate(heading)
        message = Message.sign(self.identities[self.opener], header, b"the encryption key")
        frame = message.to_bytes()
        taken = RunKeyTaken(
            run=self.run, holder=self.opener, key_id=header.key_id, until=header.until,
            parameters=header.parameters_fingerprint, sha256=hashlib.sha256(frame).hexdigest(),
            length_bytes=len(frame),
        )  # fmt: skip
        for ledger in self.sites.values():
            ledger.take_run_key(taken, frame)
        self.statements.append(message.statement)

    def key_facts(self) -> dict[str, str]:
        """What the key holder states of its key."""
        return {
            "federation_digest": Roster.of(*self.identities.values()).federation_digest(
                coordinator="coordinator", opener=self.opener
            ),
            "parameters_fingerprint": fingerprint_of({}), "key_id": KEY_ID, "until": "2026-12-31",
        }  # fmt: skip

    def _heading(self, sender: str, number: int) -> dict[str, Any]:
        return {
            "run": self.run, "round": number, "attempt": 1, "sender": sender,
            "plan_digest": self.plan.digest,
        }  # fmt: skip

    def start(self) -> None:
        """The coordinator's first entry of the run."""
        plan = self.plan
        scheme = {
            "name": plan.scheme, "protects": self.protects,
            "security_bits": 128 if self.protects else 0, "key_id": KEY_ID,
            "payload_bytes": 131_177,
            "explanation": "CKKS in the ring of degree 8192 with residues of 60, 40 and 60 bits; "
            "sums of 3 contributions are rounded back to the grid with room for 2^41."
            if self.protects else "No encryption: the oracle that the others are compared with.",
        }  # fmt: skip
        facts: dict[str, Any] = {
            "federation": self.federation, "plan": plan.canonical_json,
            "plan_digest": plan.digest, "scheme": scheme, "custody": plan.custody.value,
            "custody_plainly": plan.custody_plainly, "opener": self.opener,
            "parties": {name: i.public_hex for name, i in self.identities.items()},
            "public_table": "holdout-table", "attestations": list(self.attestations),
            "versions": {"privagg": "0.1.0", "python": "3.11.9", "numpy": "2.3.1"},
            "generator": self.generator,
        }  # fmt: skip
        self.coordinator.record("run-started", {"run": self.run, "facts": facts})

    def play(self) -> World:
        """Start, all rounds, release, finish."""
        self.start()
        self.state_key()
        rng = np.random.default_rng(7)
        for number in range(1, self.plan.rounds + 1):
            self._round(number, rng)
        if self.outcome == "finished":
            facts = {
                "run": self.run, "model_file": "model.safetensors", "model_sha256": "ab" * 32,
                "metrics": {
                    "accuracy": 0.9561, "base_rate": 0.6274, "auc": 0.989,
                    "class_0_records": 212.0, "class_0_recall": 0.9245,
                    "class_1_records": 357.0, "class_1_recall": 0.9748,
                },
            }  # fmt: skip
            self.coordinator.record("released", {"what": "model", "who": "c", "facts": facts})
        ending = {"run": self.run, "outcome": self.outcome, "reason": self.reason}
        self.coordinator.record("run-finished", ending)
        return self

    def _round(self, number: int, rng: np.random.Generator) -> None:
        names, place = self.plan.names, {"run": self.run, "round": number, "attempt": 1}
        for name in names:
            self._charge(name, self.run, number)
        missing = self.dropped.get(number, ())
        stopped = number in self.stopped
        survivors = [] if stopped else [name for name in names if name not in missing]
        learning = 0.62 + 0.34 * (1 - np.exp(-number / 7)) + rng.normal(0, 0.006)
        opening = 0.0 if stopped else 0.006
        for name in survivors if not stopped else set(names) - set(missing):
            self.upload(name, number)
        if survivors:
            self.open(number, survivors)
        seconds = {"encrypt": 0.021 * len(names), "add": 0.004, "open": opening}
        facts = {
            "cohort": list(names), "survivors": survivors,
            "refusals": [{"site": n, "message": "no answer within 30 s"} for n in missing],
            "metrics": None
            if stopped
            else {"accuracy": float(learning), "base_rate": 0.6274, "loss": 0.3},
            "bytes_up": {n: len(f"{n} {number}") for n in names if n not in missing},
            "bytes_down": dict.fromkeys(names, 812), "seconds": seconds, "exchanges": 3,
        }  # fmt: skip
        reason = "1 of 3 contributions; the plan needs 2" if stopped else ""
        outcome = "stopped" if stopped else "opened"
        self.coordinator.record(
            "round", {**place, "outcome": outcome, "reason": reason, "facts": facts}
        )
        for name in names:
            if stopped:
                self.sites[name].record("aborted", {**place, "reason": reason})
            elif name in survivors:
                self._realise(name, place, survivors)

    def _realise(self, name: str, place: dict[str, Any], survivors: list[str]) -> None:
        event = self.plan.realised_event(name, survivors)
        if not self.secure:
            event = DpEvent.once(Mechanism(kind="non-private"))
        payload = {
            **place, "dataset": self.plan.site(name).dataset, "unit": self.plan.unit.value,
            "event": event, "attested_by": self.opener, "facts": {"survivors": survivors},
        }  # fmt: skip
        self.sites[name].record("realised", payload)

    def report(self, **options: Any) -> Report:
        """The report of the run."""
        options.setdefault("accountant", SHARED)
        return build_report(
            run=self.run, coordinator=self.coordinator, sites=self.sites, generated=MADE,
            **options,
        )  # fmt: skip


def distributed(
    *, sites: tuple[tuple[str, int], ...] = HOSPITALS, **changes: Any
) -> DistributedPlan:
    """A record-distributed plan over these sites."""
    facts = {
        "sites": [{"name": n, "records": r, "dataset": f"{n}-2025"} for n, r in sites],
        "dimension": 31, "rounds": 12, "sampling_rate": "0.2", "clip_norm_l2": "1",
        "noise_multiplier": "3.4", "delta": "0.00001", "custody": "authority", "scheme": "ckks",
        "dropouts": 1,
        "recipe": {"model": {"kind": "logistic"}, "optimizer": {"kind": "sgd", "rate": 0.5}},
        **changes,
    }  # fmt: skip
    return DistributedPlan.model_validate(facts)


def three_hospitals(folder: Path) -> World:
    """Three hospitals, 12 rounds, an earlier search, one drop-out, one stopped round."""
    said = (
        {"who": "Dr. M. Weiss, data protection officer", "what": "No person is in two tables."},
        {"who": "Prof. A. Lindqvist", "what": "Second readings of <biopsies> at three | hospitals.",
         "about": "registry.intended_use"},
        {"who": "Dr. M. Weiss, data protection officer", "what": "Article 9(2)(j), research.",
         "about": "gdpr-35.legal-basis"},
    )  # fmt: skip
    return World(
        folder, distributed(), earlier_charges=3, stopped=frozenset({9}), searched=True,
        dropped={5: ("leuven",), 9: ("leuven", "charite")}, attestations=said, decided="together",
    ).play()  # fmt: skip


def smooth(folder: Path) -> World:
    """Three hospitals, nothing goes wrong."""
    return World(folder, distributed(rounds=4)).play()


def plaintext(folder: Path) -> World:
    """The oracle scheme: single uploads lie open."""
    plan = distributed(scheme="plaintext", custody="sites", rounds=4)
    return World(folder, plan, protects=False, opener="st-anna").play()


def seven_sites(folder: Path) -> World:
    """Seven sites whose run the plan's rule stopped."""
    sites = tuple((f"clinic-{i:02}", 90 + 37 * i) for i in range(1, 8))
    plan = distributed(sites=sites, rounds=4, dropouts=2, colluders=2, noise_multiplier="1.7")
    return World(
        folder, plan, federation="Krebsregister Süd <b>&</b> $x_1$",
        stopped=frozenset({4}), outcome="stopped", reason="1 of 3 contributions; the plan needs 2",
    ).play()  # fmt: skip


def unsafe_randomness(folder: Path) -> World:
    """A deterministic test source: epsilon is infinite."""
    return World(
        folder, distributed(rounds=3), secure=False, budget=Decimal("Infinity"),
        generator=DeterministicRandomness.name,
    ).play()  # fmt: skip


def weighted_clients(folder: Path) -> World:
    """Client level with unequal weights: every site has a matrix of its own."""
    plan = ClientPlan.model_validate(
        {
            "sites": [
                {"name": "a", "records": 50, "weight": 1},
                {"name": "b", "records": 60, "weight": 2},
                {"name": "c", "records": 70, "weight": 4},
            ],
            "dimension": 100, "rounds": 3, "clip_norm_l2": "0.5", "noise_multiplier": "8",
            "delta": "0.000001", "custody": "sites", "scheme": "bfv", "colluders": 0,
            "protects_unit": "person",
        }
    )  # fmt: skip
    return World(folder, plan, budget=Decimal(4), opener="a").play()


WORLDS: dict[str, Callable[[Path], World]] = {
    "three-hospitals": three_hospitals,
    "smooth": smooth,
    "plaintext": plaintext,
    "seven-sites": seven_sites,
    "infinite": unsafe_randomness,
    "weighted": weighted_clients,
}
