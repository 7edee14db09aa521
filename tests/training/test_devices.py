"""Where a site trains: what is chosen, what is refused, and that accelerators are not waited for.

No card is at hand. The code for one runs on torch's `meta` device, which has no data: it refuses
every look at a value and every operation that mixes devices. What it computes without a look is
held against Python's integers on the CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from privagg import Federation
from privagg.encoding.grid import Grid
from privagg.errors import ConfigError, ModelError
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.ledger.entries import Charge
from privagg.training.data import TensorRecords
from privagg.training.dense import DenseEngine
from privagg.training.devices import Device, devices_for, settle
from privagg.training.dpsgd import DpSgd
from privagg.training.ghost import clipping, integers, pieces
from privagg.training.ghost.engine import ExactEngine
from privagg.training.models import build_model
from privagg.training.objective import CLASSES
from privagg.training.rehearsal import (
    require_model_apart,
    require_records_apart,
    require_trains,
)
from privagg.training.torch_state import deterministic_torch
from tests.training.test_ghost import MODELS, trainer_with
from tests.training.test_ghost import test_the_sum_is_that_of_python_integers as sum_is_right
from tests.zoo import ACCEPTED

META = torch.device("meta")
GRID = Grid(1, 2**20)
CPU = [("cpu", 3), ("cpu", 1)]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has a CUDA device, and three threads."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "made up")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setenv("PRIVAGG_THREADS", "8")


def named(*found: Device) -> list[tuple[str, int]]:
    return [(device.torch.type, device.threads) for device in found]


def test_auto_takes_a_card_then_all_threads_then_one(
    card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(*devices_for("auto")) == [("cuda", 3), *CPU]
    assert named(*devices_for("cpu")) == CPU
    assert named(*devices_for("cuda")) == [("cuda", 3)]
    monkeypatch.setenv("PRIVAGG_THREADS", "2")
    assert named(*devices_for("cpu")) == [("cpu", 2), ("cpu", 1)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert named(*devices_for("auto")) == [("cpu", 2), ("cpu", 1)]
    with pytest.raises(ConfigError, match="'cuda'.*sees no such device.*\"cpu\""):
        devices_for("cuda")


def test_a_device_where_records_do_not_stay_apart_is_left_or_refused(card: None) -> None:
    def test(device: Device) -> str:
        if (device.torch.type, device.threads) != ("cpu", 1):
            raise ModelError("one record's gradient changes")
        return "found"

    settled, found = settle("auto", test)
    assert (named(settled), found) == (CPU[1:], "found")
    with pytest.raises(ModelError, match=r'device = "cuda" \(cuda made up.*record\'s gradient'):
        settle("cuda", test)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_batch_is_computed_without_a_look_at_any_value(name: str) -> None:
    case = ACCEPTED[name]
    model = case.make().to(META)
    engine = ExactEngine(model, CLASSES, GRID)
    x, y = torch.zeros(8, *case.shape, device=META), torch.zeros(8, device=META).long()
    found = engine.batch_sum(x, y, torch.ones(8, dtype=torch.bool, device=META))
    assert found.device == META
    assert found.dtype == torch.int64
    assert found.shape == (sum(p.numel() for p in model.parameters() if p.requires_grad),)


def test_a_look_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "is_seen", lambda _: True)
    monkeypatch.setattr(integers, "is_compiled", lambda: False)
    with pytest.raises(RuntimeError, match="meta"):
        test_a_batch_is_computed_without_a_look_at_any_value("Linear")


def test_a_step_waits_for_its_device_once_and_a_failure_is_no_records() -> None:
    """No device without data gives a sum; what fails there must not count as zero."""
    x = np.random.default_rng(0).standard_normal((6, 4))
    trainer = DpSgd(
        build_model("mlp", (4,), 2), TensorRecords.of(x, np.arange(6) % 2), GRID,
        physical_batch=4, batches=2, engine="exact", device=META,
    )  # fmt: skip
    with pytest.raises(ModelError, match="'meta' failed within a step") as failed:
        trainer.slotted_sum(np.zeros(trainer.dimension), np.arange(8) % 7 - 1)
    assert isinstance(failed.value.__cause__, NotImplementedError)
    assert "fetched" in str(failed.traceback[-1].name)
    assert [entry.name for entry in failed.traceback].count("_batch_sum") == 0


def test_a_batch_that_fails_with_its_device_is_not_done_again_without_its_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is computed on a card that failed: all records would count as zero for one."""
    trainer, _ = trainer_with("mlp", 2**16)
    monkeypatch.setattr(trainer, "_device", META)

    def fails(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(trainer, "_sum_at", fails)
    with pytest.raises(ModelError, match="'meta' failed within a step"):
        trainer.slotted_sum(np.zeros(trainer.dimension), np.arange(32) % 20)


@pytest.mark.parametrize("sensitivity", [2**6, 2**20])
@pytest.mark.parametrize("margin", [None, -0.5])
def test_sums_that_are_made_without_a_look_are_those_of_python_integers(
    sensitivity: int, margin: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (integers, pieces, clipping):
        monkeypatch.setattr(module, "is_seen", lambda _: False)
    with deterministic_torch():
        sum_is_right(sensitivity, margin, monkeypatch)


@pytest.mark.parametrize("name", MODELS)
def test_a_look_saves_work_and_changes_no_integer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the compiled pass: with it, the same integers from the same norms."""
    exact = integers.float_norms
    monkeypatch.setattr(integers, "float_norms", lambda values: exact(values.double()))
    sums = []
    with deterministic_torch():
        for seen in (True, False):
            for module in (integers, pieces, clipping):
                monkeypatch.setattr(module, "is_seen", lambda _, seen=seen: seen)
            trainer, count = trainer_with(name, 2**20)
            assert require_records_apart(trainer).how == "tested"
            places = np.arange(32) % count
            sums.append(trainer.slotted_sum(np.sin(np.arange(trainer.dimension)), places))
    assert sums[0].any()
    np.testing.assert_array_equal(*sums)


def test_threads_are_tested_as_they_train() -> None:
    found = require_model_apart(
        build_model("mlp", (13,), 2), (13,), 16, engine="exact",
        device=Device(torch.device("cpu"), 2),
    )  # fmt: skip
    assert (found.threads, found.placed, found.engine) == (2, "slots", "exact")


def test_mixed_precision_is_refused() -> None:
    with torch.autocast("cpu"), pytest.raises(ConfigError, match="autocast is on for cpu"):
        require_model_apart(build_model("mlp", (4,), 2), (4,), 8, engine="exact")

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.head(x).float()

    with pytest.raises(ModelError, match=r"'head' \(Linear\).*bfloat16"):
        require_model_apart(Mixed(), (4,), 8, engine="exact")


def test_a_device_without_float64_is_for_the_other_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object, **__: object) -> torch.Tensor:
        raise TypeError("the MPS framework doesn't support float64")

    monkeypatch.setattr("privagg.training.ghost.engine.torch.zeros", without)
    with pytest.raises(ConfigError, match="float64, which 'cpu' lacks.*opacus"):
        ExactEngine(build_model("mlp", (4,), 2), CLASSES, GRID)


def test_exact_arithmetic_stays_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="CPU alone"):
        DenseEngine(build_model("mlp", (4,), 2).to(META), CLASSES, GRID)


def test_whole_clients_train_where_a_plain_step_can_be_taken() -> None:
    def waits(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0] * float(outputs.detach().sum())

    with pytest.raises(ModelError, match="cannot be trained there"):
        require_trains(build_model("mlp", (4,), 2), (4,), CLASSES, Device(META))


SITES = ("north", "south")
CONFIG = {
    "federation": {"name": "two"},
    "privacy": {"epsilon": "2", "delta": "1e-5"},
    "training": {"rounds": 1, "sampling_rate": "0.5"},
    "secure": {"scheme": "plaintext", "custody": "authority"},
    "data": {
        "kind": "table",
        "features": [{"name": "a", "range": [0, 9]}],
        "target": {"name": "y", "positive": "== 1"},
    },
    "sites": [{"name": name, "data": f"{name}.csv", "records": 10} for name in SITES],
}


def test_a_site_names_its_device_and_an_absent_one_costs_nothing(
    tmp_path: Path, no_page: None
) -> None:
    for name in SITES:
        lines = "".join(f"{i},{i % 2}\n" for i in range(10))
        (tmp_path / f"{name}.csv").write_text(f"a,y\n{lines}")
    made = Federation.from_dict(CONFIG, base=tmp_path)
    made.approve(who="w", why="y")
    own = local_folder(made.setup.output, "south").party_file
    own.write_text('name = "south"\ndevice = "mps"\n')
    assert [made.setup.devices(name) for name in SITES] == ["auto", "mps"]
    for refused in (made, Federation.from_dict(CONFIG, base=tmp_path, device="cuda")):
        with pytest.raises(ConfigError, match="sees no such device"):
            refused.check_ready()  # before the command line prints a line
        with pytest.raises(ConfigError, match="sees no such device"):
            refused.run()
    for ledger in local_ledgers(made.setup.output).values():
        assert not any(isinstance(entry.payload, Charge) for entry in ledger.entries())
    own.write_text('name = "south"\ndevice = "gpu"\n')
    with pytest.raises(ConfigError, match=r"party\.toml.*device"):
        made.run()
    own.write_text('name = "south"\ndevice = "cpu"\n')
    assert made.run().outcome == "finished"
