"""FedDistill by votes: what models of many kinds, none of which is shown, say of public inputs.

Every site deals its records to s shards by a secret key (`privagg.programs.shards`). A teacher is
fitted in each shard, of whatever kind the site has, and casts one vote on each of m public queries,
whole or shared out among the classes.
Opened is one noised sum of all K teachers' votes:

    n_qc = #{teachers that say class c of query q} + N(0, σ² · 2m)
    label of q = argmax_c n_qc

One record moves one teacher, whose m votes may all become others: √2 a query, √(2m) at once, for
any architecture (proofs/shards.md). Students are fitted to the labels, at the coordinator or at any
site, of any kind again: what follows from an opened sum costs nothing more.

Source: Papernot, Abadi, Erlingsson, Goodfellow & Talwar, "Semi-supervised knowledge transfer for
    deep learning from private training data" (PATE), ICLR 2017; Jeong, Oh, Kim, Park, Bennis & Kim,
    "Communication-efficient on-device machine learning: federated distillation", 2018; Li & Wang,
    "FedMD: heterogenous federated learning via model distillation", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cached_property
from math import sqrt
from typing import Any, Self

import numpy as np
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError
from privagg.privacy.plan import OpeningTerms
from privagg.privacy.randomness import ByteStream
from privagg.programs.answers import Answer, Figure, around
from privagg.programs.content import OfContent
from privagg.programs.distill.asked import Asked, require_fitting
from privagg.programs.distill.labels import Labels, queries_of
from privagg.programs.distill.teachers import (
    chances,
    fitted,
    inputs_of,
    require_chances,
    teacher,
)
from privagg.programs.questions.columns import FloatArray
from privagg.programs.questions.logistic import ROUNDING
from privagg.programs.sums_program import NoisySum, ShardsProgram, opening_of_votes

VOTE = 2**10
"""Grid units of one vote."""

_DIGITS = 5
"""Of a share of the teachers, in the file of labels."""


class Distill(OfContent, ShardsProgram):
    """Votes of shards' teachers on public queries.

    Args:
        content: what is asked.

    Raises:
        ConfigError: it does not fit the declared table; nothing was spent.
    """

    name = "distill"
    asks = Asked
    content: Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        require_fitting(content)
        self._kind = content.kinds[0]
        self._of_kinds = {self._kind: self}
        self._count = len(content.data.target.prediction_names)

    def openings(self, noise_multiplier: Decimal) -> tuple[OpeningTerms, ...]:
        """See `AnsweringProgram.openings`: all votes at once."""
        queries = len(self.content.queries)
        return (
            opening_of_votes(
                length=queries * self._count, votes=queries, weight=VOTE,
                shards=self.content.shards, noise_multiplier=noise_multiplier,
            ),
        )  # fmt: skip

    def require_sites(self, names: Sequence[str]) -> None:
        """See `AnsweringProgram.require_sites`: each site's kind is known and can be made."""
        teachers = self.content.teachers
        if isinstance(teachers, dict) and set(teachers) != set(names):
            raise ConfigError(
                f"teachers are named for {', '.join(sorted(teachers))}, and the sites are "
                f"{', '.join(names)}; name one kind for each, or one for all. Nothing was spent"
            )

    def at(self, site: str) -> Self:
        """See `AnsweringProgram.at`: with the site's own kind of teachers."""
        teachers = self.content.teachers
        kind = teachers if isinstance(teachers, str) else teachers[site]
        made = teacher(kind)
        if self.content.votes == "shared":
            require_chances(made(0), f"teachers of kind {kind!r}")
        if kind not in self._of_kinds:
            own = type(self)(self.content)
            own._kind, own._of_kinds = kind, self._of_kinds
            self._of_kinds[kind] = own
        return self._of_kinds[kind]  # type: ignore[return-value]

    def votes(self, number: int, state: FloatVector, shard: Any, draws: ByteStream) -> IntVector:
        """See `ShardsProgram.votes`: of records with a class; without any there is no vote."""
        (target,) = self.content.data.target.columns
        codes, seed = shard.codes(target), int(draws.uint64(1)[0] >> 32)
        known = np.flatnonzero(codes < self._count)
        cast = np.zeros((len(self._queries), self._count))
        if len(known):
            inputs = inputs_of(shard[known.tolist()], self.content.data)
            model = fitted(self._kind, seed, inputs, codes[known])
            queries = self._queries.copy()  # what one teacher wrote there, the next one would read
            if self.content.votes == "shared":
                cast = chances(model, queries, self._count) * ROUNDING
            else:
                cast[np.arange(len(cast)), model.predict(queries)] = 1
        return np.asarray(np.trunc(cast * VOTE), np.int64).ravel()

    def answers(self, sums: Sequence[NoisySum]) -> tuple[Answer, ...]:
        """See `AnsweringProgram.answers`: of all votes, how many are for each class.

        A teacher's own share lies between 0 and 1, so that its variance among teachers is at most
        p (1 - p).
        """
        shares, queries = self._shares(sums), len(self.content.queries)
        noise = sums[0].stddev / VOTE / self._teachers(sums) / sqrt(queries)
        target = self.content.data.target
        asked = {"name": "votes", "about": f"{target.name} of {queries} public records, by votes"}
        names = target.prediction_names
        figures = self._figures(names, shares.mean(axis=0), noise, self._teachers(sums))
        return (Answer(asked, tuple(figures)),)

    def model(self, sums: Sequence[NoisySum]) -> dict[str, JsonValue]:
        """See `AnsweringProgram.model`: the labels, for students."""
        content = self.content
        votes = np.round(self._shares(sums), _DIGITS).tolist()
        found = Labels(
            data=content.data, student=content.student, queries=content.queries, votes=votes
        )
        return found.model_dump(mode="json")

    def _figures(
        self, names: Sequence[str], shares: FloatArray, noise: float, teachers: int
    ) -> Iterator[Figure]:
        column = self.content.data.target.columns[0]
        for name, raw in zip(names, shares.tolist(), strict=True):
            value = min(max(raw, 0.0), 1.0)
            spread = (noise, sqrt(noise**2 + value * (1 - value) / teachers))
            own, others = (around(raw, each, self.level, (0.0, 1.0)) for each in spread)
            group = {column: name.removeprefix("chance_")}
            yield Figure("share of the votes", group, value, raw, own, others)

    def _shares(self, sums: Sequence[NoisySum]) -> FloatArray:
        found = sums[0].total.reshape(len(self.content.queries), self._count)
        return np.asarray(found / VOTE / self._teachers(sums))

    def _teachers(self, sums: Sequence[NoisySum]) -> int:
        return self.content.shards * len(sums[0].contributors)

    @cached_property
    def _queries(self) -> FloatArray:
        found = queries_of(self.content.data, self.content.queries)
        return inputs_of(found, self.content.data)
