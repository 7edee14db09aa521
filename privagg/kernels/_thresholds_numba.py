"""Look-ups in a table of thresholds, compiled: how many of them a uniform integer reaches."""

from __future__ import annotations

import numpy as np
from numba import types

from privagg.kernels._jit import I64, U64, kernel

_I32 = types.Array(types.int32, 1, "C")


@kernel(types.int64(I64, I64, U64, U64, _I32, types.uint64, types.uint64))
def look_up(  # type: ignore[no-untyped-def]
    values, undecided, words, high, guide, guide_shift, crowded_from
):
    """values[i] = the signed number of `high` below words[i] >> 1; bit 0 is the sign.

    Returns how many words equal an entry, and lists their places in `undecided`.
    """
    one, count = np.uint64(1), 0
    for i in range(words.size):
        upper = words[i] >> one
        magnitude = np.int64(guide[upper >> guide_shift])
        if upper >= crowded_from:
            beyond = high.size - 1
            while magnitude < beyond:
                middle = (magnitude + beyond) >> 1
                if high[middle] < upper:
                    magnitude = middle + 1
                else:
                    beyond = middle
            equal = high[magnitude] == upper
        else:
            nearest = high[magnitude]
            equal = nearest == upper
            magnitude += np.int64(upper > nearest)
        sign = -np.int64(words[i] & one)
        values[i] = (magnitude ^ sign) - sign
        if equal:
            undecided[count] = i
            count += 1
    return count
