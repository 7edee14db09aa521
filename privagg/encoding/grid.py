"""From float contributions to bounded integers, with a sensitivity that holds exactly.

A grid has S steps in the clip norm C: one model unit is s = S / C grid units. A record's
contribution is clipped to C, multiplied by s, truncated towards zero, and then its integer norm is
*checked*: the sum of squares never exceeds S^2, in exact arithmetic, whatever floating point did
before. Rounding a float sum instead would cost sqrt(d) grid units of sensitivity; clipping in
float32 alone overshoots C by about 1e-6.

Every float operation here works element by element, or folds a row's own columns in an order that
depends on d only; so what a record becomes is a function of that record, not of its neighbours in
the batch. The argument is `proofs/sensitivity.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import EncodingError

LARGEST_SENSITIVITY_GRID = 2**31
"""Up to here a sum of two squares fits 64 bits, which the exact norm check needs."""

LARGEST_CONTRIBUTION = 2**62
"""Up to here two contributions can be added in int64."""

_BLOCK_VALUES = 1 << 17
_FAR_TOO_LONG = 2.0**-600  # brings any finite row into the range where squares are finite


@dataclass(frozen=True)
class Grid:
    """The integer grid of one plan: scale, sensitivity and clamp.

    Args:
        clip_norm_l2: C > 0, in units of the clipped quantity; taken at its exact value.
        sensitivity_grid: S, the integer L2 norm that no unit's contribution exceeds, 2 to 2^31.
        contribution_bound: no coordinate of one party's noiseless, unweighted sum lies beyond
            +- this after `clamp`, 1 to 2^62; a plan sets it for the capacity of its sums.

    Raises:
        EncodingError: a number is outside its range.
    """

    clip_norm_l2: float | Decimal | Fraction
    sensitivity_grid: int
    contribution_bound: int = LARGEST_CONTRIBUTION

    def __post_init__(self) -> None:
        if not 1e-100 <= self.clip_norm_l2 <= 1e100:  # refuses NaN too
            raise EncodingError(
                f"clip_norm_l2 must lie between 1e-100 and 1e100, got {self.clip_norm_l2}"
            )
        if not 2 <= self.sensitivity_grid <= LARGEST_SENSITIVITY_GRID:
            raise EncodingError(
                f"sensitivity_grid must lie between 2 and 2^31, got {self.sensitivity_grid}; "
                "beyond it the norm of a record could not be checked exactly in 64 bits"
            )
        if not 1 <= self.contribution_bound <= LARGEST_CONTRIBUTION:
            raise EncodingError(
                f"contribution_bound must lie between 1 and 2^62, got {self.contribution_bound}"
            )

    @property
    def scale(self) -> Fraction:
        """s = S / C, grid units in one unit of the clipped quantity; exact."""
        return Fraction(self.sensitivity_grid) / Fraction(self.clip_norm_l2)

    def quantise_records(self, contributions: NDArray[Any], /) -> IntVector:
        """Clip every record's contribution to C and truncate it to the grid.

        Args:
            contributions: float32 or float64, shape (B, d), one record a row.

        Returns:
            int64, shape (B, d). Row i depends on row i alone, bit for bit; its sum of squares is
            at most S^2 exactly; every coordinate is within one grid unit (and a relative 2^-39) of
            s times the clipped value, on the side of zero. A row with a value that is not finite
            is all zeros.

        Raises:
            EncodingError: wrong dtype or number of axes.
        """
        rows = _as_rows(contributions)
        quantised = np.empty(rows.shape, dtype=np.int64)
        for part in _row_blocks(rows):
            quantised[part] = self._quantise_block(rows[part])
        return quantised

    def sum_records(self, contributions: NDArray[Any], /) -> IntVector:
        """The column sums of `quantise_records`, in memory that does not grow with B.

        Sums of several physical batches add up exactly; `clamp` their total, once, at the end.

        Args:
            contributions: float32 or float64, shape (B, d), B <= 2^31; B = 0 gives zeros.

        Returns:
            int64, shape (d,): adding or removing one row changes it by at most S in L2.

        Raises:
            EncodingError: wrong dtype or number of axes.
        """
        rows = _as_rows(contributions)
        total = np.zeros(rows.shape[1], dtype=np.int64)
        for part in _row_blocks(rows):
            total += self._quantise_block(rows[part]).sum(axis=0)
        return total

    def quantise_update(self, update: NDArray[Any], /) -> IntVector:
        """Clip one whole update to C and truncate it to the grid, by the rule of records.

        Args:
            update: float32 or float64, shape (d,).

        Returns:
            int64, shape (d,), L2 norm at most S exactly; zeros where a value is not finite.

        Raises:
            EncodingError: wrong dtype or number of axes.
        """
        row: IntVector = self.quantise_records(np.asarray(update)[np.newaxis])[0]
        return row

    def scaled_records(self, contributions: NDArray[Any], /) -> FloatVector:
        """Clip every row to C and bring it to the grid's scale, without rounding.

        Args:
            contributions: float32 or float64, shape (B, d).

        Returns:
            float64, shape (B, d), grid units; each row's norm is at most S up to a few parts in
            2^53, a bound that whoever rounds has to enforce. Rows that are not finite are zeros.

        Raises:
            EncodingError: wrong dtype or number of axes.
        """
        scaled = _as_rows(contributions).astype(np.float64, order="C")
        scaled *= self._factors(scaled)[:, np.newaxis]
        return scaled

    def clamp(self, total: IntVector, /) -> IntVector:
        """Bring every coordinate of a noiseless sum into +-contribution_bound.

        Clamping moves no two inputs apart, so the sensitivity stays what it was.

        Args:
            total: int64, shape (d,).
        """
        return np.asarray(np.clip(total, -self.contribution_bound, self.contribution_bound))

    def round_public(self, update: NDArray[Any], /) -> IntVector:
        """Round an update that is private already (local noise) to the nearest grid point.

        Args:
            update: float32 or float64, shape (d,); a post-processing of private releases, so no
                sensitivity is at stake here.

        Returns:
            int64, shape (d,), clamped to +-contribution_bound; NaN becomes 0, infinities the clamp.

        Raises:
            EncodingError: wrong dtype or number of axes.
        """
        values = _as_rows(np.asarray(update)[np.newaxis])[0].astype(np.float64)
        with np.errstate(over="ignore"):
            scaled = np.rint(values * float(self.scale))
        limit = float(LARGEST_CONTRIBUTION)
        finite = np.nan_to_num(scaled, nan=0.0, posinf=limit, neginf=-limit)
        return self.clamp(np.clip(finite, -limit, limit).astype(np.int64))

    def decode(self, total: IntVector, divisor: float | Fraction | int = 1) -> FloatVector:
        """An opened sum in model units, divided by a public number.

        Args:
            total: int64, shape (d,), grid units.
            divisor: finite and positive; the public normaliser.

        Returns:
            float64, shape (d,): total / (s * divisor), the factor rounded once.

        Raises:
            EncodingError: the divisor is not a finite positive number.
        """
        if not 0 < divisor < float("inf"):
            raise EncodingError(f"the divisor must be finite and positive, got {divisor}")
        return np.asarray(total.astype(np.float64) * float(1 / (self.scale * Fraction(divisor))))

    def _quantise_block(self, block: NDArray[Any]) -> IntVector:
        """`quantise_records` on a block of rows that fits the caches."""
        scaled = self.scaled_records(block)
        integers = self._truncate(scaled)
        limit = self.sensitivity_grid**2
        too_long = np.flatnonzero(capped_square_sums(integers, limit) > limit)
        # Float clipping misses C by a few parts in 2^53, so the first shrink is enough.
        for bits in range(40, 0, -1):
            if not len(too_long):
                break
            scaled[too_long] *= 1 - 2.0**-bits
            integers[too_long] = self._truncate(scaled[too_long])
            too_long = too_long[capped_square_sums(integers[too_long], limit) > limit]
        integers[too_long] = 0  # never reached; the bound must not rest on what floats do
        return integers

    def _factors(self, rows: FloatVector) -> FloatVector:
        """What each row is multiplied by to be clipped and on the grid; sets bad rows to zero."""
        norms = _norms(rows)
        clipped = norms > float(self.clip_norm_l2)
        for i in np.flatnonzero(~np.isfinite(norms)):
            if np.isfinite(rows[i]).all():  # far longer than C, and stays marked as such
                rows[i] *= _FAR_TOO_LONG
                norms[i] = _norms(rows[i : i + 1])[0]
            else:
                rows[i] = 0.0
                clipped[i] = False
        factors = np.full(len(rows), float(self.scale))
        np.divide(float(self.sensitivity_grid), norms, out=factors, where=clipped)
        return factors

    def _truncate(self, scaled: FloatVector) -> IntVector:
        """Towards zero, and no further out than S, so that squares are exact whatever came in."""
        with np.errstate(invalid="ignore"):
            integers: IntVector = scaled.astype(np.int64)
        return np.clip(integers, -self.sensitivity_grid, self.sensitivity_grid, out=integers)


def capped_square_sums(integers: IntVector, limit: int) -> NDArray[np.uint64]:
    """Each row's sum of squares where it is at most `limit`, else some number above `limit`.

    Exact: partial sums are cut at limit + 1, so no step leaves 64 bits.

    Args:
        integers: int64, shape (B, d), every square at most 2^62.
        limit: at most 2^62.
    """
    squares = (integers * integers).view(np.uint64)
    return _fold_columns(squares, cap=np.uint64(limit + 1))


def _norms(rows: FloatVector) -> FloatVector:
    """The float L2 norm of every row; infinite or NaN where a square is."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms: FloatVector = np.sqrt(_fold_columns(rows * rows))
    return norms


def _fold_columns(values: NDArray[Any], cap: np.uint64 | None = None) -> NDArray[Any]:
    """The sum of every row, halving its columns until one is left; destroys `values`.

    Only element-wise additions, in an order that depends on the number of columns alone: a library
    reduction may choose its order by the shape or the memory layout of the batch.
    """
    width = values.shape[1]
    while width > 1:
        half = (width + 1) // 2
        left = values[:, : width - half]
        left += values[:, half:width]
        if cap is not None:
            np.minimum(left, cap, out=left)
        width = half
    return np.array(values[:, 0])


def _as_rows(contributions: NDArray[Any]) -> NDArray[Any]:
    """The array as float rows, or a named refusal."""
    rows = np.asarray(contributions)
    if rows.dtype not in (np.float32, np.float64):
        raise EncodingError(f"contributions must be float32 or float64, got {rows.dtype}")
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise EncodingError(
            f"contributions must have rows of at least one value, got shape {rows.shape}"
        )
    return rows


def _row_blocks(rows: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows that together hold about `_BLOCK_VALUES` values."""
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for start in range(0, len(rows), step):
        yield slice(start, start + step)
