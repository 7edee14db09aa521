"""Receipts: what a site holds after charging, and must give up to train.

A receipt can be checked by anyone who knows the ledger's key: it carries the charge's entry as it
stands in the log, a signed checkpoint that covers it, and the proof that leads from one to the
other.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privagg.errors import LedgerTamperedError, ReceiptError, validation_faults
from privagg.privacy.ledger import canonical, merkle
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, open_checkpoint
from privagg.privacy.ledger.entries import Charge, Entry, Hex32, Name

MAX_RECEIPT_BYTES = 1 << 21


class Receipt(BaseModel):
    """Proof that one charge stands in one ledger; good for one training.

    Args:
        owner: whose ledger.
        entry: the charge's entry, in the canonical bytes that the log holds.
        checkpoint: the signed checkpoint whose last entry is the charge.
        path: inclusion proof of the entry under that checkpoint, hashes in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: Name
    entry: Annotated[str, Field(max_length=1 << 20)]
    checkpoint: Annotated[str, Field(max_length=1 << 16)]
    path: Annotated[tuple[Hex32, ...], Field(max_length=64)]

    @cached_property
    def _entry(self) -> Entry:
        try:
            return Entry.parse(self.entry.encode("ascii"), what="the receipt's entry")
        except (LedgerTamperedError, UnicodeEncodeError) as error:
            raise ReceiptError(f"the receipt is forged: {error}") from error

    @cached_property
    def charge(self) -> Charge:
        """The charge as recorded.

        Raises:
            ReceiptError: the entry is no charge.
        """
        payload = self._entry.payload
        if not isinstance(payload, Charge):
            raise ReceiptError(f"the receipt is for a {payload.kind!r} entry, not for a charge")
        return payload

    @property
    def index(self) -> int:
        """The charge's position in the ledger."""
        return self._entry.index

    @property
    def entry_hash(self) -> str:
        """RFC 6962 leaf hash of the charge's entry, hexadecimal."""
        return self._entry.hash().hex()

    def to_json(self) -> str:
        """The receipt as canonical JSON text."""
        return canonical.dumps(self.model_dump(mode="json")).decode("ascii")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a receipt; nothing about it is trusted before `check` or `Ledger.consume`.

        Raises:
            ReceiptError: not a receipt.
        """
        if len(text) > MAX_RECEIPT_BYTES:
            raise ReceiptError(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ReceiptError(
                f"not a receipt: {validation_faults(error, values=False)}"
            ) from error

    def check(self, verifier: Verifier) -> Checkpoint:
        """The checkpoint of this receipt, once its signature and inclusion proof hold.

        Raises:
            ReceiptError: forged, altered, or of another ledger.
        """
        self.charge  # noqa: B018  a receipt for anything else is refused here
        try:
            checkpoint = open_checkpoint(self.checkpoint, verifier)
            path = [bytes.fromhex(step) for step in self.path]
            merkle.verify_inclusion(
                self._entry.hash(), self.index, checkpoint.size, path, checkpoint.root
            )
        except LedgerTamperedError as error:
            raise ReceiptError(f"the receipt for entry {self.index} is forged: {error}") from error
        return checkpoint
