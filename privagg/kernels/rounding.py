"""Rounding many records to integers, each by a number of its own, in one pass over memory.

What a record becomes depends on its own values, element by element; sums along it are of squares
alone, so that their order does not matter where they are exact. Needs numba (`default_backend`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from privagg.threads import run_split

Table = npt.NDArray[np.float32]
Column = npt.NDArray[np.float64]

_NONE = np.empty(0, dtype=np.float64)
_RECORDS_A_THREAD = 64


class Found(NamedTuple):
    """What a pass over the integers z of many records finds out.

    Args:
        squares: each record's sum of z^2, float64 `(n,)`; no term is negative, so below 2^53 exact
            and a sum beyond it is beyond it, or NaN.
        columns: over all records and positions, float32 `(k,)`: sums of z^2 as float32 has them.
    """

    squares: Column
    columns: Table


def rounded(values: Table, scale: Column, integers: Table, threads: int = 1) -> Found:
    """Each record's values times its scale, rounded to the nearest integer, ties to even.

    Args:
        values: float32 `(n, t, k)`, contiguous.
        scale: float64 `(n,)`, brought to float32 first.
        integers: float32 `(n, t, k)`, written.
        threads: at most so many.
    """
    from privagg.kernels import _rounding_numba as compiled

    squares = np.empty(len(values))

    def part(first: int, last: int, columns: Table) -> None:
        compiled.rounded(first, last, values, scale, integers, squares, columns)

    return Found(squares, _split(part, len(values), values.shape[2], threads))


def normalised(
    values: Table,
    norms: Column | None,
    target: float,
    largest: float,
    integers: Table,
    threads: int = 1,
) -> tuple[Column, Found]:
    """`rounded`, each record's scale being `target` over its norm, at most `largest`.

    Args:
        values, integers, threads: as for `rounded`.
        norms: of the records, float64 `(n,)`; None to take them from the values.
        target: the norm that records are brought to.
        largest: scale.

    Returns:
        The scales, float64 `(n,)` that float32 holds, and what was found.
    """
    from privagg.kernels import _rounding_numba as compiled

    known = _NONE if norms is None else norms
    squares, scale = np.empty(len(values)), np.empty(len(values))

    def part(first: int, last: int, columns: Table) -> None:
        compiled.normalised(
            first, last, values, known, target, largest, integers, scale, squares, columns
        )

    return scale, Found(squares, _split(part, len(values), values.shape[2], threads))


class Blocks(NamedTuple):
    """Records as integers times a power of two.

    Args:
        unit: that power, float64 `(n,)`; for a record that is not usable, too.
        usable: bool `(n,)`, False where a value is not finite or too large: all zeros.
        norms: of the integers, float64 `(n,)`: the exact root, rounded once.
    """

    unit: Column
    usable: npt.NDArray[np.bool_]
    norms: Column


def blocks(
    values: Table | Column, bits: int, limit: int, integers: Table, threads: int = 1
) -> Blocks:
    """Rounds each record to integers of at most 2^bits, by the power of two above its largest.

    Args:
        values: float32 or float64 `(n, k)`, contiguous.
        bits: at most 21, and k * 4^bits at most 2^53, so that norms are exact.
        limit: a record with a magnitude above 2^limit is not usable; one whose magnitudes are all
            below 2^-limit has the unit of 2^-limit.
        integers: float32 `(n, k)`, written.
        threads: at most so many.
    """
    from privagg.kernels import _rounding_numba as compiled

    count = len(values)
    narrow = values.dtype == np.float32
    job = compiled.blocks32 if narrow else compiled.blocks64
    words = values.view(np.int32 if narrow else np.int64)
    found = Blocks(np.empty(count), np.empty(count, dtype=np.bool_), np.empty(count))

    def part(first: int, last: int, _: Table) -> None:
        job(first, last, values, words, bits, limit, integers, *found)

    _split(part, count, 0, threads)
    return found


def _split(
    part: Callable[[int, int, Table], None], records: int, width: int, threads: int
) -> Table:
    """Runs `part(first, last, columns)` over all records; the columns of all parts, added up."""
    parts = min(threads, records // _RECORDS_A_THREAD)
    if parts <= 1:
        columns = np.zeros(width, dtype=np.float32)
        part(0, records, columns)
        return columns
    several = np.zeros((parts, width), dtype=np.float32)
    run_split(lambda at, first, last: part(first, last, several[at]), records, parts)
    return np.asarray(several.sum(0), dtype=np.float32)
