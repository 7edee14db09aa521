"""Powers of one fixed public base modulo a large number, by a table of its powers.

The exponent is written in digits of `window_bits` bits and the table holds, for every digit
position j and digit d, base^(d * 2^(window_bits * j)): a power costs one multiplication a digit and
no squaring (Brickell, Gordon, McCurley & Wilson, Eurocrypt 1992). Every digit, zero included, costs
one multiplication, so the number of operations does not depend on the exponent; but *which table
entries are read does*, and who watches this machine's cache could tell. Not constant time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.lanes import LANES, LaneModulus, digits_of
from privagg.kernels.modular import (
    BACKENDS,
    compiled,
    default_modular_backend,
    group_threads,
    whole_number,
)
from privagg.kernels.running_sum import Buffer
from privagg.threads import run_split

MAX_WINDOW_BITS = 14
_TABLE_BYTES = 96 << 20


def best_window_bits(exponent_bits: int, powers: int, modulus_bits: int) -> int:
    """Digit size with the fewest multiplications for `powers` powers, table included.

    Args:
        exponent_bits: bits of an exponent.
        powers: how many powers the table will serve.
        modulus_bits: size of a table entry; the table stays below 96 MiB.
    """

    def windows(bits: int) -> int:
        return -(-exponent_bits // bits)

    def table_bytes(bits: int) -> int:
        return (windows(bits) << bits) * modulus_bits // 6  # 4 bytes for each 27-bit digit

    fitting = [b for b in range(1, MAX_WINDOW_BITS + 1) if table_bytes(b) <= _TABLE_BYTES]
    return min(fitting, key=lambda bits: windows(bits) * ((1 << bits) + powers))


class FixedBase:
    """A table of powers of `base`, for exponents of `windows * window_bits` bits.

    Args:
        base: in [1, modulus).
        modulus: odd.
        width: bytes of a number in and out, little-endian; as many as the modulus has.
        exponent_bits: exponents of at least this size are covered.
        window_bits: bits of a digit of the exponent, 1 to 14.
        at_once: powers that one call will usually ask for; decides the backend.
        backend: "numba" or "integers"; None takes what the machine has.
    """

    def __init__(
        self,
        base: int,
        modulus: int,
        width: int,
        *,
        exponent_bits: int,
        window_bits: int,
        at_once: int = LANES,
        backend: str | None = None,
    ) -> None:
        if not 1 <= base < modulus or width != -(-modulus.bit_length() // 8):
            raise ValueError("expected a base in [1, modulus), and the modulus' own width in bytes")
        if not 1 <= window_bits <= MAX_WINDOW_BITS or exponent_bits < 1:
            raise ValueError(f"windows of {window_bits} bits are not supported")
        self.backend = default_modular_backend(modulus, at_once) if backend is None else backend
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown kernel backend {self.backend!r}; known: {BACKENDS}")
        self.modulus, self.width, self.window_bits = modulus, width, window_bits
        self.windows = -(-exponent_bits // window_bits)
        bases = [whole_number(base)]
        for _ in range(self.windows - 1):
            bases.append(pow(bases[-1], 1 << window_bits, modulus))
        make = _LaneTable if self.backend == "numba" else _IntegerTable
        self._table: _LaneTable | _IntegerTable = make(bases, modulus, width, 1 << window_bits)

    def multiply_powers(self, starts: Buffer, exponents: NDArray[np.uint16]) -> bytes:
        """Each start times the base to its exponent, reduced.

        Args:
            starts: n numbers of `width` bytes, each below the modulus.
            exponents: uint16 (n, windows), digits of each exponent, least significant first,
                each below 2^window_bits.

        Returns:
            n numbers of `width` bytes in [0, modulus).

        Raises:
            ValueError: the shapes do not match, or a digit is too large.
        """
        count = len(exponents)
        if exponents.dtype != np.uint16 or exponents.shape != (count, self.windows):
            raise ValueError(f"exponents must be uint16 (n, {self.windows})")
        if memoryview(starts).nbytes != count * self.width:
            raise ValueError(f"{count} exponents need {count * self.width} bytes of starts")
        if count and int(exponents.max()) >> self.window_bits:
            raise ValueError(f"a digit of an exponent exceeds {self.window_bits} bits")
        view = np.frombuffer(starts, dtype=np.uint8)
        return self._table.apply(view, np.ascontiguousarray(exponents)) if count else b""


class _IntegerTable:
    """The table in whole numbers; the reference for the compiled one."""

    def __init__(self, bases: list[Any], modulus: int, width: int, entries: int) -> None:
        self._modulus, self._width = whole_number(modulus), width
        self._rows: list[list[Any]] = []
        for base in bases:
            row = [whole_number(1)]
            for _ in range(entries - 1):
                row.append(row[-1] * base % self._modulus)
            self._rows.append(row)

    def apply(self, starts: NDArray[np.uint8], exponents: NDArray[np.uint16]) -> bytes:
        """Each start times its power."""
        out = bytearray()
        data = starts.tobytes()
        for index, digits in enumerate(exponents.tolist()):
            at = index * self._width
            number = whole_number(int.from_bytes(data[at : at + self._width], "little"))
            for row, digit in zip(self._rows, digits, strict=True):
                number = number * row[digit] % self._modulus
            out += int(number).to_bytes(self._width, "little")
        return bytes(out)


class _LaneTable:
    """The table in Montgomery form, uint32 (windows, entries, digits); see `_modular_numba`."""

    def __init__(self, bases: list[Any], modulus: int, width: int, entries: int) -> None:
        self._kernels = compiled()
        self._lanes, self._width = LaneModulus(modulus), width
        lanes, windows = self._lanes, len(bases)
        groups = -(-windows // LANES)
        scaled = lanes.groups(groups)
        for index, base in enumerate(bases):
            digits = digits_of(int(base) * lanes.one % modulus, lanes.digits)
            scaled[index // LANES, : lanes.digits, index % LANES] = digits
        one = lanes.constant(lanes.one)
        self._table = np.zeros((windows, entries, lanes.digits), dtype=np.uint32)

        def work(_: int, first: int, last: int) -> None:
            self._kernels.tabulate(
                self._table, scaled, one, first, last, lanes.multiple_digits,
                lanes.group(), lanes.group(), lanes.group(),
            )  # fmt: skip

        run_split(work, groups, group_threads(groups))

    def apply(self, starts: NDArray[np.uint8], exponents: NDArray[np.uint16]) -> bytes:
        """Each start times its power."""
        lanes, count = self._lanes, len(exponents)
        out = np.zeros(count * self._width, dtype=np.uint8)
        address = np.uint64(starts.ctypes.data)

        def work(_: int, first: int, last: int) -> None:
            self._kernels.choose(
                out, address, self._width, first * LANES, min(last * LANES, count), exponents,
                self._table, lanes.multiple_digits, lanes.modulus_digits, lanes.group(),
                lanes.group(), lanes.group(), np.zeros(lanes.digits, np.int64),
            )  # fmt: skip

        groups = -(-count // LANES)
        run_split(work, groups, min(groups, group_threads(groups * 4)))
        return out.tobytes()
