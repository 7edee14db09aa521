"""One card of a scorecard: what records add to its part of an opening, and what it is after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from privagg.programs.questions.columns import Codes, FloatArray
from privagg.programs.scorecard import adding, fitting
from privagg.programs.scorecard.finishing import Finished
from privagg.programs.scorecard.fitting import State
from privagg.programs.tables.bins import Block, offsets

COUNTS, PRODUCTS, SCORES, CALIBRATION = "counts", "products", "scores", "calibration"
"""Kinds of openings."""


class Part(NamedTuple):
    """A card's part of an opening.

    Attributes:
        kind: of the opening.
        opened: float64 (n,): of counts, label 0 and then label 1, in records; scores in records
            too; of products the rows' sum; of calibration counts by bin of the score.
        stddev: of the noise of each; of counts, of each of label 1.
        who: stands for those whose records are in it.
    """

    kind: str
    opened: FloatArray
    stddev: float
    who: float


@dataclass(frozen=True)
class Learning:
    """How a card is learned.

    Attributes:
        blocks: of bins.
        rising: of each block 1 where the chance may only rise, -1 where it may only fall, else 0.
        others: classes that label 0 stands for.
    """

    blocks: tuple[Block, ...]
    rising: tuple[int, ...]
    others: int

    def rows(self, kind: str, now: State, records: adding.Learnt) -> FloatArray:
        """What each record adds to the card's part, of norm 1 at most: float64 (r, n).

        Args:
            kind: of the opening, products or calibration.
            now: the card's public state.
            records: as the card reads them.
        """
        if kind == PRODUCTS:
            return adding.product_rows(records, self._table(now.values), now.share)
        return adding.calibration_rows(records, self._table(now.effects), now.share)

    def cells(self, now: State, records: adding.Learnt) -> tuple[Codes, FloatArray]:
        """The same of an opening of scores: where, (r, F), and how much in each block, (r, 1).

        Args:
            now, records: as for `rows`.
        """
        return adding.score_cells(records, self._table(now.effects), self.sizes, now.share)

    def after(self, now: State | None, part: Part) -> State:
        """The card after an opening.

        An opening of scores in which other sites are than in the counts says nothing of these: the
        card stays as it was.

        Args:
            now: before it; of counts nothing is asked.
            part: what was opened of it.
        """
        kind, opened, stddev, who = part
        if kind == COUNTS or now is None:
            first = fitting.after_counts(self.blocks, self.rising, opened, stddev, self.others)
            return first._replace(who=who)
        if kind == PRODUCTS:
            return fitting.after_products(self.blocks, now, opened, stddev)
        if kind == SCORES and now.who == who:
            return fitting.after_scores(
                self.blocks, self.rising, now, opened, stddev, self.others
            )  # fmt: skip
        return now

    def finished(self, parts: Sequence[Part]) -> Finished:
        """The card after these openings, the first of a job.

        Args:
            parts: of each opening.
        """
        state: State | None = None
        variances, calibration = np.zeros((2, 0)), None
        for part in parts:
            before, state = state, self.after(state, part)
            if part.kind == CALIBRATION:
                calibration = (part.opened, part.stddev)
            elif before is None:
                variances = fitting.evidence_variances(self.blocks, state, self.others)
            elif part.kind == SCORES:
                variances = fitting.score_variances(
                    self.blocks, before, part.opened, part.stddev, self.others
                )
            else:
                variances = variances * self._weights(before, state) ** 2
        assert state is not None  # whoever asks has an opening
        return Finished(state, variances, calibration, len(parts))

    @cached_property
    def sizes(self) -> list[int]:
        """Bins of each block."""
        return [block.size for block in self.blocks]

    def _weights(self, before: State, after: State) -> FloatArray:
        """What opening 2 multiplied each bin's evidence by, float64 (K,)."""
        found = np.zeros(len(after.effects))
        for at in offsets(self.blocks):
            size = float(np.abs(before.effects[at]).max())
            found[at] = float(np.abs(after.effects[at]).max()) / size if size > 0 else 0.0
        return found

    def _table(self, values: FloatArray) -> Sequence[FloatArray]:
        return [values[at] for at in offsets(self.blocks)]
