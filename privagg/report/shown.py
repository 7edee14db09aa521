"""Names and statements of others as text that shows itself, and nothing else."""

from __future__ import annotations

import re

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, those that turn the direction of what follows (UAX 9), halves of pairs."""


def clean(text: str) -> str:
    """Text without characters that draw nothing, or turn round the figures that follow them.

    A mark (U+FFFD) stands in place of each; line feeds and tabs stay.
    """
    return _UNSHOWN.sub("\ufffd", text)
