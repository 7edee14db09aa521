"""Which model is evaluated, and on what records, as they lie at a site."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from privagg.encoding.vectors import FloatVector
from privagg.training.declared import ModelSpec
from privagg.training.targets import Encoded

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldRecords:
    """A site's held-out records; slices of them are records of the same site.

    Attributes:
        site: place of the site among the plan's, a public fact of every one of its records.
        inputs: encoded, float32 `(n, width)`.
        targets: as the target reads them, `(n,)` or `(n, m)`; each is known.
        codes: column -> int64 `(n,)`, place among its categories; their number where it is none.
    """

    site: int
    inputs: npt.NDArray[np.float32]
    targets: Encoded
    codes: Mapping[str, Codes]

    def __len__(self) -> int:
        """Number of records; private."""
        return len(self.inputs)

    def __getitem__(self, some: slice | list[int]) -> Self:
        """Some of the records, in this order."""
        codes = {name: values[some] for name, values in self.codes.items()}
        return type(self)(self.site, self.inputs[some], self.targets[some], codes)


class OpenedModel(BaseModel):
    """A model that a run released, or one that a run opens between its rounds: public, and pinned
    with the plan.

    Args:
        spec: what was trained.
        seed: of what a model of somebody's own draws when it is built.
        sha256: of the file in which the parameters were released; None of models between rounds.
        parameters: d, how many they are.
        parameters_sha256: of them, in their order, as little-endian float64; None likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: ModelSpec
    seed: int = Field(ge=0, lt=2**63)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    parameters: int = Field(ge=1, le=10**7 - 1000)
    parameters_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @property
    def pinned(self) -> bool:
        """Whether it is one model and no other."""
        return self.sha256 is not None and self.parameters_sha256 is not None


def digest_of(parameters: FloatVector) -> str:
    """SHA-256 (hex) of a model's parameters, float64 `(d,)`."""
    return hashlib.sha256(np.asarray(parameters, dtype="<f8").tobytes()).hexdigest()
