"""Records of a large table, encoded once and kept in files without a name.

A table's cells have to be read and encoded before anything is trained, which takes too long to be
done again for every batch. So its encoded records are written down in the folder for temporary
files (`TMPDIR`), in files that no other process can open and that vanish with this one, however it
ends. The disk needs 4 bytes a number; memory does not grow with the number of records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from privagg.errors import DataError
from privagg.training.data import Indices
from privagg.training.targets import Encoded


class SpooledRecords:
    """Records that are written down as they come, and read back as they are needed.

    Args:
        parts: inputs float32 `(m, ...)` and targets `(m, ...)` of some records at a time; at least
            one part.
        public: True only where the owner declared the records public.

    Raises:
        DataError: the folder for temporary files has no room for them.
    """

    def __init__(
        self, parts: Iterable[tuple[npt.NDArray[np.float32], Encoded]], *, public: bool = False
    ) -> None:
        self.public = public
        self._x, self._y = _Column(), _Column()
        try:
            for x, y in parts:
                self._x.append(np.asarray(x, np.float32))
                self._y.append(y)
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()} has no room for the encoded records: {error}; set TMPDIR "
                "to a folder on a larger disk"
            ) from error

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's input."""
        return self._x.shape[1:]

    def __len__(self) -> int:
        """Number of records. Private: it sizes nothing that leaves the site."""
        return self._y.shape[0]

    def gather(self, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs float32 `(m, *input_shape)` and targets `(m, ...)` of m records."""
        rows = np.array(indices, dtype=np.int64)
        return torch.from_numpy(self._x.rows(rows)), torch.from_numpy(self._y.rows(rows))


class _Column:
    """One array in a file of its own; nothing of it stays mapped."""

    def __init__(self) -> None:
        self._file: Any = tempfile.TemporaryFile(prefix="privagg-")  # noqa: SIM115
        self._dtype = np.dtype(np.float32)
        self.shape: tuple[int, ...] = (0,)

    def append(self, values: npt.NDArray[Any]) -> None:
        self._dtype = values.dtype
        self.shape = (self.shape[0] + len(values), *values.shape[1:])
        self._file.write(np.ascontiguousarray(values).data)
        self._file.flush()

    def rows(self, chosen: Indices) -> npt.NDArray[Any]:
        if not len(chosen):
            return np.empty((0, *self.shape[1:]), self._dtype)
        return np.array(np.memmap(self._file, self._dtype, "r", shape=self.shape)[chosen])
