"""First look at JSON from strangers: nothing in it may be larger than its spelling.

`1E+999999999` is twelve characters and, written out, a gigabyte. Decimals of such a size mean
nothing here, so they are refused before anything is read that would write them out.
"""

from __future__ import annotations

import json
import re

from privagg.errors import UnreadableBundleError

MAX_EXPONENT = 1000
MAX_DIGITS = 4000

_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s",:\[\]{}]+')
# The whole token, as `Decimal` reads it: every script's digits, underscores, space around it. A
# part of a longer text is no number; `123e45678` may well begin a UUID.
_EXPONENT = re.compile(r"\s*[+-]?[\d._]+[eE][+-]?([\d_]{4,})\s*")
_DIGITS = re.compile(rf"[\d._]{{{MAX_DIGITS + 1}}}")


def check_numbers(data: bytes, *, what: str) -> bytes:
    """`data` itself where no number in it is out of proportion.

    A string counts as a number where the whole of it reads as one, however it is escaped.

    Raises:
        UnreadableBundleError: a decimal exponent beyond 1000, or thousands of digits.
    """
    text = data.decode("utf-8", "replace")
    for token in _STRING_OR_NUMBER.findall(text):
        value = _unescaped(token) if "\\" in token else token.strip('"')
        found = _EXPONENT.fullmatch(value)
        if found and _is_beyond(found[1].replace("_", "")):
            raise UnreadableBundleError(f"{what} holds a number out of all proportion")
        if len(value) > MAX_DIGITS and _DIGITS.search(value):
            raise UnreadableBundleError(f"{what} holds a number of more than {MAX_DIGITS} digits")
    return data


def _is_beyond(exponent: str) -> bool:
    digits = exponent.lstrip("0")
    return len(digits) > 6 or int(digits or "0") > MAX_EXPONENT


def _unescaped(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token
