"""Tables of thresholds, and which of them uniform words reach.

Compiled with numba where it is installed, in plain numpy where it is not; same values either way.
The time and the memory accesses of a look-up depend on the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.residues import default_backend

UPPER_BITS = 63
"""Bits of a word that are held against thresholds; bit 0 is a sign."""

WORTH_COMPILING = 1 << 14
"""Fewer words than this do not make a process load the compiler."""

_GUIDE_BITS = 16
_GUIDE_SHIFT = np.uint64(UPPER_BITS - _GUIDE_BITS)
_ONE = np.uint64(1)

Words = NDArray[np.uint64]
IntVector = NDArray[np.int64]


class Thresholds:
    """Ascending thresholds, with a guide to where a word stands among them.

    Args:
        thresholds: H_m, ascending, each below 2^63. A sentinel 2^63, above every word, is added.
    """

    def __init__(self, thresholds: Sequence[int]) -> None:
        high = np.array([*thresholds, 1 << UPPER_BITS], dtype=np.uint64)
        cells = np.arange(2**_GUIDE_BITS + 1, dtype=np.uint64) << _GUIDE_SHIFT
        first = np.searchsorted(high, cells, side="left")
        crowded = np.flatnonzero(np.diff(first) > 1)
        self._high = high
        self._guide = first[:-1].astype(np.int32)
        # From here on a cell may hold several thresholds.
        self._crowded_from = cells[crowded[0]] if len(crowded) else np.uint64(1 << UPPER_BITS)

    def look_up(self, words: Words, backend: str | None = None) -> tuple[IntVector, IntVector]:
        """How many thresholds lie below each word's upper 63 bits, negated where bit 0 is set.

        Args:
            words: uint64 (n,).
            backend: "numba" or "numpy"; None takes numpy for few words, else `default_backend()`.

        Returns:
            int64 (n,), and the places of the words that equal a threshold, int64, ascending.
        """
        if backend is None:
            backend = "numpy" if len(words) < WORTH_COMPILING else default_backend()
        if backend == "numba":
            values, equal = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
            count = _compiled().look_up(
                values, equal, np.require(words, np.uint64, ["C", "A", "W"]),
                self._high, self._guide, _GUIDE_SHIFT, self._crowded_from,
            )  # fmt: skip
            return values, equal[:count]
        upper = words >> _ONE
        magnitude = self._guide[(upper >> _GUIDE_SHIFT).view(np.int64)].astype(np.int64)
        nearest = self._high[magnitude]
        magnitude += upper > nearest
        undecided = upper == nearest
        crowded = np.flatnonzero(upper >= self._crowded_from)
        if len(crowded):
            found = np.searchsorted(self._high, upper[crowded], side="left")
            magnitude[crowded] = found
            undecided[crowded] = self._high[found] == upper[crowded]
        sign = -(words & _ONE).view(np.int64)
        return (magnitude ^ sign) - sign, np.flatnonzero(undecided)


def _compiled() -> Any:
    from privagg.kernels import _thresholds_numba

    return _thresholds_numba
