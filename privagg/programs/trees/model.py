"""Finished trees as a file: their questions, their leaves, and what they make of a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from privagg.programs.modelfile import ModelFile
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.programs.tables.bins import Block, Cut, coded, offsets
from privagg.programs.trees.growing import State
from privagg.programs.trees.losses import loss_of
from privagg.programs.trees.structure import Forest
from privagg.training.table import TableSchema
from privagg.training.targets import Target

DIGITS = 6
"""Of a leaf."""

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ColumnBins(BaseModel):
    """The bins of a column.

    Args:
        column: its name.
        labels: of the bins, the last of what is missing.
        edges: between them, a value on an edge lies below it; None of categories.
        effects: for each output what each bin adds to the score by itself.
    """

    model_config = _FROZEN

    column: str
    labels: tuple[str, ...] = Field(min_length=2)
    edges: tuple[float, ...] | None = None
    effects: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        edges = self.edges
        if edges is not None and (
            len(edges) != len(self.labels) - 2 or sorted(set(edges)) != list(edges)
        ):
            raise ValueError("edges rise, one fewer than there are bins of values")
        if any(len(each) != len(self.labels) for each in self.effects):
            raise ValueError("effects are of each bin")
        return self

    @property
    def block(self) -> Block:
        """The same."""
        return Block((Cut(self.column, self.labels, self.edges, ordered=False),))


class TreeQuestions(BaseModel):
    """One tree.

    Args:
        columns: place of the column that each question is about, among `Trees.columns`.
        sides: of each question the answer for each bin, a string of 0 and 1.
        leaves: for each output its leaves; the number of a leaf is the answers as bits, the first
            question's the highest.
    """

    model_config = _FROZEN

    columns: tuple[int, ...] = Field(min_length=1, max_length=10)
    sides: tuple[str, ...]
    leaves: tuple[tuple[float, ...], ...]


class Trees(ModelFile):
    """Boosted trees as a file: whatever is needed to read a table by them and to say where from.

    A record's score is `base`, the effects of its bins and the leaves that it falls in, added up,
    for each output; an amount's is in parts of the largest residual, a hazard's one for all
    intervals.

    Args:
        format, run, plan_digest, data: as for `ModelFile`.
        columns: bins.
        base: where scores start.
        trees: questions and leaves.
    """

    what: ClassVar[str] = "the trees"

    format: Literal["privagg-boosted-trees/1"] = "privagg-boosted-trees/1"
    columns: tuple[ColumnBins, ...] = Field(min_length=1)
    base: tuple[float, ...]
    trees: tuple[TreeQuestions, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        loss, names = loss_of(self.data.target), [each.column for each in self.columns]
        if len(self.base) != loss.bases or names != [each.name for each in self.data.features]:
            raise ValueError("base and columns are those of the target and the declared columns")
        if any(len(each.effects) != loss.outputs for each in self.columns):
            raise ValueError(f"a bin has effects on each of {loss.outputs} outputs")
        sizes = [len(each.labels) for each in self.columns]
        for tree in self.trees:
            depth = len(self.trees[0].columns)
            if len(tree.columns) != depth or len(tree.sides) != depth:
                raise ValueError("all trees are equally deep, with sides of every question")
            for at, sides in zip(tree.columns, tree.sides, strict=True):
                if not 0 <= at < len(sizes) or len(sides) != sizes[at] or set(sides) - set("01"):
                    raise ValueError("sides are a 0 or a 1 for each bin of a column that is there")
            if [len(each) for each in tree.leaves] != [2**depth] * loss.outputs:
                raise ValueError(f"a tree has {2**depth} leaves for each of {loss.outputs} outputs")
        return self

    @classmethod
    def of(cls, data: TableSchema, blocks: Sequence[Block], forest: Forest, state: State) -> Self:
        """As a file.

        Args:
            data: as declared.
            blocks: bins of its columns.
            forest: questions.
            state: of as many trees as were grown.
        """
        columns = [
            ColumnBins(
                column=block.cuts[0].column, labels=block.cuts[0].labels,
                edges=block.cuts[0].edges, effects=_short(state.effects[:, at]),
            )
            for at, block in zip(offsets(blocks), blocks, strict=True)
        ]  # fmt: skip
        trees = [
            TreeQuestions(
                columns=tuple(asked.tolist()),
                sides=tuple(
                    "".join(map(str, each[: blocks[at].size].tolist()))
                    for at, each in zip(asked.tolist(), sides, strict=True)
                ),
                leaves=_short(leaves),
            )
            for asked, sides, leaves in zip(
                forest.columns, forest.sides, state.leaves, strict=False
            )
        ]
        base = _short(state.base[None])[0]
        return cls(data=data, columns=tuple(columns), base=base, trees=tuple(trees))

    def scores(self, records: Columns) -> FloatArray:
        """What each record's bins and leaves add up to, float64 (K, r)."""
        codes = coded([each.block for each in self.columns], records)
        found = np.zeros((loss_of(self.data.target).outputs, len(records)))
        for column, own in zip(self.columns, codes, strict=True):
            found += np.array(column.effects)[:, own]
        for tree in self.trees:
            place = np.zeros(len(records), dtype=np.int64)
            for at, sides in zip(tree.columns, tree.sides, strict=True):
                place = 2 * place + np.frombuffer(sides.encode(), np.uint8)[codes[at]] - ord("0")
            found += np.array(tree.leaves)[:, place]
        return found

    def predictions(self, records: Columns) -> FloatArray:
        """What is predicted of each record, float64 (r, n); `names` says what each number is."""
        loss = loss_of(self.data.target)
        return loss.predictions(np.array(self.base), self.scores(records)).T

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of a prediction is called: of two classes one, the second's chance."""
        target = self.data.target
        if isinstance(target, Target) and target.kind == "binary":
            return ("chance",)
        return target.prediction_names


def _short(values: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{each:.{DIGITS}g}") for each in row) for row in values.tolist())
