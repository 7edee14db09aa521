"""What a model's file says of itself: enough to read a table by it, and to say where it is from.

The header of a safetensors file holds it as one JSON text under the key `privagg`: public facts
alone, those of the configuration that every site agreed to. Whoever reads a file may have it from
anybody, so what it says is checked like any input, and code that it names is never imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from privagg.digest import canonical_json
from privagg.errors import ConfigError, validation_faults
from privagg.training.declared import ModelSpec, Source, TableSource
from privagg.training.features import Feature
from privagg.training.table import TableSchema
from privagg.training.targets import AnyTarget, TargetKind

FORMAT = "privagg-model/1"

_FROZEN = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Inputs(BaseModel):
    """How a table's line becomes a model's input.

    Args:
        features: the declared columns, with ranges or categories, in the order of their inputs.
        columns: names of the inputs, for whoever reads the file without privagg.
    """

    model_config = _FROZEN

    features: tuple[Feature, ...] = Field(min_length=1)
    columns: tuple[str, ...]


class ModelCard(BaseModel):
    """A trained model as its file describes it.

    Args:
        format: of these facts.
        plan_digest: SHA-256 (hex) of the plan that every site agreed to.
        model: which model it is.
        shape: of one record's input.
        inputs: how a table is encoded; None where records were no lines of tables.
        target: what is predicted, with ranges, classes or intervals.
    """

    model_config = _FROZEN

    format: Literal["privagg-model/1"]
    plan_digest: str
    model: ModelSpec
    shape: tuple[int, ...]
    inputs: Inputs | None = None
    target: AnyTarget | dict[str, JsonValue] = Field(union_mode="left_to_right")

    @staticmethod
    def facts(
        spec: ModelSpec, shape: tuple[int, ...], source: Source, target: TargetKind, digest: str
    ) -> dict[str, JsonValue]:
        """What goes into a model's file.

        Args:
            spec: the model.
            shape: of one record's input.
            source: how records were declared.
            target: what is predicted.
            digest: of the plan.
        """
        inputs = None
        if isinstance(source, TableSource):
            features = [each.model_dump(mode="json") for each in source.schema.features]
            inputs = {"features": features, "columns": list(source.schema.columns)}
        return {
            "format": FORMAT,
            "plan_digest": digest,
            "model": spec.model_dump(mode="json"),
            "shape": list(shape),
            "inputs": inputs,
            **target.describe(),
        }

    @classmethod
    def read(cls, header: Mapping[str, str]) -> Self:
        """What a file's header says; whoever wrote it.

        Args:
            header: the file's texts.

        Raises:
            ConfigError: it says nothing, or not what a model's file says.
        """
        try:
            return cls.model_validate(json.loads(header.get("privagg", "{}")))
        except ValidationError as error:
            told = validation_faults(error, whole="the header", values=False)
            raise ConfigError(
                f"its header does not say which columns it reads ({told}); name the configuration "
                "that it was trained by: --config"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"its header is no JSON text: {error}") from error

    @property
    def table_schema(self) -> TableSchema:
        """The columns that it reads, and what it predicts.

        Raises:
            ConfigError: it reads no table, or its inputs do not fit the model.
        """
        if self.inputs is None or isinstance(self.target, dict):
            raise ConfigError(
                f"it takes inputs of shape {list(self.shape)}, which come from no table; call "
                "federation.trained_model() and hand it yours"
            )
        try:
            schema = TableSchema(features=self.inputs.features, target=self.target)
        except ValidationError as error:
            raise ConfigError(validation_faults(error, whole="the header")) from error
        if (schema.width,) != self.shape or schema.columns != self.inputs.columns:
            raise ConfigError("its header contradicts itself about the inputs")
        return schema

    def require_built_in(self) -> None:
        """Refuse a model that only code of somebody's own makes.

        Raises:
            ConfigError: how to read it.
        """
        if ":" in self.model.kind:
            raise ConfigError(
                f"the model is made by {self.model.kind!r}, code that no file may have run; name "
                "the configuration that it was trained by: --config"
            )


def header_text(facts: Mapping[str, Any]) -> str:
    """The facts as one text: the same facts give the same bytes."""
    return canonical_json(dict(facts)).decode()
