"""What boosted trees are asked for: public settings; what they leave open, public facts choose."""

from __future__ import annotations

from fractions import Fraction
from math import inf, log, sqrt
from typing import NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from privagg.errors import ConfigError
from privagg.programs.content import Content
from privagg.programs.tables.bins import Block, Cut
from privagg.programs.trees.losses import loss_of
from privagg.training.features import CategoricalFeature

MOST_LEAVES = 2**20
"""Numbers of all leaves of all trees together: the public state of a round holds them."""

MOST_OPENED = 2**16
"""Numbers of one opening."""

METHOD = 1
"""Of all constants and steps from records to leaves, here and in the files beside: plans pin it, as
`verify` computes by it again. It rises with whatever makes the same table or sums other trees."""


class Asked(Content):
    """Which trees are made of which columns: public, and pinned with the plan.

    Args:
        trees: how many; chosen by public facts by default, as `depth`, `together`, `start`, `rate`,
            `prior`.
        depth: questions of each.
        together: trees of one opening; they divide `trees`.
        start: part of the budget for the first opening, the target by bin of every column.
        rate: of a tree's leaves, that is added to what the forest says.
        prior: standard deviation of leaves that is expected, in logits (of an amount, in parts of
            the largest residual).
        bins: of a column of numbers, in equal steps of its declared scale: cuts lie between them.
        ordered: columns whose declared categories stand in an order that means something.
        seed: of the questions; public.
        calibration: whether one more opening, on a twentieth of the budget, makes chances of two
            classes right and says how well they tell records apart.
        method: `METHOD` of the privagg that made the plan.
    """

    trees: int | None = Field(default=None, ge=1, le=2000)
    depth: int | None = Field(default=None, ge=1, le=10)
    together: int | None = Field(default=None, ge=1, le=256)
    start: float | None = Field(default=None, ge=0.001, le=0.9)
    rate: float | None = Field(default=None, gt=0, le=1)
    prior: float | None = Field(default=None, gt=0, le=10)
    bins: int = Field(default=16, ge=2, le=256)
    ordered: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**63)
    calibration: bool = True
    method: int = METHOD

    @field_validator("method")
    @classmethod
    def _known(cls, method: int) -> int:
        if method != METHOD:
            raise ValueError(
                f"boosted trees are made by method {METHOD} here, and these name {method}; take "
                "the version of privagg that their plan was made by"
            )
        return method

    @model_validator(mode="after")
    def _of_declared_columns(self) -> Self:
        known = {each.name for each in self.data.features if isinstance(each, CategoricalFeature)}
        if strange := sorted(set(self.ordered) - known):
            names = ", ".join(map(repr, strange))
            raise ValueError(
                f"ordered names {names}, and takes columns that are declared with categories"
            )
        size = self.size
        if size.trees % size.together:
            raise ValueError(
                f"{size.trees} trees cannot be opened {size.together} at a time; let `together` "
                "divide `trees`"
            )
        return self

    @property
    def size(self) -> Size:
        """All that may be left open, as it is; of what is left open, as for few records."""
        return self._sized(SIZES[-1][1])

    def chosen(self, records: int, epsilon: Fraction, delta: Fraction) -> Asked:
        """The same with what is left open chosen: by records, epsilon and delta alone.

        Args:
            records: of all sites, as declared.
            epsilon, delta: what the trees may cost each data set.
        """
        noise = noise_of_all(records, float(epsilon), float(delta))
        usual = next(size for most, size in SIZES if noise <= most)
        return self.model_copy(update=self._sized(usual)._asdict())

    def _sized(self, usual: Size) -> Size:
        """What is said; else what is usual, in numbers of trees that go together."""
        said = {name: getattr(self, name) for name in Size._fields}
        found = usual._replace(**{name: each for name, each in said.items() if each is not None})
        if self.together is None:
            most = min(usual.together, found.trees)
            together = max(each for each in range(1, most + 1) if found.trees % each == 0)
            return found._replace(together=together)
        if self.trees is None:
            return found._replace(trees=-(-found.trees // found.together) * found.together)
        return found


class Size(NamedTuple):
    """What public facts choose.

    Attributes:
        trees, depth, together, start, rate, prior: as for `Asked`.
    """

    trees: int
    depth: int
    together: int
    start: float
    rate: float
    prior: float


SIZES: tuple[tuple[float, Size], ...] = (
    (0.0008, Size(240, 6, 4, 0.1, 0.2, 0.4)),
    (0.004, Size(60, 5, 4, 0.5, 0.4, 0.2)),
    (inf, Size(8, 3, 4, 0.8, 0.4, 0.2)),
)
"""At most so much noise -> what is chosen; found on synthetic tables
(`tests/benchmarks/synthetic_trees.py`), as all constants here are."""


def noise_of_all(records: int, epsilon: float, delta: float) -> float:
    """The standard deviation of noise in a sum over all records, in parts of their number.

    Args:
        records: of all sites, as declared.
        epsilon, delta: what all openings cost.

    Source: ρ = (√(ε + L) - √L)², L = ln(1/δ), is zero-concentrated privacy that implies (ε, δ):
        Bun & Steinke 2016, "Concentrated differential privacy". The plan's own noise is less.
    """
    rest = log(1 / delta)
    root = sqrt(epsilon + rest) - sqrt(rest)
    return 1 / (sqrt(2) * root * max(records, 1))


def blocks_of(asked: Asked) -> tuple[Block, ...]:
    """The bins of each column, in their declared order.

    Args:
        asked: the settings.

    Raises:
        ConfigError: the trees are too large, or the target is of another kind; nothing was spent.
    """
    loss, size = loss_of(asked.data.target), asked.size
    opened = 2 * loss.outputs * size.together * 2**size.depth
    whole = loss.outputs * size.trees * 2**size.depth
    if opened > MOST_OPENED or whole > MOST_LEAVES:
        raise ConfigError(
            f"{size.trees} trees of depth {size.depth}, {size.together} an opening, with "
            f"{loss.outputs} numbers a leaf, have {whole} numbers, {opened} in an opening; "
            f"{MOST_LEAVES} and {MOST_OPENED} fit. Nothing was spent"
        )
    return tuple(
        Block((
            Cut.of_categories(each, each.name in asked.ordered)
            if isinstance(each, CategoricalFeature)
            else Cut.of_number(each, asked.bins, None),
        ))
        for each in asked.data.features
    )  # fmt: skip
