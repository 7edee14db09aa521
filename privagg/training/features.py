"""Public declarations of a table's inputs, and the encoding that follows from them alone.

Every number that shapes the encoding (range, category, fill value) is declared, so encoding a
record is a function of that record and of public facts. Nothing is fitted: a mean, a maximum or a
vocabulary taken from the data would be a release, and would let one record move all the others.
Inside a round nothing here refuses a record's value: values clamp, unknown categories encode to
zero, unusable records drop out one by one. `inspection.check_table` tells the owner all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)
from pydantic import model_validator as after_model

if TYPE_CHECKING:
    import pandas as pd

Category = str | int | float
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_ISO_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}([ T]|$)")


_log1p_each = np.frompyfunc(math.log1p, 1, 1)


def _log1p(values: npt.NDArray[np.float64] | np.float64) -> Any:
    """log(1 + v), each value by itself: vector kernels may round by a value's place."""
    return np.asarray(_log1p_each(values), dtype=np.float64)


DAYS_IN_A_YEAR = 365.2425

UNKNOWN = ("?",)
"""Categories of a column whose values nobody knows yet."""

TRUTH = {"true": 1.0, "false": 0.0}
"""The numbers that a boolean's text, in whatever letters, stands for in every file."""


def as_number(value: object) -> float | None:
    """The finite number that a value or its text stands for, or None; true is 1 and false 0."""
    if isinstance(value, str):
        value = value.strip()  # float() strips less, and `spelt` as much
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return TRUTH.get(value.lower()) if isinstance(value, str) else None
    return number if math.isfinite(number) else None


def numeric_values(column: pd.Series) -> FloatArray:
    """The column as numbers, NaN where a cell is missing or does not read as a finite number.

    Each cell is read by itself: what one record holds never changes how another one is read, not
    even in the last bit (a library's reader may choose integers or floats by the whole column).
    """
    if column.dtype.kind in "iufb":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)
    try:  # as `as_number` does where `float` reads every cell, in half the time
        values = np.fromiter(map(float, column), np.float64, len(column))
        return np.where(np.isfinite(values), values, np.nan)
    except (TypeError, ValueError, OverflowError):
        pass
    numbers = [as_number(cell) for cell in column]
    return np.array([np.nan if number is None else number for number in numbers], np.float64)


def days_since(column: pd.Series, since: date) -> FloatArray:
    """The column's dates as days since one, NaN where a cell is none; hours are parts of a day.

    A text is a date as ISO 8601 writes it, `2024-12-31` or `2024-12-31 07:30`. A time zone is not
    looked at: a day is what the cell says.
    """
    start = datetime.combine(since, time())
    return np.array([_days(cell, start) for cell in column], np.float64)


def _days(cell: object, start: datetime) -> float:
    if isinstance(cell, str):
        text = cell.strip()
        try:
            cell = datetime.fromisoformat(text) if _ISO_DATE.match(text) else None
        except ValueError:
            return math.nan
    elif isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime.combine(cell, time())
    if not isinstance(cell, datetime) or cell != cell:  # pandas' NaT is none
        return math.nan
    return (cell.replace(tzinfo=None) - start) / timedelta(days=1)


def equal_categories(column: pd.Series, categories: Sequence[Category]) -> list[BoolArray]:
    """Where a cell equals each of the declared categories.

    A category that reads as a number is compared as one, so that `1`, `1.0` and `True` are one
    category, whichever of them a file or a column with gaps happens to show. Others are texts,
    without outer blanks; `Yes` is `yes` unless two of the declared ones differ in nothing else.
    """
    numbers = [as_number(category) for category in categories]
    texts = [str(one).strip() for one, n in zip(categories, numbers, strict=True) if n is None]
    exact = len({text.casefold() for text in texts}) < len(texts)

    def as_compared(value: object) -> str:
        text = str(value).strip()
        return text if exact else text.casefold()

    # Cell by cell: a whole column of dates is spelt with hours as soon as one of them has some.
    cells = np.array([])
    if texts:
        there = ~column.isna().to_numpy(dtype=np.bool_)
        pairs = zip(there, column, strict=True)
        cells = np.array([as_compared(cell) if known else None for known, cell in pairs], object)
    values = numeric_values(column) if len(texts) < len(categories) else np.array([])
    return [
        np.asarray(
            cells == as_compared(category) if number is None else values == number, dtype=np.bool_
        )
        for category, number in zip(categories, numbers, strict=True)
    ]


def require_distinct(values: Sequence[Category], what: str) -> None:
    keys = [as_number(v) if as_number(v) is not None else str(v).strip() for v in values]
    if len(set(keys)) != len(keys):
        raise ValueError(f"{what} must differ from one another, got {list(values)}")


class NumericFeature(BaseModel):
    """A number scaled from its public range to [-scale, scale].

    Args:
        name: the column.
        range: lowest and highest value, in the column's own unit, from public knowledge. Values
            outside clamp to it.
        transform: `linear`, or `signed-log` for sign(v)·log(1 + |v|/log_unit) before scaling
            (amounts).
        log_unit: of `signed-log`: the amount, in the column's unit, around which the logarithm
            takes over from the straight line.
        scale: how much the feature counts: encoded values lie in [-scale, scale]. Under clipping
            and noise a feature that spreads further is learnt faster; choose it from public
            knowledge of what matters, never from the data.
        missing: value, in the column's unit, that stands for a missing cell; None is the middle
            of the encoded range, 0.
        not_measured: codes that mean "not measured" in this column; filled like a missing cell,
            but never a reason to drop the record.
        indicator: adds a column that is `scale` where the cell was missing or not measured.
        since: the cells are dates, and the number is the time since this public day; range and
            the other settings are in that unit.
        date_unit: of such a number; a year has 365.2425 days.
    """

    model_config = _FROZEN

    name: str = Field(min_length=1)
    range: tuple[float, float]
    transform: Literal["linear", "signed-log"] = "linear"
    log_unit: float = Field(default=1.0, gt=0)
    scale: float = Field(default=1.0, gt=0)
    missing: float | None = None
    not_measured: tuple[float, ...] = ()
    indicator: bool = False
    since: date | None = None
    date_unit: Literal["days", "years"] = "days"

    @model_serializer(mode="wrap")
    def _dates_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans pin what is declared: of a column that holds no dates, nothing about dates."""
        facts: dict[str, Any] = dump(self)
        if self.since is None:
            facts = {name: facts[name] for name in facts if name not in ("since", "date_unit")}
        return facts

    @after_model(mode="after")
    def _ordered(self) -> Self:
        low, high = self.range
        if not low < high:
            raise ValueError(f"range of {self.name!r} must have low < high, got [{low}, {high}]")
        if self.transform == "linear" and self.log_unit != 1.0:
            raise ValueError(
                f"log_unit of {self.name!r} belongs to the transform 'signed-log'; add the "
                "transform or leave log_unit out"
            )
        if self.since is None and self.date_unit != "days":
            raise ValueError(
                f'date_unit of {self.name!r} belongs to dates; add since = "2000-01-01", the '
                "public day that they are counted from, or leave date_unit out"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name, f"{self.name}=missing") if self.indicator else (self.name,)

    def numbers(self, column: pd.Series) -> FloatArray:
        """The cells as numbers, codes included, float64 `(n,)`; NaN where one does not read so."""
        if self.since is None:
            return numeric_values(column)
        days = days_since(column, self.since)
        return days if self.date_unit == "days" else days / DAYS_IN_A_YEAR

    def read(self, column: pd.Series) -> FloatArray:
        """The column in its own unit, float64 `(n,)`; NaN where missing or not measured."""
        values = self.numbers(column)
        return np.where(np.isin(values, self.not_measured), np.nan, values)

    def encode(self, column: pd.Series) -> FloatArray:
        """The encoded columns, float64 `(n, len(columns))`, every value in [-scale, scale]."""
        values = self.read(column)
        absent = np.isnan(values)
        there = self.position(np.where(absent, self.range[0], values))
        placed = np.where(absent, self.filled, there)
        columns = np.column_stack([placed, absent] if self.indicator else [placed])
        return np.asarray(self.scale * columns.astype(np.float64))

    @property
    def filled(self) -> float:
        """What stands for a missing cell, from -1 to 1."""
        return 0.0 if self.missing is None else float(self.position(np.float64(self.missing)))

    def position(self, values: npt.NDArray[np.float64] | np.float64) -> FloatArray:
        """Where values lie in the public range, from -1 at its low end to 1 at its high end."""
        low, high = (self.transformed(np.float64(bound)) for bound in self.range)
        position = (self.transformed(values) - low) / (high - low)
        return np.asarray(np.clip(2.0 * position - 1.0, -1.0, 1.0))

    def transformed(self, values: npt.NDArray[np.float64] | np.float64) -> Any:
        """Values on the declared scale, on which the range is cut into equal steps."""
        if self.transform == "linear":
            return values
        return np.sign(values) * _log1p(np.abs(values) / self.log_unit)


class CategoricalFeature(BaseModel):
    """A choice among public categories, one-hot; a cell that is none of them is all zero.

    Args:
        name: the column.
        categories: the values, in the order of the encoded columns; numbers match as numbers
            (`1`, `1.0`, `"1"` and `True` are one category), everything else as text without outer
            blanks, in capital or small letters unless two categories differ in nothing else.
        drop_first: leaves out the first category's column, so that it encodes as all zero.
        scale: what a category's own column holds, in place of 1; see `NumericFeature.scale`.
    """

    model_config = _FROZEN

    name: str = Field(min_length=1)
    categories: tuple[Category, ...] = Field(min_length=1)
    drop_first: bool = False
    scale: float = Field(default=1.0, gt=0)

    @after_model(mode="after")
    def _distinct(self) -> Self:
        require_distinct(self.categories, f"categories of {self.name!r}")
        if self.drop_first and len(self.categories) < 2:
            raise ValueError(f"{self.name!r} drops its only category; nothing is left to encode")
        return self

    @property
    def encoded_categories(self) -> tuple[Category, ...]:
        """The categories that have a column of their own."""
        return self.categories[1:] if self.drop_first else self.categories

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return tuple(f"{self.name}={category}" for category in self.encoded_categories)

    def encode(self, column: pd.Series) -> FloatArray:
        """The encoded columns, float64 `(n, len(columns))`, zeros and `scale`."""
        hot = equal_categories(column, self.categories)[1 if self.drop_first else 0 :]
        return np.asarray(self.scale * np.column_stack(hot).astype(np.float64))


def _feature_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "categorical" if "categories" in value else "numeric"
    return "categorical" if isinstance(value, CategoricalFeature) else "numeric"


Feature = Annotated[
    Annotated[NumericFeature, Tag("numeric")] | Annotated[CategoricalFeature, Tag("categorical")],
    Discriminator(_feature_kind),
]
