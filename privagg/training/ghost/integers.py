"""Records brought to integers, one record a row, and what is known of them without a second look.

Integers are kept in float32, which holds them exactly: nothing here adds two of them in float32
unless every partial sum stays below 2^24, nor in float64 unless it stays below 2^53
(`proofs/exact-ghost.md`).

On the CPU one compiled pass over memory rounds, adds up squares and bounds columns
(`privagg.kernels.rounding`). Elsewhere, and where it is not installed, torch does the same in
several. A look at the values saves work that is seldom needed; elsewhere a look would wait for the
device, so that work is done in any case. No integer is another for either.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from privagg.kernels import rounding
from privagg.kernels.residues import default_backend

EXACT32 = 2.0**24
"""Integers up to here, and sums of them that stay up to here, are exact in float32."""

EXACT64 = 2.0**53
"""The same for float64."""

_CACHED = 1 << 16  # values made float64 at a time: in a processor's caches, an eighth of the time


class Integers:
    """Some records' integers.

    Args:
        values: float32 `(B, ...)`, integers.
        squares: of each record, as `squares` gives them, where they are known.
        columns: see `longest_column`, where it is known.
        narrow: squares may be added up in float32.
    """

    def __init__(
        self,
        values: torch.Tensor,
        squares: torch.Tensor | None = None,
        columns: torch.Tensor | None = None,
        *,
        narrow: bool = False,
    ) -> None:
        self.values, self._narrow = values, narrow
        self._squares, self._columns = squares, columns

    def squares(self) -> torch.Tensor:
        """Each record's sum of squares, float64 `(B,)`: exact, or at least 2^53, or NaN."""
        if self._squares is None:
            self._squares = _squares(self.values, narrow=self._narrow)
        return self._squares

    def longest_column(self) -> float | None:
        """As the function of this name, over all positions; None where no pass has found it."""
        return None if self._columns is None else float(self._columns.amax())

    def truncated(self, factor: torch.Tensor) -> Integers:
        """Each record's integers times its factor in [0, 1], towards zero."""
        return Integers(scaled(self.values, factor).trunc_())

    def clear(self, rows: torch.Tensor) -> None:
        """Fills these records, bool `(B,)`, with zeros, whatever was there."""
        self.values.masked_fill_(_along(rows, self.values), 0.0)
        self.forget(rows)

    def forget(self, rows: torch.Tensor) -> None:
        """Lets go of what is known of these records, bool `(B,)`, but that they count as zeros."""
        if self._squares is not None:
            self._squares = self._squares.masked_fill(rows, 0.0)
        self._columns = None

    def total(self) -> torch.Tensor:
        """The sum over records, float64 `(k,)`, given that it stays below 2^53."""
        flat = self.values.flatten(1)
        step = at_a_time(flat, len(flat))
        if step >= flat.shape[1]:
            return flat.double().sum(0)
        return torch.cat([part.double().sum(0) for part in torch.split(flat, step, dim=1)])


def rounded(values: torch.Tensor, scale: torch.Tensor) -> Integers:
    """Each record's values, times its scale, as integers; element by element.

    Args:
        values: float32 `(B, ...)`.
        scale: float64 `(B,)`, brought to float32 first.
    """
    if not _passes(values):
        return Integers(scaled(values, scale).round_())
    found = torch.empty_like(values)
    known = rounding.rounded(_table(values), scale.numpy(), _table(found), _threads())
    return Integers(found, *map(torch.from_numpy, known))


def normalised(
    values: torch.Tensor,
    target: float,
    largest: float,
    *,
    norms: torch.Tensor | None,
    narrow: bool,
) -> tuple[Integers, torch.Tensor]:
    """`rounded`, each record's scale being `target` over its norm, at most `largest`.

    Args:
        values: float32 `(B, T, k)`.
        target: the norm that a record is brought to.
        largest: scale.
        norms: of the records, float64 `(B,)`, where they are known; else floats' norms are taken.
        narrow: as for `Integers`.

    Returns:
        The integers, and the scales: float64 `(B,)` that float32 holds, from the record alone.
    """
    if not _passes(values):
        norms = float_norms(values) if norms is None else norms
        scale = (target / norms).clamp_(max=largest).to(torch.float32).to(torch.float64)
        return Integers(scaled(values, scale).round_(), narrow=narrow), scale
    found = torch.empty_like(values)
    known = None if norms is None else norms.numpy()
    own, told = rounding.normalised(
        _table(values), known, target, largest, _table(found), _threads()
    )
    return Integers(found, *map(torch.from_numpy, told)), torch.from_numpy(own)


def is_seen(values: torch.Tensor) -> bool:
    """Whether a look at values waits for nobody: they lie where Python runs."""
    return values.device.type == "cpu"


def may_hold(rows: torch.Tensor) -> bool:
    """Whether any is True; taken for granted where a look would wait."""
    return not is_seen(rows) or bool(rows.any())


def at_a_time(values: torch.Tensor, width: int) -> int:
    """How many rows (or columns) of so many values to convert together."""
    return max(1, _CACHED // max(1, width)) if is_seen(values) else max(1, values.numel())


def scaled(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Each record's values times its own number, in a new float32 tensor; element by element."""
    return values * _along(factor.to(torch.float32), values)


def float_norms(values: torch.Tensor) -> torch.Tensor:
    """The float norm of each record's values, float64 `(B,)`; infinite beyond float32's range."""
    norms: torch.Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.double()


def root(values: torch.Tensor) -> torch.Tensor:
    """Square roots as IEEE 754 rounds them; torch's own are MKL's, now and then an ulp away.

    Args:
        values: float64.
    """
    return torch.from_numpy(np.sqrt(values.numpy())) if values.is_cpu else values.sqrt()


def longest_column(values: torch.Tensor) -> float:
    """The largest squared norm of a column of `(n, k)`, to a part of n/2^24."""
    parts = torch.split(values, at_a_time(values, values.shape[1]))
    return float(torch.stack([part.square().sum(0) for part in parts]).sum(0).amax())


def _squares(integers: torch.Tensor, *, narrow: bool) -> torch.Tensor:
    """Each record's sum of squares of integers, float64 `(B,)`.

    No term is negative and rounding keeps order, so a result below the limit is exact and a sum
    beyond it comes out beyond it; `narrow` adds in float32 and refuses, by infinity, from 2^24 on.
    """
    flat = integers.flatten(1)
    if not narrow:
        parts = torch.split(flat, at_a_time(flat, flat.shape[1]))
        return torch.cat([part.double().square_().sum(1) for part in parts])
    found = flat.square().sum(1)
    return torch.where(found < EXACT32, found, torch.full_like(found, torch.inf)).double()


def _along(each: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One number a record, to stand beside the record's values."""
    return each.view(-1, *(1,) * (values.dim() - 1))


@cache
def is_compiled() -> bool:
    """Whether there are compiled passes."""
    return default_backend() == "numba"


def _passes(values: torch.Tensor) -> bool:
    """Whether the compiled pass takes them."""
    return is_seen(values) and values.is_contiguous() and is_compiled()


def _table(values: torch.Tensor) -> rounding.Table:
    """The same memory as records of positions, `(B, T, k)`; a record of one row has T = 1."""
    rows = values if values.dim() == 3 else values.view(len(values), 1, -1)
    found: rounding.Table = rows.numpy()
    return found


def _threads() -> int:
    return torch.get_num_threads()
