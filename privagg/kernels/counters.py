"""Sums of 64-bit counters modulo 2^64, with a range check; the plaintext scheme's kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.running_sum import Buffer, Fault, RunningSum
from privagg.threads import run_split, threads_for

_BLOCK = 1 << 15  # values; a block of input and of sum stay in the second-level cache


class CounterSum(RunningSum):
    """A running sum of little-endian int64 vectors, exact modulo 2^64.

    numpy's own additions run at the speed of memory and without the GIL, so this kernel needs no
    compiled twin.

    Args:
        length: counters in an input.
        limit: an input with a counter beyond +-limit is bad; None allows the whole range.
    """

    def __init__(self, length: int, limit: int | None = None) -> None:
        if length < 1:
            raise ValueError(f"a sum needs at least one counter, not {length}")
        self.limit = limit
        self._total = np.zeros(length, dtype=np.int64)

    @property
    def input_bytes(self) -> int:
        """Exact size of one input in bytes."""
        return self._total.nbytes

    def add(self, inputs: Sequence[Buffer], limit_factor: int = 1) -> list[Fault | None]:
        """Check every counter of every input and add the inputs that hold no fault.

        Args:
            inputs: buffers of `input_bytes` bytes each.
            limit_factor: multiplies the limit, for inputs that are sums themselves.
        """
        self.require_sizes(inputs)
        views = [np.frombuffer(data, dtype="<i8") for data in inputs]
        faults = [self._fault(view, limit_factor) for view in views]
        good = [view for view, fault in zip(views, faults, strict=True) if fault is None]

        def work(_: int, first: int, last: int) -> None:
            for start in range(first, last, _BLOCK):
                stop = min(start + _BLOCK, last)
                for view in good:
                    np.add(self._total[start:stop], view[start:stop], out=self._total[start:stop])

        run_split(work, self._total.size, threads_for(self.input_bytes * len(good)))
        return faults

    def to_bytes(self) -> bytes:
        """The sum so far: little-endian int64."""
        return self._total.astype("<i8", copy=False).tobytes()

    def _fault(self, view: NDArray[np.int64], limit_factor: int) -> Fault | None:
        if self.limit is None:
            return None
        limit = min(self.limit * limit_factor, 2**63 - 1)
        for start in range(0, view.size, _BLOCK):
            block = view[start : start + _BLOCK]
            # Two comparisons rather than abs(): |-2^63| does not fit a signed word.
            if int(block.max()) > limit or int(block.min()) < -limit:
                bad = int(np.argmax((block > limit) | (block < -limit)))
                return Fault(index=start + bad, value=int(block[bad]), limit=limit)
        return None
