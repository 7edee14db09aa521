"""Checked addition of bit-packed residues, eight at a time, in the compiler's own vectors.

Eight residues of b bits fill b whole bytes, so residue j of every group of eight starts at the same
byte and bit of it. Its word is loaded from there, whatever the alignment, and all eight are shifted
and masked side by side; LLVM makes AVX-512, AVX2 or NEON of that. Up to 57 bits one word holds a
residue at any of the eight bit offsets; up to 60 bits it takes a second word, four bytes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

NARROW_BITS = 57
OVERREAD_BYTES = 12  # a group's last load ends at most so far beyond the group's own bytes

_LANES = 8
_WORD = ir.IntType(64)
_BYTE = ir.IntType(8)
_PLACE = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, _LANES)


def _filled(builder: Any, lanes: Sequence[Any]) -> Any:
    """A vector of eight words."""
    vector = ir.Constant(_VECTOR, ir.Undefined)
    for lane, word in enumerate(lanes):
        vector = builder.insert_element(vector, word, ir.Constant(_PLACE, lane))
    return vector


def _spread(word: int) -> Any:
    return ir.Constant(_VECTOR, [word] * _LANES)


class _Group:
    """Where the residues of a group of eight lie, for a width known at run time.

    Args:
        builder: emits instructions at the current place.
        bits: the width, a 64-bit value.
        is_wide: whether it may be above `NARROW_BITS`.
    """

    def __init__(self, builder: Any, bits: Any, is_wide: bool) -> None:
        self._builder = builder
        self._is_wide = is_wide
        starts = [builder.mul(bits, ir.Constant(_WORD, lane)) for lane in range(_LANES)]
        self._bytes = [builder.lshr(start, ir.Constant(_WORD, 3)) for start in starts]
        shifts = [builder.and_(start, ir.Constant(_WORD, 7)) for start in starts]
        self._shifts = _filled(builder, shifts)
        one = ir.Constant(_WORD, 1)
        mask = builder.sub(builder.shl(one, bits), one)
        self._mask = _filled(builder, [mask] * _LANES)

    def residues(self, address: Any) -> Any:
        """The eight residues of the group at an address."""
        builder = self._builder
        low = builder.lshr(self._load(address, 0), self._shifts)
        if self._is_wide:
            high = builder.lshr(self._load(address, 4), self._shifts)
            low = builder.and_(low, _spread(0xFFFFFFFF))
            low = builder.or_(low, builder.shl(high, _spread(32)))
        return builder.and_(low, self._mask)

    def _load(self, address: Any, more_bytes: int) -> Any:
        builder = self._builder
        words = []
        for start in self._bytes:
            place = builder.add(start, ir.Constant(_WORD, more_bytes))
            word = builder.load(builder.bitcast(builder.gep(address, [place]), _WORD.as_pointer()))
            word.align = 1
            words.append(word)
        return _filled(builder, words)


def _adder(inputs: int, is_wide: bool) -> Any:
    """An intrinsic (total, addresses, groups, bits, last) -> flags; see `add_packed_1`."""

    def add(typingctx: Any, total: Any, addresses: Any, groups: Any, bits: Any, last: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            total_at, sources, count, width, limit = args
            group = _Group(builder, width, is_wide)
            starts = [
                builder.inttoptr(builder.extract_value(sources, k), _BYTE.as_pointer())
                for k in range(inputs)
            ]
            sums = builder.inttoptr(total_at, _VECTOR.as_pointer())
            limits = _filled(builder, [limit] * _LANES)
            flags = cgutils.alloca_once(builder, _VECTOR)  # type: ignore[no-untyped-call]
            builder.store(_spread(0), flags)
            with cgutils.for_range(builder, count, intp=_WORD) as loop:
                here = builder.mul(loop.index, width)
                found = [group.residues(builder.gep(start, [here])) for start in starts]
                raised = builder.load(flags)
                for values in found:
                    raised = builder.or_(raised, builder.sub(limits, values))
                builder.store(raised, flags)
                target = builder.gep(sums, [loop.index])
                word = builder.load(target)
                word.align = 8
                for values in found:
                    word = builder.add(word, values)
                stored = builder.store(word, target)
                stored.align = 8
            raised, joined = builder.load(flags), ir.Constant(_WORD, 0)
            for lane in range(_LANES):
                lane_flags = builder.extract_element(raised, ir.Constant(_PLACE, lane))
                joined = builder.or_(joined, lane_flags)
            return joined

        return types.uint64(total, addresses, groups, bits, last), codegen

    return intrinsic(add)


# Each adds `groups` groups of eight residues of `bits` bits, from each of a tuple of addresses, to
# the words at address `total`. The top bit of the result is set where any was above `last` < 2^63.
add_packed_1: Any = _adder(1, False)
add_packed_4: Any = _adder(4, False)
add_wide_1: Any = _adder(1, True)
add_wide_4: Any = _adder(4, True)
