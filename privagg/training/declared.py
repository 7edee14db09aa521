"""What is agreed on model, local training and records, in words: nothing is loaded or trained here.

A configuration is made of these. The rooms that train on them import torch and pandas, which takes
seconds; this file imports neither, so that a typo is told at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from privagg.training.algorithms import AlgorithmSpec
from privagg.training.table import TableSchema
from privagg.training.tablefile import Database, TableFile


class ModelSpec(BaseModel):
    """Which model is trained; public, and the same for every site.

    Args:
        kind: `logistic`, `mlp`, `cnn`, or `package.module:factory`, a function or class of your
            own that returns a `torch.nn.Module`. It is called with `input_shape` and `classes`
            (`outputs`, where the target is no class) where it takes arguments of these names, and
            with `options`.
        hidden: widths of the hidden layers of `mlp`.
        channels: output channels of the two convolutions of `cnn`, multiples of 4.
        options: further keyword arguments of your own factory.
        trainable: of your own factory's model, names of the parameters that are trained, with `*`
            and `?` as in file names: all others are frozen. Left out, those that the factory made
            with `requires_grad`.
        centred: of `logistic` in record-distributed plans: the first two rounds open the features'
            means, and all later ones train on features minus these (`privagg.programs.centring`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = "logistic"
    hidden: tuple[int, ...] = Field(default=(128,), min_length=1)
    channels: tuple[int, int] = (8, 16)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    centred: bool = False
    trainable: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _usual_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans pin what a configuration says: without a word, no centre and no choice of names."""
        facts: dict[str, Any] = dump(self)
        unsaid = ("centred", "trainable")
        return {key: value for key, value in facts.items() if key not in unsaid or value}

    @model_validator(mode="after")
    def _each_option_has_a_reader(self) -> Self:
        own = "package.module:factory" if ":" in self.kind else self.kind
        readers = {
            "hidden": "mlp",
            "channels": "cnn",
            "options": "package.module:factory",
            "trainable": "package.module:factory",
            "centred": "logistic",
        }
        for option, kind in readers.items():
            default = type(self).model_fields[option].get_default(call_default_factory=True)
            if own != kind and getattr(self, option) != default:
                raise ValueError(f"{option!r} is an option of {kind}, not of {self.kind!r}")
        return self


EngineName = Literal["exact", "exact-dense", "opacus"]
"""How per-record gradients are clipped: mostly without forming them, or after Opacus did.

`exact-dense` is `exact` of factors that are exact too, for models of linear layers and ReLU.
"""

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""Where a site trains, its own choice: `auto` is CUDA where a test passes on it, else the CPU."""


class ClientRule(BaseModel):
    """How a site trains between two rounds; public, the same for every site.

    Args:
        learning_rate: of the local steps. The distributed plan takes no local step.
        prox_mu: μ of FedProx: adds μ·(w − w_round) to every local gradient (Li et al. 2020).
        steps: local steps of a client-level round.
        epochs: instead of `steps`: passes over as many records as the site declared.
        batch_size: records of one client-level step.
        physical_batch: rows of a per-record forward pass; a speed setting.
        engine: how per-record gradients are clipped.
        algorithm: what else it does there, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    prox_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    steps: int | None = Field(default=None, ge=1, le=10**6)
    epochs: int | None = Field(default=None, ge=1, le=10**6)
    batch_size: int = Field(default=32, ge=1)
    physical_batch: int = Field(default=64, ge=1)
    engine: EngineName = "exact"
    algorithm: AlgorithmSpec = AlgorithmSpec()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both")
        return self

    def step_count(self, declared_records: int) -> int:
        """Local steps of a client-level round, from public numbers only."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 1) * math.ceil(declared_records / self.batch_size)


@dataclass(frozen=True)
class TableSource:
    """Tables: CSV, Parquet, or what a query answers.

    Args:
        schema: features with public ranges or categories, and the target.
        file: how the table is written.
        database: a query in place of a file.
        folder: that the path of a SQLite file starts from.
    """

    schema: TableSchema
    file: TableFile = field(default_factory=TableFile)
    database: Database | None = None
    folder: Path = Path()

    def place(self, path: Path) -> str:
        """Where the table lies, for messages: its file's path, never a database's address."""
        return str(path) if self.database is None else "the answer of the query in party.toml"


@dataclass(frozen=True)
class ImageSource:
    """Image sets in `.npy` files.

    Args:
        shape: public (C, H, W) of one image as the model takes it.
        value_range: public darkest and brightest value of a pixel.
        classes: public number of classes.
        first_label: public label of the first class; the others follow it.
    """

    shape: tuple[int, int, int]
    value_range: tuple[float, float]
    classes: int
    first_label: int = 0


@dataclass(frozen=True)
class DatasetSource:
    """Map-style torch data sets, each made by a factory without arguments.

    Args:
        shape: public shape of one record's input.
        classes: public number of classes; a record of another class is left out.
        first_label: public label of the first class; the others follow it.
    """

    shape: tuple[int, ...]
    classes: int | None = None
    first_label: int = 0


Source = TableSource | ImageSource | DatasetSource
