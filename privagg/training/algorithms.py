"""What a site does between two rounds, by the name that the literature has for it; nothing trains.

`fedavg` is the client rule as it always was. Every other kind changes what a site computes before
its update is clipped, or what the coordinator does with the opened sum; what is opened, its bound
and its noise stay the plan's.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

AlgorithmName = Literal[
    "fedavg",
    "scaffold",
    "per-fedavg",
    "fedper",
    "fedrep",
    "adaptive-clip",
    "halves",
    "fedma",
    "class-logits",
]

AT_HOME = ("network.*",)
"""Of `class-logits`: names of what stays at home."""

Share = Annotated[float, Field(gt=0, lt=1)]


class AlgorithmSpec(BaseModel):
    """Which algorithm; public, and the same at every site.

    Args:
        kind: `fedavg`; `scaffold` (control variates); `per-fedavg` (a meta-gradient in each local
            step); `fedper` and `fedrep` (a part of the model stays at its site); `adaptive-clip`
            (the clip norm follows a quantile of the updates' norms); `halves` (each round asks a
            half of the sites, and what each half improved is kept as a score); `fedma` (each site
            matches its neurons to published slots; it may have a network of its own widths);
            `class-logits` (each site has a network of its own, and logits by class are shared).
        personal: of `fedper`, `fedrep`: names of the parameters that stay at home, with `*` and
            `?` as in file names; `"3.*"` is the last layer of an `mlp` with one hidden layer.
        personal_steps: of `fedrep`: how many of the first local steps train the personal part; the
            rest train the shared part.
        inner_learning_rate: of `per-fedavg`: α, the step that a site is going to take at home.
        quantile: of `adaptive-clip`: γ, the share of updates whose norm is to be below the clip.
        clip_learning_rate: of `adaptive-clip`: η, by which the clip's logarithm moves a round.
        count_share: of `adaptive-clip`, `fedma`: β, part of the sensitivity that counts take; an
            update has sqrt(1 − β²) of it left.
        strength: of `class-logits`: γ, how far a network is drawn to the logits of each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    readers: ClassVar[dict[str, tuple[str, ...]]] = {
        "personal": ("fedper", "fedrep", "class-logits"),
        "personal_steps": ("fedrep",),
        "inner_learning_rate": ("per-fedavg",),
        "quantile": ("adaptive-clip",),
        "clip_learning_rate": ("adaptive-clip",),
        "count_share": ("adaptive-clip", "fedma"),
        "strength": ("class-logits",),
    }

    kind: AlgorithmName = "fedavg"
    personal: tuple[str, ...] = ()
    personal_steps: int | None = Field(default=None, ge=1)
    inner_learning_rate: float | None = Field(default=None, gt=0, le=1e6)
    quantile: Share = 0.5
    clip_learning_rate: float = Field(default=0.2, gt=0, le=10)
    count_share: Share = 0.1
    strength: float = Field(default=1.0, gt=0, le=1e6)

    @model_validator(mode="before")
    @classmethod
    def _whole_networks_stay(cls, values: Any) -> Any:
        """Of `class-logits` all of the network is at home; nobody else has to say so."""
        if isinstance(values, dict) and values.get("kind") == "class-logits":
            return {"personal": AT_HOME, **values}
        return values

    @model_serializer(mode="wrap")
    def _own_options(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plan pins the options that the kind reads, and no others."""
        facts: dict[str, Any] = dump(self)
        return {key: value for key, value in facts.items() if self._reads(key)}

    @model_validator(mode="after")
    def _each_option_has_a_reader(self) -> Self:
        for option, kinds in self.readers.items():
            if option in self.model_fields_set and not self._reads(option):
                raise ValueError(f"{option!r} is an option of {' and '.join(kinds)}")
        if self.kind == "class-logits" and self.personal != AT_HOME:
            raise ValueError("'class-logits' keeps all of the network at home; remove 'personal'")
        needed = {"fedper": "personal", "fedrep": "personal", "per-fedavg": "inner_learning_rate"}
        option = needed.get(self.kind, "kind")
        if not getattr(self, option):
            raise ValueError(f"{self.kind!r} needs {option!r}")
        if self.kind == "fedrep" and self.personal_steps is None:
            raise ValueError("'fedrep' needs 'personal_steps'; 'fedper' trains both parts at once")
        return self

    def _reads(self, option: str) -> bool:
        return self.kind in self.readers.get(option, (self.kind,))
