"""Products of residues modulo a large number: range-checked, lazily reduced, in place.

`ModularProduct` multiplies payloads of Paillier ciphertexts without knowing what they are: position
by position, modulo n^2. Compiled with numba where it is installed, in whole numbers (gmpy2's where
installed, else Python's) where it is not; both give the same bytes and the same faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.lanes import LANES, MAX_DIGITS, RADIX_BITS, ROWS, LaneModulus, aligned_zeros
from privagg.kernels.residues import default_backend
from privagg.kernels.running_sum import Buffer, Fault, RunningSum
from privagg.threads import available_cpus, run_split

BACKENDS = ("numba", "integers")
_MIN_GROUPS_A_THREAD = 4


def default_modular_backend(modulus: int, numbers: int = LANES) -> str:
    """`numba` where compiled kernels run, the modulus fits the lanes and enough of them are used.

    Args:
        modulus: that of the products.
        numbers: how many numbers are worked on at once; lanes work on eight even if one is used,
            so below four `integers` is faster.
    """
    fits = modulus.bit_length() <= RADIX_BITS * (MAX_DIGITS - 2 * ROWS)
    return "numba" if default_backend() == "numba" and fits and numbers >= 4 else "integers"


def whole_number(value: int) -> Any:
    """The number in the fastest whole-number type there is."""
    try:
        from gmpy2 import mpz
    except ImportError:
        return value
    return mpz(value)


def compiled() -> Any:
    """The compiled kernels; importing them compiles or loads them."""
    from privagg.kernels import _modular_numba

    return _modular_numba


def group_threads(groups: int) -> int:
    """Threads worth using for work on that many groups of eight numbers."""
    return max(1, min(available_cpus(), groups // _MIN_GROUPS_A_THREAD))


class ModularProduct(RunningSum):
    """A running product of residues, one for each position of a payload.

    A payload is `length` little-endian numbers of `width` bytes, each in [1, modulus). Numbers
    divisible by `divisor` are refused too: for Paillier's n they are no units modulo n^2, and one
    of them would turn a whole sum into noise. (Other non-units modulo n^2 share one prime with n;
    who can make one has factored n and can do worse.)

    The compiled running product is kept times a power of R that one last multiplication removes:
    each factor costs one Montgomery multiplication and no conversion.

    Args:
        modulus: odd; all products are modulo this.
        length: residues in a payload.
        width: bytes of a residue in a payload, as many as the modulus has.
        divisor: odd and at least the modulus' square root, or 1 for none.
        backend: "numba" or "integers"; None takes `default_modular_backend()`.
    """

    def __init__(
        self, modulus: int, length: int, width: int, divisor: int = 1, backend: str | None = None
    ) -> None:
        self.backend = default_modular_backend(modulus, length) if backend is None else backend
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown kernel backend {self.backend!r}; known: {BACKENDS}")
        if length < 1 or width != -(-modulus.bit_length() // 8):
            raise ValueError(
                f"expected at least one residue, of as many bytes as the modulus: not {length} of "
                f"{width} bytes for {modulus.bit_length()} bits"
            )
        if divisor != 1 and (divisor % 2 == 0 or divisor * divisor < modulus):
            raise ValueError("the divisor must be 1, or odd and at least the modulus' square root")
        self.modulus, self.length, self.width, self.divisor = modulus, length, width, divisor
        make = _LaneProduct if self.backend == "numba" else _IntegerProduct
        self._engine: _LaneProduct | _IntegerProduct = make(modulus, length, width, divisor)

    @property
    def input_bytes(self) -> int:
        """Exact size of one payload in bytes."""
        return self.length * self.width

    def add(self, inputs: Sequence[Buffer]) -> list[Fault | None]:
        """Check every residue of every payload and multiply in those that hold no fault."""
        self.require_sizes(inputs)
        views = [np.frombuffer(data, dtype=np.uint8) for data in inputs]
        faults = [self._fault(view) for view in views]
        good = [view for view, fault in zip(views, faults, strict=True) if fault is None]
        if good:
            self._engine.multiply(good)
        return faults

    def to_bytes(self) -> bytes:
        """The product so far (all ones before the first), as a payload."""
        return self._engine.to_bytes()

    def _fault(self, view: NDArray[np.uint8]) -> Fault | None:
        index = self._engine.first_bad(view)
        if index < 0:
            return None
        residue = view[index * self.width : (index + 1) * self.width].tobytes()
        return Fault(index, int.from_bytes(residue, "little"), self.modulus)


class _IntegerProduct:
    """The product in whole numbers; the reference for the compiled one."""

    def __init__(self, modulus: int, length: int, width: int, divisor: int) -> None:
        self._modulus, self._divisor = whole_number(modulus), whole_number(divisor)
        self._length, self._width = length, width
        self._product = [whole_number(1)] * length

    def _numbers(self, view: NDArray[np.uint8]) -> list[Any]:
        data = view.tobytes()
        return [
            whole_number(int.from_bytes(data[at : at + self._width], "little"))
            for at in range(0, len(data), self._width)
        ]

    def first_bad(self, view: NDArray[np.uint8]) -> int:
        """Index of the first number outside its range or divisible, or -1."""
        for index, number in enumerate(self._numbers(view)):
            if not 0 < number < self._modulus:
                return index
            if self._divisor > 1 and number % self._divisor == 0:
                return index
        return -1

    def multiply(self, views: Sequence[NDArray[np.uint8]]) -> None:
        """Multiply in payloads that were checked."""
        for view in views:
            for index, number in enumerate(self._numbers(view)):
                self._product[index] = self._product[index] * number % self._modulus

    def to_bytes(self) -> bytes:
        """The product as a payload."""
        return b"".join(int(n).to_bytes(self._width, "little") for n in self._product)


class _LaneProduct:
    """The product in lanes of eight; see `_modular_numba`."""

    def __init__(self, modulus: int, length: int, width: int, divisor: int) -> None:
        self._kernels = compiled()
        self._lanes = LaneModulus(modulus)
        self._divisor = LaneModulus(divisor) if divisor > 1 else None
        self._length, self._width = length, width
        self._groups = -(-length // LANES)
        self._threads = group_threads(self._groups)
        self._state = self._lanes.groups(self._groups)
        self._state[:] = self._lanes.constant(self._lanes.one)
        self._lag = -1  # the state is the product times R^-lag: it starts as 1 * R

    def first_bad(self, view: NDArray[np.uint8]) -> int:
        """Index of the first number outside its range or divisible, or -1."""
        found = [-1] * self._threads
        lanes, divisor = self._lanes, self._divisor
        rows, inverse = lanes.digits, np.uint64(0)
        multiple, digits = np.zeros(0, np.uint32), np.zeros(0, np.int64)
        if divisor is not None:
            multiple, digits = divisor.multiple_digits, divisor.modulus_digits
            rows = max(rows, 2 * divisor.digits)
            inverse = np.uint64(pow(divisor.modulus, -1, 1 << (2 * RADIX_BITS)))
        address = np.uint64(view.ctypes.data)

        def work(part: int, first: int, last: int) -> None:
            total = aligned_zeros(rows + ROWS, LANES)
            found[part] = self._kernels.check(
                address, self._width, first * LANES, min(last * LANES, self._length),
                lanes.modulus_digits, multiple, digits, inverse, lanes.group(), total,
                np.zeros(rows, np.int64),
            )  # fmt: skip

        run_split(work, self._groups, self._threads)
        return next((index for index in found if index >= 0), -1)

    def multiply(self, views: Sequence[NDArray[np.uint8]]) -> None:
        """Multiply in payloads that were checked."""
        lanes = self._lanes
        addresses = np.array([view.ctypes.data for view in views], dtype=np.uint64)

        def work(_: int, first: int, last: int) -> None:
            self._kernels.multiply(
                self._state, self._length, first, last, addresses, self._width,
                lanes.multiple_digits, lanes.group(), lanes.group(),
            )  # fmt: skip

        run_split(work, self._groups, self._threads)
        self._lag += len(views)

    def to_bytes(self) -> bytes:
        """The product as a payload."""
        lanes = self._lanes
        shift = RADIX_BITS * lanes.digits * (self._lag + 1)
        factor = lanes.constant(pow(2, shift, lanes.modulus))
        out = np.zeros(self._length * self._width, dtype=np.uint8)

        def work(_: int, first: int, last: int) -> None:
            self._kernels.finish(
                self._state, self._length, first, last, factor, out, self._width,
                lanes.multiple_digits, lanes.modulus_digits, lanes.group(), lanes.group(),
                np.zeros(lanes.digits, np.int64),
            )  # fmt: skip

        run_split(work, self._groups, self._threads)
        return out.tobytes()
