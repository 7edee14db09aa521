"""Settings of training that a file leaves out: proposed from what is public, and from nothing else.

What can be learnt is decided by one number, how long the noise of a mean gradient is beside a clip:

    level = sigma * sqrt(d) / n * sqrt(sites / shares that stay unknown)

n and d are the declared records and the model's parameters, sigma the noise that one opening at
(epsilon, delta) would need. `TABLE` says by it what did best on synthetic tables, in units that the
features' scales do not change: clips in roots of the expected square of a record's norm, rates in
its inverse. Up to `FEW_RECORDS` it is `FEW`, as what few records happen to be blurs a mean gradient
beside the noise. `python -m tests.benchmarks.propose` draws these tables and derives both again; no
real table had a part in it.

Every party proposes the same: all is computed in decimal arithmetic of a fixed precision, which
rounds alike on every machine, and told to two digits. The plan pins it like any other setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Any, NamedTuple

from privagg.programs.optimizers import OptimizerSpec
from privagg.training.features import Feature, NumericFeature

MOMENTUM = 0.8

DIGITS = Context(prec=2, rounding=ROUND_HALF_EVEN)
"""Of what is proposed."""

EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)
"""In which it is computed."""

GAUSSIAN = Decimal("0.75")
"""About what the Gaussian mechanism needs of the noise that zero-concentrated privacy bounds it by,
for epsilon from 0.1 to 10."""

CELLS = 2**18
"""Numbers in one batch's gradients, at most."""


class Recipe(NamedTuple):
    """What did best up to a level of noise.

    Attributes:
        level: up to which it holds.
        rounds: T.
        rate: of the server's steps at full momentum, over the inverse square of a record's norm.
        clip: in roots of that square.
        centred: whether the features' means are opened first and taken off.
    """

    level: Decimal
    rounds: int
    rate: Decimal
    clip: Decimal
    centred: bool


TABLE: tuple[Recipe, ...] = (
    Recipe(Decimal("0.00087"), 50, Decimal(400), Decimal("0.75"), True),
    Recipe(Decimal("0.0027"), 50, Decimal(400), Decimal("0.5"), True),
    Recipe(Decimal("0.0087"), 50, Decimal(400), Decimal("0.22"), True),
    Recipe(Decimal("0.027"), 25, Decimal(400), Decimal("0.15"), True),
    Recipe(Decimal("0.087"), 12, Decimal(400), Decimal("0.1"), True),
    Recipe(Decimal("0.27"), 6, Decimal(400), Decimal("0.22"), True),
    Recipe(Decimal("Infinity"), 12, Decimal(12), Decimal("0.15"), False),
)
"""A row holds up to the geometric mean of its level in the search and the next one's."""


FEW_RECORDS = 1_400
"""About the geometric mean of the 500 records that `FEW` was searched with, and 4,000."""

FEW: tuple[Recipe, ...] = (
    Recipe(Decimal("0.0087"), 50, Decimal(50), Decimal("0.75"), True),
    Recipe(Decimal("0.027"), 100, Decimal(12), Decimal("0.33"), True),
    Recipe(Decimal("0.087"), 12, Decimal(400), Decimal("0.15"), True),
    Recipe(Decimal("0.27"), 2, Decimal(400), Decimal("0.22"), False),
    Recipe(Decimal("Infinity"), 2, Decimal(100), Decimal("0.15"), False),
)
"""Likewise for few records."""


@dataclass(frozen=True)
class PublicFacts:
    """What a proposal is made from.

    Attributes:
        epsilon: of the whole job.
        delta: at which it is stated.
        records: n, declared by all sites together.
        largest_site: declared records of the largest site.
        parameters: d.
        square: what the declaration lets expect of a record's squared norm (`expected_square`).
        sites: how many there are.
        shares: sites whose noise stays unknown where as many drop out and collude as are allowed.
    """

    epsilon: Decimal
    delta: Decimal
    records: int
    largest_site: int
    parameters: int
    square: Decimal
    sites: int
    shares: int

    @property
    def level(self) -> Decimal:
        """The level of noise, see above; to two digits."""
        with localcontext(EXACT):
            bound = -self.delta.ln()
            root = (bound + self.epsilon).sqrt() - bound.sqrt()
            sigma = GAUSSIAN / (Decimal(2).sqrt() * root)
            spread = (Decimal(self.parameters * self.sites) / max(self.shares, 1)).sqrt()
            return DIGITS.plus(sigma * spread / self.records)


class Proposed(NamedTuple):
    """A setting that was filled.

    Attributes:
        key: its dotted name in the file.
        value: as the configuration holds it.
        why: in a sentence.
    """

    key: str
    value: Any
    why: str

    @property
    def written(self) -> str:
        """The value as the file would say it."""
        if isinstance(self.value, OptimizerSpec):
            said = self.value.model_dump(exclude_unset=True)
            return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in said.items()) + " }"
        return _toml(self.value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def propose(facts: PublicFacts) -> tuple[Proposed, ...]:
    """Settings of a logistic model's training, all records in every round.

    With T rounds over all records the noise of each is that of one opening times the root of T,
    exactly; leaving records out at random never makes it less for the same T.
    """
    recipe = recipe_of(facts.level, facts.records)
    with localcontext(EXACT):
        clip = DIGITS.plus(recipe.clip * facts.square.sqrt())
        rate = DIGITS.plus(recipe.rate * (1 - Decimal(str(MOMENTUM))) / facts.square)
    optimizer = OptimizerSpec(
        kind="momentum",
        momentum=MOMENTUM,
        learning_rate=float(rate),
        average_from=(recipe.rounds - recipe.centred) // 2,
    )
    norm = DIGITS.plus(facts.square.sqrt(DIGITS))
    means = (
        "the first two rounds open the features' means, and steps without these bear a larger rate"
        if recipe.centred
        else "there is too much noise to tell the features' means first"
    )
    return (
        Proposed(
            "training.rounds",
            recipe.rounds,
            "did best on synthetic tables with as much noise as here: about "
            f"{facts.level} clips in a mean gradient, were there one round",
        ),
        Proposed(
            "training.sampling_rate",
            Decimal(1),
            "every record in every round: sampling makes as many rounds no less noisy",
        ),
        Proposed(
            "privacy.clip_norm_l2",
            clip,
            f"{recipe.clip} of a record's norm, which the declared columns let expect at {norm}",
        ),
        Proposed(
            "training.optimizer",
            optimizer,
            "found with rounds and clip; the released model is a mean over the later rounds",
        ),
        Proposed("training.model.centred", recipe.centred, means),
        Proposed(
            "training.physical_batch",
            _batch(facts),
            "rows that fit into memory together; speed alone",
        ),
    )


def recipe_of(level: Decimal, records: int) -> Recipe:
    """What did best on synthetic tables of about as many records.

    Args:
        level: of the noise.
        records: n.
    """
    table = FEW if records <= FEW_RECORDS else TABLE
    return next(recipe for recipe in table if level <= recipe.level)


def _batch(facts: PublicFacts) -> int:
    """Rows of a batch: a power of two that memory bears, and no larger than a site has use for."""
    rows = 64
    while rows * 2 * facts.parameters <= CELLS and rows < min(facts.largest_site, 2048):
        rows *= 2
    return rows


def expected_square(features: Sequence[Feature]) -> Decimal:
    """What a declaration lets expect of a record's squared norm, the intercept's 1 in it.

    A number lies anywhere in its range, a category is as likely as the others, nothing is missing.

    Args:
        features: as declared.
    """
    with localcontext(EXACT):
        total = Decimal(1)
        for feature in features:
            square = Decimal(feature.scale) ** 2
            if isinstance(feature, NumericFeature):
                total += square / 3
            else:
                total += square * len(feature.encoded_categories) / len(feature.categories)
        return total
