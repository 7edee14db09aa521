"""How residues sit in a payload: rows of one modulus, packed to its bits or in 64-bit words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64
MAX_MODULUS_BITS = 60  # SEAL's limit; leaves room for 15 lazy additions in a 64-bit word


@dataclass(frozen=True)
class RowTable:
    """The rows of a layout as arrays, which is how compiled kernels read them.

    Attributes:
        modulus: uint64 (rows,), every residue of the row lies below it.
        bits: int64 (rows,), bits a residue takes in the payload.
        count: int64 (rows,), residues in the row.
        source: int64 (rows,), byte at which the row starts in the payload.
        target: int64 (rows,), index of the row's first residue in the running sum.
    """

    modulus: NDArray[np.uint64]
    bits: NDArray[np.int64]
    count: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]


@dataclass(frozen=True)
class ResidueLayout:
    """Where each residue of a payload lies.

    Residue j of a row takes the row's bits j*b ... (j+1)*b - 1, least significant bit first
    (with 64 bits: little-endian words). A row holds a multiple of 8 residues, so rows start on
    whole bytes and no bit of the payload is unused: a payload has exactly one reading.

    Args:
        moduli: modulus of each row, 2 <= modulus < 2^60.
        counts: residues in each row, positive multiples of 8.
        packed: True packs a residue into the bits of its modulus, False gives it 64 bits.
    """

    moduli: tuple[int, ...]
    counts: tuple[int, ...]
    packed: bool = True

    def __post_init__(self) -> None:
        if len(self.moduli) != len(self.counts) or not self.moduli:
            raise ValueError("a layout needs one count for each modulus, and at least one row")
        if any(m < 2 or m.bit_length() > MAX_MODULUS_BITS for m in self.moduli):
            raise ValueError(f"moduli must lie in [2, 2^{MAX_MODULUS_BITS})")
        if any(c <= 0 or c % 8 for c in self.counts):
            raise ValueError("a row must hold a positive multiple of 8 residues")

    @cached_property
    def rows(self) -> RowTable:
        """The rows as arrays."""
        bits = [m.bit_length() if self.packed else WORD_BITS for m in self.moduli]
        sizes = [c * b // 8 for c, b in zip(self.counts, bits, strict=True)]
        return RowTable(
            modulus=np.array(self.moduli, dtype=np.uint64),
            bits=np.array(bits, dtype=np.int64),
            count=np.array(self.counts, dtype=np.int64),
            source=_starts(sizes),
            target=_starts(self.counts),
        )

    @cached_property
    def payload_bytes(self) -> int:
        """Exact size of a payload in bytes."""
        bits = (m.bit_length() if self.packed else WORD_BITS for m in self.moduli)
        return sum(c * b // 8 for c, b in zip(self.counts, bits, strict=True))

    @cached_property
    def residues(self) -> int:
        """Residues in a payload."""
        return sum(self.counts)

    @cached_property
    def lazy_additions(self) -> int:
        """Canonical residues that one 64-bit word can add up without wrapping."""
        return (2**64 - 1) // (max(self.moduli) - 1)

    def locate(self, index: int) -> tuple[int, int]:
        """The row that holds residue `index` of the payload, and its place within the row."""
        row = int(np.searchsorted(self.rows.target, index, side="right")) - 1
        return row, index - int(self.rows.target[row])


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    starts = np.zeros(len(sizes), dtype=np.int64)
    np.cumsum(np.array(sizes[:-1], dtype=np.int64), out=starts[1:])
    return starts
