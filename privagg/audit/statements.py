"""The signed statements of a run in its bundle: who uploaded what, and what was opened.

`statements.jsonl.gz` holds one line a statement, by round, attempt, kind and sender: a frame's
header as its sender signed it, the digest of the payload, and the signature. The payloads, which
are as large as the model, stay where they are. Reading is bounded: no line and no whole beyond what
a run of the largest size needs, however small the file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from privagg.digest import canonical_json
from privagg.errors import UnreadableBundleError, VerificationError
from privagg.protocol.messages import Statement

STATEMENTS = "statements.jsonl.gz"
MAX_BYTES = 1 << 28
"""Unpacked. A statement takes one to two kilobytes: 200 sites in 600 rounds."""

MAX_LINE = 1 << 21
_CHUNK = 1 << 16
_GZIP = 16 + zlib.MAX_WBITS


def pack_statements(statements: Iterable[Statement]) -> bytes:
    """The file that holds these statements, in their order; the same bytes for the same contents.

    Raises:
        VerificationError: together they are larger than is ever read.
    """
    lines = b"".join(_line(statement) for statement in statements)
    if len(lines) > MAX_BYTES:
        raise VerificationError(
            f"signed statements of {len(lines)} bytes do not fit a bundle (at most {MAX_BYTES}); "
            "make a run of fewer rounds"
        )
    return gzip.compress(lines, mtime=0)


def unpack_statements(data: bytes) -> Iterator[Statement]:
    """The statements in a file made by `pack_statements`; not yet believed.

    Raises:
        UnreadableBundleError: any other bytes, or more of them than are read.
    """
    for line in _lines(data):
        try:
            statement = Statement.model_validate_json(line)
        except (ValidationError, RecursionError) as error:
            raise UnreadableBundleError(
                f"{STATEMENTS} holds a line that is no statement"
            ) from error
        if _line(statement) != line:
            raise UnreadableBundleError(f"{STATEMENTS} holds a statement in another spelling")
        yield statement


def _line(statement: Statement) -> bytes:
    return canonical_json(statement.model_dump(mode="json")) + b"\n"


def _lines(data: bytes) -> Iterator[bytes]:
    """Lines with their newlines, unpacked piece by piece."""
    left = b""
    for piece in _pieces(data):
        *whole, left = (left + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(left) > MAX_LINE:
            raise UnreadableBundleError(f"{STATEMENTS} holds a line of more than {MAX_LINE} bytes")
    if left:
        raise UnreadableBundleError(f"{STATEMENTS} ends inside a line")


def _pieces(data: bytes) -> Iterator[bytes]:
    reader, total = zlib.decompressobj(_GZIP), 0
    try:
        while not reader.eof:
            piece = reader.decompress(data, _CHUNK)
            data, total = reader.unconsumed_tail, total + len(piece)
            if not piece and not data and not reader.eof:
                raise UnreadableBundleError(f"{STATEMENTS} is cut off")
            if total > MAX_BYTES:
                raise UnreadableBundleError(f"{STATEMENTS} unpacks to more than {MAX_BYTES} bytes")
            yield piece
    except zlib.error as error:
        raise UnreadableBundleError(
            f"{STATEMENTS} is not compressed as it should be: {error}"
        ) from error
    if reader.unused_data:
        raise UnreadableBundleError(f"{STATEMENTS} holds more than one compressed part")
