"""Checkpoints: a log's size and root hash as a signed note, and the witnesses' cosignatures.

Whoever keeps a checkpoint can later demand that the log still contains what it contained then; a
log that cannot prove it was rolled back or rewritten.

Source: C2SP tlog-checkpoint (c2sp.org/tlog-checkpoint@v1.0.0) and tlog-cosignature, Ed25519.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import LedgerTamperedError
from privagg.privacy.ledger import merkle
from privagg.privacy.ledger.notes import (
    COSIGNATURE,
    Note,
    Signature,
    Verifier,
    check_key_name,
    decode_base64,
)

LARGEST_SIZE = (1 << 53) - 1
"""Entries that a checkpoint may cover: every JSON reader and every database holds the number."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_TIMESTAMP_BYTES = 8


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log.

    Attributes:
        origin: which log.
        size: how many entries it has.
        root: their Merkle tree head, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The note text: origin, size and root, one a line."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    def sign(self, *keys: Ed25519PrivateKey) -> str:
        """The checkpoint as a note signed by each key under the origin's name."""
        note = Note(self.body())
        for key in keys:
            note = note.signed_by(self.origin, key)
        return note.render()

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a checkpoint without checking who signed it; use `open_checkpoint` to trust it.

        Raises:
            LedgerTamperedError: not a checkpoint, or one with extension lines.
        """
        return cls._of_body(Note.parse(text).text)

    @classmethod
    def _of_body(cls, body: str) -> Checkpoint:
        lines = body.split("\n")
        if len(lines) != 4 or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise LedgerTamperedError(
                f"a checkpoint's text has three lines (origin, size, root), got {body[:120]!r}"
            )
        if int(lines[1]) > LARGEST_SIZE:
            raise LedgerTamperedError(f"no log has {lines[1]} entries; 2^53 - 1 are the most")
        root = decode_base64(lines[2], what="the checkpoint's root hash")
        if len(root) != merkle.HASH_BYTES:
            raise LedgerTamperedError(f"the checkpoint's root hash has {len(root)} bytes, not 32")
        return cls(lines[0], int(lines[1]), root)


def open_checkpoint(text: str, *verifiers: Verifier) -> Checkpoint:
    """The checkpoint in a signed note, once every one of `verifiers` has been found to sign it.

    Raises:
        LedgerTamperedError: malformed, unsigned, or a signature that does not verify.
    """
    note = Note.parse(text)
    note.require(verifiers)
    return Checkpoint._of_body(note.text)


def require_extends(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that `new` is the same log as `old`, only longer (or the very same).

    Raises:
        LedgerTamperedError: another log, fewer entries (a rollback), or another history (a fork).
    """
    if old.origin != new.origin:
        raise LedgerTamperedError(f"checkpoints of two logs: {old.origin!r} and {new.origin!r}")
    if new.size < old.size:
        raise LedgerTamperedError(
            f"{new.origin} was rolled back: it had {old.size} entries and now shows {new.size}"
        )
    if new.size == old.size and new.root != old.root:
        raise LedgerTamperedError(
            f"{new.origin} forked: two different histories of {new.size} entries are signed"
        )
    if 0 < old.size < new.size:
        merkle.verify_consistency(old.size, new.size, proof, old.root, new.root)


def _cosigned_message(body: str, timestamp_s: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp_s}\n{body}".encode()


def cosign(text: str, name: str, key: Ed25519PrivateKey, *, timestamp_s: int) -> str:
    """Add a witness's cosignature to a checkpoint whose consistency the witness has checked.

    Args:
        text: the signed checkpoint.
        name: the witness's key name.
        key: the witness's own key, used for nothing else.
        timestamp_s: POSIX time of the check, in seconds.
    """
    note = Note.parse(text)
    verifier = witness_verifier(name, key)
    stamped = struct.pack(">Q", timestamp_s) + key.sign(_cosigned_message(note.text, timestamp_s))
    signature = Signature(name, verifier.key_id, stamped)
    return Note(note.text, (*note.signatures, signature)).render()


def witness_verifier(name: str, key: Ed25519PrivateKey) -> Verifier:
    """The verifier of `key`'s cosignatures under `name`."""
    return Verifier(check_key_name(name), Verifier.of(name, key).public_key, COSIGNATURE)


def open_cosignature(text: str, witness: Verifier) -> int:
    """When `witness` cosigned this checkpoint: its POSIX time in seconds.

    Raises:
        LedgerTamperedError: the witness did not cosign, or its signature does not verify.
    """
    note = Note.parse(text)
    for signature in note.signatures:
        if witness.signature_type == COSIGNATURE and signature.is_by(witness):
            if len(signature.data) != _TIMESTAMP_BYTES + 64:
                raise LedgerTamperedError(f"the cosignature by {witness.name!r} has a wrong length")
            (timestamp_s,) = struct.unpack(">Q", signature.data[:_TIMESTAMP_BYTES])
            message = _cosigned_message(note.text, timestamp_s)
            witness.verify(signature.data[_TIMESTAMP_BYTES:], message)
            return int(timestamp_s)
    raise LedgerTamperedError(f"the checkpoint is not cosigned by {witness.name!r}")
