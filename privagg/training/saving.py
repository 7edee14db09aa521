"""The trained model as a file that runs no code when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import nn

from privagg.durable import write_whole
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.training.frozen import require_saved, state_of
from privagg.training.models import ParameterLayout, set_parameters

PERSONAL = "personal"
"""In a file's header: it is as private as its site's records."""


def save_model(
    model: nn.Module,
    parameters: FloatVector,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    secret: bool = False,
) -> str:
    """Write the trained model as safetensors, whole or not at all: frozen and tied tensors too.

    What it holds fits the model's `load_state_dict`, strictly.

    Args:
        model: gives names, shapes and whatever is not trained; untouched.
        parameters: float64 (d,), written as the float32 they are used as.
        path: the file; replaced in one step.
        metadata: strings that go into the file's header.
        secret: only its owner may read the file.

    Returns:
        SHA-256 (hex) of the file.

    Raises:
        ConfigError: the file cannot be written.
        ModelError: the parameters are not the model's, or something of it fits into no such file.
    """
    data = save(_whole(model, parameters), metadata=dict(metadata or {}))
    write_model(path, data, secret=secret)
    return hashlib.sha256(data).hexdigest()


def _whole(model: nn.Module, parameters: FloatVector) -> dict[str, torch.Tensor]:
    """A copy of every tensor of the model's state by each of its names, trained ones as given."""
    trained = ParameterLayout.of(model).to_tensors(parameters)
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for name, tensor in state_of(model).items():
        given = trained.get(first.get(id(tensor), ""))
        found[name] = torch.tensor(given) if given is not None else tensor.detach().clone()
    return {name: tensor.contiguous() for name, tensor in found.items()}


def tensor_bytes(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Named arrays as the bytes of a safetensors file; the same arrays give the same bytes.

    Args:
        tensors: of any shapes; each in its own type.
        metadata: strings that go into the file's header; of several the order is not fixed.
    """
    whole = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    return save_arrays(whole, metadata=dict(metadata or {}))


def write_model(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a model's file whole or not at all, durably; one that is there is replaced.

    Args:
        path: the file; its folder is made.
        data: the content.
        secret: only its owner may read it.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the model to {path}: {error}") from error
    write_whole(path, data, secret=secret)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What a model's file holds: tensors by name, and the texts of its header.

    Raises:
        ConfigError: the file is not there or is no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot read the model {path}: {error}") from error


def load_model(model: nn.Module, path: Path) -> nn.Module:
    """Put saved parameters into a model of the same shape, and return it.

    Raises:
        ConfigError: the file is not there or is no safetensors file.
        ModelError: it holds other parameters than the model's, or was trained on another base.
    """
    return _filled(model, read_tensors(path)[0])


def load_pinned_model(model: nn.Module, path: Path, sha256: str) -> nn.Module:
    """`load_model` of a file that a plan pins by its SHA-256 (hex).

    Args:
        model: of the same shape.
        path: the file.
        sha256: that it has to have.

    Raises:
        ConfigError: the file is not there, is no safetensors file, or is another.
        ModelError: as `load_model`.
    """
    try:
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ConfigError(
                f"{path} has SHA-256 {found}, the plan pins {sha256}: give the file that the "
                "earlier run released; nothing was spent"
            )
        tensors = load(data)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the model {path}: {error}") from error
    require_opened(path)
    return _filled(model, tensors)


def require_opened(path: Path) -> None:
    """Refuse a personal model where everybody is to see what follows from it.

    Raises:
        ConfigError: its header says that it is one, or it cannot be read.
    """
    if PERSONAL in read_tensors(path)[1]:
        raise ConfigError(
            f"{path} is a site's personal model, made without noise and charged to nobody: epsilon "
            "is infinite for whoever sees it. Name a model that a run opened; nothing was spent"
        )


def _filled(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    require_saved(model, tensors)
    set_parameters(model, ParameterLayout.of(model).from_tensors(tensors))
    return model
