"""The trained model as a file that runs no code when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from privagg.durable import write_whole
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError
from privagg.training.models import ParameterLayout, set_parameters


def save_model(
    model: nn.Module, parameters: FloatVector, path: Path, metadata: Mapping[str, str] | None = None
) -> str:
    """Write the trained parameters as safetensors, whole or not at all.

    Args:
        model: gives names and shapes; untouched.
        parameters: float64 (d,), written as the float32 they are used as.
        path: the file; replaced in one step.
        metadata: strings that go into the file's header.

    Returns:
        SHA-256 (hex) of the file.

    Raises:
        ConfigError: the file cannot be written.
    """
    data = tensor_bytes(ParameterLayout.of(model).to_tensors(parameters), metadata)
    write_model(path, data)
    return hashlib.sha256(data).hexdigest()


def tensor_bytes(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Named arrays as the bytes of a safetensors file; the same arrays give the same bytes.

    Args:
        tensors: of any shapes; each in its own type.
        metadata: strings that go into the file's header; of several the order is not fixed.
    """
    whole = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    return save(whole, metadata=dict(metadata or {}))


def write_model(path: Path, data: bytes) -> None:
    """Write a model's file whole or not at all, durably; one that is there is replaced.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the model to {path}: {error}") from error
    write_whole(path, data)


def load_model(model: nn.Module, path: Path) -> nn.Module:
    """Put saved parameters into a model of the same shape, and return it.

    Raises:
        ConfigError: the file is not there or is no safetensors file.
        ModelError: it holds other parameters than the model's.
    """
    try:
        tensors = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot read the model {path}: {error}") from error
    set_parameters(model, ParameterLayout.of(model).from_tensors(tensors))
    return model
