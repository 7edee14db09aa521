"""An institution's records as tensors: from tables, image arrays and torch data sets.

What is read here stays here. Files are read without executing anything they contain (no pickles),
and each cell of a text file is read by itself, so that no record changes how another is encoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, IterableDataset

from privagg.errors import DataError
from privagg.training.declared import TableSource
from privagg.training.heldout import HeldOut
from privagg.training.reading import declared
from privagg.training.table import TableSchema
from privagg.training.targets import Encoded, TargetKind

Indices = npt.NDArray[np.int64]

IN_MEMORY_BYTES = 2**28
"""Records whose inputs take more are read as they are needed, where their source allows it."""

CHUNK = 4096
"""So many records are looked at together where all of them are."""


def fits_memory(count: int, shape: Sequence[int]) -> bool:
    """Whether the inputs of so many records of a shape are kept in memory, as float32."""
    return 4 * count * prod(shape) <= IN_MEMORY_BYTES


def chunks(count: int, size: int | None = None) -> Iterator[Indices]:
    """The numbers below `count` in order, some at a time; one empty chunk where there is none."""
    size = size or CHUNK
    for start in range(0, max(count, 1), size):
        yield np.arange(start, min(start + size, count))


@runtime_checkable
class Records(Protocol):
    """A fixed number of records that can be gathered by index.

    `public` is True only where the data's owner declared the records public; only such records
    may be evaluated on without a charge.
    """

    @property
    def public(self) -> bool:
        """Whether the owner declared these records public."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""

    def __len__(self) -> int:
        """Number of records. Private: it sizes nothing that leaves the site."""

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets `(m, ...)` of m records."""


@dataclass(frozen=True)
class TensorRecords:
    """Records in memory.

    Args:
        x: inputs, float32 `(n, *input_shape)`.
        y: targets as their kind has them: class numbers int64 `(n,)`, or float32 `(n, ...)`.
        public: True only where the owner declared the records public.
    """

    x: torch.Tensor
    y: torch.Tensor
    public: bool = False

    def __post_init__(self) -> None:
        """Checks shapes and types.

        Raises:
            DataError: the tensors do not belong together.
        """
        if self.x.dim() < 2 or self.y.dim() < 1 or len(self.x) != len(self.y):
            raise DataError(
                f"inputs {tuple(self.x.shape)} and targets {tuple(self.y.shape)} do not belong "
                "together; expected (n, ...) and (n,), or (n, m) for m targets of a record"
            )
        if self.x.dtype != torch.float32 or self.y.dtype not in (torch.int64, torch.float32):
            raise DataError(
                "inputs must be float32 and targets int64 or float32, got "
                f"{self.x.dtype} and {self.y.dtype}"
            )

    @classmethod
    def of(cls, x: npt.ArrayLike, y: npt.ArrayLike, *, public: bool = False) -> TensorRecords:
        """Records from arrays; inputs become float32, and so do targets that are not whole numbers.

        Args:
            x: inputs, `(n, *input_shape)`.
            y: class numbers, `(n,)`, or targets as their kind encodes them; float32 stays.
            public: True only where the owner declared the records public.

        Raises:
            DataError: as the class.
        """
        inputs = np.array(x, dtype=np.float32, order="C")
        targets = np.array(y)
        whole = targets.dtype != np.float32 and bool(np.all(targets == np.floor(targets)))
        targets = targets.astype(np.int64 if whole else np.float32)
        return cls(torch.from_numpy(inputs), torch.from_numpy(targets), public)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        """Number of records."""
        return len(self.y)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets `(m, ...)` of m records."""
        rows = torch.from_numpy(np.array(indices, dtype=np.int64))
        return self.x.index_select(0, rows), self.y.index_select(0, rows)

    def take(self, indices: Sequence[int] | Indices) -> TensorRecords:
        """The records at these indices, in this order."""
        x, y = self.gather(np.asarray(indices, dtype=np.int64))
        return replace(self, x=x, y=y)


def in_rows(records: Records, places: Indices) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of the record in each row, zeros where there is none.

    Args:
        records: of which.
        places: int64 `(B,)`, -1 where a row holds no record.

    Returns:
        float32 `(B, *input_shape)` and targets `(B, ...)`.
    """
    taken = places >= 0
    if isinstance(records, TensorRecords) and taken.any():
        # Any record for an empty row: a copy less than with zeros that records are put into.
        x, y = records.gather(places.clip(min=0))
        x.numpy()[~taken] = 0
        y.numpy()[~taken] = 0
        return x, y
    inputs, targets = records.gather(places[taken])
    x = torch.zeros((len(places), *records.input_shape))
    y = targets.new_zeros((len(places), *targets.shape[1:]))
    rows = torch.from_numpy(np.flatnonzero(taken))
    x[rows], y[rows] = inputs, targets
    return x, y


class DatasetRecords:
    """Records of a torch data set with random access.

    Each is read once and kept in memory; but of a large set each is looked at once and read again
    whenever it is needed. A data set that gives another item then than before gives whatever its
    code decides, and one that gives none a record that is no number, so that it adds zero to a sum;
    nothing of it reaches another record's row.

    Each item must be an (input, class) pair that depends on its own record only. An item that
    raises, is no such pair or has another shape drops out by itself when the records are loaded, so
    that no record can end a round that was already charged for, nor speak through an error.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        input_shape: tuple[int, ...] | None = None,
        classes: int | None = None,
        first_label: int = 0,
        public: bool = False,
    ) -> None:
        """Reads every item of the data set.

        Args:
            dataset: a map-style data set: `len(dataset)` and `dataset[i] -> (input, class)`.
            input_shape: public shape of one record's input; `(1,)` where items are single numbers.
                State it wherever it is declared: without it the first usable item's shape is taken,
                and that one record decides which others fit.
            classes: public number of classes; items of another class drop out. None takes any
                class number from the first.
            first_label: public label of the first class.
            public: True only where the owner declared the records public.

        Raises:
            DataError: the data set has no length or random access, or no usable item.
        """
        name = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{name} has no length and random access, so its records cannot "
                "be Poisson-sampled; use a map-style torch Dataset"
            )
        length = int(cast(Any, dataset).__len__())
        if length == 0:
            raise DataError(f"{name} is empty; its input shape is unknown")
        shape, inputs = input_shape, None
        numbers, places = array("q"), array("q")
        for index in range(length):
            item = _read_item(dataset, index, shape, classes, first_label)
            if item is None:
                continue
            if not numbers:
                shape = tuple(item[0].shape)
                inputs = torch.empty((length, *shape)) if fits_memory(length, shape) else None
            if inputs is not None:
                inputs[len(numbers)] = item[0]  # a copy, as a data set may reuse its buffer
            numbers.append(item[1])
            places.append(index)
        if shape is None or not numbers:
            raise DataError(
                f"no item of {name} is an (input, class) pair of numbers"
                + ("" if input_shape is None else f" with an input of shape {input_shape}")
                + f"; read dataset[0] yourself to see what it gives instead (of {length} items)"
            )
        self.left_out = length - len(numbers)
        """How many items dropped out. Private: for the owner's eyes only."""
        self.public, self.input_shape = public, shape
        self._read = partial(
            _read_item, dataset, shape=shape, classes=classes, first_label=first_label
        )
        self._places = np.frombuffer(places, np.int64)
        self._y = torch.frombuffer(numbers, dtype=torch.int64)
        self._x = None if inputs is None else inputs[: len(numbers)]

    def __len__(self) -> int:
        """Number of usable records. Private: it sizes nothing that leaves the site."""
        return len(self._y)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets int64 `(m,)` of m records.

        An item that was usable and is so no more keeps its class and has an input of NaN: an error,
        or the time of looking for whose it is, would tell of that one record.
        """
        rows = torch.from_numpy(np.array(indices, dtype=np.int64))
        if self._x is not None:
            return self._x.index_select(0, rows), self._y.index_select(0, rows)
        x = torch.full((len(rows), *self.input_shape), torch.nan)
        y = self._y.index_select(0, rows)
        for row, place in enumerate(self._places[rows.numpy()]):
            item = self._read(int(place))
            if item is not None:
                x[row], y[row] = item
        return x, y


@dataclass(frozen=True)
class ChosenRecords:
    """Some of a site's records, read from the whole as they are needed.

    Args:
        records: the whole.
        chosen: int64 `(n,)`, which of them.
    """

    records: Records
    chosen: Indices

    @property
    def public(self) -> bool:
        """Whether the owner declared these records public."""
        return self.records.public

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return self.records.input_shape

    def __len__(self) -> int:
        """Number of records. Private: it sizes nothing that leaves the site."""
        return len(self.chosen)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets `(m, ...)` of m records."""
        return self.records.gather(self.chosen[indices])


def _read_item(
    dataset: Dataset[Any],
    index: int,
    shape: tuple[int, ...] | None,
    classes: int | None,
    first_label: int,
) -> tuple[torch.Tensor, int] | None:
    """One item as a float32 input and a class number, or None where it is not usable."""
    try:
        item = dataset[index]
        if not isinstance(item, tuple | list):
            return None
        value, label = item
        x = torch.as_tensor(value).detach().to("cpu", torch.float32)
        x = x.reshape(1) if x.dim() == 0 else x
        number = int(label) - first_label
        fits = (shape is None or tuple(x.shape) == shape) and x.layout == torch.strided
        known = 0 <= number < (classes or 2**63) and bool(number + first_label == label)
        return (x, number) if fits and known else None
    except Exception:  # a stranger's code may raise anything, and its text may be about the record
        return None


def require_encoded(records: Records, target: TargetKind, whose: str) -> None:
    """Refuse records whose targets are not encoded as the declared kind takes them.

    Args:
        records: as a program gives them.
        target: what is predicted.
        whose: for the text.

    Raises:
        DataError: they have another type or shape.
    """
    found = records.gather(np.arange(0))[1].numpy()
    taken = target.examples(np.random.default_rng(0), 1)
    if found.dtype != taken.dtype or found.shape[1:] != taken.shape[1:]:
        raise DataError(
            f"the records given for {whose} have targets {found.dtype} of shape "
            f"{('n', *found.shape[1:])}, and {target.name!r} takes {taken.dtype} of shape "
            f"{('n', *taken.shape[1:])}; encode them as `TargetKind.read` does"
        )


def targets_of(records: Records) -> Encoded:
    """Targets of all records, `(n, ...)`. Private where the records are."""
    return np.concatenate([records.gather(part)[1].numpy() for part in chunks(len(records))])


def kept_by(rule: HeldOut, records: Records, columns: Sequence[str] = ()) -> Records:
    """The records that are left to train with.

    Args:
        rule: which are held out.
        records: all of a site's.
        columns: as for `HeldOut.mask`.
    """
    held = [rule.mask(records.gather(p)[0].numpy(), columns) for p in chunks(len(records))]
    return chosen(records, np.flatnonzero(~np.concatenate(held)))


def chosen(records: Records, places: Indices) -> Records:
    """Some of the records, in the order of their places."""
    if isinstance(records, TensorRecords):
        return records.take(places)
    return ChosenRecords(records, places)


def load_table(path: str | Path, schema: TableSchema, *, public: bool = False) -> TensorRecords:
    """Reads a table that needs no settings, and encodes it by its public declaration.

    Args:
        path: a `.csv` or `.parquet` file.
        schema: the public declaration.
        public: True only where the owner declares the table public.

    Raises:
        ConfigError: no such file, or another ending.
        DataError: the file cannot be read, or a declared column is missing.
    """
    x, y = schema.encode(declared(TableSource(schema), Path(path)))
    return TensorRecords.of(x, y, public=public)
