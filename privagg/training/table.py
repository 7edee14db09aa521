"""A table's public declaration: its features in order, its target, its rule for gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic import model_validator as after_model

from privagg.errors import DataError
from privagg.training.features import BoolArray, Feature, NumericFeature
from privagg.training.targets import AnyTarget, Encoded

if TYPE_CHECKING:
    import pandas as pd

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    target: AnyTarget
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
        for column in self.target.columns:
            if column in {feature.name for feature in self.features}:
                raise ValueError(f"column {column!r} is both a feature and the target")
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
    def source_columns(self) -> tuple[str, ...]:
        """Names of the table's columns that the declaration reads, features first."""
        return (*(feature.name for feature in self.features), *self.target.columns)

    def usable(self, frame: pd.DataFrame) -> BoolArray:
        """Which records take part, bool `(n,)`: with a target, and no gap if gaps drop out."""
        self.require_columns(frame)
        kept = self.target.known(self.target.read(frame))
        if self.drop_missing:
            for feature in self.features:
                column = frame[feature.name]
                if isinstance(feature, NumericFeature):
                    kept &= ~np.isnan(feature.numbers(column))
                else:
                    kept &= ~column.isna().to_numpy(dtype=np.bool_)
        return kept

    def encode(self, frame: pd.DataFrame) -> tuple[npt.NDArray[np.float32], Encoded]:
        """The table as a matrix and targets, record by record.

        Args:
            frame: the table; columns that are not declared are ignored.

        Returns:
            x float32 `(m, width)`, each column within its feature's scale, and y as the target
            reads them, for the m <= n records that are usable. A record's row depends on that
            record and this schema alone.

        Raises:
            DataError: a declared column is missing.
        """
        kept = frame.loc[self.usable(frame)]
        x = np.concatenate([f.encode(kept[f.name]) for f in self.features], axis=1)
        return x.astype(np.float32), self.target.read(kept)

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
