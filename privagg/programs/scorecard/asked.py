"""What a scorecard is asked for: public settings; what they leave open, public facts choose."""

from __future__ import annotations

from fractions import Fraction
from math import inf, log, sqrt
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from privagg.errors import ConfigError
from privagg.programs.content import Content
from privagg.programs.scorecard.card import Scaling
from privagg.programs.tables.bins import Block, Cut
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.targets import AnyTarget, Regression, Target

MOST_OPENED = 2**16
"""Numbers of one opening: what one entry of a ledger holds."""

MOST_BLOCKS = 200

METHOD = 1
"""Of all constants and steps from records to points, here and in the files beside: plans pin it, as
`verify` computes by it again. It rises with whatever makes the same table or sums another card."""

Direction = Literal["rising", "falling"]


class Asked(Content):
    """Which scorecard is made of which columns: public, and pinned with the plan.

    Args:
        openings: 1 (weights of evidence), 2 (and how they go together) or 8 (and six steps of
            all bins); by default chosen by public facts.
        bins: of a column of numbers, in equal steps; chosen by public facts by default.
        edges: column -> edges between its bins in place of equal steps: from public knowledge, or
            quantiles that were asked and charged before.
        ordered: columns whose declared categories stand in an order that means something.
        monotone: column -> whether the chance of the target may only rise or only fall along its
            bins; the bin of what is missing is free.
        pairs: columns that count together, beside each by itself.
        pair_bins: of a column of numbers in a pair.
        calibration: whether one more opening, on a twentieth of the budget, makes scores
            probabilities and says how well the card tells records apart.
        scaling: of the points.
        method: `METHOD` of the privagg that made the plan.
    """

    openings: Literal[1, 2, 8] | None = None
    bins: int | None = Field(default=None, ge=2, le=64)
    edges: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    ordered: tuple[str, ...] = ()
    monotone: dict[str, Direction] = Field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = Field(default=(), max_length=50)
    pair_bins: int = Field(default=4, ge=2, le=16)
    calibration: bool = True
    scaling: Scaling = Scaling()
    method: int = METHOD

    @field_validator("method")
    @classmethod
    def _known(cls, method: int) -> int:
        if method != METHOD:
            raise ValueError(
                f"scorecards are made by method {METHOD} here, and this one names {method}; take "
                "the version of privagg that its plan was made by"
            )
        return method

    @model_validator(mode="after")
    def _of_declared_columns(self) -> Self:
        kinds = {each.name: each for each in self.data.features}
        categories = {k for k, each in kinds.items() if isinstance(each, CategoricalFeature)}
        alike = {
            "edges": (set(self.edges), set(kinds) - categories, "declared with a range"),
            "ordered": (set(self.ordered), categories, "declared with categories"),
            "monotone": (
                set(self.monotone), (set(kinds) - categories) | set(self.ordered),
                "declared with a range, or named in ordered",
            ),
            "pairs": ({each for pair in self.pairs for each in pair}, set(kinds), "declared"),
        }  # fmt: skip
        for key, (named, fitting, what) in alike.items():
            if strange := sorted(named - fitting):
                names = ", ".join(map(repr, strange))
                raise ValueError(f"{key} names {names}, and takes columns that are {what}")
        for name, edges in self.edges.items():
            feature = kinds[name]
            assert isinstance(feature, NumericFeature)
            low, high = feature.range
            whole = (low, *edges, high)
            if not edges or len(edges) > 63 or sorted(set(whole)) != list(whole):
                raise ValueError(
                    f"edges of {name!r} must rise and lie within its range [{low:g}, {high:g}], "
                    f"1 to 63 of them, got {list(edges)}"
                )
        paired = {each for pair in self.pairs for each in pair}
        if both := sorted(paired & set(self.monotone)):
            raise ValueError(
                f"{', '.join(map(repr, both))} is in monotone and in pairs, where its points may "
                "turn; leave one of both out"
            )
        if self.monotone and classes_of(self):
            raise ValueError(
                "monotone is for two classes or an amount: of several classes not every one can "
                "only rise; leave it out"
            )
        twice = [pair for pair in self.pairs if pair[0] == pair[1]]
        if twice or len({frozenset(pair) for pair in self.pairs}) < len(self.pairs):
            raise ValueError("pairs are of two different columns, each pair once")
        return self

    def chosen(self, records: int, epsilon: Fraction, delta: Fraction) -> Asked:
        """The same with what is left open chosen: by columns, records, epsilon and delta alone.

        Args:
            records: of all sites, as declared.
            epsilon, delta: what the card may cost each data set.
        """
        noise = noise_of(self, records, epsilon, delta)
        bins = self.bins or next(bins for most, bins in BINS if noise <= most)
        openings = self.openings or next(count for most, count in OPENINGS if noise <= most)
        return self.model_copy(update={"bins": bins, "openings": openings})


OPENINGS: tuple[tuple[float, Literal[1, 2, 8]], ...] = ((0.05, 8), (0.15, 2), (inf, 1))
"""At most so much noise by bin -> openings; found on synthetic tables
(`tests/benchmarks/synthetic_scorecard.py`), as all constants here are."""

BINS = ((0.15, 16), (inf, 8))
"""Likewise -> bins."""


def noise_of(asked: Asked, records: int, epsilon: Fraction, delta: Fraction) -> float:
    """`noise_by_bin` of what is asked.

    Args:
        asked: the settings.
        records, epsilon, delta: as for `Asked.chosen`.
    """
    blocks = max(len(classes_of(asked)), 1) * len(blocks_of(asked))
    return noise_by_bin(blocks, records, float(epsilon), float(delta))


def noise_by_bin(blocks: int, records: int, epsilon: float, delta: float) -> float:
    """ν: the standard deviation of a count's noise, in parts of the records of an eighth.

    Args:
        blocks: F; a record is in a bin of each. Of several classes, so often as there are cards.
        records: of all sites, as declared.
        epsilon, delta: what all openings cost.

    Source: ρ = (√(ε + L) - √L)², L = ln(1/δ), is zero-concentrated privacy that implies (ε, δ):
        Bun & Steinke 2016, "Concentrated differential privacy". The plan's own noise is less.
    """
    rest = log(1 / delta)
    root = sqrt(epsilon + rest) - sqrt(rest)
    return 8 * sqrt(blocks / 2) / (root * max(records, 1))


def blocks_of(asked: Asked) -> tuple[Block, ...]:
    """The blocks of bins, columns first in their declared order, then pairs.

    Args:
        asked: the settings.

    Raises:
        ConfigError: they are too many, or the target is of another kind; nothing was spent.
    """
    if why := refusal(asked.data.target):
        raise ConfigError(
            f"{why}; a scorecard is for classes, or for an amount with a range under squared or "
            "huber loss. Train a gradient model for others. Nothing was spent"
        )
    found = [Block((_cut(asked, each.name, asked.bins or 8),)) for each in asked.data.features]
    found += [
        Block(tuple(_cut(asked, name, asked.pair_bins) for name in pair)) for pair in asked.pairs
    ]
    whole, cards = sum(block.size for block in found), max(len(classes_of(asked)), 1)
    opened = max(max(cards, 2) * whole, cards * len(found) * (len(found) + 3) // 2)
    if opened > MOST_OPENED or len(found) > MOST_BLOCKS:
        raise ConfigError(
            f"a scorecard of {len(found)} columns and pairs with {whole} bins and {cards} cards "
            f"is too large: {opened} numbers in an opening; {MOST_BLOCKS} columns and pairs with "
            f"{MOST_OPENED} numbers fit. Nothing was spent"
        )
    return tuple(found)


def classes_of(asked: Asked) -> tuple[str, ...]:
    """The classes that have a card each; none where one card is enough.

    Args:
        asked: the settings.
    """
    target = asked.data.target
    several = isinstance(target, Target) and target.class_count > 2
    return target.categories(target.name) if several else ()


def refusal(target: AnyTarget) -> str:
    """Why a scorecard cannot have a target; empty where it can.

    Args:
        target: as declared.
    """
    if not isinstance(target, Target | Regression):
        return f"the target {target.name!r} is of kind {target.kind!r}"
    if isinstance(target, Regression) and target.loss in ("poisson", "gamma"):
        return f"the target {target.name!r} has loss {target.loss!r}"
    return ""


def _cut(asked: Asked, name: str, count: int) -> Cut:
    feature = next(each for each in asked.data.features if each.name == name)
    if isinstance(feature, CategoricalFeature):
        return Cut.of_categories(feature, name in asked.ordered)
    return Cut.of_number(feature, count, asked.edges.get(name))
