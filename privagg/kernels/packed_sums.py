"""Sums of signed values packed into one large integer, `width` bits apart, modulo 2^(width n).

A payload is that integer, little-endian, in whole 32-bit words. Negative values borrow from their
upper neighbour, so that packing is addition of integers and nothing else: the payload of a sum is
the sum of the payloads, and what is added to one and taken from another cancels. Values come out
right wherever every *summed* value lies within [-2^(width-1), 2^(width-1)); one that does not
leaves its own field modulo 2^width and changes its upper neighbour by what it carries over.

Compiled with numba where it is installed, in plain numpy where it is not; same words either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.residues import default_backend
from privagg.kernels.running_sum import Buffer, Fault, RunningSum
from privagg.threads import run_split, threads_for

IntVector = NDArray[np.int64]
Lanes = NDArray[np.int64]
HalfWords = NDArray[np.uint32]

_WORD_BITS = 32
_LOW = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class PackedLayout:
    """Where values lie in a payload.

    Args:
        length: n, values.
        width: bits of a value's field, 1 to 63.
    """

    length: int
    width: int

    def __post_init__(self) -> None:
        if self.length < 1 or not 1 <= self.width <= 63:
            raise ValueError(f"length or width out of range: {self}")

    @property
    def bits(self) -> int:
        """Bits of the integer."""
        return self.length * self.width

    @cached_property
    def words(self) -> int:
        """32-bit words of a payload."""
        return -(-self.bits // _WORD_BITS)

    @property
    def payload_bytes(self) -> int:
        """Exact size of a payload in bytes."""
        return 4 * self.words

    @property
    def top_bits(self) -> int:
        """Bits in use of the last word, 1 to 32; the others are 0 in every payload."""
        return self.bits - _WORD_BITS * (self.words - 1)

    def pack(self, values: IntVector, backend: str | None = None) -> Lanes:
        """Values as lanes, to which masks are added before `to_bytes`.

        Args:
            values: int64 (n,), each within [-2^(width-1), 2^(width-1)).
            backend: "numba" or "numpy"; None takes `default_backend()`.

        Returns:
            int64 (words,).
        """
        lanes = np.zeros(self.words, dtype=np.int64)
        if (backend or default_backend()) == "numba":
            _compiled().pack(lanes, np.require(values, np.int64, ["C", "A", "W"]), self.width)
            return lanes
        padded = np.concatenate((lanes, np.zeros(2, dtype=np.int64)))  # parts beyond the last bit
        bit = np.arange(self.length, dtype=np.int64) * self.width
        place, shift = bit >> 5, bit & 31
        low, high = (values & _LOW) << shift, (values >> 32) << shift
        np.add.at(padded, place, low & _LOW)
        np.add.at(padded, place + 1, (low >> 32 & _LOW) + (high & _LOW))
        np.add.at(padded, place + 2, high >> 32)
        lanes[:] = padded[: self.words]
        return lanes

    def to_bytes(self, lanes: Lanes, backend: str | None = None) -> bytes:
        """The integer that lanes stand for, modulo 2^(width n), as a payload.

        Args:
            lanes: int64 (words,), each within +-2^62.
            backend: as for `pack`.
        """
        words = np.empty(self.words, dtype=np.uint32)
        if (backend or default_backend()) == "numba":
            _compiled().carry(lanes, words)
        else:
            words[:] = _carried(lanes)
        words[-1] &= np.uint32((1 << self.top_bits) - 1)
        return words.astype("<u4", copy=False).tobytes()

    def unpack(self, payload: Buffer, backend: str | None = None) -> IntVector:
        """Summed values from the payload of a sum; int64 (n,).

        Args:
            payload: `payload_bytes` bytes.
            backend: as for `pack`.
        """
        words = np.frombuffer(payload, dtype="<u4")
        if (backend or default_backend()) == "numba":
            values = np.empty(self.length, dtype=np.int64)
            _compiled().unpack(values, np.require(words, np.uint32, ["C", "A", "W"]), self.width)
            return values
        # Raised by half of its field, every value is unsigned, and nothing borrows.
        half = 1 << (self.width - 1)
        raised = self.pack(np.full(self.length, half, dtype=np.int64), "numpy") + words
        return self._fields(np.frombuffer(self.to_bytes(raised, "numpy"), dtype="<u4")) - half

    def _fields(self, words: HalfWords) -> IntVector:
        padded = np.concatenate((words, np.zeros(2, dtype=np.uint32))).astype(np.uint64)
        bit = np.arange(self.length, dtype=np.int64) * self.width
        place, shift = bit >> 5, (bit & 31).astype(np.uint64)
        value = (padded[place] | padded[place + 1] << np.uint64(32)) >> shift
        # Shifted in two steps: by 64 - 0 bits at once a word would not move at all.
        value |= (padded[place + 2] << np.uint64(32)) << (np.uint64(32) - shift)
        fields: IntVector = (value & np.uint64((1 << self.width) - 1)).astype(np.int64)
        return fields


class PackedSum(RunningSum):
    """A running sum of packed payloads, in one signed 64-bit lane a word.

    Args:
        layout: of the payloads.
        backend: "numba" or "numpy"; None takes `default_backend()`.
    """

    def __init__(self, layout: PackedLayout, backend: str | None = None) -> None:
        self.layout = layout
        self.backend = backend or default_backend()
        self._lanes = np.zeros(layout.words, dtype=np.int64)

    @property
    def input_bytes(self) -> int:
        """Exact size of one payload in bytes."""
        return self.layout.payload_bytes

    def add(self, inputs: Sequence[Buffer]) -> list[Fault | None]:
        """Add every payload whose unused top bits are 0; every other bit may be anything."""
        self.require_sizes(inputs)
        faults = [self._fault(data) for data in inputs]
        good = [
            np.frombuffer(data, dtype=np.uint8)
            for data, fault in zip(inputs, faults, strict=True)
            if fault is None
        ]
        if not good:
            return faults
        if self.backend != "numba":
            for view in good:
                self._lanes += view.view("<u4")
            return faults
        places = [data.__array_interface__["data"][0] for data in good]
        addresses, add = np.array(places, dtype=np.uint64), _compiled().add_words

        def work(_: int, first: int, last: int) -> None:
            add(self._lanes, addresses, first, last)

        run_split(work, self._lanes.size, threads_for(self.input_bytes * len(good)))
        return faults

    def lanes(self) -> Lanes:
        """A copy of the sum, int64 (words,): masks are taken off it before `to_bytes`."""
        return self._lanes.copy()

    def to_bytes(self) -> bytes:
        """The sum so far, as a payload."""
        return self.layout.to_bytes(self._lanes, self.backend)

    def _fault(self, data: Buffer) -> Fault | None:
        last = int.from_bytes(bytes(memoryview(data).cast("B")[-4:]), "little")
        limit = 1 << self.layout.top_bits
        if last < limit:
            return None
        return Fault(index=self.layout.length - 1, value=last, limit=limit)


def add_stream(lanes: Lanes, words: HalfWords, sign: int, backend: str | None = None) -> None:
    """Add the words of a mask to lanes, or take them off, in place.

    Args:
        lanes: int64 (k,).
        words: uint32 (k,).
        sign: +1 or -1.
        backend: "numba" or "numpy"; None takes `default_backend()`.
    """
    if (backend or default_backend()) == "numba":
        kernels = _compiled()
        (kernels.add_stream if sign > 0 else kernels.subtract_stream)(lanes, words)
    elif sign > 0:
        lanes += words
    else:
        lanes -= words


def _carried(lanes: Lanes) -> HalfWords:
    """Words of the integer that lanes stand for; each pass moves every carry one lane up."""
    rest = lanes.copy()
    while True:
        over = rest >> 32
        rest &= _LOW
        if not over[:-1].any():
            return rest.astype(np.uint32)
        rest[1:] += over[:-1]


def _compiled() -> Any:
    from privagg.kernels import _packed_sums_numba

    return _packed_sums_numba
