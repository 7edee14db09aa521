"""Engine `exact-dense`: a record's integers follow from the record alone, bit for bit.

The oracle of factors is Python's integers and floats, one record at a time; of slopes, autograd in
float64.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError, ModelError
from privagg.training.data import TensorRecords
from privagg.training.declared import ModelSpec
from privagg.training.dense import BITS, MOST_INPUTS, MOST_OUTPUTS, SLOPE_BITS, whole
from privagg.training.dpsgd import DpSgd
from privagg.training.factories import ApprovedCode
from privagg.training.ghost.integers import root
from privagg.training.losses import class_loss, squared_loss
from privagg.training.models import build_model, get_parameters, set_parameters
from privagg.training.objective import CLASSES, Objective
from privagg.training.rehearsal import require_records_apart
from privagg.training.slopes import class_slope, falling_exp
from privagg.training.targets import NumberedClasses
from privagg.training.torch_state import deterministic_torch

WILD = (0.0, -0.0, 1e-45, 1e-30, 1.0, 300.0, 1e12, 1e13, 3e38, math.inf, -math.inf, math.nan)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with deterministic_torch():
        yield


def records_of(count: int, width: int, classes: int, seed: int = 0) -> TensorRecords:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width)) * 10.0 ** rng.uniform(-3, 3, (count, 1))
    return TensorRecords.of(x.astype(np.float32), rng.integers(0, classes, count))


def trainer_of(records: TensorRecords, model: str, classes: int, batch: int, s: int) -> DpSgd:
    spec = ModelSpec(kind=model, **({"hidden": (9, 8)} if model == "mlp" else {}))
    built = build_model(spec, records.input_shape, classes)
    return DpSgd(built, records, Grid(1, s), physical_batch=batch, engine="exact-dense")


def moved(trainer: DpSgd, size: float = 0.2) -> np.ndarray:
    draw = np.random.default_rng(3).standard_normal(trainer.dimension)
    return get_parameters(trainer.model) + size * draw


@pytest.mark.parametrize(
    ("model", "classes", "s"),
    [("logistic", 2, 2**16), ("logistic", 5, 2**26), ("mlp", 2, 2**20), ("mlp", 5, 2**16)],
)
def test_one_digest_for_every_order_batch_size_and_number_of_threads(
    model: str, classes: int, s: int
) -> None:
    records = records_of(150, 33, classes)
    wild = torch.tensor(WILD).repeat(2)[:, None].expand(-1, 33).clone()
    wild[len(WILD) :, 1:] = 0.5
    records = TensorRecords(
        torch.cat([records.x, wild]), torch.cat([records.y, torch.zeros(len(wild)).long()])
    )
    digests, rng = set(), np.random.default_rng(1)
    for batch, threads in ((7, 1), (64, 2), (1024, 1)):
        trainer = trainer_of(records, model, classes, batch, s)
        placed = np.full(trainer.slot_count, -1)
        placed[: len(records)] = np.arange(len(records))
        torch.set_num_threads(threads)
        found = trainer.slotted_sum(moved(trainer), rng.permutation(placed))
        digests.add(hashlib.sha256(found.tobytes()).hexdigest())
    assert len(digests) == 1
    assert found.any()


DIGEST = """
import hashlib
import numpy as np
from tests.training.test_dense import records_of, trainer_of

for model in ("logistic", "mlp"):
    trainer = trainer_of(records_of(200, 120, 5), model, 5, 200, 2**16)
    parameters = 0.2 * np.random.default_rng(3).standard_normal(trainer.dimension)
    found = trainer.slotted_sum(parameters, np.arange(200))
    print(hashlib.sha256(found.tobytes()).hexdigest())
"""


@pytest.mark.nightly  # a process that imports torch anew
@pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch has one set of kernels here",
)
def test_kernels_for_other_processors_give_the_same_digest() -> None:
    """As on a machine without vector instructions, where other engines' last bits differ.

    The parameters are numpy's: torch's own initial ones differ between these kernels.
    """
    usual = io.StringIO()
    with redirect_stdout(usual):
        exec(DIGEST)
    older = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], env={**os.environ, **older}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == usual.getvalue()
    assert len(set(usual.getvalue().split())) == 2


def python_factors(
    x: list[float], y: int, layers: list[tuple[list[list[float]], list[float]]]
) -> list[tuple[list[int], float, list[int], float]]:
    """Every layer's (inputs, unit, slopes, unit) of one record, by Python's integers and floats."""

    def narrow(values: Iterable[float]) -> list[float]:
        return [float(np.float32(v)) for v in values]

    def block(values: list[float], bits: int) -> tuple[list[int], float]:
        most = max(max(map(abs, values)), 2.0**-40)
        unit = math.ldexp(1.0, math.frexp(most)[1] - bits)
        return [round(v / unit) for v in values], unit

    weights = []
    for weight, _ in layers:
        flat, unit = block([v for row in weight for v in row], BITS)
        width = len(weight[0])
        weights.append(([flat[i : i + width] for i in range(0, len(flat), width)], unit))
    entered, values = [], x
    for i, ((rows, unit), (_, bias)) in enumerate(zip(weights, layers, strict=True)):
        a, a_unit = block([max(v, 0.0) for v in values] if i else values, BITS)
        entered.append((a, a_unit))
        products = [sum(w * v for w, v in zip(row, a, strict=True)) for row in rows]
        values = [float(p) * (a_unit * unit) for p in products]
        if i < len(layers) - 1:
            values = [
                float(np.float32(v) + np.float32(b))
                for v, b in zip(narrow(values), bias, strict=True)
            ]
        else:
            values = [v + b for v, b in zip(values, bias, strict=True)]

    def falling(t: float) -> float:
        part, found = t / 64, 1.0
        for order in range(10, 0, -1):
            found = found * part * (1.0 / order) + 1.0
        for _ in range(6):
            found = found * found
        return found

    raised = [round(falling(max(v - max(values), -32.0)) * 2.0**40) for v in values]
    slope = [(r - (sum(raised) if i == y else 0)) / sum(raised) for i, r in enumerate(raised)]
    slopes = [block(slope, SLOPE_BITS)]
    for i in range(len(layers) - 1, 0, -1):
        (g, g_unit), (rows, unit) = slopes[0], weights[i]
        back = [sum(g[o] * rows[o][j] for o in range(len(g))) for j in range(len(rows[0]))]
        passed = narrow(float(v) * (g_unit * unit) for v in back)
        open_at = [v > 0 for v in entered[i][0]]
        slopes.insert(0, block([v if o else 0.0 for v, o in zip(passed, open_at, strict=True)], 21))
    return [(*a, *g) for a, g in zip(entered, slopes, strict=True)]


def test_factors_are_those_of_pythons_integers() -> None:
    records = records_of(6, 33, 5)
    trainer = trainer_of(records, "mlp", 5, 6, 2**16)
    set_parameters(trainer.model, moved(trainer, 0.5))
    linear = [layer for layer in trainer.model if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.tolist(), layer.bias.tolist()) for layer in linear]
    bits = trainer.batch_bits(records.x, records.y).view(np.float32)
    for row, x, y in zip(bits, records.x.tolist(), records.y.tolist(), strict=True):
        expected: list[float] = []
        for a, a_unit, g, g_unit in python_factors(x, y, layers):
            expected += [*a, *(v * g_unit * a_unit for v in g), *(v * g_unit for v in g)]
        assert row[: len(expected)].tolist() == expected


def test_the_widest_products_are_exact_in_every_order() -> None:
    rng = np.random.default_rng(0)
    for width, bits in ((MOST_INPUTS, BITS), (MOST_OUTPUTS, SLOPE_BITS)):
        for low in (-(2**bits), 2**bits - 3):  # signs that cancel, and none that does
            a = rng.integers(low, 2**bits + 1, width)
            b = rng.integers(low if low < 0 else 2**BITS - 3, 2**BITS + 1, width) // 2 ** max(
                0, (bits - BITS) * (low < 0)
            )
            true = sum(int(u) * int(v) for u, v in zip(a, b, strict=True))
            assert abs(true) <= 2**53
            order = rng.permutation(width)
            left, right = (torch.from_numpy(v[order]).double()[None] for v in (a, b))
            assert int((left @ right.t()).item()) == true == int((left * right).sum().item())
            assert int((a[order].astype(float) @ b[order].astype(float)).item()) == true
            assert int(left.square().sum().item()) == sum(int(v) ** 2 for v in a) <= 2**53


def test_roots_are_correctly_rounded() -> None:
    values = 10.0 ** np.random.default_rng(0).uniform(-30, 30, 20_000)
    assert root(torch.from_numpy(values)).tolist() == [math.sqrt(v) for v in values]


def test_blocks_are_within_half_a_unit_and_hold_what_is_hostile() -> None:
    x = torch.tensor(WILD)[:, None] * torch.tensor([[1.0, -0.7, 1e-3]])
    found = whole(x, BITS)
    assert found.usable.tolist() == [bool(abs(v) <= 2.0**40) for v in WILD]
    kept = found.usable
    assert found.integers.abs().max() <= 2**BITS
    away = (found.integers.double() * found.unit - x.double())[kept].abs()
    assert bool((away <= found.unit[kept] / 2).all())
    assert not found.integers[~kept].any()


@pytest.mark.parametrize("outputs", [1, 2, 7])
def test_slopes_are_autograds(outputs: int) -> None:
    draw = np.random.default_rng(outputs)
    z = torch.from_numpy(draw.standard_normal((200, outputs)) * 6).requires_grad_()
    classes = torch.from_numpy(draw.integers(0, max(2, outputs), 200))
    (expected,) = torch.autograd.grad(class_loss(z, classes).sum(), z)
    assert torch.allclose(class_slope(z.detach(), classes), expected, rtol=1e-6, atol=1e-7)
    t = torch.linspace(-32, 0, 1001, dtype=torch.float64)
    assert torch.allclose(falling_exp(t), t.exp(), rtol=2.0**-25, atol=0)


def test_classes_weigh_as_the_loss_has_it() -> None:
    target = NumberedClasses(count=3, class_weights=(1, 2.5, 7))
    objective = Objective.of(target, None, ApprovedCode.of())
    z = torch.randn(50, 3, dtype=torch.float64).requires_grad_()
    classes = torch.arange(50) % 3
    (expected,) = torch.autograd.grad(objective.loss(z, classes).sum(), z)
    assert objective.slope is not None
    assert torch.allclose(objective.slope(z.detach(), classes), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("s", [2**6, 2**16, 2**20])
def test_no_record_moves_the_sum_by_more_than_s(s: int) -> None:
    """Hostile records too; one that is not finite moves nothing."""
    records = records_of(len(WILD), 6, 3)
    x = records.x.clone()
    x[:, 0] = torch.tensor(WILD)
    for model in ("logistic", "mlp"):
        trainer = trainer_of(TensorRecords(x, records.y), model, 3, len(WILD), s)
        everybody = np.arange(len(WILD))
        parameters = moved(trainer, 1.0)
        whole_sum = trainer.slotted_sum(parameters, everybody)
        for record, value in enumerate(WILD):
            without = np.where(everybody == record, -1, everybody)
            change = whole_sum - trainer.slotted_sum(parameters, without)
            assert sum(int(v) ** 2 for v in change) <= s * s
            assert abs(value) <= 2.0**40 or not change.any()
            # A sure and right answer has no slope, and a coarse grid may round all away.
            assert s < 2**16 or not abs(value) <= 1 or change.any()


def test_training_is_as_good_as_in_float32() -> None:
    x, y = load_digits(return_X_y=True)
    records = TensorRecords.of((x / 16).astype(np.float32), y)
    train, test = records.take(np.arange(1000)), records.take(np.arange(1000, len(x)))
    found = {}
    for engine in ("exact", "exact-dense"):
        model = build_model(ModelSpec(kind="mlp", hidden=(32,)), (64,), 10)
        trainer = DpSgd(model, train, Grid(1, 2**16), physical_batch=500, engine=engine)
        parameters, draw = get_parameters(model), np.random.default_rng(5)
        for _ in range(40):
            sampled = np.where(draw.random(1000) < 0.5, np.arange(1000), -1)
            noised = trainer.slotted_sum(parameters, sampled) / 2**16
            noised += 2 * draw.standard_normal(len(noised))
            parameters = parameters - 4.0 * noised / 500
        set_parameters(model, parameters)
        with torch.no_grad():
            found[engine] = float((model(test.x).argmax(1) == test.y).double().mean())
    assert found["exact-dense"] > 0.75
    assert abs(found["exact"] - found["exact-dense"]) < 0.02


def test_a_plan_learns_that_bits_follow_by_proof() -> None:
    trainer = trainer_of(records_of(0, 33, 5), "mlp", 5, 16, 2**16)
    assert require_records_apart(trainer).how == "proved"


@pytest.mark.parametrize("threads", [1, 2])
def test_arithmetic_that_rounds_is_found_before_any_charge(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products that come from another order of roundings, as inexact kernels have them."""
    trainer = trainer_of(records_of(0, 33, 5), "mlp", 5, 16, 2**16)
    usual = torch.mm

    def rounded(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        usual(a, b, out=out)
        return out.mul_(1 + 2.0**-18 * (torch.get_num_threads() == threads) * (b.shape[1] % 3))

    monkeypatch.setattr(torch, "mm", rounded)
    with pytest.raises(ModelError, match="not one value on this machine"):
        require_records_apart(trainer)


def test_what_has_no_exact_arithmetic_is_refused_by_name() -> None:
    def made(model: nn.Module, shape: tuple[int, ...], objective: Objective = CLASSES) -> None:
        records = TensorRecords.of(np.zeros((2, *shape)), np.zeros(2))
        DpSgd(model, records, Grid(1, 2**16), objective=objective, engine="exact-dense")

    cnn = build_model(ModelSpec(kind="cnn"), (1, 8, 8), 3)
    with pytest.raises(ModelError, match=r"no rule for layer '0' \(Conv2d\)"):
        made(cnn, (1, 8, 8))
    with pytest.raises(ModelError, match=r"no rule for layer '1' \(Tanh\)"):
        made(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), (4,))
    with pytest.raises(ModelError, match=r"no rule for layer '1' \(ReLU\)"):
        made(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4,))
    with pytest.raises(ModelError, match=r"layer .1. \(Linear\) of 8193 by 2"):
        made(nn.Sequential(nn.Flatten(), nn.Linear(8193, 2)), (8193,))
    twice = nn.Linear(4, 4)
    with pytest.raises(ModelError, match=r"layer '2' \(Linear\) .* parameter of another"):
        made(nn.Sequential(twice, nn.ReLU(), twice), (4,))
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(ModelError, match=r"layer '2' \(Linear\) .* parameter of another"):
        made(tied, (4,))
    with pytest.raises(ConfigError, match="knows the gradients of classes' losses alone"):
        made(nn.Linear(4, 1), (4,), Objective(squared_loss))
