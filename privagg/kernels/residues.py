"""Sums of residues modulo RNS primes: range-checked, lazily reduced, in place.

`ResidueSum` adds payloads of ciphertexts without knowing what they are. Compiled with numba where
it is installed, in plain numpy where it is not; both give the same words and the same faults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels import _residues_numpy as plain
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.running_sum import Buffer, Fault, RunningSum
from privagg.threads import run_split, threads_for

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

BACKENDS = ("numba", "numpy")
_ENVIRONMENT = "PRIVAGG_KERNELS"


def default_backend() -> str:
    """`numba` where it is installed on a little-endian machine, else `numpy`.

    The environment variable PRIVAGG_KERNELS=numpy turns the compiled kernels off.
    """
    if os.environ.get(_ENVIRONMENT) == "numpy" or sys.byteorder != "little":
        return "numpy"
    try:
        import numba  # noqa: F401
    except ImportError:
        return "numpy"
    return "numba"


def _compiled() -> Any:
    from privagg.kernels import _residues_numba

    return _residues_numba


def _as_bytes(data: Buffer) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8)


def _address(data: Bytes) -> np.uint64:
    return np.uint64(data.__array_interface__["data"][0])


class ResidueSum(RunningSum):
    """A running sum of residue payloads.

    The sum is one uint64 word a residue, below 2^64 at any time: after each addition the word is
    below (additions + 1) * modulus, and a pass of reductions runs before that could pass 2^64.

    Args:
        layout: where residues lie in a payload.
        backend: "numba" or "numpy"; None takes `default_backend()`.
    """

    def __init__(self, layout: ResidueLayout, backend: str | None = None) -> None:
        self.layout = layout
        self.backend = default_backend() if backend is None else backend
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown kernel backend {self.backend!r}; known: {BACKENDS}")
        self._total = np.zeros(layout.residues, dtype=np.uint64)
        self._lazy = 0  # additions since the last reduction

    @property
    def input_bytes(self) -> int:
        """Exact size of one payload in bytes."""
        return self.layout.payload_bytes

    def add(self, inputs: Sequence[Buffer]) -> list[Fault | None]:
        """Check every residue of every payload and add the payloads that hold no fault.

        A fault found after earlier blocks were added is undone by subtracting those blocks again,
        which is exact in 64-bit words.
        """
        self.require_sizes(inputs)
        faults: list[Fault | None] = []
        step = max(1, self.layout.lazy_additions - 1)
        for first in range(0, len(inputs), step):
            some = inputs[first : first + step]
            if self._lazy + len(some) > step:
                self._reduce()
            self._lazy += len(some)
            add = self._add_compiled if self.backend == "numba" else self._add_plain
            faults.extend(add([_as_bytes(data) for data in some]))
        return faults

    def residues(self) -> Words:
        """The sum, reduced: uint64 (residues,), every word below its row's modulus."""
        self._reduce()
        return self._total.copy()

    def to_bytes(self) -> bytes:
        """The sum as a payload of `input_bytes` bytes."""
        self._reduce()
        return pack_residues(self.layout, self._total, self.backend)

    def _add_compiled(self, inputs: list[Bytes]) -> list[Fault | None]:
        kernels = _compiled()
        rows = tuple(vars(self.layout.rows).values())
        addresses = np.array([_address(data) for data in inputs], dtype=np.uint64)
        parts = min(threads_for(self.input_bytes * len(inputs)), len(self.layout.moduli))
        fault = np.full((parts, len(inputs)), -1, dtype=np.int64)
        found = np.zeros((parts, len(inputs)), dtype=np.uint64)
        bounds = [0] * (parts + 1)

        def work(part: int, first: int, last: int) -> None:
            bounds[part + 1] = last
            kernels.add(self._total, addresses, *rows, first, last, fault[part], found[part])

        run_split(work, len(self.layout.moduli), parts)
        faults: list[Fault | None] = []
        for i in range(len(inputs)):
            bad = [part for part in range(parts) if fault[part, i] >= 0]
            if not bad:
                faults.append(None)
                continue
            for part in range(parts):
                end = self._end_of(bounds[part + 1])
                stop = int(fault[part, i]) if fault[part, i] >= 0 else end
                kernels.undo(self._total, addresses[i], *rows, bounds[part], stop)
            faults.append(_fault(self.layout, int(fault[bad[0], i]), int(found[bad[0], i])))
        return faults

    def _add_plain(self, inputs: list[Bytes]) -> list[Fault | None]:
        faults: list[Fault | None] = []
        for data in inputs:
            words = np.empty(self.layout.residues, dtype=np.uint64)
            fault = _unpack(self.layout, data, words, "numpy")
            if fault is None:
                self._total += words
            faults.append(fault)
        return faults

    def _end_of(self, row: int) -> int:
        table = self.layout.rows
        return int(table.target[row - 1] + table.count[row - 1])

    def _reduce(self) -> None:
        if not self._lazy:
            return
        rows = self.layout.rows
        if self.backend == "numba":
            table = tuple(vars(rows).values())
            kernels = _compiled()
            steps = self._lazy.bit_length()  # words lie below (lazy + 1) * q <= 2^steps * q
            run_split(
                lambda _, first, last: kernels.reduce(self._total, *table, first, last, steps - 1),
                len(self.layout.moduli),
                threads_for(self._total.nbytes),
            )
        else:
            for row, modulus in enumerate(rows.modulus):
                start = int(rows.target[row])
                self._total[start : start + int(rows.count[row])] %= modulus
        self._lazy = 0


def unpack_residues(
    layout: ResidueLayout, payload: Buffer, backend: str | None = None
) -> Words | Fault:
    """The residues of a payload, range-checked: uint64 (layout.residues,), or the first fault.

    Args:
        layout: where residues lie.
        payload: exactly `layout.payload_bytes` bytes.
        backend: "numba" or "numpy"; None takes `default_backend()`.

    Raises:
        ValueError: the payload has another size than the layout's.
    """
    data = _as_bytes(payload)
    if data.size != layout.payload_bytes:
        raise ValueError(f"payload has {data.size} bytes instead of {layout.payload_bytes}")
    words = np.empty(layout.residues, dtype=np.uint64)
    fault = _unpack(layout, data, words, backend or default_backend())
    return words if fault is None else fault


def pack_residues(layout: ResidueLayout, residues: Words, backend: str | None = None) -> bytes:
    """Residues as a payload; the inverse of `unpack_residues`.

    Args:
        layout: where residues lie.
        residues: uint64 (layout.residues,), each below its row's modulus.
        backend: "numba" or "numpy"; None takes `default_backend()`.

    Returns: `layout.payload_bytes` bytes.
    """
    rows = layout.rows
    out = np.empty(layout.payload_bytes, dtype=np.uint8)
    if (backend or default_backend()) == "numba":
        kernels = _compiled()
        table = tuple(vars(rows).values())
        residues = np.require(residues, np.uint64, ["C", "A", "W"])
        run_split(
            lambda _, first, last: kernels.pack(out, residues, *table, first, last),
            len(layout.moduli),
            threads_for(residues.nbytes),
        )
        return out.tobytes()
    for row in range(len(layout.moduli)):
        start, count, at = int(rows.target[row]), int(rows.count[row]), int(rows.source[row])
        packed = plain.write_row(residues[start : start + count], int(rows.bits[row]))
        out[at : at + packed.size] = packed
    return out.tobytes()


def _unpack(layout: ResidueLayout, data: Bytes, out: Words, backend: str) -> Fault | None:
    """Check one payload, writing its residues to `out`."""
    rows = layout.rows
    if backend == "numba":
        fault = np.full(1, -1, dtype=np.int64)
        found = np.zeros(1, dtype=np.uint64)
        table = tuple(vars(rows).values())
        _compiled().unpack(out, _address(data), *table, 0, len(layout.moduli), fault, found)
        return None if fault[0] < 0 else _fault(layout, int(fault[0]), int(found[0]))
    for row, modulus in enumerate(rows.modulus):
        words = plain.read_row(data, rows, row)
        bad = plain.first_outside(words, modulus)
        start = int(rows.target[row])
        if bad >= 0:
            return _fault(layout, start + bad, int(words[bad]))
        out[start : start + words.size] = words
    return None


def _fault(layout: ResidueLayout, index: int, value: int) -> Fault:
    return Fault(index=index, value=value, limit=layout.moduli[layout.locate(index)[0]])
