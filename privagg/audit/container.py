"""A ZIP file with one spelling: stored, in order, undated, with nothing between its files.

Any unzip program opens it. Reading takes only the exact bytes that packing the same files gives,
so nothing can hide in headers or gaps, two programs cannot read two different contents, and what
is unpacked is never larger than what was given.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from privagg.errors import UnreadableBundleError, VerificationError

MAX_BYTES = 1 << 29
MAX_FILES = 10_100
MAX_NAME = 120

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _UNIX, _DATE = 20, 3 << 8, 0x21  # 1980-01-01, the earliest date there is
_MODE = 0o100644 << 16


def pack(files: Mapping[str, bytes]) -> bytes:
    """The ZIP file that holds these files, in this order.

    Raises:
        VerificationError: a name that is no plain relative path, or more than fits.
    """
    total = sum(map(len, files.values()))
    if len(files) > MAX_FILES or total > MAX_BYTES - 512 * len(files) - 512:
        raise VerificationError(
            f"{len(files)} files of {total} bytes do not fit a bundle (at most {MAX_FILES} files, "
            f"{MAX_BYTES} bytes); bundle a ledger with fewer runs"
        )
    body, directory = bytearray(), bytearray()
    for name, data in files.items():
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise VerificationError(f"{name[:MAX_NAME]!r} cannot name a file in a bundle")
        crc, size, raw, offset = zlib.crc32(data), len(data), name.encode("ascii"), len(body)
        facts = (_VERSION, 0, 0, 0, _DATE, crc, size, size, len(raw), 0)
        body += _LOCAL.pack(b"PK\3\4", *facts) + raw + data
        directory += _CENTRAL.pack(b"PK\1\2", _UNIX | _VERSION, *facts, 0, 0, 0, _MODE, offset)
        directory += raw
    count, start, size = len(files), len(body), len(directory)
    return bytes(body + directory + _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0))


def unpack(data: bytes) -> dict[str, bytes]:
    """The files in a ZIP file made by `pack`.

    Raises:
        UnreadableBundleError: any other bytes.
    """
    if len(data) > MAX_BYTES:
        raise UnreadableBundleError(
            f"{len(data)} bytes are more than the {MAX_BYTES} of the largest bundle"
        )
    files: dict[str, bytes] = {}
    place = 0
    while data[place : place + 4] == b"PK\3\4" and len(files) < MAX_FILES:
        head = data[place : place + _LOCAL.size]
        if len(head) < _LOCAL.size:
            raise UnreadableBundleError("the bundle is cut off inside a file's header")
        *_, crc, _stored, size, name_size, _extra = _LOCAL.unpack(head)
        start = place + _LOCAL.size + name_size
        name = data[place + _LOCAL.size : start].decode("ascii", "replace")
        if name_size > MAX_NAME or not _NAME.fullmatch(name) or name in files:
            raise UnreadableBundleError(f"a bundle holds no file called {name[:MAX_NAME]!r} here")
        if start + size > len(data):
            raise UnreadableBundleError(f"the bundle is cut off inside {name}")
        files[name], place = data[start : start + size], start + size
        if zlib.crc32(files[name]) != crc:
            raise UnreadableBundleError(f"{name} in the bundle was changed after it was written")
    if not files:
        raise UnreadableBundleError("this is not a bundle: it does not begin as one")
    if pack(files) != data:
        raise UnreadableBundleError(
            "the bundle's container was changed after it was written (headers, order, or bytes "
            "that belong to no file)"
        )
    return files
