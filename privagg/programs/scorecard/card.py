"""A finished scorecard: points a bin, what they make of a record, and the card as a file.

Points are read by people, so a card *is* its points, to one decimal: whoever adds them up by hand,
by this module or by the SQL that it writes gets the same sum.

Source: Siddiqi 2006, "Credit risk scorecards": base odds and points to double the odds; reasons as
the points that an applicant lacks to the best bin of each column.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from privagg.errors import ConfigError, validation_faults
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.questions.logistic import exponentials
from privagg.programs.tables.bins import Block, Cut
from privagg.training.table import TableSchema
from privagg.training.targets import Regression

DECIMALS = 1
"""Of points."""

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scaling(BaseModel):
    """How log-odds become points.

    Args:
        points: of a record whose odds are `odds`.
        odds: to one, in favour of what points stand for.
        double: points that double the odds.
        of: what more points stand for: `no`, the second class not happening, as banks count; `yes`,
            its happening, or a larger amount. By default `no` of two classes, else `yes`.
    """

    model_config = _FROZEN

    points: float = Field(default=600.0, ge=-1e6, le=1e6)
    odds: float = Field(default=50.0, gt=0, le=1e6)
    double: float = Field(default=20.0, gt=0, le=1e4)
    of: Literal["yes", "no"] | None = None

    def per_logit(self, up: bool) -> float:
        """Points a logit of the class that is told apart, or of an amount's place in its range.

        Args:
            up: whether more points stand for it where `of` does not say.
        """
        up = self.of == "yes" or (self.of is None and up)
        return (1 if up else -1) * self.double / log(2)

    def start(self, logit: float, up: bool) -> float:
        """Points of a record with this logit."""
        return self.points - self.double / log(2) * log(self.odds) + self.per_logit(up) * logit


class CardBlock(BaseModel):
    """Points of the bins of a column, or of a pair of columns.

    Args:
        columns: one or two.
        labels: of each column's bins, the last of what is missing.
        edges: of each column between its bins, a value on an edge lies below it; None of
            categories.
        points: of each bin; of a pair, all bins of the second for each of the first.
    """

    model_config = _FROZEN

    columns: tuple[str, ...] = Field(min_length=1, max_length=2)
    labels: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[float, ...] | None, ...]
    points: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sizes = [len(labels) for labels in self.labels]
        if len(sizes) != len(self.columns) or len(self.edges) != len(sizes):
            raise ValueError("labels and edges are of each column")
        if int(np.prod(sizes)) != len(self.points):
            raise ValueError(f"{len(self.points)} points for {int(np.prod(sizes))} bins")
        for edges, size in zip(self.edges, sizes, strict=True):
            if edges is not None and (len(edges) != size - 2 or sorted(set(edges)) != list(edges)):
                raise ValueError("edges rise, one fewer than there are bins of values")
        return self

    @classmethod
    def of(cls, block: Block, points: FloatArray) -> Self:
        """Of a block with the points of its bins, float64 (size,)."""
        return cls(
            columns=tuple(cut.column for cut in block.cuts),
            labels=tuple(cut.labels for cut in block.cuts),
            edges=tuple(cut.edges for cut in block.cuts),
            points=tuple(points.tolist()),
        )

    @property
    def block(self) -> Block:
        """Its bins."""
        each = zip(self.columns, self.labels, self.edges, strict=True)
        return Block(tuple(Cut(*facts, ordered=False) for facts in each))


class Card(BaseModel):
    """A scorecard as a file: whatever is needed to read a table by it and to say where it is from.

    Args:
        format: of the file.
        run: that made it.
        plan_digest: of the plan that every site agreed to.
        data: the columns that it was made of, as declared, and its target.
        label: of several classes, the one that it tells from all others.
        scaling: of the points.
        start: points that every record has.
        blocks: points by bin.
        openings: sums that it rests on.
    """

    model_config = _FROZEN

    format: Literal["privagg-scorecard/1"] = "privagg-scorecard/1"
    run: str = ""
    plan_digest: str = ""
    data: TableSchema
    label: str | None = None
    scaling: Scaling
    start: float
    blocks: tuple[CardBlock, ...] = Field(min_length=1)
    openings: int = Field(ge=1)

    @model_serializer(mode="wrap")
    def _no_label_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A card of two classes, or of an amount, looks as it did before there were others."""
        facts: dict[str, Any] = handler(self)
        return {k: v for k, v in facts.items() if (k, v) != ("label", None)}

    @model_validator(mode="after")
    def _of_its_columns(self) -> Self:
        known = {feature.name for feature in self.data.features}
        if strange := {each for block in self.blocks for each in block.columns} - known:
            raise ValueError(f"points of columns that are not declared: {sorted(strange)}")
        return self

    @classmethod
    def read(cls, facts: Any) -> Self:
        """A card from the JSON values of its file; whoever wrote it.

        Args:
            facts: those of a card, or of an `answers.json` with one.

        Raises:
            ConfigError: they are none.
        """
        inside = facts.get("model") if isinstance(facts, dict) and "answers" in facts else facts
        if isinstance(inside, dict) and "cards" in inside:
            raise ConfigError(
                "this file holds a card for each of several classes; `privagg predict` reads it, "
                "and `privagg.programs.scorecard.cards.Cards`"
            )
        if inside is None:
            raise ConfigError('these answers hold no model; ask program = "scorecard" for one')
        try:
            return cls.model_validate(inside)
        except ValidationError as error:
            raise ConfigError(validation_faults(error, whole="the scorecard")) from error

    @property
    def is_amount(self) -> bool:
        """Whether an amount is predicted."""
        return isinstance(self.data.target, Regression)

    @property
    def counts_up(self) -> bool:
        """Whether more points stand for what is predicted, where the scaling does not say."""
        return self.is_amount or self.label is not None

    def parts(self, records: Columns) -> FloatArray:
        """The points of each record in each block, float64 (r, F)."""
        found = [np.array(each.points)[each.block.codes(records)] for each in self.blocks]
        return np.stack(found, axis=1)

    def points(self, records: Columns) -> FloatArray:
        """The points of each record, float64 (r,)."""
        return np.asarray(np.round(self.start + self.parts(records).sum(axis=1), DECIMALS))

    def predictions(self, records: Columns) -> FloatArray:
        """The chance of the second class or of the card's, or the expected amount: float64 (r,)."""
        nothing = self.scaling.start(0.0, self.counts_up)
        logits = (self.points(records) - nothing) / self.scaling.per_logit(self.counts_up)
        chance = np.asarray(1 / (1 + exponentials(-np.clip(logits, -500, 500))))
        target = self.data.target
        if isinstance(target, Regression):
            low, high = target.range
            return np.asarray(low + (high - low) * chance)
        return chance

    def reasons(self, records: Columns, most: int) -> list[list[tuple[str, float]]]:
        """What costs each record most points: column (or pair), and points that it lacks.

        Args:
            records: some.
            most: reasons of each, at most; none where a record has the best bin.
        """
        best = np.array([max(each.points) for each in self.blocks])
        lacks = np.round(best - self.parts(records), DECIMALS)
        names = [" × ".join(each.columns) for each in self.blocks]
        order = np.argsort(-lacks, axis=1, kind="stable")[:, :most]
        return [
            [(names[at], float(row[at])) for at in places if row[at] > 0]
            for row, places in zip(lacks, order.tolist(), strict=True)
        ]


def as_points(effects: Sequence[FloatArray], scaling: Scaling, up: bool) -> list[FloatArray]:
    """Points of bins, float64 (K,) each.

    Args:
        effects: in logits, by block.
        scaling: of the points.
        up: as for `Scaling.per_logit`.
    """
    return [np.round(each * scaling.per_logit(up), DECIMALS) + 0.0 for each in effects]
