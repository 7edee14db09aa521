"""The part of a configuration that says how an opened model is evaluated on held-out records."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from privagg.config.data import Section


def _meant(private: Any) -> Any:
    if private is False:
        raise ValueError("should be true; without private evaluation leave out [evaluation]")
    return private


class ChargedSection(Section):
    """What a job beside training may cost each data set, in either of two ways.

    Args:
        epsilon: at `privacy.delta`, beside what training may cost.
        share: of `privacy.epsilon`, of which training then has what is left.
    """

    epsilon: Decimal | None = Field(default=None, gt=0)
    share: Decimal | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epsilon is None) == (self.share is None):
            raise ValueError(
                "should have either epsilon, what it may cost, or share, its part of "
                f"privacy.epsilon; it has {'neither' if self.epsilon is None else 'both'}"
            )
        return self

    def cost_of(self, whole: Decimal) -> Decimal:
        """What it may cost each data set.

        Args:
            whole: `privacy.epsilon`.
        """
        if self.epsilon is not None:
            return self.epsilon
        assert self.share is not None  # as checked
        return self.share * whole


class RoundsSection(ChargedSection):
    """Evaluations of the model between a training's rounds: a stopping rule, and the best round.

    Args:
        epsilon, share: what all of them together may cost each data set.
        every: rounds between two evaluations.
        figure: that is compared: `accuracy`, or the error that fits the target (`error`).
        patience: training stops after so many evaluations without an improvement; by default never.
        least: what counts as an improvement, in the figure's unit.
    """

    every: int = Field(ge=1, le=10**6)
    figure: Literal["accuracy", "error"] = "error"
    patience: int | None = Field(default=None, ge=1, le=10**4)
    least: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class PrivateEvaluationSection(ChargedSection):
    """The sites' own held-out records, on which an opened model is evaluated for a charge.

    They are left out of training in every run. An evaluation is a job of its own, with its own
    approval: `privagg evaluate`.

    Args:
        private: must be true.
        epsilon, share: what one evaluation may cost each data set.
        held_out: share of the records that is held out.
        key: any public text; another one holds out other records. The federation's name by default.
        model: file of the evaluated model; by default the latest run's.
        model_sha256: SHA-256 of that file, where no other one is meant.
        threshold: probability from which on a record of two classes is called positive.
        bins: of the scores of two classes.
        by_site: give figures by site too.
        subgroups: columns with declared categories by which figures are given too.
        level: of both intervals of every figure, in (0.5, 1).
        noise: of the opened sums: `gaussian`, or of a model of grades `laplace`; `auto` takes what
            leaves less in any cell.
        rounds: evaluations between the rounds, too.
    """

    private: Annotated[Literal[True], BeforeValidator(_meant)]
    held_out: Decimal = Field(default=Decimal("0.2"), gt=0, lt=1)
    key: str = Field(default="", max_length=200)
    model: Path | None = None
    model_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    threshold: float = Field(default=0.5, gt=0, lt=1)
    bins: int = Field(default=8, ge=2, le=100)
    by_site: bool = False
    subgroups: tuple[str, ...] = ()
    level: float = Field(default=0.95, gt=0.5, lt=1)
    noise: Literal["auto", "gaussian", "laplace"] = "auto"
    rounds: RoundsSection | None = None

    @property
    def shares(self) -> Decimal:
        """The part of `privacy.epsilon` that training does not have."""
        charged = (self, self.rounds) if self.rounds is not None else (self,)
        return sum((each.share or Decimal(0) for each in charged), Decimal(0))

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.shares >= 1:
            raise ValueError(
                f"evaluation.share and evaluation.rounds.share are {self.shares} together, which "
                "leaves nothing of privacy.epsilon to train with; make them less than 1"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_public_table(cls, values: Any) -> Any:
        public = {"data", "labels", "public", "name", "file"} & values.keys()
        if public:
            raise ValueError(
                f"private = true evaluates on the sites' own held-out records, and {min(public)!r} "
                "is of a table declared public; keep one of both"
            )
        return values
