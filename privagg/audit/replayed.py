"""A ledger's export, replayed and presented as a ledger: what a stranger reads instead of one.

Nothing stored beside the entries is believed. Entries, rules, totals, tree and every checkpoint's
signature have been checked once an object of this class exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from privagg.audit.untrusted import check_numbers
from privagg.audit.work import Work, replay_price
from privagg.errors import LedgerTamperedError
from privagg.privacy.accountant import Accountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import BudgetKey, Bundle, Checkpoint, Entry, Replay, Spending, Verifier
from privagg.privacy.ledger.entries import Charge


@dataclass(frozen=True)
class Charged:
    """One charge with everything its budget had been charged with by then, itself included.

    Attributes:
        index: of the ledger's entry.
        charge: the entry.
        total: the composition of all charges to that budget up to here.
    """

    index: int
    charge: Charge
    total: DpEvent


class ReplayedLedger:
    """An exported ledger whose every entry, root and signature holds.

    Args:
        export: as read; not yet believed.
        accountant: bounds what `spent` answers.
        work: what adding up the charges may cost; each costs by the mechanisms of the total.

    Raises:
        WorkLimitError: the charges are of too many different mechanisms to be added up.
        LedgerTamperedError: names the first thing that does not fit.
    """

    def __init__(self, export: Bundle, accountant: Accountant, work: Work | None = None) -> None:
        self.replay = Replay()
        self._accountant = accountant
        self._entries: list[Entry] = []
        self.charged: list[Charged] = []
        terms = 0
        for body in export.bodies:
            entry = self.replay.add(body)
            self._entries.append(entry)
            if isinstance(entry.payload, Charge):
                total = self.replay.accounts[entry.payload.key].total
                self.charged.append(Charged(entry.index, entry.payload, total))
                terms += len(total.terms)
                if work is not None:
                    work.require(replay_price(terms))
        if work is not None:
            work.take(replay_price(terms))
        for size, note in enumerate(export.notes, start=1):
            if Checkpoint.parse(note).size != size:
                raise LedgerTamperedError(f"checkpoint {size} stands in the wrong place")
            self.replay.check_note(note, size)
        self._export = export

    @classmethod
    def parse(
        cls, data: bytes, accountant: Accountant, *, what: str, work: Work | None = None
    ) -> Self:
        """Replay the export in `data`.

        Args:
            data: the export, not believed.
            accountant: bounds what `spent` answers.
            what: names the ledger in messages.
            work: what adding up the charges may cost.

        Raises:
            WorkLimitError: as the class.
            UnreadableBundleError: it holds numbers out of proportion.
            LedgerTamperedError: it is no export, or does not hold.
        """
        return cls(Bundle.parse(check_numbers(data, what=what)), accountant, work)

    @property
    def owner(self) -> str:
        """Whose ledger."""
        return self.replay.owner

    @property
    def verifier(self) -> Verifier:
        """The public key that signs the ledger at its end."""
        return Verifier.parse(self.replay.state.owner_verifier)

    @property
    def ever_signed_by(self) -> tuple[str, ...]:
        """Every public key the ledger was signed with, 64 hex digits each, oldest first."""
        return tuple(verifier.public_key.hex() for _, verifier in self.replay.verifiers)

    def bundle(self) -> Bundle:
        """The export that was replayed."""
        return self._export

    def entries(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The entries start ... stop - 1, all by default."""
        return self._entries[start:stop]

    def keys(self) -> list[BudgetKey]:
        """Every data set and unit that has a budget, sorted."""
        return sorted(self.replay.accounts)

    def spent(self, key: BudgetKey) -> Spending:
        """What the committed events of `key` cost."""
        account = self.replay.accounts[key]
        epsilon = self._accountant.epsilon(account.total, account.delta)
        return Spending(
            key, account.total, epsilon, account.epsilon_budget, account.delta, account.charges
        )

    def budget(self, key: BudgetKey) -> Decimal:
        """The budget of `key` at the ledger's end."""
        return self.replay.accounts[key].epsilon_budget

    def checkpoint(self, size: int | None = None) -> str:
        """The signed checkpoint of the log at its end, or as it was at `size` entries."""
        return self._export.notes[(self.replay.size if size is None else size) - 1]

    def root(self) -> bytes:
        """The Merkle tree head over all entries, 32 bytes."""
        return self.replay.roots[-1]

    def __len__(self) -> int:
        return self.replay.size
