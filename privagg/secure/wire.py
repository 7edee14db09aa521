"""An encrypted tensor on the wire: a fixed versioned header and a raw payload.

It says how the payload is to be read and who is in it. Which run, round, attempt and key it belongs
to stands once, in the signed frame that carries it (`privagg.protocol.frames`); context and keys
travel once. Every value has exactly one byte string and every accepted byte string exactly one
value: lengths are checked against the bytes at hand before anything is read, padding and unused
bits must be zero, and nothing is allocated beyond the header.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from privagg.errors import MessageError

MAGIC = b"PAET"
VERSION = 2  # 1 named the run, round, attempt and key a second time
MAX_ROSTER = 1 << 20
MAX_TEXT_BYTES = 255
_ALIGNMENT = 64  # the payload starts on a cache line of an aligned buffer

# magic, version, header bytes, payload bytes, length, roster size, bytes of scheme and of packing,
# two zero bytes
_FIXED = struct.Struct("<4sHIQQIBBH")
_DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EncryptedTensor:
    """One payload of one whole model update, and everything needed to read it.

    Args:
        scheme: registered name of the scheme.
        parameters_fingerprint: SHA-256 (hex) of the scheme's parameters.
        length: d, coordinates of the vector inside.
        packing: how values sit in the payload, as the parameters state it.
        contributors: bitmap over the committed roster, bit i % 8 of byte i // 8 for roster[i].
        roster_size: parties on the committed roster.
        payload: raw residues; a view, never a copy.
    """

    scheme: str
    parameters_fingerprint: str
    length: int
    packing: str
    contributors: bytes
    roster_size: int
    payload: memoryview

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.parameters_fingerprint):
            raise MessageError("parameters_fingerprint must be 64 lower-case hexadecimal digits")
        if not 1 <= self.length < 1 << 63:
            raise MessageError(f"length must be at least 1, not {self.length}")
        for name in ("scheme", "packing"):
            if not 1 <= len(getattr(self, name).encode()) <= MAX_TEXT_BYTES:
                raise MessageError(f"{name} must have 1 to {MAX_TEXT_BYTES} bytes of UTF-8")
        _check_bitmap(self.contributors, self.roster_size)

    @property
    def addends(self) -> int:
        """Contributions inside the payload."""
        return int.from_bytes(self.contributors, "little").bit_count()

    @property
    def members(self) -> tuple[int, ...]:
        """Roster places of the contributors, ascending."""
        if (whole := int.from_bytes(self.contributors, "little")).bit_count() == 1:
            return (whole.bit_length() - 1,)
        bits = np.unpackbits(np.frombuffer(self.contributors, np.uint8), bitorder="little")
        return tuple(int(place) for place in np.flatnonzero(bits))

    def to_bytes(self) -> bytes:
        """Header, padding and payload."""
        return b"".join((self._header(), self.payload))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, *, max_bytes: int) -> EncryptedTensor:
        """Read a tensor (untrusted input); its payload is a view into `data`.

        Args:
            data: the bytes as they arrived.
            max_bytes: largest tensor expected here, header included.

        Raises:
            MessageError: not a tensor of this version, of another size than it says, or not the
                one byte string its value has.
        """
        view = memoryview(data).cast("B").toreadonly()
        if view.nbytes > max_bytes:
            raise MessageError(
                f"tensor has {view.nbytes} bytes, above the {max_bytes} expected here"
            )
        if view.nbytes < _FIXED.size:
            raise MessageError(f"tensor ends within its header: {view.nbytes} bytes")
        magic, version, header, payload, length, roster, *texts, zero = _FIXED.unpack_from(view)
        if magic != MAGIC or version != VERSION:
            raise MessageError(f"not an encrypted tensor of version {VERSION}")
        if not 1 <= roster <= MAX_ROSTER:
            raise MessageError(f"roster size {roster} is not in [1, {MAX_ROSTER}]")
        if header != _header_bytes(roster, texts) or header > view.nbytes:
            raise MessageError(f"header length {header} does not fit its fields or the bytes")
        if payload != view.nbytes - header:
            raise MessageError(
                f"payload length says {payload} bytes, {view.nbytes - header} follow the header"
            )
        at = _FIXED.size
        pieces: list[bytes] = []
        for size in (_DIGEST_BYTES, _bitmap_bytes(roster), *texts):
            pieces.append(bytes(view[at : at + size]))
            at += size
        if zero or any(view[at:header]):
            raise MessageError("padding of the header is not zero")
        return cls(
            scheme=_text(pieces[2], "scheme"),
            parameters_fingerprint=pieces[0].hex(),
            length=length,
            packing=_text(pieces[3], "packing"),
            contributors=pieces[1],
            roster_size=roster,
            payload=view[header:],
        )

    def _header(self) -> bytes:
        texts = [text.encode() for text in (self.scheme, self.packing)]
        size = _header_bytes(self.roster_size, [len(text) for text in texts])
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            size,
            self.payload.nbytes,
            self.length,
            self.roster_size,
            *(len(text) for text in texts),
            0,
        )
        digest = bytes.fromhex(self.parameters_fingerprint)
        return (fixed + digest + self.contributors + b"".join(texts)).ljust(size, b"\0")


def contributor_bitmap(members: tuple[int, ...] | list[int], roster_size: int) -> bytes:
    """The contributor set as a bitmap over the roster.

    Args:
        members: places on the roster, each once.
        roster_size: parties on the roster.

    Raises:
        MessageError: a place outside the roster, twice, or none at all.
    """
    if len(set(members)) != len(members) or any(not 0 <= m < roster_size for m in members):
        raise MessageError(f"contributors {members!r} are not distinct places below {roster_size}")
    bits = sum(1 << member for member in members)
    bitmap = bits.to_bytes(_bitmap_bytes(roster_size), "little")
    _check_bitmap(bitmap, roster_size)
    return bitmap


def _bitmap_bytes(roster_size: int) -> int:
    return (roster_size + 7) // 8


def _header_bytes(roster_size: int, texts: list[int]) -> int:
    size = _FIXED.size + _DIGEST_BYTES + _bitmap_bytes(roster_size) + sum(texts)
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _check_bitmap(bitmap: bytes, roster_size: int) -> None:
    if not 1 <= roster_size <= MAX_ROSTER:
        raise MessageError(f"roster size {roster_size} is not in [1, {MAX_ROSTER}]")
    if len(bitmap) != _bitmap_bytes(roster_size):
        raise MessageError(f"contributor set has {len(bitmap)} bytes for a roster of {roster_size}")
    bits = int.from_bytes(bitmap, "little")
    if not bits or bits >> roster_size:
        raise MessageError("contributor set is empty, or names parties beyond the roster")


def _text(data: bytes, field: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"{field} is not UTF-8") from error
