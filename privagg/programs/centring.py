"""Features' means, opened first and then taken off: what makes a linear model cheap to train.

A linear model's intercept and its features' means point the same way, and that direction is by far
the steepest: a rate that it bears is too small for all others, and records are long, so that the
clip is spent on what they have in common. So the first two rounds ask for mean gradients at two
intercepts far apart, b1 and b2, all weights 0. From one to the other they change by

    g(b1) - g(b2) = (p(b1) - p(b2)) * (mean of x, 1)

so that the ratio of the entries gives the means m, and the place where the last entry crosses 0 is
the intercept at which the model answers with the classes' shares. From there the sites train on
x - m beside a small constant c, whose weight is the intercept over c: so little of the clip goes to
what is nearly known (`privagg.training.models.Centre`). The part of the gradient that goes with
x - m is g_x - m g_b, which is the same at both openings, and so they give the first step as well.
Clipping shrinks a record's whole gradient, and a ratio of its entries bears that: m is then a mean
in which long records count less.

Nothing is charged beside the rounds: m follows from opened sums, and a record's gradient at a
public state is clipped as ever (proofs/sensitivity.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.programs.optimizers import packed, unpacked

PROBE = 4.0
"""The intercepts of the two openings, either way: 98 and 2 % for every record."""

LEAST_APART = 0.1
"""Part of the intercepts' move between the openings, as it is without clipping, that has to be left
in what was opened; where it is not, noise hides the means, and they count as 0."""

RAREST = 0.02
"""No class is taken to be rarer, or with k logits than a k-th of it: noise may say anything."""


class Centring:
    """The two openings before training, and what they told.

    Args:
        outputs: k, logits of the model: 1 for two classes.
        width: features. The parameters are a centre (width,) and weights (k, width + 1), the last
            one of each row the constant's.
        constant: the input that stands for the intercept, c.
    """

    def __init__(self, outputs: int, width: int, constant: float) -> None:
        self.outputs, self.width, self._constant = outputs, width, constant
        self._first: FloatVector | None = None
        self.done = False

    def begin(self) -> FloatVector:
        """The state of the first opening, float64 (d,), d = width + k * (width + 1)."""
        return self._probe(0)

    def probe(self, downhill: FloatVector) -> tuple[FloatVector, FloatVector | None]:
        """What one of the two openings gave.

        Args:
            downhill: float64 (d,), minus the opened mean gradient.

        Returns:
            The state of the second opening and None; or, after that, the state that training starts
            from and the direction downhill there, float64 (d - width,), of the weights.
        """
        if self._first is None:
            self._first = downhill.copy()
            return self._probe(1), None
        (x1, b1), (x2, b2) = self._split(self._first), self._split(downhill)
        apart, toward = b1 - b2, x1 - x2
        answers = [self._answers(self._intercepts(number)) for number in (0, 1)]
        least = LEAST_APART * (answers[1] - answers[0])
        square = float((apart**2).sum())
        told = square >= float((least**2).sum())
        means = (apart[:, None] * toward).sum(axis=0) / square if told else np.zeros(self.width)
        # A class whose entry hardly moved is taken at the first end.
        crossing = b1 / np.where(apart / least >= 1, apart, np.inf)
        rarest = RAREST / self.outputs
        shares = np.clip(answers[0] + (answers[1] - answers[0]) * crossing, rarest, 1 - rarest)
        self.done = True
        mean, intercept = (x1 + x2) / 2, (b1 + b2) / 2
        first = self._joined(mean - np.outer(intercept, means), np.zeros(self.outputs))
        start = self._joined(np.zeros_like(mean), self._answering(shares))
        return np.concatenate([means, start]), first

    def state(self) -> dict[str, Any]:
        """Everything needed to resume later, exact and safe for JSON."""
        return {"first": None if self._first is None else packed(self._first), "done": self.done}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned.

        Raises:
            ConfigError: it is damaged, or another model's.
        """
        text, done = state.get("first"), state.get("done")
        first = None if text is None else unpacked(text, "centring")
        length = self.width + self.outputs * (self.width + 1)
        if not isinstance(done, bool) or (first is not None and first.shape != (length,)):
            raise ConfigError(
                f"the state of the features' centring is damaged, or not of a model with {length} "
                "parameters; resume with the settings the run was started with"
            )
        self._first, self.done = first, done

    def _split(self, downhill: FloatVector) -> tuple[FloatVector, FloatVector]:
        """Weights' entries (k, width) and intercepts' (k,), as if the constant were 1."""
        rows = downhill[self.width :].reshape(self.outputs, self.width + 1)
        return rows[:, :-1], rows[:, -1] / self._constant

    def _joined(self, weights: FloatVector, intercepts: FloatVector) -> FloatVector:
        """The rows of weights that stand for these weights and intercepts, float64 (d - width,)."""
        rows = np.column_stack([weights, intercepts / self._constant]).reshape(-1)
        return np.asarray(rows, dtype=np.float64)

    def _probe(self, number: int) -> FloatVector:
        """The state of the first or second opening: all weights 0 but for the intercepts."""
        weights = np.zeros((self.outputs, self.width))
        return np.concatenate(
            [np.zeros(self.width), self._joined(weights, self._intercepts(number))]
        )

    def _intercepts(self, number: int) -> FloatVector:
        """Every other class's up and the others' down, then reversed, (k,)."""
        signs = 1.0 - 2.0 * ((np.arange(self.outputs) + number) % 2)
        return np.asarray(PROBE * signs, dtype=np.float64)

    def _answers(self, intercepts: FloatVector) -> FloatVector:
        """What a model without weights answers, (k,)."""
        if self.outputs == 1:
            return np.asarray(1 / (1 + np.exp(-intercepts)))
        raised = np.exp(intercepts - intercepts.max())
        return np.asarray(raised / raised.sum())

    def _answering(self, shares: FloatVector) -> FloatVector:
        """Intercepts at which a model without weights answers in these proportions, (k,)."""
        if self.outputs == 1:
            return np.asarray(np.log(shares / (1 - shares)))
        return np.asarray(np.log(shares) - np.log(shares).mean())
