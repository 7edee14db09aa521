"""A network that stays at home and is taught by a table of class logits that everybody shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import nn

from privagg.errors import ModelError
from privagg.training.targets import ClassKind, TargetKind


class Taught(nn.Module):
    """A network beside the table; its outputs are the network's.

    Args:
        network: any; it belongs to this from now on.
        target: has classes.

    Attributes:
        table: float32 (classes, outputs + 1), logits of each class and its share; 0: not known.

    Raises:
        ModelError: the target has no classes.
    """

    def __init__(self, network: nn.Module, target: TargetKind) -> None:
        super().__init__()
        if not isinstance(target, ClassKind):
            raise ModelError(f"logits are shared by class, and {target.name!r} has no classes")
        self.network = network
        self.table = nn.Parameter(torch.zeros(target.class_count, target.outputs + 1))

    def require_table(self, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
        """Refuse an opened file whose table is not of these classes and outputs.

        Args:
            tensors: that it holds, by name.
            path: of the file.

        Raises:
            ModelError: it has no table, or another one.
        """
        found = tensors.get("table")
        if found is None or found.shape != self.table.shape:
            raise ModelError(
                f"{path} holds no table of class logits of shape {tuple(self.table.shape)}; name "
                "the model that a run of 'class-logits' opened"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The network's outputs, (B, outputs)."""
        return cast(torch.Tensor, self.network(x))
