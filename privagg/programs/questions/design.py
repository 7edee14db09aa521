"""The design matrix: how declared columns stand in a record's products, of which moments are sums.

A record is x: 1 for the intercept, a number u in [-1, 1] for the place of each column of numbers in
its declared range, and 0 or 1 for each category but the base. Only products x_i x_j that differ are
opened: a category's square is itself, and no record is of two categories of one column. A record
that lacks any of the columns counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import NamedTuple, Self

import numpy as np

from privagg.errors import ConfigError
from privagg.programs.questions.columns import Codes, Columns, FloatArray, categories_of, range_of
from privagg.training.features import BoolArray, NumericFeature
from privagg.training.table import TableSchema

INTERCEPT = "intercept"

MOST_TERMS = 200
"""Their products and what their noise does to a solution stay below 50 MB."""

WIDEST, NARROWEST = 1e50, 1e-50
"""Of ranges: a coefficient in a column's own unit, and its square, stay what floats hold."""


class Term(NamedTuple):
    """One column of the design matrix.

    Attributes:
        name: `intercept`, a column of numbers, or `column: category`.
        column: that it is read from; empty for the intercept.
        code: of the category; None for a number.
        ends: the declared range of a number.
        categories: of the column, how many; 0 for a number.
    """

    name: str
    column: str = ""
    code: int | None = None
    ends: tuple[float, float] = (-1.0, 1.0)
    categories: int = 0

    @property
    def half(self) -> float:
        """Column's units in one of u."""
        return (self.ends[1] - self.ends[0]) / 2

    @property
    def middle(self) -> float:
        """Where u = 0."""
        return self.ends[0] + self.half


class Products(NamedTuple):
    """Which products of terms are opened.

    Attributes:
        first, second: int64 (p,), the terms of each.
        place: int64 (m, m), where the product of two terms is; p where it is always 0.
    """

    first: Codes
    second: Codes
    place: Codes


@dataclass(frozen=True)
class Design:
    """Columns of a table as the terms of a linear predictor, the intercept first.

    Args:
        terms: in the order of the matrix's columns, m.
    """

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, schema: TableSchema, columns: Sequence[str], base: Mapping[str, str]) -> Self:
        """The terms of declared columns.

        Args:
            schema: the public declaration.
            columns: of numbers, or of categories.
            base: column -> the category that others are compared with; by default the first.

        Raises:
            ConfigError: a column or category is not declared, or they are too many.
        """
        terms = [Term(INTERCEPT)]
        for name in columns:
            numeric = is_numeric(schema, name)
            terms += [number_term(schema, name)] if numeric else _categories(schema, name, base)
        if wrong := [name for name in base if name not in columns or is_numeric(schema, name)]:
            raise ConfigError(
                f"a base category is given for {wrong[0]!r}, which is none of the question's "
                f"columns of categories; leave it out. Nothing was spent"
            )
        if len(terms) > MOST_TERMS:
            raise ConfigError(
                f"a question has {len(terms)} terms, its columns of numbers and categories "
                f"together; at most {MOST_TERMS} are answered. Nothing was spent"
            )
        return cls(tuple(terms))

    def matrix(self, records: Columns) -> tuple[FloatArray, BoolArray]:
        """x of some records, float64 (r, m), and which lack nothing, bool (r,); x of others is 0.

        Args:
            records: some of a site's.
        """
        known, columns = np.ones(len(records), dtype=np.bool_), []
        for term in self.terms:
            if not term.column:
                columns.append(np.ones(len(records)))
            elif term.code is not None:
                codes = records.codes(term.column)
                columns.append((codes == term.code).astype(np.float64))
                known &= codes < term.categories
            else:
                (low, high), values = term.ends, records.numbers(term.column)
                columns.append(2.0 * ((values - low) / (high - low)) - 1.0)
                known &= ~np.isnan(values)
        return np.where(known[:, None], np.stack(columns, axis=1), 0.0), known

    @cached_property
    def products(self) -> Products:
        """Which products are opened, p of them."""
        count = len(self.terms)
        column = np.array([term.column for term in self.terms])
        category = np.array([term.code is not None for term in self.terms])
        alike = (column[:, None] == column) & category
        first, second = np.nonzero(np.triu(~alike))
        place = np.full((count, count), len(first), dtype=np.int64)
        place[first, second] = place[second, first] = np.arange(len(first))
        squares = np.flatnonzero(category)
        place[squares, squares] = place[0, squares]
        return Products(first, second, place)

    def multiply(self, x: FloatArray) -> FloatArray:
        """The products of some records, float64 (r, p).

        Args:
            x: float64 (r, m).
        """
        return np.asarray(x[:, self.products.first] * x[:, self.products.second])

    def symmetric(self, sums: FloatArray) -> FloatArray:
        """The opened products as a matrix, float64 (m, m).

        Args:
            sums: float64 (p,).
        """
        return np.append(sums, 0.0)[self.products.place]

    @cached_property
    def longest(self) -> float:
        """The largest norm that x of any record has: each number at an end, no base category."""
        return sqrt(self._ones)

    @cached_property
    def largest(self) -> float:
        """The largest norm that the products of any record have."""
        columns = len({term.column for term in self.terms if term.code is not None})
        # All products of that record's ones, but for categories' squares, are opened.
        return sqrt(self._ones * (self._ones + 1) // 2 - columns)

    @property
    def _ones(self) -> int:
        return len({term.column for term in self.terms})

    def derivatives(self, vector: FloatArray) -> FloatArray:
        """d(M v)_i / d(product), float64 (m, p), M the products as a matrix.

        Args:
            vector: v, float64 (m,).
        """
        count = len(self.terms)
        found = np.zeros((count, len(self.products.first) + 1))
        rows = np.broadcast_to(np.arange(count)[:, None], (count, count))
        np.add.at(found, (rows, self.products.place), np.broadcast_to(vector, (count, count)))
        return found[:, :-1]

    @cached_property
    def own_units(self) -> FloatArray:
        """T, float64 (m, m): T @ coefficients of x are those of the columns in their own units."""
        found = np.diag([1.0 / term.half for term in self.terms])
        found[0] -= [term.middle / term.half for term in self.terms]
        return found


def is_numeric(schema: TableSchema, name: str) -> bool:
    """Whether a column is declared as one of numbers."""
    features = {each.name for each in schema.features if isinstance(each, NumericFeature)}
    of_target = name in schema.target.columns and schema.target.range_of(name) is not None
    return name in features or of_target


def number_term(schema: TableSchema, name: str) -> Term:
    """The term of a column of numbers.

    Raises:
        ConfigError: it has no declared range, or one that floats do not serve.
    """
    low, high = range_of(schema, name)
    if max(abs(low), abs(high)) > WIDEST or high - low < NARROWEST:
        raise ConfigError(
            f"the range [{low:g}, {high:g}] of {name!r} is too wide or too narrow for its "
            f"answers to be computed; declare ends within ±{WIDEST:g}, at least {NARROWEST:g} "
            "apart. Nothing was spent"
        )
    return Term(name, name, ends=(low, high))


def _categories(schema: TableSchema, name: str, base: Mapping[str, str]) -> Iterator[Term]:
    labels = categories_of(schema, name)
    left_out = base.get(name, labels[0])
    if left_out not in labels or len(labels) < 2:
        raise ConfigError(
            f"the categories of {name!r} are compared with {left_out!r}, and declared are "
            f"{', '.join(labels)}; name one of at least two. Nothing was spent"
        )
    for code, label in enumerate(labels):
        if label != left_out:
            yield Term(f"{name}: {label}", name, code, categories=len(labels))
