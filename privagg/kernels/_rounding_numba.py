"""The compiled loops of `rounding`. Sums may be taken in any order, nothing else may be changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from privagg.kernels._jit import Compiled, kernel

_F32 = types.Array(types.float32, 3, "C")
_F64 = types.Array(types.float64, 1, "C")
_ROW = types.Array(types.float32, 1, "C")
_FLAGS = types.Array(types.boolean, 1, "C")
_N = types.int64


@kernel(types.void(_N, _N, _F32, _F64, _F32, _F64, _ROW), any_order=True)
def rounded(
    first: int, last: int, values: Any, scale: Any, integers: Any, squares: Any, columns: Any
) -> None:
    _, positions, width = values.shape
    for record in range(first, last):
        own, total = np.float32(scale[record]), 0.0
        for place in range(positions):
            for at in range(width):
                whole = np.rint(values[record, place, at] * own)
                integers[record, place, at] = whole
                total += np.float64(whole) * np.float64(whole)
                columns[at] += whole * whole
        squares[record] = total


@kernel(
    types.void(_N, _N, _F32, _F64, types.float64, types.float64, _F32, _F64, _F64, _ROW),
    any_order=True,
)
def normalised(
    first: int,
    last: int,
    values: Any,
    norms: Any,
    target: float,
    largest: float,
    integers: Any,
    scale: Any,
    squares: Any,
    columns: Any,
) -> None:
    _, positions, width = values.shape
    for record in range(first, last):
        if len(norms):
            norm = norms[record]
        else:
            total = 0.0
            for place in range(positions):
                for at in range(width):
                    value = np.float64(values[record, place, at])
                    total += value * value
            norm = math.sqrt(total)
        own, total = np.float32(min(target / norm, largest)), 0.0
        scale[record] = np.float64(own)
        for place in range(positions):
            for at in range(width):
                whole = np.rint(values[record, place, at] * own)
                integers[record, place, at] = whole
                total += np.float64(whole) * np.float64(whole)
                columns[at] += whole * whole
        squares[record] = total


def _blocks(word: Any, mantissa: int, bias: int) -> Compiled:
    """`rounding.blocks` for floats of one width: their words tell magnitudes in order."""
    number = types.float32 if word is np.int32 else types.float64
    table = types.Array(number, 2, "C")
    words = types.Array(types.int32 if word is np.int32 else types.int64, 2, "C")
    integers = types.Array(types.float32, 2, "C")
    without_sign = word(2 ** (8 * word(0).nbytes - 1) - 1)
    convert: Any = np.float32 if word is np.int32 else np.float64

    @kernel(types.void(_N, _N, table, words, _N, _N, integers, _F64, _FLAGS, _F64), any_order=True)
    def blocks(
        first: int,
        last: int,
        values: Any,
        words: Any,
        bits: int,
        limit: int,
        integers: Any,
        unit: Any,
        usable: Any,
        norms: Any,
    ) -> None:
        width = values.shape[1]
        least, most = word((bias - limit) << mantissa), word((bias + limit) << mantissa)
        for record in range(first, last):
            largest = least
            for at in range(width):
                largest = max(largest, words[record, at] & without_sign)
            usable[record] = largest <= most
            if not usable[record]:
                unit[record], norms[record] = 2.0 ** (1 - bits), 0.0
                integers[record] = 0.0
                continue
            above: Any = (np.int64(largest) >> mantissa) - bias + 1
            unit[record] = math.ldexp(1.0, above - bits)
            own, total = convert(math.ldexp(1.0, bits - above)), 0.0
            for at in range(width):
                whole = np.float32(np.rint(values[record, at] * own))
                integers[record, at] = whole
                total += np.float64(whole) * np.float64(whole)
            norms[record] = math.sqrt(total)

    return blocks


blocks32 = _blocks(np.int32, 23, 127)
blocks64 = _blocks(np.int64, 52, 1023)
