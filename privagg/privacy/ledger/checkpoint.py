"""Signed notes, and checkpoints in them: a log's size and root hash under its owner's signature.

A note is a text, an empty line, and one signature line for each key. Whoever keeps a checkpoint can
later demand that the log still contains what it contained then; a log that cannot prove it was
rolled back or rewritten.

Source: C2SP signed-note (c2sp.org/signed-note@v1.0.0), signature type 0x01, Ed25519 (RFC 8032), and
C2SP tlog-checkpoint (c2sp.org/tlog-checkpoint@v1.0.0).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.identity.keys import check_public_key, verify_signature
from privagg.privacy.ledger import merkle

ED25519 = 0x01

MAX_NOTE_BYTES = 1 << 16
MAX_SIGNATURES = 64
_KEY_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,240}")
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_DASH = "\N{EM DASH} "


def check_key_name(name: str) -> str:
    """`name` itself where a note may carry it: no white space, plus sign or control character.

    Raises:
        LedgerError: it may not.
    """
    if not _KEY_NAME.fullmatch(name):
        raise LedgerError(
            f"{name!r} cannot name a signing key: use 1 to 240 characters "
            "without white space, plus sign or control characters"
        )
    return name


def decode_base64(text: str, *, what: str) -> bytes:
    """The bytes of standard Base64 in its only canonical spelling.

    Raises:
        LedgerTamperedError: another alphabet, missing padding, or stray bits in the last digit.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LedgerTamperedError(f"{what} is not Base64: {error}") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise LedgerTamperedError(f"{what} is not in canonical Base64")
    return data


@dataclass(frozen=True)
class Verifier:
    """An Ed25519 public key under a name, as signature type 0x01 of a note uses it.

    Attributes:
        name: the key's name.
        public_key: 32 bytes, RFC 8032.
    """

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != 32:
            raise LedgerError(f"key {self.name!r} is not an Ed25519 public key of 32 bytes")
        try:
            check_public_key(self.public_key)
        except ValueError as error:
            raise LedgerError(f"key {self.name!r} cannot be used: {error}") from error

    @classmethod
    def of(cls, name: str, key: Ed25519PrivateKey | Ed25519PublicKey) -> Verifier:
        """The verifier of signatures made by `key` under `name`."""
        public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return cls(name, raw)

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """The verifier written as `<name>+<key id in hex>+<base64 of type and key>`.

        Raises:
            LedgerError: not of that form, or the key id does not belong to the key.
        """
        pieces = text.split("+", 2)
        if len(pieces) != 3:
            raise LedgerError(f"{text!r} is not a verifier key of the form name+id+key")
        try:
            material = decode_base64(pieces[2], what=f"the key of {pieces[0]!r}")
        except LedgerTamperedError as error:
            raise LedgerError(str(error)) from error
        if material[:1] != bytes([ED25519]):
            raise LedgerError(f"verifier key {pieces[0]!r} is not of signature type 1, Ed25519")
        verifier = cls(pieces[0], material[1:])
        if verifier.key_id.hex() != pieces[1]:
            raise LedgerError(f"verifier key {pieces[0]!r}: key id {pieces[1]} is not its key's")
        return verifier

    def encode(self) -> str:
        """The key as one word of text, as `parse` reads it."""
        material = bytes([ED25519]) + self.public_key
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(material).decode('ascii')}"

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256(name || newline || signature type || key)."""
        prefix = self.name.encode() + b"\n" + bytes([ED25519])
        return hashlib.sha256(prefix + self.public_key).digest()[:4]

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a raw Ed25519 signature.

        Raises:
            LedgerTamperedError: it does not verify.
        """
        try:
            verify_signature(self.public_key, message, signature)
        except InvalidSignature as error:
            raise LedgerTamperedError(
                f"the signature by key {self.name!r} ({self.key_id.hex()}) does not verify"
            ) from error


@dataclass(frozen=True)
class Signature:
    """One signature line: which key, and the bytes behind the key id.

    Attributes:
        name: of the key.
        key_id: 4 bytes of its hash.
        data: the signature itself.
    """

    name: str
    key_id: bytes
    data: bytes

    def line(self) -> str:
        """The line as it stands in a note, with its newline."""
        encoded = base64.b64encode(self.key_id + self.data).decode("ascii")
        return f"{_DASH}{self.name} {encoded}\n"

    def is_by(self, verifier: Verifier) -> bool:
        """True where name and key id are the verifier's; says nothing about validity."""
        return self.name == verifier.name and self.key_id == verifier.key_id


@dataclass(frozen=True)
class Note:
    """A text with its signatures, none of them checked yet.

    Attributes:
        text: ends in a newline; may contain empty lines.
        signatures: in the order of the note.
    """

    text: str
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, note: str) -> Note:
        """Split a signed note into its text and signature lines.

        Raises:
            LedgerTamperedError: not of the form of a signed note.
        """
        if len(note.encode("utf-8", "surrogatepass")) > MAX_NOTE_BYTES:
            raise LedgerTamperedError(f"a signed note has at most {MAX_NOTE_BYTES} bytes")
        if _FORBIDDEN.search(note):
            raise LedgerTamperedError("a signed note holds a control character or no valid UTF-8")
        text, gap, tail = note.rpartition("\n\n")
        if not gap or not text or not tail.endswith("\n"):
            raise LedgerTamperedError("a signed note needs a text, an empty line and signatures")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise LedgerTamperedError(f"a signed note has at most {MAX_SIGNATURES} signatures")
        return cls(text + "\n", tuple(_parse_signature(line) for line in lines))

    def render(self) -> str:
        """The signed note; `parse` reads it back."""
        return f"{self.text}\n" + "".join(signature.line() for signature in self.signatures)

    def signed_by(self, name: str, key: Ed25519PrivateKey) -> Note:
        """This note with one more signature, of type Ed25519, over the text."""
        verifier = Verifier.of(name, key)
        signature = Signature(name, verifier.key_id, key.sign(self.text.encode()))
        return Note(self.text, (*self.signatures, signature))

    def require(self, verifiers: Iterable[Verifier]) -> None:
        """Check that every one of these keys signed the text; unknown signatures are ignored.

        Raises:
            LedgerTamperedError: a signature is missing or does not verify.
        """
        for verifier in verifiers:
            own = [signature for signature in self.signatures if signature.is_by(verifier)]
            if not own:
                raise LedgerTamperedError(
                    f"no signature by key {verifier.name!r} ({verifier.key_id.hex()}) on the note"
                )
            for signature in own:
                verifier.verify(signature.data, self.text.encode())


def _parse_signature(line: str) -> Signature:
    name, gap, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not gap or not _KEY_NAME.fullmatch(name):
        raise LedgerTamperedError(f"{line[:80]!r} is not a signature line of a signed note")
    data = decode_base64(encoded, what=f"the signature by {name!r}")
    if len(data) < 5:
        raise LedgerTamperedError(f"the signature by {name!r} has only {len(data)} bytes")
    return Signature(name, data[:4], data[4:])


LARGEST_SIZE = (1 << 53) - 1
"""Entries that a checkpoint may cover: every JSON reader and every database holds the number."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")


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

    Args:
        old, new: checkpoints whose signatures hold.
        proof: RFC 6962 consistency proof, hashes of 32 bytes; needed where the sizes differ.

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
