"""Replaying a log from its first entry: what every verifier does, owner or stranger.

Nothing stored beside the entries is believed: budgets, totals, tree and keys are derived anew, and
each entry is held against the rules that its writer had to keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from privagg.errors import LedgerTamperedError
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import merkle
from privagg.privacy.ledger.checkpoint import Checkpoint, open_checkpoint
from privagg.privacy.ledger.composition import compose
from privagg.privacy.ledger.entries import Entry
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.payloads import (
    Aborted,
    BudgetKey,
    Charge,
    Consumed,
    Created,
    KeyRotated,
    Payload,
    Realised,
    UploadStored,
)
from privagg.privacy.ledger.state import Account, State, replay

HISTORY_UNVERIFIABLE = (
    "completeness of history not verifiable: no checkpoint kept by another party was given"
)
KEY_UNVERIFIABLE = (
    "the owner's key was not given: whoever rewrote the ledger could have signed it anew"
)
# Two runs of an uncertified accountant agree to rounding; anything lower was made up.
_UNCERTIFIED_TOLERANCE = Decimal("1e-6")


@dataclass
class Replay:
    """The state of a log as far as it was replayed.

    Attributes:
        owner: whose log.
        state: budgets and totals as digests.
        accounts: budgets and totals.
        frontier: the Merkle tree.
        verifiers: every key the log ever had, oldest first, with the size it signs from.
        roots: the tree's root at each size, `roots[n]` over the first n entries.
        charges: every charge by its position.
    """

    owner: str = ""
    state: State = field(default_factory=State)
    accounts: dict[BudgetKey, Account] = field(default_factory=dict)
    frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    verifiers: list[tuple[int, Verifier]] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=lambda: [merkle.EMPTY_ROOT])
    charges: dict[int, Charge] = field(default_factory=dict)
    _once: set[tuple[str, str]] = field(default_factory=set)

    @property
    def size(self) -> int:
        """How many entries were replayed."""
        return self.frontier.size

    def add(self, body: bytes) -> Entry:
        """Replay the next entry.

        Raises:
            LedgerTamperedError: it is malformed, or breaks a rule of the ledger.
        """
        entry = Entry.parse(body, what=f"entry {self.size}")
        if entry.index != self.size:
            raise LedgerTamperedError(f"entry {self.size} says that it is entry {entry.index}")
        payload = entry.payload
        self._check_once(entry.index, payload)
        self._check_references(entry.index, payload)
        self.state = replay(entry, self.state, self.accounts)
        self.frontier, _ = self.frontier.append(merkle.leaf_hash(body))
        self.roots.append(self.frontier.root())
        if not self.verifiers or isinstance(payload, KeyRotated):
            self.verifiers.append((self.size, Verifier.parse(self.state.owner_verifier)))
        if isinstance(payload, Created):
            self.owner = payload.owner
        elif isinstance(payload, Charge):
            self.charges[entry.index] = payload
        return entry

    def check_note(self, note: str, size: int) -> Checkpoint:
        """Check the log's own checkpoint of `size` entries: content, and every signature it needs.

        Raises:
            LedgerTamperedError: another root, size or origin, or a signature missing or wrong.
        """
        checkpoint = open_checkpoint(note, *self._signers(size))
        if checkpoint != Checkpoint(self.state.origin, size, self.roots[size]):
            raise LedgerTamperedError(f"the checkpoint of size {size} does not cover the entries")
        return checkpoint

    def check_key(self, expected: Verifier | None) -> list[str]:
        """Check that `expected` is one of the log's keys.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: the log was signed by others.
        """
        if expected is None:
            return [KEY_UNVERIFIABLE]
        if expected not in [verifier for _, verifier in self.verifiers]:
            raise LedgerTamperedError(
                f"the ledger is signed by {self.state.owner_verifier}, and never was by the "
                f"expected key {expected.encode()}: the key was swapped"
            )
        return []

    def check_history(self, kept: str | None) -> list[str]:
        """Check that the log still holds what a checkpoint kept elsewhere says.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: rolled back, forked, of another ledger, or not signed by its keys.
        """
        if kept is None:
            return [HISTORY_UNVERIFIABLE]
        checkpoint = Checkpoint.parse(kept)
        if checkpoint.origin != self.state.origin:
            raise LedgerTamperedError(
                f"the kept checkpoint is of {checkpoint.origin!r}, not of {self.state.origin!r}"
            )
        if checkpoint.size > self.size:
            raise LedgerTamperedError(
                f"the ledger was rolled back: the kept checkpoint covers {checkpoint.size} "
                f"entries, {self.size} are left; where this copy was made before that checkpoint, "
                "give one that was kept by then"
            )
        open_checkpoint(kept, *self._signers(checkpoint.size))
        if checkpoint.root != self.roots[checkpoint.size]:
            raise LedgerTamperedError(
                f"the ledger was forked: its first {checkpoint.size} entries are not those signed"
            )
        return []

    def check_epsilon(self, accountant: Accountant, *, every_charge: bool = False) -> list[str]:
        """Compute every budget's epsilon anew and hold it against what was recorded.

        Args:
            accountant: computes; figures that another one recorded are not judged.
            every_charge: check epsilon after each charge, not only after the last.

        Returns:
            What could not be verified.

        Raises:
            LedgerTamperedError: a recorded epsilon lies below what the events cost.
        """
        last = {charge.key: index for index, charge in self.charges.items()}
        totals: dict[BudgetKey, DpEvent] = {}
        findings = set()
        for index, charge in self.charges.items():
            key = charge.key
            totals[key] = compose(totals.get(key, DpEvent()), charge.event)
            if not every_charge and index != last[key]:
                continue
            if charge.accountant != accountant.name:
                findings.add(
                    f"epsilon of {key.dataset}/{key.unit} was bounded by {charge.accountant!r} "
                    f"and not recomputed by {accountant.name!r}"
                )
                continue
            bound = accountant.epsilon(totals[key], charge.delta)
            if charge.epsilon_after < _least(bound):
                raise LedgerTamperedError(
                    f"entry {index} records epsilon {charge.epsilon_after} of {key.dataset}/"
                    f"{key.unit}, but its events cost {bound.upper}"
                )
        return sorted(findings)

    def _signers(self, size: int) -> list[Verifier]:
        """Who must have signed the checkpoint of `size` entries: two where a key was rotated."""
        present = max(
            (i for i, (start, _) in enumerate(self.verifiers) if start <= size), default=0
        )
        start, verifier = self.verifiers[present]
        if present and start == size:
            return [self.verifiers[present - 1][1], verifier]
        return [verifier]

    def _check_once(self, index: int, payload: Payload) -> None:
        if payload.subject is None:
            return
        name = (payload.kind, payload.subject)
        if name in self._once:
            raise LedgerTamperedError(
                f"entry {index} is a second {payload.kind!r} entry for {payload.subject}"
            )
        self._once.add(name)

    def _check_references(self, index: int, payload: Payload) -> None:
        if isinstance(payload, Consumed):
            charge = self.charges.get(payload.charge)
            if charge is None or charge.subject != payload.subject:
                raise LedgerTamperedError(f"entry {index} uses a receipt that was never given")
            if (Aborted.kind, payload.attempt_subject) in self._once:
                raise LedgerTamperedError(f"entry {index} trains on an aborted attempt")
        elif isinstance(payload, UploadStored):
            charge = self.charges.get(payload.charge)
            trained = charge is not None and (Consumed.kind, charge.subject) in self._once
            if charge is None or not trained or charge.attempt_subject != payload.subject:
                raise LedgerTamperedError(f"entry {index} uploads what was never trained")
        elif isinstance(payload, Realised) and (Charge.kind, payload.subject) not in self._once:
            raise LedgerTamperedError(f"entry {index} realises what was never charged")


def _least(bound: EpsilonBound) -> Decimal:
    """The least figure that an honest writer may have recorded."""
    if bound.lower is not None:
        return bound.lower
    if not bound.upper.is_finite():
        return bound.upper
    return bound.upper * (1 - _UNCERTIFIED_TOLERANCE)
