"""What a report asks of a ledger, wherever its entries come from.

A ledger in its database answers it; so does an exported ledger that was replayed, which is how a
stranger makes the same report again.
"""

from __future__ import annotations

from typing import Protocol

from privagg.privacy.ledger import BudgetKey, Entry, Spending, Verifier


class LedgerView(Protocol):
    """The reading half of a ledger, as far as a report needs it."""

    @property
    def verifier(self) -> Verifier:
        """The public key that signs the ledger now."""
        ...

    def entries(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The entries start ... stop - 1."""
        ...

    def keys(self) -> list[BudgetKey]:
        """Every data set and unit that has a budget."""
        ...

    def spent(self, key: BudgetKey) -> Spending:
        """What the committed events of `key` cost so far."""
        ...

    def checkpoint(self, size: int | None = None) -> str:
        """The signed checkpoint of the log as it is."""
        ...

    def root(self) -> bytes:
        """The Merkle tree head over all entries, 32 bytes."""
        ...

    def __len__(self) -> int:
        """Number of entries."""
        ...
