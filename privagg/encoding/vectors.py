"""The two kinds of vectors that a round is about: integers that add up, floats that are decoded."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

IntVector = NDArray[np.int64]
"""int64 `(n,)`: contributions, noise and opened sums, on a plan's grid."""

FloatVector = NDArray[np.float64]
"""float64 `(n,)`: parameters, updates and decoded means."""


def rows_bytes(values: NDArray[np.floating]) -> list[bytes]:
    """Each row as bytes that are the same for equal rows, and for no others.

    Args:
        values: `(n, m)`; every zero is one zero and every NaN one NaN.

    Returns:
        Little-endian float64, one after the other, a row each.
    """
    rows = values.astype("<f8") + 0.0
    rows[np.isnan(rows)] = np.nan
    return [row.tobytes() for row in rows]


def sum_text(total: IntVector) -> str:
    """An opened sum as text: little-endian int64 in base64, so that a ledger can hold it."""
    return base64.b64encode(total.astype("<i8").tobytes()).decode("ascii")


def sum_of_text(text: str, length: int) -> IntVector:
    """The sum that `sum_text` wrote (untrusted input).

    Args:
        text: as written.
        length: n, how many integers it has to hold.

    Raises:
        ValueError: it holds anything else.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) != 8 * length:
        raise ValueError(f"an opened sum of {length} integers has {8 * length} bytes")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)
