"""Contribution scores: what each half of the sites improved, regressed on who was in it.

A round asks a publicly drawn half of the sites or fewer, as any client-level round with a cohort
does: its sum has all of its noise, and each site in it is charged. Its score is by how much the
mean update lowers the loss on the table declared public, from the round's model. Least squares of
the scores, centred, on membership gives each site a score; all of it is post-processing of what
was opened, so that it costs nothing besides.

The loss is that of outputs shifted to the table's own mix (`shifted_loss`): a site whose classes
are mixed otherwise, say a ward where everybody is ill, does no harm by that alone, and would be
taken for one with wrong labels. What a round improves falls as training goes on; the regression
lets it fall as 1/t and 1/t², or whoever was asked early would have the credit.

An update under which the loss is no finite number scores as the worst of the rounds that have one:
whoever breaks a model does not leave the ranking by it. A round that starts from a model whose loss
is none tells nothing of its sites and is not scored.

A score says what a site adds to this public table, as a Shapley value does. Whole-batch local steps
(`training.local_batch_size` of all records) follow such values closest. It is no proof of wrong
labels: a large site with many of them may add more than a small one without.

Leaving one out is refused: a sum of all and one of all but one differ by one site's update.

Source: Ghorbani & Zou, "Data Shapley", ICML 2019 (the question); Covert & Lee, "Improving
    KernelSHAP", AISTATS 2021 (values as a regression over coalitions); Wang, Rausch, Zhang, Jia &
    Song, "A principled approach to data valuation for federated learning", 2020 (each round's own
    coalitions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.programs.gradient import GradientTraining
from privagg.programs.program import Opened, Result
from privagg.training.evaluate import shifted_loss

Score = tuple[tuple[str, ...], float | None]
"""Whose sum it was, and by how much it lowered the public loss; None: to no finite number."""


class Halves(GradientTraining):
    """Training whose rounds are scored by who was in them.

    Args:
        *args, **options: as for `GradientTraining`; a public table has to be among them.
        sites: every site's name, in the plan's order.
    """

    def __init__(self, *args: Any, sites: Sequence[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._sites, self._scores = tuple(sites), list[Score]()

    def fold(self, state: FloatVector, opened: Opened) -> FloatVector:
        """See `Program.fold`: the sum is scored from the state that it was asked with."""
        before = self._shifted_loss(state)
        if isfinite(before):
            lowered = before - self._shifted_loss(state + opened.update)
            score = lowered if isfinite(lowered) else None
            self._scores.append((opened.contributors, score))
        return super().fold(state, opened)

    def _shifted_loss(self, parameters: FloatVector) -> float:
        if self._public is None or self._loss is None:
            return nan
        return shifted_loss(self._model, parameters, self._public, self._loss)

    def figures(self, state: FloatVector) -> Mapping[str, float]:
        """See `Program.figures`: and each site's score so far."""
        return {**super().figures(state), **self.contributions}

    def release(self, parameters: FloatVector, output: Path, *, measured: bool) -> Result:
        """See `GradientTraining.release`: with each site's score among the figures."""
        found = super().release(parameters, output, measured=measured)
        return replace(found, figures={**found.figures, **self.contributions})

    @property
    def contributions(self) -> dict[str, float]:
        """`contribution_SITE` -> its score; empty before there is a round to score by."""
        if not self._scores:
            return {}
        found = scores_of(self._sites, self._scores)
        return {f"contribution_{site}": value for site, value in found.items()}

    def kept(self) -> dict[str, Any]:
        """See `Program.kept`: and the scored rounds."""
        scores = [{"sites": list(sites), "score": score} for sites, score in self._scores]
        return {**super().kept(), "scores": scores}

    def resume(self, kept: Mapping[str, Any]) -> None:
        """See `Program.resume`."""
        own = dict(kept)
        try:
            self._scores = [
                (tuple(map(str, each["sites"])), _read(each["score"])) for each in own.pop("scores")
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the journal keeps no scored rounds: {error}") from error
        super().resume(own)


def scores_of(sites: Sequence[str], rounds: Sequence[Score]) -> dict[str, float]:
    """A score for each site: the least squares of rounds' scores on who was in them.

    Args:
        sites: in order; a site that was in no round scores 0.
        rounds: who was in each, in order, and its score; None is the worst of the others, or 0.

    Returns:
        Site -> by how much its being in a round raises the round's score, against the mean site;
        of several solutions the shortest. The scores add to zero.
    """
    member = np.array([[float(site in names) for site in sites] for names, _ in rounds])
    shares = member / member.sum(axis=1, keepdims=True)
    if len(rounds) >= 2 * (len(sites) + 2):  # fewer could be told by their order alone
        at = np.arange(1.0, len(rounds) + 1)
        shares = np.column_stack([shares, 1 / at, 1 / at**2])
    worst = min((score for _, score in rounds if score is not None), default=0.0)
    score = np.array([worst if score is None else score for _, score in rounds])
    found, *_ = np.linalg.lstsq(shares, score - score.mean(), rcond=None)
    found = found[: len(sites)] - found[: len(sites)].mean()
    return dict(zip(sites, map(float, found), strict=True))


def _read(score: Any) -> float | None:
    """A kept score.

    Raises:
        ValueError: it is no finite number.
    """
    if score is None:
        return None
    if not isfinite(found := float(score)):
        raise ValueError(f"a score of {found}")
    return found
