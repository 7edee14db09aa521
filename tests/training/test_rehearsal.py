"""The test that records stay apart: what it states, what it refuses, what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ModelError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training.data import TensorRecords
from privagg.training.declared import ModelSpec
from privagg.training.dpsgd import DpSgd
from privagg.training.models import build_model, get_parameters
from privagg.training.rehearsal import require_model_apart, require_records_apart
from tests.zoo import Computed

MODELS = [
    (ModelSpec(kind="logistic"), (13,), 2),
    (ModelSpec(kind="logistic"), (1, 4, 4), 5),
    (ModelSpec(kind="mlp", hidden=(16,)), (13,), 2),
    (ModelSpec(kind="cnn"), (1, 8, 8), 10),
]
GRID = Grid(1, sensitivity_grid=2**16)


@pytest.mark.parametrize("case", MODELS, ids=str)
@pytest.mark.parametrize("rows", [1, 4, 32, 50])
def test_built_in_models_keep_records_apart(
    case: tuple[ModelSpec, tuple[int, ...], int], rows: int
) -> None:
    spec, shape, classes = case
    found = require_model_apart(build_model(spec, shape, classes, seed=1), shape, rows)
    facts = found.facts()
    assert facts["how"] == "tested"
    assert facts["physical_batch"] == rows
    assert facts["threads"] == 1  # as training has it, whatever the process had
    assert facts["torch"] == torch.__version__
    assert facts["opacus"] == version("opacus")
    assert facts["date"] <= datetime.now(UTC).date().isoformat()
    assert facts["device"].startswith("cpu ")


def test_parameters_generator_and_records_are_left_alone() -> None:
    class Untouched(TensorRecords):
        def gather(self, indices: object) -> tuple[torch.Tensor, torch.Tensor]:
            raise AssertionError("a record was looked at")

    records = Untouched(torch.ones(3, 4), torch.zeros(3, dtype=torch.int64))
    trainer = DpSgd(build_model("mlp", (4,), 2), records, GRID)
    before, state = get_parameters(trainer.model), torch.get_rng_state()
    require_records_apart(trainer)
    np.testing.assert_array_equal(get_parameters(trainer.model), before)
    assert torch.equal(state, torch.get_rng_state())


def test_a_test_leaves_nothing_behind_in_the_next_gradient() -> None:
    rng = np.random.default_rng(2)
    records = TensorRecords.of(rng.standard_normal((9, 4)), rng.integers(0, 2, 9))
    tested, fresh = (
        DpSgd(build_model("mlp", (4,), 2, seed=3), records, GRID, physical_batch=4)
        for _ in range(2)
    )
    require_records_apart(tested)
    start, everybody = get_parameters(fresh.model), np.ones(9, dtype=bool)
    after, first = (
        trainer.gradient_sum(start, everybody, DeterministicRandomness(1).stream("slots"))
        for trainer in (tested, fresh)
    )
    np.testing.assert_array_equal(after, first)


def test_a_batch_mean_is_refused() -> None:
    centred = Computed(lambda m, x: m.head(x - x.mean(dim=0)), head=nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"'head' \(Linear\).*another gradient than its own"):
        require_model_apart(centred, (4,), 8)


def test_one_row_alone_is_wrong() -> None:
    """The seventh place gets twice its gradient: every place is held against autograd."""

    def forward(m: Computed, x: torch.Tensor) -> torch.Tensor:
        inner = m.head(x)
        if len(x) < 7:
            return inner
        weights = torch.ones(len(x), 1)
        weights[6] = 2
        return inner.detach() + weights * (inner - inner.detach())

    with pytest.raises(ModelError, match=r"'head' \(Linear\).*another gradient"):
        require_model_apart(Computed(forward, head=nn.Linear(4, 2)), (4,), 8)


def test_a_model_that_cannot_be_tested_is_refused() -> None:
    divides = Computed(lambda m, x: m.head(x) / (0 * x[:, :1]), head=nn.Linear(4, 2))
    with pytest.raises(ModelError, match="no synthetic record has a finite gradient"):
        require_model_apart(divides, (4,), 8)


@pytest.mark.parametrize("engine", ["exact", "opacus"])
def test_rounding_of_a_deep_network_is_told_from_a_gradient_of_somebody_else(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is off in float32 alone is rounding; what is off in float64 too is refused."""
    whole = DpSgd.batch_gradients

    def off(*types: torch.dtype) -> None:
        def rounded(self: DpSgd, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
            return whole(self, x, y) * np.float32(1.01 if x.dtype in types else 1)

        monkeypatch.setattr(DpSgd, "batch_gradients", rounded)

    model = build_model("mlp", (5,), 2)
    before = get_parameters(model)
    off(torch.float32)
    require_model_apart(model, (5,), 8, engine=engine)
    np.testing.assert_array_equal(get_parameters(model), before)
    off(torch.float32, torch.float64)
    with pytest.raises(ModelError, match=r"'1' \(Linear\): it gives a record another gradient"):
        require_model_apart(build_model("mlp", (5,), 2), (5,), 8, engine=engine)
