"""Labels of public queries by votes: a program over shards for privagg.

Every site deals its records to s shards. A logistic model is fitted in each shard, from its own
records alone, and votes for one class of every one of m public queries. Opened are the noised votes
of all K = s · sites shards together: which class the models agree on, query by query (PATE:
Papernot et al., ICLR 2017 and 2018).

    model of class c      w_c = argmin sum_r log(1 + exp(-t_r x_r·w)) + R/2 |w|^2,   t_r = ±1
    vote at query q       argmax_c q·w_c, among classes that the shard has; without any, no vote
    share of class c      p_c = (votes_c + noise of standard deviation sigma) / K

One record replaces one shard's votes by others: sqrt(2m) votes in L2. For these records the noise
alone makes p_c uncertain, sigma^2 / K^2; as shares of models from a population p_c (1 - p_c) / K
comes to it.
"""

from decimal import Decimal

import numpy as np
from pydantic import Field, FiniteFloat

from privagg.errors import ConfigError
from privagg.programs.answers import Answer, Figure, around
from privagg.programs.content import Content, OfContent
from privagg.programs.questions.columns import categories_of, range_of
from privagg.programs.sums_program import ShardsProgram, opening_of_votes

S = 2**10
R, STEPS = 0.01, 10


class Asked(Content):
    """What is asked; `data` and `level` come from the file itself.

    Args:
        columns: numeric columns with declared ranges that the models read.
        shards: of each site.
        queries: public; of each the values of `columns`.
    """

    columns: tuple[str, ...] = Field(min_length=1, max_length=50)
    shards: int = Field(ge=1, le=1000)
    queries: tuple[tuple[FiniteFloat, ...], ...] = Field(min_length=1, max_length=1000)


class Votes(OfContent, ShardsProgram):
    """Which class the shards' models vote for, at each public query."""

    name = "votes"
    asks = Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        (self.target,) = content.data.target.columns
        self.classes = categories_of(content.data, self.target)
        self.ranges = [range_of(content.data, column) for column in content.columns]
        if any(len(query) != len(content.columns) for query in content.queries):
            raise ConfigError(
                f"every query has {len(content.columns)} numbers, one for each of "
                f"{', '.join(content.columns)}. Nothing was spent"
            )
        self.inputs = self._inputs(np.array(content.queries).T)

    def openings(self, noise_multiplier: Decimal):
        queries, shards = len(self.inputs), self.content.shards
        length = queries * len(self.classes)
        return (
            opening_of_votes(
                length=length, votes=queries, weight=S, shards=shards,
                noise_multiplier=noise_multiplier,
            ),
        )  # fmt: skip

    def votes(self, number, state, shard, draws):
        inputs = self._inputs([shard.numbers(column) for column in self.content.columns])
        labels, classes = shard.codes(self.target), range(len(self.classes))
        scores = np.full((len(self.inputs), len(classes)), -np.inf)
        for c in set(labels) & set(classes):
            scores[:, c] = self.inputs @ fitted(inputs, np.where(labels == c, 1.0, -1.0))
        cast = (scores.argmax(1)[:, None] == classes) & np.isfinite(scores)
        return cast.astype(np.int64).ravel() * S

    def answers(self, sums):
        models = self.content.shards * len(sums[0].contributors)
        noise = sums[0].stddev / S / models
        shares = sums[0].total.reshape(len(self.inputs), -1) / S / models
        pairs = enumerate(zip(self.content.queries, shares, strict=True), 1)
        return tuple(self._answer(number, *each, noise, models) for number, each in pairs)

    def _answer(self, number, query, shares, noise, models):
        where = ", ".join(f"{c} = {v:g}" for c, v in zip(self.content.columns, query, strict=True))
        question = {"name": f"query {number}", "about": f"{self.target} where {where}"}
        order = np.argsort(-shares, kind="stable")
        figures = (self._figure(self.classes[c], shares[c], noise, models) for c in order)
        return Answer(question, tuple(figures))

    def _figure(self, label, raw, noise, models):
        value = float(np.clip(raw, 0, 1))
        spread = (noise, (noise**2 + value * (1 - value) / models) ** 0.5)
        ends = (around(float(raw), each, self.level, (0.0, 1.0)) for each in spread)
        return Figure("share of the models", {self.target: label}, value, float(raw), *ends)

    def _inputs(self, columns):
        """Each number from -1 to 1 within its declared range, 0 where it is missing, and a 1."""
        pairs = zip(columns, self.ranges, strict=True)
        scaled = [2 * (np.clip(v, *ends) - ends[0]) / (ends[1] - ends[0]) - 1 for v, ends in pairs]
        return np.nan_to_num(np.stack([*scaled, np.ones_like(scaled[0])], axis=1))


def fitted(inputs, sign):
    """Logistic regression by Newton's method, from 0."""
    weights, ridge = np.zeros(inputs.shape[1]), R * np.eye(inputs.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (p - (sign + 1) / 2) + R * weights
        weights = weights - np.linalg.solve((inputs.T * (p * (1 - p))) @ inputs + ridge, slope)
    return weights
