"""Public declarations of a table's columns, and the encoding that follows from them alone.

Every number that shapes the encoding (range, category, fill value) is declared, so encoding a
record is a function of that record and of public facts. Nothing is fitted: a mean, a maximum or a
vocabulary taken from the data would be a release, and would let one record move all the others.
Inside a round nothing here refuses a record's value: values clamp, unknown categories encode to
zero, unusable records drop out one by one. `inspection.check_table` tells the owner all of it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator
from pydantic import model_validator as after_model

from privagg.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Category = str | int | float
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_RULE = re.compile(r"^\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


_log1p_each = np.frompyfunc(math.log1p, 1, 1)


def _log1p(values: npt.NDArray[np.float64] | np.float64) -> Any:
    """log(1 + v), each value by itself: vector kernels may round by a value's place."""
    return np.asarray(_log1p_each(values), dtype=np.float64)


TRUTH = {"true": 1.0, "false": 0.0}
"""The numbers that a boolean's text, in whatever letters, stands for in every file."""


def _as_number(value: object) -> float | None:
    """The finite number that a value or its text stands for, or None; true is 1 and false 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return TRUTH.get(value.strip().lower()) if isinstance(value, str) else None
    return number if math.isfinite(number) else None


def numeric_values(column: pd.Series) -> FloatArray:
    """The column as numbers, NaN where a cell is missing or does not read as a finite number.

    Each cell is read by itself: what one record holds never changes how another one is read, not
    even in the last bit (a library's reader may choose integers or floats by the whole column).
    """
    if column.dtype.kind in "iufb":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)
    numbers = [_as_number(cell) for cell in column]
    return np.array([np.nan if number is None else number for number in numbers], np.float64)


def equal_categories(column: pd.Series, categories: Sequence[Category]) -> list[BoolArray]:
    """Where a cell equals each of the declared categories.

    A category that reads as a number is compared as one, so that `1`, `1.0` and `True` are one
    category, whichever of them a file or a column with gaps happens to show. Others are texts,
    without outer blanks; `Yes` is `yes` unless two of the declared ones differ in nothing else.
    """
    texts = [str(category).strip() for category in categories if _as_number(category) is None]
    exact = len({text.casefold() for text in texts}) < len(texts)
    return [_equals(column, category, exact=exact) for category in categories]


def _equals(column: pd.Series, category: Category, *, exact: bool) -> BoolArray:
    number = _as_number(category)
    if number is not None:
        return np.asarray(numeric_values(column) == number, dtype=np.bool_)

    def as_compared(value: object) -> str:
        text = str(value).strip()
        return text if exact else text.casefold()

    # Cell by cell: a whole column of dates is spelt with hours as soon as one of them has some.
    text = as_compared(category)
    present = ~column.isna().to_numpy(dtype=np.bool_)
    same = [
        there and as_compared(cell) == text for there, cell in zip(present, column, strict=True)
    ]
    return np.array(same, dtype=np.bool_)


def _require_distinct(values: Sequence[Category], what: str) -> None:
    keys = [_as_number(v) if _as_number(v) is not None else str(v).strip() for v in values]
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
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns."""
        return (self.name, f"{self.name}=missing") if self.indicator else (self.name,)

    def read(self, column: pd.Series) -> FloatArray:
        """The column in its own unit, float64 `(n,)`; NaN where missing or not measured."""
        values = numeric_values(column)
        return np.where(np.isin(values, self.not_measured), np.nan, values)

    def encode(self, column: pd.Series) -> FloatArray:
        """The encoded columns, float64 `(n, len(columns))`, every value in [-scale, scale]."""
        values = self.read(column)
        absent = np.isnan(values)
        fill = 0.0 if self.missing is None else float(self._position(np.float64(self.missing)))
        placed = np.where(absent, fill, self._position(np.where(absent, self.range[0], values)))
        columns = np.column_stack([placed, absent] if self.indicator else [placed])
        return np.asarray(self.scale * columns.astype(np.float64))

    def _position(self, values: npt.NDArray[np.float64] | np.float64) -> FloatArray:
        """Where values lie in the public range, from -1 at its low end to 1 at its high end."""
        low, high = (self._transform(np.float64(bound)) for bound in self.range)
        position = (self._transform(values) - low) / (high - low)
        return np.asarray(np.clip(2.0 * position - 1.0, -1.0, 1.0))

    def _transform(self, values: npt.NDArray[np.float64] | np.float64) -> Any:
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
        _require_distinct(self.categories, f"categories of {self.name!r}")
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


class Target(BaseModel):
    """What the model predicts: yes or no by a public rule, or one of several public classes.

    Args:
        name: the column.
        kind: `binary` or `multiclass`; by default what the number of `classes` says.
        positive: for `binary`: a rule such as `">0"`, `"==yes"`, `"!=0"`, or the value(s) that
            count as positive. A cell that the rule can be applied to is 0 or 1.
        classes: for `multiclass`: the values in the order of the class numbers. For `binary`
            optional: the only two values allowed, negative first, instead of `positive`.
    """

    model_config = _FROZEN

    name: str = Field(min_length=1)
    kind: Literal["binary", "multiclass"] = "binary"
    positive: Category | tuple[Category, ...] | None = None
    classes: tuple[Category, ...] | None = None

    @after_model(mode="before")
    @classmethod
    def _kind_of_classes(cls, values: Any) -> Any:
        classes = values.get("classes") if isinstance(values, Mapping) else None
        if isinstance(classes, list | tuple) and len(classes) > 2:
            return {"kind": "multiclass", **values}
        return values

    @after_model(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "multiclass":
            if self.positive is not None or self.classes is None or len(self.classes) < 3:
                raise ValueError(
                    f"multiclass target {self.name!r} takes `classes` with at least 3 values and "
                    "no `positive`; with two values use kind 'binary'"
                )
        elif (self.positive is None) == (self.classes is None):
            raise ValueError(
                f"binary target {self.name!r} takes either `positive` (a rule such as '>0', or the "
                "positive values) or `classes` (negative value, positive value); for several "
                "classes list them all: classes = ['mild', 'moderate', 'severe']"
            )
        elif self.classes is not None and len(self.classes) != 2:
            raise ValueError(
                f"binary target {self.name!r} takes 2 classes, got {self.classes}; with more than "
                "two write kind = 'multiclass' or leave `kind` out"
            )
        if self.classes is not None:
            _require_distinct(self.classes, f"classes of {self.name!r}")
        self._ordering_rule()
        return self

    @property
    def class_count(self) -> int:
        """Number of classes; 2 for `binary`."""
        return 2 if self.kind == "binary" or self.classes is None else len(self.classes)

    def encode(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """The class numbers, int64 `(n,)`; -1 where the cell is missing or no class at all."""
        if self.classes is not None:
            labels = np.full(len(column), -1, dtype=np.int64)
            for number, equal in enumerate(equal_categories(column, self.classes)):
                labels[equal] = number
            return labels
        present = ~column.isna().to_numpy(dtype=np.bool_)
        rule = self._ordering_rule()
        if rule is not None:
            sign, threshold = rule
            values = numeric_values(column)
            present = ~np.isnan(values)
            positive = np.asarray(_COMPARE[sign](np.where(present, values, 0.0), threshold))
        else:
            positive = self._equality(column)
        return np.where(present, positive.astype(np.int64), np.int64(-1))

    def _equality(self, column: pd.Series) -> BoolArray:
        if isinstance(self.positive, str) and (rule := _RULE.match(self.positive)):
            (found,) = equal_categories(column, (rule[2],))
            return ~found if rule[1] == "!=" else found
        values = self.positive if isinstance(self.positive, tuple) else (self.positive,)
        given = [value for value in values if value is not None]
        return np.asarray(np.any(equal_categories(column, given), axis=0), dtype=np.bool_)

    def _ordering_rule(self) -> tuple[str, float] | None:
        if not isinstance(self.positive, str):
            return None
        rule = _RULE.match(self.positive)
        if rule is None or rule[1] not in _COMPARE:
            return None
        threshold = _as_number(rule[2])
        if threshold is None:
            raise ValueError(
                f"rule {self.positive!r} of {self.name!r} needs a number after {rule[1]}; if "
                f"{self.positive!r} is itself a value of the column, write '== {self.positive}'"
            )
        return rule[1], threshold


def _feature_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "categorical" if "categories" in value else "numeric"
    return "categorical" if isinstance(value, CategoricalFeature) else "numeric"


Feature = Annotated[
    Annotated[NumericFeature, Tag("numeric")] | Annotated[CategoricalFeature, Tag("categorical")],
    Discriminator(_feature_kind),
]


class TableSchema(BaseModel):
    """The public declaration of a table: its features in order, its target, its rule for gaps.

    Args:
        features: declarations in the order of the encoded columns.
        target: what is predicted.
        drop_missing: leaves out a record with a missing cell in any declared column instead of
            filling it. Whether a record stays depends on that record alone.
    """

    model_config = _FROZEN

    features: tuple[Feature, ...] = Field(min_length=1)
    target: Target
    drop_missing: bool = False

    @field_validator("features")
    @classmethod
    def _distinct_names(cls, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        names = [feature.name for feature in features]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"features declared more than once: {', '.join(repeated)}")
        return features

    @after_model(mode="after")
    def _target_apart(self) -> Self:
        if self.target.name in {feature.name for feature in self.features}:
            raise ValueError(f"column {self.target.name!r} is both a feature and the target")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded feature columns, in order."""
        return tuple(name for feature in self.features for name in feature.columns)

    @property
    def width(self) -> int:
        """Number of encoded feature columns."""
        return len(self.columns)

    @property
    def class_count(self) -> int:
        """Number of classes of the target; 2 for a binary one."""
        return self.target.class_count

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Names of the table's columns that the declaration reads, features first."""
        return (*(feature.name for feature in self.features), self.target.name)

    def usable(self, frame: pd.DataFrame) -> BoolArray:
        """Which records take part, bool `(n,)`: those with a class, and no gap if gaps drop out."""
        self.require_columns(frame)
        kept = self.target.encode(frame[self.target.name]) >= 0
        if self.drop_missing:
            for feature in self.features:
                column = frame[feature.name]
                if isinstance(feature, NumericFeature):
                    kept &= ~np.isnan(numeric_values(column))
                else:
                    kept &= ~column.isna().to_numpy(dtype=np.bool_)
        return kept

    def encode(self, frame: pd.DataFrame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The table as a matrix and class numbers, record by record.

        Args:
            frame: the table; columns that are not declared are ignored.

        Returns:
            x float32 `(m, width)`, each column within its feature's scale, and y int64 `(m,)`,
            for the m <= n records that are usable. A record's row depends on that record and
            this schema alone.

        Raises:
            DataError: a declared column is missing.
        """
        kept = frame.loc[self.usable(frame)]
        x = np.concatenate([f.encode(kept[f.name]) for f in self.features], axis=1)
        return x.astype(np.float32), self.target.encode(kept[self.target.name])

    def require_columns(self, frame: pd.DataFrame, *, source: str = "the table") -> None:
        """Raises DataError, naming the table's source, where a declared column is missing."""
        present = [str(name) for name in frame.columns]
        missing = [name for name in self.source_columns if name not in present]
        if missing:
            raise DataError(
                f"column(s) {', '.join(map(repr, missing))} declared but not in {source}, which "
                f"has: {', '.join(present)}; rename the column or correct the declaration"
            )
        repeated = sorted({name for name in self.source_columns if present.count(name) > 1})
        if repeated:
            raise DataError(
                f"column(s) {', '.join(map(repr, repeated))} appear more than once in {source}; "
                "keep one of each"
            )
