"""Montgomery arithmetic on eight numbers at once, as vector instructions that numba can call.

A number is a row of digits in radix 2^27; digit j of eight numbers makes one vector of eight
64-bit words ("lanes"), so a product of digits (54 bits) leaves room to add up 2^10 of them before
any carry. Four rows of the schoolbook product and of its Montgomery reduction are taken in one
sweep over the running total, which then moves down by four digits.

The modulus here is always K = k * N, with k chosen so that K = -1 mod 2^27: the quotient digit of
the reduction (Montgomery, Math. Comp. 44, 1985) is then the lowest digit itself, which takes two
multiplications out of the chain that everything else waits for. What comes out is a residue
modulo K, hence modulo N, below 2K; one exact reduction by N follows at the very end.

LLVM lowers the vectors to what the machine has (AVX-512, AVX2, NEON); the words are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LANES = 8
RADIX_BITS = 27
ROWS = 4

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, LANES)
_HALVES = ir.VectorType(_I32, LANES)


def _constant(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


_LOW_HALF = _constant(0xFFFFFFFF)
_DIGIT = _constant((1 << RADIX_BITS) - 1)
_SHIFT = _constant(RADIX_BITS)


class _Vectors:
    """Loads, stores and 32-bit products of digit vectors, on one LLVM builder."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def pointer(self, address: Any, element: Any) -> Any:
        return self.builder.inttoptr(address, element.as_pointer())

    def load(self, pointer: Any, index: Any) -> Any:
        loaded = self.builder.load(self.builder.gep(pointer, [index]))
        loaded.align = 64
        return loaded

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        stored = self.builder.store(value, self.builder.gep(pointer, [index]))
        stored.align = 64

    def broadcast(self, pointer: Any, index: Any) -> Any:
        """One 32-bit digit in all lanes; widened after the broadcast so that LLVM sees 32 bits."""
        digit = self.builder.load(self.builder.gep(pointer, [index]))
        digit.align = 4
        empty = ir.Constant(_HALVES, ir.Undefined)
        first = self.builder.insert_element(empty, digit, ir.Constant(_I32, 0))
        spread = self.builder.shuffle_vector(first, empty, ir.Constant(_HALVES, [0] * LANES))
        return self.builder.zext(spread, _VECTOR)

    def product(self, left: Any, right: Any) -> Any:
        """Lane-wise product of digits; the masks let LLVM pick the 32-by-32-bit instruction."""
        return self.builder.mul(
            self.builder.and_(left, _LOW_HALF), self.builder.and_(right, _LOW_HALF)
        )

    def sum(self, *terms: Any) -> Any:
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.add(total, term)
        return total


def _index(value: int) -> Any:
    return ir.Constant(_I64, value)


def _quotients(
    v: _Vectors, total: Any, left: list[Any], right: list[Any], modulus: list[Any]
) -> tuple[list[Any], Any]:
    """Four quotient digits, and the carry out of the four digits that they bring to zero."""
    quotients: list[Any] = []
    carry = _constant(0)
    for k in range(ROWS):
        terms = [v.load(total, _index(k)), carry]
        terms += [v.product(left[k - x], right[x]) for x in range(k + 1) if left]
        terms += [v.product(quotients[x], modulus[k - x]) for x in range(k)]
        digit_sum = v.sum(*terms)
        quotient = v.builder.and_(digit_sum, _DIGIT)
        # s + q * (2^27 - 1) with q = s mod 2^27 is (s - q) + q * 2^27: no product is needed.
        carry = v.builder.add(v.builder.lshr(digit_sum, _SHIFT), quotient)
        quotients.append(quotient)
    return quotients, carry


def _opaque(v: _Vectors, values: list[Any], scratch: Any) -> list[Any]:
    """The same values, through memory: LLVM forgets that they are short.

    If it knew, it would drop the mask in `product`, and then no longer recognise a 32-bit product.
    """
    for k, value in enumerate(values):
        v.store(value, scratch, _index(k))
    fence = ir.FunctionType(ir.VoidType(), [])
    v.builder.asm(fence, "", "~{memory}", [], True)
    return [v.load(scratch, _index(k)) for k in range(len(values))]


def _emit_rows(builder: Any, args: Any, *, multiply: bool, slide: bool) -> None:
    total_at, left_at, right_at, modulus_at, digits = args
    v = _Vectors(builder)
    total, modulus = v.pointer(total_at, _VECTOR), v.pointer(modulus_at, _I32)
    left, right = v.pointer(left_at, _VECTOR), v.pointer(right_at, _VECTOR)
    first = [_index(k) for k in range(ROWS)]
    right_digits = [v.load(right, k) for k in first] if multiply else []
    low = [v.load(left, k) for k in first] if multiply else []
    quotients, carry = _quotients(
        v, total, low, right_digits, [v.broadcast(modulus, k) for k in first]
    )
    quotients = _opaque(v, quotients, total)
    v.store(v.sum(v.load(total, _index(ROWS)), carry), total, _index(ROWS))
    before, body = builder.block, builder.append_basic_block("sweep")
    after = builder.append_basic_block("swept")
    builder.branch(body)
    builder.position_at_end(body)
    j = builder.phi(_I64)
    j.add_incoming(_index(0), before)
    ahead = [builder.add(j, _index(k)) for k in range(2 * ROWS)]
    left_window = [v.load(left, k) for k in ahead[1:]] if multiply else []
    modulus_window = [v.broadcast(modulus, k) for k in ahead[1:]]
    for u in range(ROWS):
        terms = [v.load(total, ahead[u + ROWS])]
        for x in range(ROWS):
            terms.append(v.product(modulus_window[u + ROWS - 1 - x], quotients[x]))
            if multiply:
                terms.append(v.product(left_window[u + ROWS - 1 - x], right_digits[x]))
        # Two chains of additions, so that one does not wait for the other.
        folded = v.sum(v.sum(*terms[::2]), v.sum(*terms[1::2]))
        v.store(folded, total, ahead[u if slide else u + ROWS])
    following = builder.add(j, _index(ROWS))
    j.add_incoming(following, body)
    builder.cbranch(builder.icmp_unsigned("<", following, digits), body, after)
    builder.position_at_end(after)


def _rows(multiply: bool, slide: bool) -> Any:
    def typed(typingctx: Any, total: Any, left: Any, right: Any, modulus: Any, digits: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_rows(builder, args, multiply=multiply, slide=slide)
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 5), codegen

    return typed


multiply_rows: Any = intrinsic(_rows(multiply=True, slide=True))
"""total := (total + left * right[0:4] + q * modulus) / 2^108 for the q that makes it exact.

All arguments are addresses but the last: `digits` + 4 vectors of `total` (the last four zero) and
of `left` (zero-padded), 4 vectors of `right`, `digits` + 4 digits (uint32, zero-padded) of the
modulus. `digits` is a multiple of four.
"""

reduce_rows: Any = intrinsic(_rows(multiply=False, slide=False))
"""total := total + q * modulus, which clears its four lowest digits; `left`, `right` unused.

In place: the carry of the cleared digits is in the digits above. The four lowest vectors are
scratch afterwards.
"""


def _carry_digits(typingctx: Any, total: Any, out: Any, digits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = _Vectors(builder)
        total, out = v.pointer(args[0], _VECTOR), v.pointer(args[1], _VECTOR)
        before, body = builder.block, builder.append_basic_block("carry")
        after = builder.append_basic_block("carried")
        builder.branch(body)
        builder.position_at_end(body)
        j, carry = builder.phi(_I64), builder.phi(_VECTOR)
        j.add_incoming(_index(0), before)
        carry.add_incoming(_constant(0), before)
        digit_sum = builder.add(v.load(total, j), carry)
        v.store(builder.and_(digit_sum, _DIGIT), out, j)
        carry.add_incoming(builder.lshr(digit_sum, _SHIFT), body)
        following = builder.add(j, _index(1))
        j.add_incoming(following, body)
        builder.cbranch(builder.icmp_unsigned("<", following, args[2]), body, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64), codegen


carry_digits: Any = intrinsic(_carry_digits)
"""Bring `digits` vectors of sums back to digits below 2^27; the carry out of the top is lost.

Arguments: address of the sums, address of the result (may be the same), number of vectors.
"""
