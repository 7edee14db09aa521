"""What was found of a model, remembered while the process lives, by all that it depends on.

A run builds its model several times from the same public facts, and tests each. A test need not be
made again of a model that is the same by every bit and attribute, under the same settings of torch,
and whose code is known: it is made of torch's layers of `KNOWN` kinds alone, none of which has a
hook or a method of its own, and neither they nor the functions that they call were replaced since
privagg was imported. Their code reads their values, those functions and torch's settings, nothing
else. Every other model, such as one with a class of its own, is tested each time. What replaces a
kernel within torch is not seen; no charge rests on that, as each site also tests records apart on
the model that it trains.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Hashable
from types import BuiltinFunctionType, ModuleType
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules import module as hooked

KNOWN = (
    nn.Sequential, nn.Flatten, nn.Linear, nn.Conv1d, nn.Conv2d, nn.GroupNorm, nn.LayerNorm,
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.MaxPool2d, nn.AvgPool2d,
)  # fmt: skip
"""Kinds of layers whose code was read: one record's output never depends on another by them."""

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
    """What a model computes follows from this; None where it cannot be told."""
    if _is_watched() or _code() != _CODE or not all(map(_is_plain, model.modules())):
        return None
    written = _Hash()
    _Written(written).dump(model)
    return written.digest(), _settings()


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is as its class makes it: no hook, no method or parameter of another kind."""
    held = vars(layer).items()
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return (
        type(layer) in KNOWN
        and not any(callable(value) or ("hooks" in name and value) for name, value in held)
        and all(type(tensor) in (nn.Parameter, torch.Tensor) for tensor in tensors)
        and not any(vars(each) or each._backward_hooks for each in tensors)
    )


def _is_watched() -> bool:
    """Whether something looks at, or changes, what every layer or operation does."""
    state: Any = torch._C
    return (
        any(held for name, held in vars(hooked).items() if name.startswith("_global_"))
        or state._len_torch_function_stack() > 0
        or state._len_torch_dispatch_stack() > 0
        or state._autograd._top_saved_tensors_default_hooks(True) is not None
    )


def _code() -> dict[tuple[str, str], tuple[object, object]]:
    """All that the known layers' code finds under a name, and each function's own code."""
    classes = {kind for layer in KNOWN for kind in layer.__mro__}
    modules = {sys.modules[kind.__module__] for kind in classes}
    spaces: set[Any] = {*classes, *modules, nn.functional, nn.init, torch.Tensor}
    found: dict[tuple[str, str], tuple[object, object]] = {}
    for space in spaces:
        for name, held in vars(space).items():
            called = callable(held) or isinstance(held, ModuleType)  # others are a module's state
            if called or (isinstance(space, type) and name != "__slotnames__"):
                found[space.__name__, name] = held, getattr(held, "__code__", None)
    for name, held in vars(torch).items():
        if isinstance(held, BuiltinFunctionType):
            found["torch", name] = held, None
    return found


_CODE = _code()


def _settings() -> Hashable:
    """Which of torch's kernels compute on a CPU, and how."""
    state: Any = torch._C
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        state._get_deterministic_fill_uninitialized_memory(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        state._get_mkldnn_enabled(),
        state._get_mkldnn_deterministic(),
        state._get_onednn_allow_tf32(),
        state._get_nnpack_enabled(),
        *(state._get_fp32_precision_getter("mkldnn", kind) for kind in ("all", "conv", "matmul")),
        float(torch.tensor([1e-40]).mul(1.0)) == 0.0,  # whether denormal numbers are flushed
    )
