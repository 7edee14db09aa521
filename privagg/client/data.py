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
import pandas as pd
import torch
from torch.utils.data import Dataset, IterableDataset

from privagg.client.features import TableSchema
from privagg.errors import ConfigError, DataError

Indices = npt.NDArray[np.int64]


@runtime_checkable
class Records(Protocol):
    """A fixed number of records that can be gathered by index, in memory or read when needed.

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
        """Inputs float32 `(m, *input_shape)` and classes int64 `(m,)` of m records."""


@dataclass(frozen=True)
class TensorRecords:
    """Records in memory.

    Args:
        x: inputs, float32 `(n, *input_shape)`.
        y: class numbers, int64 `(n,)`.
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
        if self.x.dim() < 2 or self.y.dim() != 1 or len(self.x) != len(self.y):
            raise DataError(
                f"inputs {tuple(self.x.shape)} and classes {tuple(self.y.shape)} do not belong "
                "together; expected (n, ...) and (n,)"
            )
        if self.x.dtype != torch.float32 or self.y.dtype != torch.int64:
            raise DataError(
                f"inputs must be float32 and classes int64, got {self.x.dtype} and {self.y.dtype}"
            )

    @classmethod
    def of(cls, x: npt.ArrayLike, y: npt.ArrayLike, *, public: bool = False) -> TensorRecords:
        """Records from arrays; inputs become float32 and classes int64."""
        inputs = np.array(x, dtype=np.float32, order="C")
        return cls(torch.from_numpy(inputs), torch.from_numpy(np.array(y, np.int64)), public)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        """Number of records."""
        return len(self.y)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and classes int64 `(m,)` of m records."""
        rows = torch.from_numpy(np.array(indices, dtype=np.int64))
        return self.x.index_select(0, rows), self.y.index_select(0, rows)

    def take(self, indices: Sequence[int] | Indices) -> TensorRecords:
        """The records at these indices, in this order."""
        x, y = self.gather(np.asarray(indices, dtype=np.int64))
        return replace(self, x=x, y=y)

    def declared_public(self) -> TensorRecords:
        """The same records with their owner's word that they are public."""
        return replace(self, public=True)


class DatasetRecords:
    """Records of a torch data set with random access, read when they are gathered.

    Each item must be an (input, class) pair that depends on its own record only.
    """

    def __init__(self, dataset: Dataset[Any], *, public: bool = False) -> None:
        """Takes the data set and looks at the shape of its first item.

        Args:
            dataset: a map-style data set: `len(dataset)` and `dataset[i] -> (input, class)`.
            public: True only where the owner declared the records public.

        Raises:
            DataError: the data set has no length or random access, or its items are no pairs.
        """
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{type(dataset).__name__} has no length and random access, so its records cannot "
                "be Poisson-sampled; use a map-style torch Dataset"
            )
        self._dataset = dataset
        self._length = int(cast(Any, dataset).__len__())
        if self._length == 0:
            raise DataError(f"{type(dataset).__name__} is empty; its input shape is unknown")
        self.public = public
        self._shape = tuple(self._item(0)[0].shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return self._shape

    def __len__(self) -> int:
        """Number of records."""
        return self._length

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and classes int64 `(m,)` of m records."""
        items = [self._item(int(index)) for index in indices]
        if not items:
            return torch.empty((0, *self._shape)), torch.empty(0, dtype=torch.int64)
        return (
            torch.stack([x for x, _ in items]),
            torch.tensor([y for _, y in items], dtype=torch.int64),
        )

    def materialise(self) -> TensorRecords:
        """All records read once and kept in memory."""
        x, y = self.gather(np.arange(self._length))
        return TensorRecords(x, y, self.public)

    def _item(self, index: int) -> tuple[torch.Tensor, int]:
        item = self._dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"item {index} of {type(self._dataset).__name__} is a {type(item).__name__}; "
                "expected an (input, class) pair"
            )
        x = torch.as_tensor(item[0]).to(torch.float32)
        return (x.reshape(1) if x.dim() == 0 else x), int(item[1])


def read_frame(path: str | Path) -> pd.DataFrame:
    """Reads a CSV or Parquet file; cells of a CSV file stay text until the schema reads them.

    Args:
        path: a `.csv` (or `.csv.gz`) or `.parquet` file.

    Raises:
        ConfigError: no such file, or another ending.
        DataError: the file cannot be read as what its ending says.
    """
    path = _existing(path)
    try:
        if path.name.lower().endswith((".csv", ".csv.gz")):
            # Text, so that a gap or a word in one record cannot turn another's `1` into `1.0`.
            return pd.read_csv(path, dtype=str, skipinitialspace=True)
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path, dtype_backend="numpy_nullable")
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix}: {error}") from error
    raise ConfigError(f"{path} is no table that can be read; use a .csv or .parquet file")


def load_table(path: str | Path, schema: TableSchema, *, public: bool = False) -> TensorRecords:
    """Reads a table and encodes it by its public declaration.

    Args:
        path: a `.csv` or `.parquet` file.
        schema: the public declaration.
        public: True only where the owner declares the table public.

    Raises:
        ConfigError: no such file, or another ending.
        DataError: the file cannot be read, or a declared column is missing.
    """
    x, y = schema.encode(read_frame(path))
    return TensorRecords.of(x, y, public=public)


def load_images(
    images: str | Path,
    labels: str | Path,
    *,
    value_range: tuple[float, float],
    shape: tuple[int, ...],
    classes: int,
    public: bool = False,
) -> TensorRecords:
    """Reads an image set from two `.npy` files and scales it from its public range to [0, 1].

    Args:
        images: array `(n, ...)` of numbers; `(n, H, W)`, `(n, C, H, W)`, `(n, H, W, C)` or
            flat `(n, C·H·W)`.
        labels: array `(n,)` of class numbers.
        value_range: darkest and brightest value a pixel can have, from public knowledge, such as
            (0, 255); values outside clamp, values that are no number become 0.
        shape: public shape `(C, H, W)` of one image as the model takes it.
        classes: public number of classes; a record whose label is none of them drops out.
        public: True only where the owner declares the images public.

    Raises:
        ConfigError: no such file, or an empty value range.
        DataError: an array cannot be read or has another shape than declared.
    """
    low, high = value_range
    if not low < high:
        raise ConfigError(f"value_range must have low < high, got [{low}, {high}]")
    pixels, classes_read = _read_array(images), _read_array(labels)
    if classes_read.shape != (len(pixels),):
        raise DataError(
            f"{labels} has shape {classes_read.shape}; expected one label for each of the "
            f"{len(pixels)} images of {images}"
        )
    scaled = (_as_channels_first(pixels, shape, images).astype(np.float32) - low) / (high - low)
    scaled = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    kept = np.isin(classes_read, np.arange(classes))
    return TensorRecords.of(scaled[kept], classes_read[kept].astype(np.int64), public=public)


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


def _read_array(path: str | Path) -> npt.NDArray[Any]:
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
        raise ConfigError(f"no file {path} (looked in {Path.cwd()}); correct the path")
    return path
