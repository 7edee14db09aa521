"""The part of a configuration that says how an opened model is evaluated on held-out records."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from privagg.config.data import Section


def _meant(private: Any) -> Any:
    if private is False:
        raise ValueError("should be true; without private evaluation leave out [evaluation]")
    return private


class PrivateEvaluationSection(Section):
    """The sites' own held-out records, on which an opened model is evaluated for a charge.

    They are left out of training in every run. An evaluation is a job of its own, with its own
    approval: `privagg evaluate`.

    Args:
        private: must be true.
        epsilon: what one evaluation may cost each data set, at `privacy.delta`.
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
    """

    private: Annotated[Literal[True], BeforeValidator(_meant)]
    epsilon: Decimal = Field(gt=0)
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
