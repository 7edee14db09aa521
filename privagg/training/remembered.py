"""What was found of a model, remembered while the process lives, by all that it depends on.

A run builds its model several times from the same public facts, and tests each. A test need not be
made again of a model that is the same: by every bit of its values, by the attributes and the class
of each of its layers, and under the same settings of torch. Where that cannot be told, such as of a
model that holds a function without a name, it is made again. What a layer's code reads elsewhere,
such as a module's globals, is not seen; no charge rests on that, as each site also tests records
apart on the model that it trains.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Hashable
from typing import Any, cast

import torch
from torch import nn

_MOST = 64
_PASSED: dict[Hashable, None] = {}


class _Hash:
    """A file that keeps the SHA-256 of what is written to it."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._whole.update(data)
        return len(data)

    def digest(self) -> bytes:
        return self._whole.digest()


class _Written(pickle.Pickler):
    """Writes a model; of memory that holds values, what lies there, and which tensors share it."""

    def __init__(self, file: _Hash) -> None:
        super().__init__(cast(Any, file), protocol=5)
        self._seen: dict[int, int] = {}

    def persistent_id(self, held: object) -> object:
        """See `pickle.Pickler`."""
        if not isinstance(held, torch.TypedStorage | torch.UntypedStorage):
            return None
        memory = held._untyped_storage if isinstance(held, torch.TypedStorage) else held
        number = self._seen.setdefault(memory.data_ptr(), len(self._seen))
        values = torch.empty(0, dtype=torch.uint8).set_(memory)
        kind = getattr(held, "dtype", None)
        return number, str(kind), hashlib.sha256(values.numpy().data).hexdigest()


def once(test: Callable[[], None], model: nn.Module, *facts: Hashable) -> None:
    """Makes a test of a model, unless the same model passed it before, given the same facts.

    Args:
        test: raises where the model does not pass; only passing is remembered.
        model: on the CPU; not hooked yet.
        facts: what else the test depends on, which test it is included.
    """
    same = _identity(model)
    key = None if same is None else (same, *facts)
    if key in _PASSED:
        return
    test()
    if key is None:
        return
    while len(_PASSED) >= _MOST:
        del _PASSED[next(iter(_PASSED))]
    _PASSED[key] = None


def _identity(model: nn.Module) -> Hashable:
    """What a model computes follows from this; None where it cannot be told.

    Classes are compared as objects, so that code that was imported anew is another's.
    """
    written = _Hash()
    try:
        _Written(written).dump(model)
    except Exception:  # a stranger's model may hold anything
        return None
    settings = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
    )
    return (written.digest(), tuple(type(layer) for layer in model.modules()), settings)
