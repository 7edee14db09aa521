"""Residue kernels in plain numpy: the same calls and results as the compiled ones, row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.layout import RowTable

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


def read_row(data: Bytes, rows: RowTable, row: int) -> Words:
    """Unpack one row of an input; uint64 (count,)."""
    bits, count, at = int(rows.bits[row]), int(rows.count[row]), int(rows.source[row])
    piece = data[at : at + count * bits // 8]
    if bits == 64:
        return np.frombuffer(piece.tobytes(), dtype="<u8")
    padded = np.zeros(piece.size + 16, dtype=np.uint8)
    padded[: piece.size] = piece
    out = np.empty((count // 8, 8), dtype=np.uint64)
    for j in range(8):
        byte, shift = divmod(j * bits, 8)
        words: Words = np.ndarray(
            shape=(count // 8,), dtype="<u8", buffer=padded.data, offset=byte, strides=(bits,)
        )
        value = words >> np.uint64(shift)
        if shift + bits > 64:
            ninth: Bytes = np.ndarray(
                shape=(count // 8,),
                dtype="u1",
                buffer=padded.data,
                offset=byte + 8,
                strides=(bits,),
            )
            value |= ninth.astype(np.uint64) << np.uint64(64 - shift)
        out[:, j] = value & np.uint64((1 << bits) - 1)
    return out.reshape(-1)


def write_row(values: Words, bits: int) -> Bytes:
    """Pack one row of residues; uint8 (count * bits / 8,)."""
    if bits == 64:
        return np.frombuffer(values.astype("<u8").tobytes(), dtype=np.uint8)
    groups = values.reshape(-1, 8)
    out = np.zeros((groups.shape[0], bits), dtype=np.uint8)
    for j in range(8):
        byte, shift = divmod(j * bits, 8)
        for k in range((shift + bits + 7) // 8):
            move = 8 * k - shift
            value = groups[:, j]
            part = value >> np.uint64(move) if move >= 0 else value << np.uint64(-move)
            out[:, byte + k] |= part.astype(np.uint8)
    return out.reshape(-1)


def first_outside(values: Words, modulus: np.uint64) -> int:
    """Place of the first value not below the modulus, or -1."""
    outside = values >= modulus
    return int(np.argmax(outside)) if bool(outside.any()) else -1
