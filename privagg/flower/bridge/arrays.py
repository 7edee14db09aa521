"""A Flower model as the core's vector, and a strategy's settings as a round's settings.

Flower names its arrays; the core knows one float64 vector. The layout (names, types, shapes) and
the strategy's `ConfigRecord`s travel with the round's start, under the coordinator's signature.
They are public, and no part of the guarantee: whatever they say, a contribution has the plan's
dimension and is clipped. They come from another party, so every size is checked before anything is
allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from privagg.encoding.vectors import FloatVector
from privagg.errors import DataError, EncodingError, MessageError

FLOATS = ("float16", "float32", "float64")
"""Types of arrays that can be averaged; each of their values is a float64 exactly."""

_NUMPY = "numpy.ndarray"


@dataclass(frozen=True)
class ArrayLayout:
    """Names, types and shapes of a model's arrays, in the order of the vector.

    Args:
        entries: (name, one of `FLOATS`, shape) of each array.

    Raises:
        EncodingError: an array is not of floats, or a shape is none.
    """

    entries: tuple[tuple[str, str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        for name, dtype, shape in self.entries:
            if dtype not in FLOATS:
                raise EncodingError(
                    f"array {name[:80]!r} is of {dtype[:20]}, and only {', '.join(FLOATS)} can be "
                    "averaged; leave counters such as BatchNorm's out of the model that is sent "
                    "(GroupNorm and LayerNorm have none)"
                )
            if len(shape) > 32 or min(shape, default=1) < 0:
                raise EncodingError(f"array {name[:80]!r} has the impossible shape {shape[:32]}")

    @classmethod
    def of(cls, arrays: ArrayRecord) -> Self:
        """The layout of an `ArrayRecord`.

        Raises:
            EncodingError: as the class.
        """
        return cls(
            tuple((name, str(array.dtype), tuple(array.shape)) for name, array in arrays.items())
        )

    @property
    def dimension(self) -> int:
        """d, values in all arrays together."""
        return sum(math.prod(shape) for _, _, shape in self.entries)

    def vector(self, arrays: ArrayRecord) -> FloatVector:
        """All values, float64 `(d,)`; exact.

        Args:
            arrays: of this layout's names and shapes; their types of floats may differ, because
                strategies and frameworks widen and narrow them on the way.

        Raises:
            EncodingError: other names or shapes, values that are no floats, unreadable bytes.
        """
        found = {name: shape for name, _, shape in ArrayLayout.of(arrays).entries}
        if found != {name: shape for name, _, shape in self.entries}:
            raise EncodingError("the arrays have other names or shapes than the model's")
        parts = [_numpy(arrays[name]).ravel() for name, _, _ in self.entries]
        return np.concatenate([np.empty(0), *parts])

    def arrays(self, vector: FloatVector) -> ArrayRecord:
        """The vector as named arrays, each rounded to its own type.

        Args:
            vector: float64 `(d,)`.

        Raises:
            EncodingError: the vector has another length.
        """
        made = ArrayRecord()
        for (name, _, shape), values in zip(self.entries, self._parts(vector), strict=True):
            made[name] = Array(values.reshape(shape))
        return made

    def rounded(self, vector: FloatVector) -> FloatVector:
        """What `vector` reads from `arrays(vector)`, without writing them: float64 `(d,)`.

        Raises:
            EncodingError: the vector has another length.
        """
        return np.concatenate([np.empty(0), *self._parts(vector)])

    def _parts(self, vector: FloatVector) -> Iterator[NDArray[Any]]:
        """The vector's values array by array, each rounded to its own type."""
        if vector.shape != (self.dimension,):
            raise EncodingError(f"{vector.shape} values for arrays of {self.dimension}")
        start = 0
        for _, dtype, shape in self.entries:
            size = math.prod(shape)
            with np.errstate(over="ignore"):  # what a small type cannot hold becomes infinite
                yield vector[start : start + size].astype(dtype)
            start += size


def named_values(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """The values of every array, by name.

    Raises:
        EncodingError: bytes that are not what their description says.
    """
    return {name: _numpy(array) for name, array in arrays.items()}


def _numpy(array: Array) -> NDArray[Any]:
    """The values of an array, which must be what its own description says."""
    if array.stype != _NUMPY:
        raise EncodingError(f"an array is stored as {array.stype[:40]!r}; {_NUMPY!r} is needed")
    try:
        values = array.numpy()
    except ValueError as error:
        raise EncodingError("an array's bytes are no numpy array") from error
    if values.dtype.name != array.dtype or values.shape != tuple(array.shape):
        raise EncodingError("an array's bytes are not of the type and shape that it is said to be")
    return values


# --- what a strategy asks for, as a round's settings ---------------------------------------------


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    arrays: str
    layout: list[tuple[str, str, tuple[Annotated[int, Field(ge=0, lt=2**40)], ...]]]
    configs: dict[str, dict[str, JsonValue]]


@dataclass(frozen=True)
class TrainRequest:
    """What a strategy asks of a client, less the model's values.

    Args:
        arrays_key: name of the model's record.
        layout: of the model.
        configs: name -> `ConfigRecord`, as the strategy set them.
    """

    arrays_key: str
    layout: ArrayLayout
    configs: Mapping[str, ConfigRecord]

    @classmethod
    def of(cls, content: RecordDict) -> Self:
        """What a strategy's message asks for.

        Raises:
            EncodingError: not one `ArrayRecord` and any number of `ConfigRecord`s.
        """
        arrays, configs = dict(content.array_records), dict(content.config_records)
        if len(arrays) != 1 or len(content) != 1 + len(configs):
            raise EncodingError(
                f"a training message of {len(arrays)} ArrayRecords among {len(content)} records; "
                "privagg carries one model and the strategy's ConfigRecords"
            )
        key, model = next(iter(arrays.items()))
        return cls(key, ArrayLayout.of(model), configs)

    def settings(self) -> dict[str, JsonValue]:
        """As JSON, exactly: floats as hexadecimal literals, bytes as hexadecimal digits."""
        return {
            "arrays": self.arrays_key,
            "layout": [[name, dtype, list(shape)] for name, dtype, shape in self.layout.entries],
            "configs": {
                name: {key: _to_json(value) for key, value in config.items()}
                for name, config in self.configs.items()
            },
        }

    @classmethod
    def read(cls, settings: Mapping[str, JsonValue], *, dimension: int) -> Self:
        """The request that stands in a round's settings.

        Args:
            settings: of a `RoundStart`; signed by the coordinator, otherwise not believed.
            dimension: d of the plan.

        Raises:
            MessageError: not the settings of a Flower app, or for a model of another size.
        """
        try:
            facts = _Settings.model_validate(settings)
            layout = ArrayLayout(tuple(facts.layout))
            configs = {name: _config(config) for name, config in facts.configs.items()}
        except (ValidationError, ValueError, TypeError, KeyError, EncodingError) as error:
            raise MessageError("the round's settings are not those of a Flower app") from error
        names = {name for name, _, _ in layout.entries}
        if layout.dimension != dimension or len(names) < len(layout.entries):
            raise MessageError(
                f"the round's {len(layout.entries)} arrays hold {layout.dimension} values; the "
                f"plan is for {dimension}, in arrays of different names"
            )
        return cls(facts.arrays, layout, configs)

    def content(self, parameters: FloatVector) -> RecordDict:
        """What the client's own app is handed, as the strategy made it.

        Args:
            parameters: float64 `(d,)`, the round's model.
        """
        return RecordDict({self.arrays_key: self.layout.arrays(parameters), **self.configs})

    def update(self, parameters: FloatVector, answer: RecordDict) -> FloatVector:
        """What the client's app changed, float64 `(d,)`; private.

        Args:
            parameters: float64 `(d,)`, the round's model.
            answer: of the app; all but its one `ArrayRecord` is left unread.

        Raises:
            DataError: not one `ArrayRecord` of the model's layout. It stays with the client.
        """
        arrays = list(answer.array_records.values())
        if len(arrays) != 1:
            raise DataError(f"the app answered with {len(arrays)} ArrayRecords; one is needed")
        try:
            trained = self.layout.vector(arrays[0])
        except EncodingError as error:
            raise DataError(f"the app's answer is not a model to average: {error}") from error
        # The app started from the arrays, in which the model is rounded to each array's type.
        return np.subtract(trained, self.layout.rounded(parameters), out=trained)


def _config(facts: Mapping[str, JsonValue]) -> ConfigRecord:
    return ConfigRecord({key: _from_json(value) for key, value in facts.items()})


def _to_json(value: ConfigRecordValues) -> JsonValue:
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return {"float": float.fromhex, "bytes": bytes.fromhex}[kind](text)
    return value
