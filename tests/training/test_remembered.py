"""A test of a model is remembered by all that it depends on, and by nothing less."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooked
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

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


def small(seed: int = 0) -> nn.Sequential:
    """A model of torch's own layers alone."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def made_of(models: Iterable[nn.Module], fact: int) -> int:
    """How many of these models were tested, one after another."""
    made: list[int] = []
    for model in models:
        once(lambda: made.append(1), model, fact)
    return len(made)


def times_tested(*tried: nn.Module) -> int:
    """The same, given one fact."""
    return made_of(tried, 1)


def test_the_same_model_is_tested_once() -> None:
    model = small()
    assert times_tested(model, copy.deepcopy(model), model, small()) == 1
    assert made_of([model], 2) == 1


def test_a_model_of_other_values_or_attributes_is_tested_again() -> None:
    others = [small() for _ in range(6)]
    with torch.no_grad():
        others[0][0].weight[0, 0] += 1e-6
    others[1][1] = nn.ReLU()
    others[2][0].bias.requires_grad_(False)
    others[3].register_buffer("seen", torch.zeros(1))
    others[4].train(False)
    others[5][1].inplace = True  # type: ignore[assignment]
    assert times_tested(small(), *others) == 7


# --- what must never hit the memory: code that is not torch's, on the model or around it ---------


def mixes(layer: nn.Module, given: Any, found: torch.Tensor) -> torch.Tensor:
    """A hook by which each record's output depends on all."""
    return found + found.mean(0)


class Mixed(nn.Module):
    """The mean of a weight is taken off it."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight - weight.mean()


class Own(nn.Linear):
    """A class of one's own, whatever it does."""


class OwnValues(nn.Parameter):
    """A tensor that could answer torch's functions by itself."""


def _patched(model: nn.Sequential) -> None:
    model[0].forward = lambda x: x.mean(0) + x  # type: ignore[method-assign]


def _bound(model: nn.Sequential) -> None:
    model.forward = torch.tanh  # type: ignore[assignment]


def _closure(model: nn.Sequential) -> None:
    seen: list[torch.Tensor] = []
    model[1].act = lambda x: (seen.append(x), x)[1]  # type: ignore[assignment]


ATTACKS: dict[str, Callable[[nn.Sequential], object]] = {
    "forward": _patched,
    "torch's function as forward": _bound,
    "closure": _closure,
    "forward hook": lambda m: m[0].register_forward_hook(mixes),
    "forward pre-hook": lambda m: m.register_forward_pre_hook(lambda layer, given: given),
    "backward hook": lambda m: m[2].register_full_backward_hook(lambda *given: None),
    "tensor hook": lambda m: m[0].weight.register_hook(lambda gradient: gradient),
    "parametrization": lambda m: parametrize.register_parametrization(m[0], "weight", Mixed()),
    "spectral norm": lambda m: nn.utils.parametrizations.spectral_norm(m[0]),
    "own class": lambda m: m.append(Own(1, 1)),
    "class changed": lambda m: setattr(m[0], "__class__", Own),
    "own tensor": lambda m: setattr(m[0], "weight", OwnValues(torch.zeros(3, 4))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_with_code_of_its_own_is_tested_every_time(attack: str) -> None:
    attacked = small()
    ATTACKS[attack](attacked)
    assert times_tested(small(), attacked, attacked) == 3


@contextmanager
def _set(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _hooked(register: Callable[..., Any], hook: Callable[..., Any]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "global forward hook": lambda: _hooked(hooked.register_module_forward_hook, mixes),
    "global forward pre-hook": lambda: _hooked(
        hooked.register_module_forward_pre_hook, lambda layer, given: given
    ),
    "global registration hook": lambda: _hooked(
        hooked.register_module_parameter_registration_hook, lambda layer, name, given: given
    ),
    "class's forward": lambda: _set(nn.Linear, "forward", lambda layer, x: x.mean(0) + x),
    "code of a class's forward": lambda: _set(
        nn.Tanh.forward, "__code__", (lambda self, input: input.mean(0) + input).__code__
    ),
    "call of every module": lambda: _set(nn.Module, "__call__", lambda layer, x: x),
    "torch's function": lambda: _set(torch, "tanh", lambda x: x.mean(0) + x),
    "functional": lambda: _set(nn.functional, "linear", lambda x, w, b: x.mean(0) + x),
    "a module that a layer's code names": lambda: _set(
        sys.modules["torch.nn.modules.linear"], "F", sys
    ),
    "mode": _Mode,
    "saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
}


@pytest.mark.parametrize("attack", AROUND)
def test_whatever_changes_all_layers_is_never_remembered(attack: str) -> None:
    model = small()
    assert times_tested(model) == 1
    with AROUND[attack]():
        assert times_tested(model, model) == 2
    assert times_tested(model) == 0


def _number(name: str, value: Any, read: Callable[[], Any]) -> AbstractContextManager[None]:
    @contextmanager
    def held() -> Iterator[None]:
        before = read()
        getattr(torch, name)(value)
        try:
            yield
        finally:
            getattr(torch, name)(before)

    return held()


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "threads": lambda: _number(
        "set_num_threads", torch.get_num_threads() + 1, torch.get_num_threads
    ),
    "deterministic": lambda: _number(
        "use_deterministic_algorithms", True, torch.are_deterministic_algorithms_enabled
    ),
    "precision": lambda: _number(
        "set_float32_matmul_precision", "medium", torch.get_float32_matmul_precision
    ),
    "default dtype": lambda: _number(
        "set_default_dtype", torch.float64, torch.get_default_dtype
    ),
    "denormal": lambda: _number("set_flush_denormal", True, lambda: False),
    "mkldnn": lambda: torch.backends.mkldnn.flags(enabled=False),
    "autocast": lambda: torch.autocast("cpu"),
    "no gradient": torch.no_grad,
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_under_other_settings_of_torch_a_model_is_tested_again(setting: str) -> None:
    model = small()
    with SETTINGS[setting]():
        pass  # torch says once whether a precision was ever set
    assert times_tested(model) == 1
    with SETTINGS[setting]():
        assert times_tested(model) == 1
    assert times_tested(model) == 0


def test_a_factory_that_reads_a_global_cannot_pass_by_an_earlier_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same class, the same values: what mixes records is a number in its module."""
    (tmp_path / "reads_global.py").write_text(
        "from torch import nn\n"
        "MIX = 0\n"
        "class Own(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x + MIX * x.mean(0))\n"
        "def own(input_shape, classes):\n"
        "    return Own(*input_shape, classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = ModelSpec(kind="reads_global:own")
    try:
        build_model(spec, (4,), 2)
        sys.modules["reads_global"].MIX = 1  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match="depends on another record"):
            build_model(spec, (4,), 2)
    finally:
        sys.modules.pop("reads_global", None)


# --- what is kept ------------------------------------------------------------------------------


def test_what_did_not_pass_is_not_remembered() -> None:
    def fails() -> None:
        raise ModelError("mixes records")

    model = small()
    for _ in range(2):
        with pytest.raises(ModelError, match="mixes"):
            once(fails, model, 1)
    assert times_tested(model) == 1


def test_a_run_builds_a_model_many_times_and_tests_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[int] = []
    probe = models._probe
    monkeypatch.setattr(models, "_probe", lambda *given: (probed.append(1), probe(*given)))
    for spec, shape in (
        (ModelSpec(kind="mlp", hidden=(8,)), (4,)),
        (ModelSpec(kind="cnn"), (1, 8, 8)),
    ):
        probed.clear()
        for _ in range(3):
            build_model(spec, shape, 2)
        assert len(probed) == 1
        build_model(spec, shape, 2, seed=1)
        assert len(probed) == 2


def test_no_more_is_kept_than_a_process_can_hold() -> None:
    assert times_tested(*(small(seed) for seed in range(70))) == 70
    assert len(remembered._PASSED) == 64
