"""Large numbers as digit lanes, the form in which the compiled kernels multiply them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LANES = 8
RADIX_BITS = 27
ROWS = 4
MAX_DIGITS = 508  # 2 * 508 products of two digits and their carries stay below 2^64

Words = NDArray[np.uint64]


def aligned_zeros(*shape: int) -> Words:
    """A zeroed uint64 array that starts on a 64-byte boundary."""
    size = 8 * math.prod(shape)
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.uint64).reshape(shape)


def digits_of(number: int, count: int) -> list[int]:
    """`count` digits of a number, least significant first."""
    mask = (1 << RADIX_BITS) - 1
    return [(number >> (RADIX_BITS * j)) & mask for j in range(count)]


@dataclass(frozen=True)
class LaneModulus:
    """An odd modulus N prepared for Montgomery multiplication in lanes.

    Multiplication works modulo K = k * N with K = -1 mod 2^27 and R = 2^(27 * digits) >= 4 * K:
    factors below 2K give a product / R below 2K, because (2K)^2 / R + K <= 2K.
    """

    modulus: int

    def __post_init__(self) -> None:
        if self.modulus < 3 or self.modulus % 2 == 0:
            raise ValueError("Montgomery multiplication needs an odd modulus above 1")
        if self.digits > MAX_DIGITS:
            raise ValueError(f"{self.modulus.bit_length()} bits are too large for lanes")

    @cached_property
    def multiple(self) -> int:
        """K, the multiple of the modulus that ends in 27 one bits."""
        radix = 1 << RADIX_BITS
        return self.modulus * (-pow(self.modulus, -1, radix) % radix)

    @property
    def digits(self) -> int:
        """Digits of a number, a multiple of four."""
        needed = -(-(self.modulus.bit_length() + RADIX_BITS + 2) // RADIX_BITS)
        return max(2 * ROWS, -(-needed // ROWS) * ROWS)

    @property
    def one(self) -> int:
        """R modulo N: the factor that multiplication leaves unchanged."""
        return pow(2, RADIX_BITS * self.digits, self.modulus)

    @cached_property
    def multiple_digits(self) -> NDArray[np.uint32]:
        """K as uint32 (digits + 4,), the last four zero."""
        return np.array(digits_of(self.multiple, self.digits + ROWS), dtype=np.uint32)

    @cached_property
    def modulus_digits(self) -> NDArray[np.int64]:
        """N as int64 digits without leading zeros."""
        used = -(-self.modulus.bit_length() // RADIX_BITS)
        return np.array(digits_of(self.modulus, used), dtype=np.int64)

    def groups(self, count: int) -> Words:
        """Zeroed groups of eight numbers, uint64 (count, digits + 4, 8)."""
        return aligned_zeros(count, self.digits + ROWS, LANES)

    def group(self) -> Words:
        """One zeroed group, uint64 (digits + 4, 8)."""
        return aligned_zeros(self.digits + ROWS, LANES)

    def constant(self, number: int) -> Words:
        """A group that holds the same number eight times."""
        group = self.group()
        group[: self.digits] = np.array(digits_of(number, self.digits), dtype=np.uint64)[:, None]
        return group
