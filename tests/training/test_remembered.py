"""A test of a model is remembered by all that it depends on, and by nothing less."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from privagg.errors import ModelError
from privagg.training import models, remembered
from privagg.training.declared import ModelSpec
from privagg.training.models import build_model
from privagg.training.remembered import once


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    before = dict(remembered._PASSED)
    remembered._PASSED.clear()
    yield
    remembered._PASSED.clear()
    remembered._PASSED.update(before)


class Scaled(nn.Module):
    """A linear layer times a number that is no parameter."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.linear, self.factor = nn.Linear(4, 1), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.linear(x)


def made_of(models: Iterable[nn.Module], fact: int) -> int:
    """How many of these models were tested, one after another."""
    made: list[int] = []
    for model in models:
        once(lambda: made.append(1), model, fact)
    return len(made)


def tests_made(*tried: nn.Module) -> int:
    """The same, given one fact."""
    return made_of(tried, 1)


def test_the_same_model_is_tested_once() -> None:
    model = Scaled()
    assert tests_made(model, copy.deepcopy(model), model) == 1
    assert tests_made(copy.deepcopy(model)) == 0


def test_whatever_else_a_model_may_be_is_tested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scaled()
    others = [copy.deepcopy(model) for _ in range(6)]
    with torch.no_grad():
        others[0].linear.weight[0, 0] += 1e-6
    others[1].factor = 2.0
    others[2].linear.bias.requires_grad_(False)
    others[3].register_buffer("seen", torch.zeros(1))
    others[4].train(False)
    others[5].linear = nn.LazyLinear(1)
    assert tests_made(model, *others) == 7
    assert made_of([model], 2) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    assert tests_made(model) == 1


def test_code_that_was_imported_anew_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class has the same name and the same values, and does something else."""
    source = "from torch import nn\nclass Own(nn.Linear):\n    def forward(self, x):\n        {}\n"
    (tmp_path / "own_code.py").write_text(source.format("return super().forward(x)"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_code")
    torch.manual_seed(1)
    first = module.Own(4, 1)
    text = "return super().forward(x - x.mean(0)) + 0.0"
    (tmp_path / "own_code.py").write_text(source.format(text))
    second = importlib.reload(module).Own(4, 1)
    second.load_state_dict(first.state_dict())
    try:
        assert tests_made(first, second) == 2
    finally:
        del sys.modules["own_code"]


def test_what_cannot_be_told_or_did_not_pass_is_not_remembered() -> None:
    model = Scaled()
    model.act = lambda x: x  # type: ignore[assignment]
    assert tests_made(model, model) == 2

    def fails() -> None:
        raise ModelError("mixes records")

    other = Scaled()
    for _ in range(2):
        with pytest.raises(ModelError, match="mixes"):
            once(fails, other, 1)
    assert tests_made(other) == 1


def test_a_run_builds_a_model_many_times_and_tests_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[int] = []
    probe = models._probe
    monkeypatch.setattr(models, "_probe", lambda *given: (probed.append(1), probe(*given)))
    spec = ModelSpec(kind="mlp", hidden=(8,))
    for _ in range(3):
        build_model(spec, (4,), 2)
    assert len(probed) == 1
    build_model(spec, (4,), 2, seed=1)
    build_model(spec, (5,), 2)
    assert len(probed) == 3


def test_no_more_is_kept_than_a_process_can_hold() -> None:
    assert tests_made(*(Scaled(n) for n in range(70))) == 70
    assert len(remembered._PASSED) == 64
