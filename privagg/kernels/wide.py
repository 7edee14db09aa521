"""Plaintext coefficients of several machine words: bit fields, and their lift into RNS residues.

A coefficient M holds K bits as little-endian uint64 words. Compiled where numba is installed, in
Python's own integers where it is not; both give the same results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.residues import Words, default_backend

IntVector = NDArray[np.int64]

_WORD = 1 << 64


@dataclass(frozen=True)
class FieldLayout:
    """How signed values share a coefficient: equal bit fields above `shift` unused low bits.

    A field holds value + 2^(width-1), so that packing needs no carries. Coefficients are added
    modulo 2^bits; `unpack` takes the biases of all addends but one off again.

    Args:
        fields: values in a coefficient.
        width: bits of a field, at most 63; sums must lie in [-2^(width-1), 2^(width-1)).
        shift: unused low bits; they stay 0 in every sum.
    """

    fields: int
    width: int
    shift: int

    def __post_init__(self) -> None:
        if self.fields < 1 or not 1 <= self.width <= 63 or not 0 <= self.shift < 64:
            raise ValueError(f"fields, width or shift out of range: {self}")

    @property
    def bits(self) -> int:
        """K, bits of a coefficient."""
        return self.fields * self.width + self.shift

    @property
    def words(self) -> int:
        """Machine words of a coefficient."""
        return -(-self.bits // 64)

    @cached_property
    def bias(self) -> int:
        """What packing adds to every coefficient: half of each field."""
        return sum(1 << (self.shift + (j + 1) * self.width - 1) for j in range(self.fields))

    def pack(self, values: IntVector, coefficients: int, backend: str | None = None) -> Words:
        """Values as coefficients, `fields` consecutive ones each; zeros fill up the end.

        Args:
            values: int64 (m,), m <= coefficients * fields, each within a field's range.
            coefficients: rows of the result.
            backend: "numba" or "numpy"; None takes `default_backend()`.

        Returns:
            uint64 (coefficients, words).
        """
        out = np.empty((coefficients, self.words), dtype=np.uint64)
        if (backend or default_backend()) == "numba":
            values = np.require(values, np.int64, ["C", "A", "W"])
            _compiled().pack_fields(out, values, self.fields, self.width, self.shift)
            return out
        half = 1 << (self.width - 1)
        padded = np.zeros(coefficients * self.fields, dtype=np.int64)
        padded[: values.size] = values
        rows = padded.reshape(coefficients, self.fields).astype(object) + half
        total = np.zeros(coefficients, dtype=object)
        for j in range(self.fields):
            total += rows[:, j] << (self.shift + j * self.width)
        return _split(total, self.words)

    def unpack(
        self, coefficients: Words, length: int, addends: int, backend: str | None = None
    ) -> IntVector:
        """Sums of values from the sum of `addends` coefficients; int64 (length,).

        Args:
            coefficients: uint64 (rows, words), sums modulo 2^bits.
            length: values wanted, at most rows * fields.
            addends: packed contributions in the sum.
            backend: "numba" or "numpy"; None takes `default_backend()`.
        """
        # One bias stays, so that the fields are unsigned while they are read.
        surplus = (-(addends - 1) * self.bias) % (1 << self.bits)
        unbiased = _add_constant(coefficients, surplus)
        values = np.empty(length, dtype=np.int64)
        if (backend or default_backend()) == "numba":
            _compiled().unpack_fields(values, unbiased, self.fields, self.width, self.shift)
            return values
        joined = _join(unbiased)
        half, mask = 1 << (self.width - 1), (1 << self.width) - 1
        columns = [
            ((joined >> (self.shift + j * self.width)) & mask) - half for j in range(self.fields)
        ]
        return np.stack(columns, axis=1).reshape(-1)[:length].astype(np.int64)


class Lift:
    """M -> floor(q * M / 2^bits) modulo each prime of q: how a plaintext enters a ciphertext.

    Args:
        primes: the primes of q, below 2^60.
        bits: K, bits of M.
    """

    def __init__(self, primes: tuple[int, ...], bits: int) -> None:
        self.primes = primes
        self.bits = bits
        self.modulus = math.prod(primes)
        count = -(-bits // 64)
        self._low = _split(np.array([self.modulus % (1 << bits)], dtype=object), count)[0]
        self._primes = np.array(primes, dtype=np.uint64)
        # q M = 2^K floor(q M / 2^K) + rest, and q is 0 modulo each of its primes; so the wanted
        # floor is -rest / 2^K there, and the rest needs only the low words of q and M.
        factors = [
            [-pow(2, 64 * w, q) * pow(2, -bits, q) % q for w in range(count)] for q in primes
        ]
        self._factor = np.array(factors, dtype=np.uint64)
        # Shoup's quotients: multiplying by a known factor then takes no division (Harvey, "Faster
        # arithmetic for number-theoretic transforms", J. Symbolic Computation 60, 2014).
        self._quotient = np.array(
            [[f * _WORD // q for f in row] for row, q in zip(factors, primes, strict=True)],
            dtype=np.uint64,
        )

    def add(self, residues: Words, coefficients: Words, backend: str | None = None) -> None:
        """Add the lifted coefficients to residues, in place.

        Args:
            residues: uint64 (primes, n), each row below its prime; stays so.
            coefficients: uint64 (n, words), below 2^bits.
            backend: "numba" or "numpy"; None takes `default_backend()`.
        """
        if (backend or default_backend()) == "numba":
            _compiled().add_lifted(
                residues,
                np.require(coefficients, np.uint64, ["C", "A", "W"]),
                self._low,
                self._primes,
                self._factor,
                self._quotient,
                self.bits,
            )
            return
        lifted = (_join(coefficients) * self.modulus) >> self.bits
        for row, prime in enumerate(self.primes):
            residues[row] = (residues[row].astype(object) + lifted) % prime


def scale_residues(
    residues: Words, primes: tuple[int, ...], factor: int, backend: str | None = None
) -> Words:
    """Residues times an integer, row by row.

    Args:
        residues: uint64 (rows, n); row r belongs to primes[r % len(primes)].
        primes: moduli below 2^60.
        factor: any whole number.
        backend: "numba" or "numpy"; None takes `default_backend()`.

    Returns: uint64 (rows, n), each row below its modulus.
    """
    repeat = residues.shape[0] // len(primes)
    factors = [factor % q for q in primes]
    out = np.empty_like(residues)
    if (backend or default_backend()) == "numba":
        quotients = [f * _WORD // q for f, q in zip(factors, primes, strict=True)]
        arrays = (np.array(x * repeat, dtype=np.uint64) for x in (list(primes), factors, quotients))
        _compiled().scale_rows(out, np.require(residues, np.uint64, ["C", "A", "W"]), *arrays)
        return out
    for row in range(residues.shape[0]):
        place = row % len(primes)
        out[row] = residues[row].astype(object) * factors[place] % primes[place]
    return out


def place_digit(coefficients: Words, digit: Words, bit: int) -> None:
    """OR a column of digits into coefficients at `bit`, in place; the bits there must be 0.

    Args:
        coefficients: uint64 (n, words).
        digit: uint64 (n,); bits beyond the last word are dropped.
        bit: where the digit's lowest bit goes.
    """
    word, offset = divmod(bit, 64)
    coefficients[:, word] |= digit << np.uint64(offset)
    if offset and word + 1 < coefficients.shape[1]:
        coefficients[:, word + 1] |= digit >> np.uint64(64 - offset)


def _compiled() -> Any:
    from privagg.kernels import _wide_numba

    return _wide_numba


def _split(numbers: NDArray[np.object_], words: int) -> Words:
    """Python integers as little-endian words; uint64 (n, words)."""
    out = np.empty((numbers.size, words), dtype=np.uint64)
    for w in range(words):
        out[:, w] = (numbers >> (64 * w)) & (_WORD - 1)
    return out


def _join(words: Words) -> NDArray[np.object_]:
    """Little-endian words as Python integers; object (n,)."""
    total = np.zeros(words.shape[0], dtype=object)
    for w in range(words.shape[1]):
        total += words[:, w].astype(object) << (64 * w)
    return total


def _add_constant(words: Words, constant: int) -> Words:
    """words + constant modulo 2^(64 * words), column by column with carries."""
    out = words.copy()
    carry = np.zeros(words.shape[0], dtype=np.uint64)
    for w in range(words.shape[1]):
        part = np.uint64((constant >> (64 * w)) & (_WORD - 1))
        first = out[:, w] + part
        overflow = (first < part).astype(np.uint64)
        out[:, w] = first + carry
        carry = overflow + (out[:, w] < carry).astype(np.uint64)
    return out
