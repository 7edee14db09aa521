"""Grids chosen from a model's shape: the error they promise, and the plan that has them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privagg import Federation
from privagg.cli.planview import describe
from privagg.encoding.grid import Grid
from privagg.training.ghost import clipping
from privagg.training.ghost.grids import Side, coarsest
from privagg.training.ghost.pieces import Factors, Left


@pytest.mark.parametrize(
    ("positions", "width", "grid"),
    [
        (1, 30, 2**16),
        (1, 1024, 2**16),
        (1, 1025, 2**17),
        (64, 64, 2**18),
        (64, 1024, 2**22),
        (512, 4096, 2**22),
    ],
)
def test_a_grid_is_the_coarsest_power_of_two_that_rounds_by_a_28th(
    positions: int, width: int, grid: int
) -> None:
    side = Side("weight", positions, width)
    assert side.grid == grid
    assert grid == 2**22 or side.error(grid) <= 1 / math.sqrt(768)
    assert grid == 2**16 or side.error(grid // 2) > 1 / math.sqrt(768)


@pytest.mark.parametrize("sensitivity", [2**16, 2**20])
@pytest.mark.parametrize(("positions", "width"), [(1, 784), (32, 96)])
def test_the_error_is_about_that_of_long_records(
    positions: int, width: int, sensitivity: int
) -> None:
    """Against the gradient itself, in float64; both sides are rounded, either a little less."""
    rng = np.random.default_rng(2)
    a, g = (torch.from_numpy(rng.standard_normal((6, positions, width)).astype("f4")) for _ in "ag")
    piece = Factors(nn.Parameter(torch.zeros(width, width)), Left(a, sensitivity), g)
    true = (g.double().transpose(1, 2) @ a.double()).flatten(1)
    clipping.clip([piece], Grid(1, sensitivity), torch.ones(6, dtype=torch.bool))
    sides = torch.split(piece.integers().double(), positions * width, dim=1)
    left, right = (side.reshape(6, positions, width) for side in sides)
    found = (right.transpose(1, 2) @ left).flatten(1)
    scale = (found * true).sum(1) / true.square().sum(1)
    moved = (found / scale[:, None] - true).norm(dim=1) / true.norm(dim=1)
    stated = Side("weight", positions, width).error(sensitivity)
    assert 0.5 * stated <= float(moved.mean()) <= 2 * stated


class _Sequence(nn.Module):
    """Two linear layers over positions, then one over what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Linear(40, 160), nn.Linear(160, 40)
        self.head = nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.back(torch.tanh(self.wide(x))).mean(1))


def test_the_coarsest_side_is_found_in_the_model() -> None:
    assert coarsest(_Sequence(), (24, 40)) == Side("wide.weight", 24, 160)
    assert coarsest(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (4,)) is None  # formed


def _configuration(**privacy: Any) -> dict[str, Any]:
    return {  # few records together, as every one of them is tested
        "federation": {"name": "images"},
        "privacy": {"epsilon": "8", "delta": "1e-5", "noise_multiplier": "2", **privacy},
        "training": {
            "rounds": 2,
            "model": "mlp",
            "sampling_rate": "0.5",
            "physical_batch": 8,
        },
        "secure": {"scheme": "plaintext", "custody": "authority"},
        "data": {"kind": "images", "shape": [3, 20, 20], "value_range": [0, 1], "classes": 10},
        "sites": [{"name": n, "data": "-", "labels": "-", "records": 500} for n in ("a", "b", "c")],
    }


def test_a_plan_has_the_models_grid_where_the_file_leaves_it_out(tmp_path: Path) -> None:
    """1,200 inputs need 2^17; what the file says wins, with a warning where it is coarse."""

    def setup(**changes: Any) -> Any:
        values = _configuration()
        for section, facts in changes.items():
            values[section] |= facts
        return Federation.from_dict(values, base=tmp_path).setup

    chosen = setup()
    assert chosen.plan.sensitivity_grid == 2**17
    assert (
        chosen.plan.digest
        == setup().plan.digest
        == setup(privacy={"sensitivity_grid": 2**17}).plan.digest
    )
    facts = describe(chosen)
    assert facts["grid"] | {"rounding": None} == {
        "chosen": True, "steps": 2**17, "parameter": "1.weight", "positions": 1, "width": 1200,
        "rounding": None, "more_bits": 1,
    }  # fmt: skip
    assert not facts["remarks"]
    said = setup(privacy={"sensitivity_grid": 2**16})
    assert said.plan.sensitivity_grid == 2**16
    (remark,) = describe(said)["remarks"]
    assert "sensitivity_grid = 65536 is coarse" in remark
    assert "131072 by" in remark
    hooks = setup(training={"engine": "opacus"})
    assert (hooks.plan.sensitivity_grid, hooks.coarsest_side) == (2**16, None)
