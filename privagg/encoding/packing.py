"""Several bounded integers in one machine word, or one integer over several: exact under addition.

A word is what one slot or coefficient of a ciphertext carries. Words are added by whoever adds
ciphertexts; as long as every value's sum stays within its bound, unpacking the summed words gives
the sums of the values, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.errors import CapacityError

MAX_WORD_BITS = 62  # words and their sums stay within int64


@dataclass(frozen=True)
class Packing:
    """How values become words.

    With `limbs` = 1, `per_word` values v_0, v_1, ... share a word as v_0 + v_1 R + v_2 R^2 + ...,
    where R = 2 * sum_bound + 1: sums within +-sum_bound are the balanced base-R digits of the
    summed word, so they come apart again, uniquely. With `limbs` > 1, a value is spread over
    several words as balanced digits of base 2^limb_bits, and only its summed digits need room.

    Args:
        length: d, values in a vector.
        upload_bound: no value of one contribution lies beyond +-upload_bound.
        sum_bound: no sum of values lies beyond +-sum_bound.
        addends: most contributions in a sum.
        per_word: values in a word.
        limbs: words a value is spread over; more than 1 only with per_word = 1.
        limb_bits: bits of the base of limbs (0 where limbs = 1).

    Raises:
        CapacityError: the numbers contradict each other or a summed word does not fit int64.
    """

    length: int
    upload_bound: int
    sum_bound: int
    addends: int
    per_word: int = 1
    limbs: int = 1
    limb_bits: int = 0

    def __post_init__(self) -> None:
        if self.per_word < 1 or self.limbs < 1 or (self.per_word > 1 and self.limbs > 1):
            raise CapacityError(
                f"a word holds several values or a value takes several words, not both: "
                f"{self.per_word} values, {self.limbs} limbs"
            )
        if (self.limbs > 1) != (self.limb_bits > 0) or self.limb_bits > MAX_WORD_BITS:
            raise CapacityError(
                f"{self.limbs} limbs do not go with a base of {self.limb_bits} bits"
            )
        if self.word_sum_bound >> MAX_WORD_BITS:
            raise CapacityError(
                f"a summed word of up to {self.word_sum_bound} does not fit {MAX_WORD_BITS} bits"
            )

    @property
    def words(self) -> int:
        """Words a vector takes."""
        return self.limbs * (-(-self.length // self.per_word))

    @property
    def word_bound(self) -> int:
        """No word of one contribution lies beyond +-word_bound."""
        if self.limbs > 1:
            return max(1 << (self.limb_bits - 1), self._top_limb)
        return self.upload_bound * self._digit_weight

    @property
    def word_sum_bound(self) -> int:
        """No summed word lies beyond +-word_sum_bound."""
        if self.limbs > 1:
            return self.addends * self.word_bound
        return self.sum_bound * self._digit_weight

    @property
    def radix(self) -> int:
        """R, the base in which values share a word."""
        return 2 * self.sum_bound + 1

    @property
    def label(self) -> str:
        """The packing in a few words."""
        if self.limbs > 1:
            return f"{self.limbs}x{self.limb_bits}bit"
        return f"{self.per_word}@{self.radix}"

    @property
    def _digit_weight(self) -> int:
        return sum(self.radix**j for j in range(self.per_word))

    @property
    def _top_limb(self) -> int:
        """Bound on the highest limb: what lower balanced digits leave over, rounded up."""
        lower = self.limb_bits * (self.limbs - 1)
        return -(-(self.upload_bound + (1 << lower)) >> lower)

    def pack(self, values: IntVector) -> IntVector:
        """Values as words.

        Args:
            values: int64 (length,), within +-upload_bound (the caller has checked).

        Returns:
            int64 (words,). Value i sits in word i % m of m, so that both ways are whole-vector
            arithmetic.
        """
        if self.limbs > 1:
            return self._split(values)
        columns = self.words
        words = np.zeros(columns, dtype=np.int64)
        for j in reversed(range(self.per_word)):
            words *= self.radix
            part = values[j * columns : (j + 1) * columns]
            words[: part.size] += part
        return words

    def unpack(self, words: IntVector) -> IntVector:
        """Sums of values from summed words; the inverse of `pack` under addition.

        Args:
            words: int64 (words,), sums of packed contributions.

        Returns:
            int64 (length,).
        """
        if self.limbs > 1:
            total = np.zeros(self.length, dtype=np.int64)
            for limb in reversed(words.reshape(self.limbs, self.length)):
                # Passing 2^63 on the way is harmless: the total itself fits, modulo 2^64.
                total = (total << self.limb_bits) + limb
            return total
        values = np.empty(self.per_word * self.words, dtype=np.int64)
        rest = words.copy()
        for j in range(self.per_word):
            digit = (rest + self.sum_bound) % self.radix - self.sum_bound
            values[j * self.words : (j + 1) * self.words] = digit
            rest = (rest - digit) // self.radix
        return values[: self.length]

    def _split(self, values: IntVector) -> IntVector:
        limbs = np.empty((self.limbs, self.length), dtype=np.int64)
        half, mask = 1 << (self.limb_bits - 1), (1 << self.limb_bits) - 1
        rest = values.copy()
        for j in range(self.limbs - 1):
            limbs[j] = ((rest + half) & mask) - half
            rest = (rest - limbs[j]) >> self.limb_bits
        limbs[-1] = rest
        return limbs.reshape(-1)
