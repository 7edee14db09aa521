"""Many signed integers in one plaintext: balanced digits in a power-of-two radix.

Slot j of a plaintext has weight 2^(w*j) and holds a signed value of magnitude below 2^(w-1), so
plaintext = sum_j v_j * 2^(w*j), a signed number. It is linear in the values: a sum of plaintexts is
the plaintext of the sums, negative values included, with nothing to subtract afterwards that would
depend on how many were added. It reads back uniquely while every *summed* slot stays below 2^(w-1)
in magnitude, whatever the single contributions were.

Source: Ge and Zdonik, "Answering aggregation queries in a secure system model", VLDB 2007, pack
unsigned values so; signed digits let negative ones pass too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError

MAX_SLOT_BITS = 64
GUARD_BITS = 2


def slot_bits_for(bound: int) -> int:
    """Bits of a slot whose sums lie within +-bound: sign, magnitude and two guard bits.

    The guard bits (one only, where the slot would pass 64 bits) make sums up to four times the
    bound come back as what they are, to be refused, instead of spilling into the next slot.
    """
    return min(bound.bit_length() + 1 + GUARD_BITS, MAX_SLOT_BITS)


@dataclass(frozen=True)
class SlotPacking:
    """`length` values in plaintexts of `slots` slots, `slot_bits` bits each.

    Args:
        length: values in all.
        slot_bits: 2 to 64.
        slots: slots of a plaintext; a packed plaintext lies within +-2^(slot_bits * slots - 1).
    """

    length: int
    slot_bits: int
    slots: int

    @property
    def plaintexts(self) -> int:
        """Plaintexts that hold `length` values; the last one's spare slots are zero."""
        return -(-self.length // self.slots)

    @property
    def _words(self) -> int:
        return -(-self.slots * self.slot_bits // 64)

    @cached_property
    def _offset(self) -> int:
        """2^(w-1) in every slot: turns signed slots into unsigned fields and back."""
        ones = ((1 << (self.slot_bits * self.slots)) - 1) // ((1 << self.slot_bits) - 1)
        return ones << (self.slot_bits - 1)

    def pack(self, values: IntVector) -> list[int]:
        """Signed plaintexts of int64 (length,) values, each below 2^(slot_bits - 1) in magnitude.

        Raises:
            ValueError: another length, or a value that does not fit its slot.
        """
        half = 1 << (self.slot_bits - 1)
        if values.shape != (self.length,):
            raise ValueError(f"expected {self.length} values, not an array of {values.shape}")
        if int(values.max()) >= half or int(values.min()) <= -half:
            raise ValueError(f"a value does not fit a signed slot of {self.slot_bits} bits")
        padded = np.zeros((self.plaintexts, self.slots), dtype=np.int64)
        padded.reshape(-1)[: self.length] = values
        fields = padded.view(np.uint64) + np.uint64(half)  # modulo 2^64, exact for 64-bit slots too
        words = np.zeros((self.plaintexts, self._words + 1), dtype=np.uint64)
        for slot in range(self.slots):
            word, shift = divmod(slot * self.slot_bits, 64)
            words[:, word] |= fields[:, slot] << np.uint64(shift)
            if shift + self.slot_bits > 64:
                words[:, word + 1] |= fields[:, slot] >> np.uint64(64 - shift)
        rows = words.astype("<u8", copy=False)
        return [int.from_bytes(row.tobytes(), "little") - self._offset for row in rows]

    def unpack(self, plaintexts: Sequence[Any]) -> IntVector:
        """The int64 (length,) values of signed plaintexts, or of sums of them.

        Raises:
            CiphertextError: a plaintext beyond its slots, or one that uses spare slots; no honest
                contributions sum to that.
        """
        size = 8 * (self._words + 1)
        limit = 1 << (self.slot_bits * self.slots)
        rows = bytearray()
        for index, plaintext in enumerate(plaintexts):
            shifted = int(plaintext) + self._offset
            if not 0 <= shifted < limit:
                raise CiphertextError(
                    f"plaintext {index} lies outside its {self.slots} slots of {self.slot_bits} "
                    "bits: wrong key, or a contribution that is malformed or out of range"
                )
            rows += shifted.to_bytes(size, "little")
        words = np.frombuffer(bytes(rows), dtype="<u8").astype(np.uint64, copy=False)
        fields = self._fields(words.reshape(len(plaintexts), self._words + 1))
        # On the unsigned field, modulo 2^64, taking 2^(w-1) off gives the signed value's own bits.
        values = (fields - np.uint64(1 << (self.slot_bits - 1))).view(np.int64).reshape(-1)
        if np.any(values[self.length :]):
            raise CiphertextError("the unused slots of the last plaintext are not zero")
        return values[: self.length].copy()

    def _fields(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mask = np.uint64((1 << self.slot_bits) - 1)
        fields = np.empty((len(words), self.slots), dtype=np.uint64)
        for slot in range(self.slots):
            word, shift = divmod(slot * self.slot_bits, 64)
            field = words[:, word] >> np.uint64(shift)
            if shift + self.slot_bits > 64:
                field = field | words[:, word + 1] << np.uint64(64 - shift)
            fields[:, slot] = field & mask
        return fields
