"""What one parameter's gradients are made of, record by record, on an integer grid.

A record's gradient in a linear layer is the sum over positions t of g_t a_t^T. Both factors are
rounded to integers A_t and G_t, and the record's contribution is *defined* as the integer matrix
z = sum_t G_t A_t^T. Its squared norm is known without forming it, and so is the sum over records:
one matrix product. Where forming is cheaper, the gradient itself is rounded to integers.

A squared norm that could not be known exactly comes out as a number of at least 2^53, or as
infinity or NaN, so that it passes no bound below that (`proofs/exact-ghost.md`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from privagg.training.ghost.integers import (
    EXACT32,
    EXACT64,
    at_a_time,
    float_norms,
    is_seen,
    longest_column,
    may_hold,
    normalised,
    rounded,
)

LARGEST_FACTORED_GRID = 2**22
"""Up to this S, gradients of several positions are factored; beyond it they are formed."""

LARGEST_BATCH = 2**16
"""Up to so many records together, sums over them stay within float64's exact integers."""

_LARGEST_SCALE = 2.0**64
_LEAST_ROWS = 256  # of a float32 product; smaller ones cost more than one in float64
_MOST_ROWS = 2**14  # of one, so that float32 knows its columns' norms to a part of 2^9


class Piece(ABC):
    """One parameter's gradients in a batch, float at first, integers once `quantise` was called.

    Floats are let go as soon as integers are made of them: a left factor's by `float_squares`, all
    others by `quantise`. What looks at floats comes first.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    @abstractmethod
    def float_squares(self) -> torch.Tensor:
        """About the squared norm of each record's gradient, float64 `(B,)`, for choosing a clip."""

    @abstractmethod
    def quantise(self, scale: torch.Tensor) -> None:
        """Brings each record's gradient, times its scale, to integers.

        Args:
            scale: float64 `(B,)`, grid units a model unit, the record's clip included.
        """

    @abstractmethod
    def squares(self) -> torch.Tensor:
        """Each record's squared integer norm, float64 `(B,)`: exact, or at least 2^53, or NaN."""

    @abstractmethod
    def shrunk(self, factor: torch.Tensor) -> None:
        """Multiplies each record's integers by a factor in [0, 1], truncated towards zero."""

    @abstractmethod
    def clear(self, rows: torch.Tensor) -> None:
        """Fills the integers of these records, bool `(B,)`, with zeros, whatever was there."""

    @abstractmethod
    def total(self) -> torch.Tensor:
        """The sum over records, float64 of the parameter's size, exact given all norms' bound."""

    @abstractmethod
    def rounding(self) -> tuple[float, float]:
        """How rounding lengthens a record's integers, from shapes alone; for a margin, not a bound.

        Returns:
            By how much errors of one in all that is rounded can move the integers: the square of
            the largest move over the errors' squared norm, and the sum over single errors.
        """

    @abstractmethod
    def floats(self) -> torch.Tensor:
        """All that the integers are made from, float32 `(B, k)`."""

    @abstractmethod
    def integers(self) -> torch.Tensor:
        """All that a record's contribution is made of, float32 `(B, k)`."""

    @abstractmethod
    def gradients(self) -> torch.Tensor:
        """Each record's gradient, formed in float32, `(B, numel)`."""


class Formed(Piece):
    """Gradients that exist: of biases, of norms' weights, of convolutions on large images.

    Args:
        parameter: whose they are.
        rows: float32 `(B, numel)`, one record a row.
        norms: of the rows, float64 `(B,)`, where they are known; else float32's.
    """

    def __init__(
        self, parameter: nn.Parameter, rows: torch.Tensor, *, norms: torch.Tensor | None = None
    ) -> None:
        super().__init__(parameter)
        self._rows, self._norms, self._width = rows, norms, rows.shape[1]

    def float_squares(self) -> torch.Tensor:
        return (float_norms(self._rows) if self._norms is None else self._norms).square()

    def quantise(self, scale: torch.Tensor) -> None:
        self._z = rounded(self._rows, scale)
        del self._rows

    def squares(self) -> torch.Tensor:
        return self._z.squares()

    def shrunk(self, factor: torch.Tensor) -> None:
        self._z = self._z.truncated(factor)

    def clear(self, rows: torch.Tensor) -> None:
        self._z.clear(rows)

    def total(self) -> torch.Tensor:
        return self._z.total()

    def rounding(self) -> tuple[float, float]:
        return 1.0, float(self._width)

    def floats(self) -> torch.Tensor:
        return self._rows

    def integers(self) -> torch.Tensor:
        return self._z.values

    def gradients(self) -> torch.Tensor:
        return self._rows


class _Factored(Piece):
    """A gradient whose right factor g alone is scaled: what is common to the two kinds."""

    def __init__(self, parameter: nn.Parameter, g: torch.Tensor) -> None:
        super().__init__(parameter)
        self._g = g
        _, self._positions, self._width = g.shape

    def quantise(self, scale: torch.Tensor) -> None:
        self._whole = rounded(self._g, scale)
        del self._g

    def shrunk(self, factor: torch.Tensor) -> None:
        self._whole = self._whole.truncated(factor)

    def clear(self, rows: torch.Tensor) -> None:
        self._whole.clear(rows)


class Left:
    """The left factor of weights that the same values enter, brought to integers once for them all.

    Args:
        a: float32 `(B, T, m)`, what entered a layer, unfolded for a convolution.
        sensitivity: S; up to 2^22 where T > 1.
        norms: of a, float64 `(B,)`, where they are known; else float32's.
    """

    def __init__(
        self, a: torch.Tensor, sensitivity: int, *, norms: torch.Tensor | None = None
    ) -> None:
        self.floats: torch.Tensor | None = a
        _, self.positions, self.width = a.shape
        self.sensitivity, self.wide, self._norms = sensitivity, not is_seen(a), norms

    def quantise(self) -> None:
        """Makes integers, and lets go of what they are made from; does so once."""
        if self.floats is None:
            return
        a, self.floats = self.floats, None
        # From the record alone. Where it is infinite or NaN, so is the record, and is cleared.
        self.whole, self.alpha = normalised(
            a,
            math.sqrt(self.sensitivity / 2),
            _LARGEST_SCALE,
            norms=self._norms,
            # A's norm is about sqrt(S/2), at most twice that: float32 has it where 2 S < 2^24.
            narrow=self.positions == 1 and self.sensitivity <= 2**22,
        )
        self.gram: torch.Tensor | None = None
        if self.positions > 1:
            self.gram = _gram(self.whole.values, wide=self.wide)

    def clear(self, rows: torch.Tensor) -> None:
        """Fills the integers of these records, bool `(B,)`, with zeros where it matters."""
        squares = self.whole.squares() if self.gram is None else _trace(self.gram)
        # Finite integers times zeros are zeros, and the left factor is wide.
        if may_hold(rows & ~torch.isfinite(squares)):
            self.whole.clear(rows)
        else:
            self.whole.forget(rows)
        if self.gram is not None:
            self.gram.masked_fill_(rows[:, None, None], 0.0)


class Factors(_Factored):
    """A linear layer's weight: the sum over positions t of g_t a_t^T.

    Args:
        parameter: of o by m values, in whatever shape.
        left: of a, what entered the layer; other weights may share it.
        g: float32 `(B, T, o)`, the loss's gradients at what left it.
        norms: of g, float64 `(B,)`, where they are known; else float32's.
    """

    def __init__(
        self,
        parameter: nn.Parameter,
        left: Left,
        g: torch.Tensor,
        *,
        norms: torch.Tensor | None = None,
    ) -> None:
        super().__init__(parameter, g)
        self._left, self._right_norms = left, norms

    def float_squares(self) -> torch.Tensor:
        left = self._left
        left.quantise()
        if left.gram is None:
            norms = float_norms(self._g) if self._right_norms is None else self._right_norms
            inner = left.whole.squares() * norms.square()
        else:
            inner = _inner(left.gram, self._g @ self._g.transpose(1, 2))
        return torch.div(inner.clamp(min=0.0), left.alpha.square())

    def quantise(self, scale: torch.Tensor) -> None:
        self._left.quantise()
        super().quantise(scale / self._left.alpha)

    def squares(self) -> torch.Tensor:
        left, right = self._left, self._whole
        if left.gram is None:
            return left.whole.squares() * right.squares()
        left_gram, right_gram = left.gram, _gram(right.values, wide=left.wide)
        if not left.wide and not bool(
            (_largest(left_gram) < EXACT32).all() & (_largest(right_gram) < EXACT32).all()
        ):
            left_gram, right_gram = (_gram(x.values, wide=True) for x in (left.whole, right))
        # Every partial sum of <AA^T, GG^T> is at most |A|^2 |G|^2.
        known = _trace(left_gram) * _trace(right_gram) < EXACT64
        inner = _inner(left_gram, right_gram)
        return torch.where(known, inner, torch.full_like(inner, torch.inf))

    def clear(self, rows: torch.Tensor) -> None:
        super().clear(rows)
        self._left.clear(rows)

    def total(self) -> torch.Tensor:
        whole = self._left.whole
        right, left = self._whole.values.flatten(0, 1), whole.values.flatten(0, 1)
        if is_seen(left):
            g, a = self._whole.longest_column(), whole.longest_column()
            return _product(right, left, None if g is None or a is None else g * a)
        # Without a look: a record's terms add up to at most S where there is one position.
        step = 0 if self._left.gram is not None else int(EXACT32) // self._left.sensitivity
        if step < min(_LEAST_ROWS, len(left)):
            return right.double().t() @ left.double()
        chunks = zip(torch.split(right, step), torch.split(left, step), strict=True)
        return torch.stack([(g.t() @ a).double() for g, a in chunks]).sum(0)

    @property
    def widest(self) -> tuple[int, int]:
        """T, and the larger of o and m."""
        return self._positions, max(self._left.width, self._width)

    def rounding(self) -> tuple[float, float]:
        # ||A||^2 is about S/2; output gradients that are alike round alike in all T positions.
        squared = self._left.sensitivity / 2
        return self._positions * squared, self._width * squared

    def floats(self) -> torch.Tensor:
        assert self._left.floats is not None
        return torch.cat([self._left.floats.flatten(1), self._g.flatten(1)], dim=1)

    def integers(self) -> torch.Tensor:
        return torch.cat([self._left.whole.values.flatten(1), self._whole.values.flatten(1)], dim=1)

    def gradients(self) -> torch.Tensor:
        assert self._left.floats is not None
        return (self._g.transpose(1, 2) @ self._left.floats).flatten(1)


class Tokens(_Factored):
    """An embedding's weight: row v is the sum of g_t over the positions t that hold token v.

    Args:
        parameter: `(vocabulary, o)`.
        tokens: int64 `(B, T)`.
        g: float32 `(B, T, o)`.
    """

    def __init__(self, parameter: nn.Parameter, tokens: torch.Tensor, g: torch.Tensor) -> None:
        super().__init__(parameter, g)
        self._tokens = tokens
        # Row t adds up the positions that hold t's token, if t is the first of them.
        same = tokens[:, :, None] == tokens[:, None, :]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        self._added = (same.to(torch.uint8).argmax(2)[:, None, :] == places[:, None]).to(g.dtype)

    def float_squares(self) -> torch.Tensor:
        return float_norms(self._added @ self._g).square()

    def squares(self) -> torch.Tensor:
        whole = self._whole.values
        rows = at_a_time(whole, whole[0].numel())
        parts = zip(torch.split(self._added, rows), torch.split(whole, rows), strict=True)
        return torch.cat([_squares_added(added.double(), g.double()) for added, g in parts])

    def total(self) -> torch.Tensor:
        whole = self._whole.values
        out = whole.new_zeros(len(self.parameter), self._width, dtype=torch.float64)
        return out.index_add_(
            0, self._tokens.reshape(-1), whole.reshape(-1, self._width).to(torch.float64)
        )

    def rounding(self) -> tuple[float, float]:
        return float(self._positions**2), float(self._positions * self._width)

    def floats(self) -> torch.Tensor:
        return self._g.flatten(1)

    def integers(self) -> torch.Tensor:
        return torch.cat([self._tokens.to(torch.float32), self._whole.values.flatten(1)], dim=1)

    def gradients(self) -> torch.Tensor:
        rows = self._g.new_zeros(len(self._g), *self.parameter.shape)
        return rows.scatter_add_(1, self._tokens[:, :, None].expand_as(self._g), self._g).flatten(1)


def _gram(values: torch.Tensor, *, wide: bool) -> torch.Tensor:
    """Inner products of each record's positions, `(B, T, T)`, in float64 or float32."""
    values = values.double() if wide else values
    return values @ values.transpose(1, 2)


def _squares_added(added: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`_squares` of `added @ values`, both float64 and integers, the former zeros and ones."""
    square = torch.sum((added @ values).square_().flatten(1), 1)
    # Whatever cancels: sums of magnitudes that bound every partial sum, over all records too.
    size = (added @ values.abs_()).flatten(1).amax(1)
    return torch.where(size < EXACT64 / LARGEST_BATCH, square, torch.full_like(square, torch.inf))


def _product(right: torch.Tensor, left: torch.Tensor, longest: float | None = None) -> torch.Tensor:
    """right^T left, exact, float64 `(o, m)`.

    In float32 where every entry's terms add up, in magnitude, to at most 2^24: by Cauchy and
    Schwarz no more than the norms of two columns. Else in halves; few rows in float64.

    Args:
        right: float32 `(n, o)`, integers.
        left: float32 `(n, m)`, integers; all terms of an entry add up to at most 2^53.
        longest: the product of both `longest_column`s, where it is known.
    """
    if len(left) <= _MOST_ROWS:
        if longest is None:
            longest = longest_column(right) * longest_column(left)
        if longest <= EXACT32**2 * (1 - 2.0**-8):
            return (right.t() @ left).double()
    if len(left) < 2 * _LEAST_ROWS:
        return right.double().t() @ left.double()
    half = len(left) // 2
    return _product(right[:half], left[:half]).add_(_product(right[half:], left[half:]))


def _largest(gram: torch.Tensor) -> torch.Tensor:
    """The largest squared norm of a record's positions, `(B,)`; no inner product is larger."""
    return gram.diagonal(dim1=1, dim2=2).amax(1)


def _trace(gram: torch.Tensor) -> torch.Tensor:
    """The squared norm of all of a record's positions, float64 `(B,)`."""
    return gram.diagonal(dim1=1, dim2=2).double().sum(1)


def _inner(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The inner product of each record's two matrices, float64 `(B,)`."""
    return torch.sum((left.double() * right.double()).flatten(1), 1)
