"""One byte string for one value: the JSON that entries are hashed, signed and compared in.

Keys sorted by code point, no spaces, everything outside ASCII escaped, integers within 64 bits,
decimals as strings, no floating-point numbers. It is the common ground of RFC 8785 (JSON
Canonicalization Scheme) and Python's `json`: where neither a float nor a character outside the
Basic Multilingual Plane stands in a key, the two orderings agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from privagg.digest import canonical_json
from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.events import plain_decimal as plain_decimal

MAX_DEPTH = 16
MAX_BYTES = 1 << 20
_INT64 = 1 << 63


def dumps(value: Any) -> bytes:
    """The canonical bytes of a JSON value.

    Raises:
        LedgerError: a float, a non-string key, an integer beyond 64 bits, nesting deeper than 16.
    """
    _check(value, MAX_DEPTH)
    return canonical_json(value)


def loads(data: bytes, *, what: str) -> Any:
    """The value of canonical bytes; any other spelling of the same value is refused.

    Args:
        data: at most 1 MiB.
        what: names the bytes in an error, e.g. "entry 7".

    Raises:
        LedgerTamperedError: not JSON, or not in canonical form.
    """
    if len(data) > MAX_BYTES:
        raise LedgerTamperedError(f"{what} has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        value = json.loads(data.decode("ascii"))
        again = dumps(value)
    except (ValueError, RecursionError, LedgerError) as error:
        raise LedgerTamperedError(f"{what} is not canonical JSON: {error}") from error
    if again != data:
        raise LedgerTamperedError(f"{what} is JSON, but not in its canonical spelling")
    return value


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, in hexadecimal."""
    return hashlib.sha256(dumps(value)).hexdigest()


def facts(value: Any) -> Any:
    """A caller's recorded facts as canonical JSON values.

    A float becomes the shortest decimal string that reads back as the same float; Decimals,
    tuples and pydantic models become strings, lists and objects.

    Raises:
        LedgerError: a value that has no such form.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return plain_decimal(Decimal(repr(value))) if value == value else "NaN"
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if isinstance(value, Mapping):
        return {str(key): facts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [facts(item) for item in value]
    if hasattr(value, "model_dump"):
        return facts(value.model_dump(mode="json"))
    raise LedgerError(
        f"a fact of type {type(value).__name__} cannot be recorded; "
        "use strings, integers, decimals, lists and mappings"
    )


def _check(value: Any, depth: int) -> None:
    if type(value) is str and depth >= 0:
        return  # most of what is recorded
    if depth < 0:
        raise LedgerError(f"values nested deeper than {MAX_DEPTH} levels cannot be recorded")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LedgerError(f"keys must be strings, got {key!r}")
            _check(item, depth - 1)
    elif isinstance(value, list):
        if depth > 0 and {*map(type, value)} == {str}:
            return  # the names of a cohort
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise LedgerError(f"integer {value} does not fit 64 bits; record it as a string")
    elif value is not None and not isinstance(value, str):
        raise LedgerError(f"a {type(value).__name__} has no canonical form; record it as a string")
