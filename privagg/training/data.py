"""An institution's records as tensors: from tables, image arrays and torch data sets.

What is read here stays here. Files are read without executing anything they contain (no pickles),
and each cell of a text file is read by itself, so that no record changes how another is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, IterableDataset

from privagg.errors import ConfigError, DataError
from privagg.training.declared import TableSource
from privagg.training.heldout import HeldOut
from privagg.training.reading import declared
from privagg.training.table import TableSchema
from privagg.training.targets import Encoded, TargetKind

Indices = npt.NDArray[np.int64]


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


class DatasetRecords:
    """Records of a torch data set with random access, each read once and kept in memory.

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
        shape, inputs = input_shape, torch.empty(0)
        numbers: list[int] = []
        for index in range(length):
            item = _read_item(dataset, index, shape, classes, first_label)
            if item is None:
                continue
            if not numbers:
                shape = tuple(item[0].shape)
                inputs = torch.empty((length, *shape))
            inputs[len(numbers)] = item[0]  # a copy, as a data set may reuse its buffer
            numbers.append(item[1])
        if not numbers:
            raise DataError(
                f"no item of {name} is an (input, class) pair of numbers"
                + ("" if input_shape is None else f" with an input of shape {input_shape}")
                + f"; read dataset[0] yourself to see what it gives instead (of {length} items)"
            )
        self.left_out = length - len(numbers)
        """How many items dropped out. Private: for the owner's eyes only."""
        self._records = TensorRecords(
            inputs[: len(numbers)], torch.tensor(numbers, dtype=torch.int64), public
        )

    @property
    def public(self) -> bool:
        """Whether the owner declared these records public."""
        return self._records.public

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return self._records.input_shape

    def __len__(self) -> int:
        """Number of usable records. Private: it sizes nothing that leaves the site."""
        return len(self._records)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets `(m, ...)` of m records."""
        return self._records.gather(indices)


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
    return np.asarray(records.gather(np.arange(len(records)))[1].numpy())


def kept_by(rule: HeldOut, records: Records, columns: Sequence[str] = ()) -> Records:
    """The records that are left to train with.

    Args:
        rule: which are held out.
        records: all of a site's.
        columns: as for `HeldOut.mask`.
    """
    every = TensorRecords(*records.gather(np.arange(len(records))), records.public)
    return every.take(np.flatnonzero(~rule.mask(every.x.numpy(), columns)))


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


def load_images(
    images: str | Path,
    labels: str | Path,
    *,
    value_range: tuple[float, float],
    shape: tuple[int, ...],
    classes: int,
    first_label: int = 0,
    public: bool = False,
) -> TensorRecords:
    """Reads an image set from two `.npy` files and scales it from its public range to [0, 1].

    Args:
        images: array `(n, ...)` of numbers; `(n, H, W)`, `(n, C, H, W)`, `(n, H, W, C)` or
            flat `(n, C·H·W)`.
        labels: array `(n,)` of class numbers, counted from `first_label`.
        value_range: darkest and brightest value a pixel can have, from public knowledge, such as
            (0, 255); values outside clamp, values that are no number become 0.
        shape: public shape `(C, H, W)` of one image as the model takes it.
        classes: public number of classes; a record whose label is none of them drops out.
        first_label: public label of the first class.
        public: True only where the owner declares the images public.

    Raises:
        ConfigError: no such file, or an empty value range.
        DataError: an array cannot be read or has another shape than declared.
    """
    low, high = value_range
    if not low < high:
        raise ConfigError(f"value_range must have low < high, got [{low}, {high}]")
    pixels, classes_read = read_array(images), read_array(labels)
    if classes_read.shape != (len(pixels),):
        raise DataError(
            f"{labels} has shape {classes_read.shape}; expected one label for each of the "
            f"{len(pixels)} images of {images}"
        )
    scaled = (_as_channels_first(pixels, shape, images).astype(np.float32) - low) / (high - low)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    kept = np.isin(classes_read, np.arange(first_label, first_label + classes))
    numbers = classes_read[kept].astype(np.int64) - first_label
    return TensorRecords.of(scaled[kept], numbers, public=public)


def _as_channels_first(
    pixels: npt.NDArray[Any], shape: tuple[int, ...], path: str | Path
) -> npt.NDArray[Any]:
    inner = pixels.shape[1:]
    if inner == shape:
        return pixels
    if len(shape) == 3 and inner == (shape[1], shape[2], shape[0]):
        return np.moveaxis(pixels, -1, 1)
    if (inner == shape[1:] and shape[0] == 1) or inner == (int(np.prod(shape)),):
        return pixels.reshape(len(pixels), *shape)
    raise DataError(f"{path} holds images of shape {inner}, which is not the declared {shape}")


def read_array(path: str | Path) -> npt.NDArray[Any]:
    """Reads an array of numbers with one entry a record from a `.npy` file.

    Raises:
        ConfigError: no such file.
        DataError: it holds something else.
    """
    path = _existing(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as a .npy array of numbers ({error}); write it with "
            "numpy.save and a numeric dtype"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifb" or array.ndim == 0:
        raise DataError(f"{path} holds no array of numbers with one entry a record")
    return array


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no file {path.absolute()}; correct the path")
    return path
