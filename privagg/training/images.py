"""Image sets in `.npy` files: in memory where they fit well, else read as they are needed.

What is read of a large set is mapped anew each time and let go again, so that the process's memory
does not grow with the number of images. A record's input has the same bits either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from privagg.errors import ConfigError, DataError
from privagg.training.data import Indices, Records, TensorRecords, fits_memory


def load_images(
    images: str | Path,
    labels: str | Path,
    *,
    value_range: tuple[float, float],
    shape: tuple[int, ...],
    classes: int,
    first_label: int = 0,
    public: bool = False,
) -> Records:
    """Reads an image set from two `.npy` files and scales it from its public range to [0, 1].

    The images of a large set stay in their file, which must not change meanwhile.

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
    pixels, classes_read = MappedArray.of(images), read_array(labels)
    if classes_read.shape != (len(pixels),):
        raise DataError(
            f"{labels} has shape {classes_read.shape}; expected one label for each of the "
            f"{len(pixels)} images of {images}"
        )
    scale = _Scale(low, high, shape)
    scale(np.empty((0, *pixels.shape[1:])), images)
    kept = np.flatnonzero(np.isin(classes_read, np.arange(first_label, first_label + classes)))
    numbers = classes_read[kept].astype(np.int64) - first_label
    mapped = MappedImages(pixels, scale, kept, torch.from_numpy(numbers), public)
    if fits_memory(len(kept), shape):
        return TensorRecords(*mapped.gather(np.arange(len(kept))), public)
    return mapped


@dataclass(frozen=True)
class MappedArray:
    """An array of numbers in a `.npy` file that stays there.

    Args:
        path: of the file.
        shape: of the array, one entry a record first.
        state: size, time of the last change and number of the file, when it was first read.
    """

    path: Path
    shape: tuple[int, ...]
    state: tuple[int, int, int]

    @classmethod
    def of(cls, path: str | Path) -> MappedArray:
        """The array of a file.

        Raises:
            ConfigError: no such file.
            DataError: it holds something else.
        """
        found = _existing(path)
        return cls(found, read_array(found, mapped=True).shape, _state(found))

    def __len__(self) -> int:
        """Number of entries."""
        return self.shape[0]

    def rows(self, chosen: Indices | slice) -> npt.NDArray[Any]:
        """A copy of some entries; nothing else is read, and nothing stays mapped.

        Raises:
            DataError: the file is not the one that was first read.
        """
        try:
            same = _state(self.path) == self.state
        except OSError:
            same = False
        if not same:
            raise DataError(f"{self.path} was changed while records were read from it")
        return np.array(read_array(self.path, mapped=True)[chosen])


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


@dataclass(frozen=True)
class _Scale:
    """Pixels from their public range to [0, 1], each by itself."""

    low: float
    high: float
    shape: tuple[int, ...]

    def __call__(self, pixels: npt.NDArray[Any], path: str | Path) -> npt.NDArray[np.float32]:
        inner = _as_channels_first(pixels, self.shape, path).astype(np.float32, order="C")
        scaled = (inner - self.low) / (self.high - self.low)
        known = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
        return np.asarray(np.clip(known, 0.0, 1.0), dtype=np.float32)


@dataclass(frozen=True)
class MappedImages:
    """Records whose inputs lie in a file.

    Args:
        pixels: of all images.
        scale: from pixels to inputs.
        kept: int64 `(n,)`, which images are records.
        y: class numbers, int64 `(n,)`.
        public: True only where the owner declared the records public.
    """

    pixels: MappedArray
    scale: _Scale
    kept: Indices
    y: torch.Tensor
    public: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return self.scale.shape

    def __len__(self) -> int:
        """Number of records."""
        return len(self.y)

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets int64 `(m,)` of m records.

        Raises:
            DataError: the file was changed.
        """
        rows = np.array(indices, dtype=np.int64)
        inputs = self.scale(self.pixels.rows(self.kept[rows]), self.pixels.path)
        return torch.from_numpy(np.ascontiguousarray(inputs)), self.y[torch.from_numpy(rows)]


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


def read_array(path: str | Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Reads an array of numbers with one entry a record from a `.npy` file.

    Args:
        path: of the file.
        mapped: reads of its entries only what is looked at, when it is.

    Raises:
        ConfigError: no such file.
        DataError: it holds something else.
    """
    path = _existing(path)
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
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
