"""First look at JSON from strangers: nothing in it may be larger than its spelling.

`1E+999999999` is twelve characters and, written out, a gigabyte. Decimals of such a size mean
nothing here, so they are refused before anything is read that would write them out.
"""

from __future__ import annotations

import re

from privagg.errors import UnreadableBundleError

MAX_EXPONENT = 1000
MAX_DIGITS = 4000

_EXPONENT = re.compile(rb"(?<![0-9A-Za-z])[+-]?[0-9][0-9._]*[eE][+-]?([0-9_]{4,})(?![0-9A-Za-z])")
_DIGITS = re.compile(rb"[0-9._]{%d}" % (MAX_DIGITS + 1))


def check_numbers(data: bytes, *, what: str) -> bytes:
    """`data` itself where no number in it is out of proportion.

    Raises:
        UnreadableBundleError: a decimal exponent beyond 1000, or thousands of digits.
    """
    for found in _EXPONENT.finditer(data):
        digits = found[1].replace(b"_", b"").lstrip(b"0")
        if len(digits) > 6 or int(digits or b"0") > MAX_EXPONENT:
            raise UnreadableBundleError(f"{what} holds a number out of all proportion")
    if _DIGITS.search(data):
        raise UnreadableBundleError(f"{what} holds a number of more than {MAX_DIGITS} digits")
    return data
