"""Server optimisers against torch's, and against the paper's recursions worked by hand."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from privagg.errors import ConfigError
from privagg.programs.optimizers import OptimizerSpec, Schedule, ServerOptimizer, make_optimizer

STEPS, DIMENSION = 25, 7
RNG = np.random.default_rng(20)
START = RNG.standard_normal(DIMENSION)
UPDATES = RNG.standard_normal((STEPS, DIMENSION)) * 10.0 ** RNG.integers(-2, 3, (STEPS, 1))

TorchMaker = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def ours(spec: OptimizerSpec, updates: np.ndarray = UPDATES) -> list[np.ndarray]:
    optimizer, x, path = make_optimizer(spec), START, []
    for update in updates:
        x = optimizer.step(x, update)
        path.append(x)
    return path


def of_torch(make: TorchMaker) -> list[np.ndarray]:
    """torch descends a gradient, so it is given minus the update."""
    x = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer, path = make([x]), []
    for update in UPDATES:
        x.grad = torch.tensor(-update)
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return path


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (OptimizerSpec(kind="sgd", learning_rate=0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
        (
            OptimizerSpec(kind="sgd", learning_rate=0.3, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.1),
        ),
        (
            OptimizerSpec(kind="momentum", learning_rate=0.1, momentum=0.7),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7),
        ),
        (
            OptimizerSpec(kind="momentum", learning_rate=0.1, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (
            OptimizerSpec(kind="rmsprop", learning_rate=0.02, beta2=0.95, tau=1e-4),
            lambda p: torch.optim.RMSprop(p, lr=0.02, alpha=0.95, eps=1e-4),
        ),
        (
            OptimizerSpec(kind="rmsprop", learning_rate=0.02, beta2=0.95, momentum=0.6),
            lambda p: torch.optim.RMSprop(p, lr=0.02, alpha=0.95, eps=1e-3, momentum=0.6),
        ),
        (
            OptimizerSpec(kind="adagrad", learning_rate=0.5, tau=1e-3, initial_square=0.2),
            lambda p: torch.optim.Adagrad(p, lr=0.5, eps=1e-3, initial_accumulator_value=0.2),
        ),
        (
            OptimizerSpec(kind="adam", learning_rate=0.1, bias_correction=True, weight_decay=0.01),
            lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99), eps=1e-3, weight_decay=0.01),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, OptimizerSpec) else "",
)
def test_agrees_with_torch_step_for_step(spec: OptimizerSpec, make: TorchMaker) -> None:
    for mine, theirs in zip(ours(spec), of_torch(make), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)


def test_fedadam_is_torchs_adam_with_the_correction_undone() -> None:
    """Without correction: rate·√(1−β2^t)/(1−β1^t) and τ/√(1−β2^t) turn one into the other."""
    spec = OptimizerSpec(kind="adam", learning_rate=0.1, tau=1e-3, initial_square=0.0)
    optimizer, x = make_optimizer(spec), START
    y = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([y], betas=(0.9, 0.99))
    for t, update in enumerate(UPDATES, start=1):
        root = np.sqrt(1 - 0.99**t)
        adam.param_groups[0].update(lr=0.1 * (1 - 0.9**t) / root, eps=1e-3 / root)
        x = optimizer.step(x, update)
        y.grad = torch.tensor(-update)
        adam.step()
        np.testing.assert_allclose(x, y.detach().numpy(), rtol=1e-10, atol=1e-12)


# Reddi et al. 2021, Algorithm 2, d = 1, x = 0, β1 = 1/2, β2 = 3/4, τ = 1/2 (so v = 1/4 before the
# first round), η = 1, updates 1 and then -1/2. Means: m = 1/2, then 1/4 - 1/4 = 0; a third update
# of 1 gives m = 1/2.
# Squares: adagrad 5/4, 3/2, 5/2; adam 7/16, 25/64, 139/256;
# yogi: v < 1, so v + 1/4 = 1/2; v > 1/4, so 1/2 - 1/16 = 7/16; v < 1, so 7/16 + 1/4 = 11/16.
HAND = {
    "adagrad": (5 / 4, 5 / 2),
    "adam": (7 / 16, 139 / 256),
    "yogi": (1 / 2, 11 / 16),
}


@pytest.mark.parametrize("kind", HAND)
def test_fedopt_recursions_by_hand(kind: Any) -> None:
    facts = {} if kind == "adagrad" else {"beta2": 0.75}
    spec = OptimizerSpec(kind=kind, beta1=0.5, tau=0.5, **facts)
    optimizer, first, third = make_optimizer(spec), *HAND[kind]
    x = optimizer.step(np.zeros(1), np.array([1.0]))
    assert x[0] == pytest.approx(0.5 / (np.sqrt(first) + 0.5), rel=1e-14)
    assert optimizer.step(x, np.array([-0.5]))[0] == x[0]
    moved = optimizer.step(x, np.array([1.0]))
    assert moved[0] - x[0] == pytest.approx(0.5 / (np.sqrt(third) + 0.5), rel=1e-14)


def test_fedavg_moves_by_the_mean_delta() -> None:
    delta = np.array([0.25, -1.0])
    moved = make_optimizer(OptimizerSpec()).step(np.array([1.0, 1.0]), delta)
    np.testing.assert_array_equal(moved, [1.25, 0.0])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1, 1]),
        (Schedule(kind="inverse-time", decay=0.5), [1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3, 1 / 3.5]),
        (Schedule(kind="inverse-sqrt", decay=3), [1, 1 / 2, 7**-0.5, 10**-0.5, 13**-0.5, 1 / 4]),
        (Schedule(kind="cosine", rounds=4, final=0.2), [1, None, 0.6, None, 0.2, 0.2]),
    ],
)
def test_schedules(schedule: Schedule, expected: list[float | None]) -> None:
    steps = np.diff(
        [
            START[0],
            *(
                x[0]
                for x in ours(OptimizerSpec(schedule=schedule), np.ones((len(expected), DIMENSION)))
            ),
        ]
    )
    for step, wanted in zip(steps, expected, strict=True):
        assert wanted is None or step == pytest.approx(wanted)


def test_tail_average_starts_where_it_is_told_to() -> None:
    spec = OptimizerSpec(learning_rate=0.5, average_from=10)
    optimizer, x, path = make_optimizer(spec), START, []
    for t, update in enumerate(UPDATES):
        assert (optimizer.average is None) == (t <= 10)
        x = optimizer.step(x, update)
        path.append(x)
    np.testing.assert_allclose(optimizer.average, np.mean(path[10:], axis=0), rtol=1e-12)


def test_projection_keeps_the_parameters_in_the_ball() -> None:
    path = ours(OptimizerSpec(radius_l2=1.5))
    assert max(np.linalg.norm(x) for x in path) <= 1.5 + 1e-12
    inside = make_optimizer(OptimizerSpec(radius_l2=9.0)).step(np.ones(2), np.ones(2))
    np.testing.assert_array_equal(inside, [2.0, 2.0])


KINDS = ["sgd", "momentum", "adagrad", "adam", "yogi", "rmsprop"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_same_to_the_last_bit(kind: Any) -> None:
    spec = OptimizerSpec(kind=kind, learning_rate=0.1, average_from=3)
    whole: ServerOptimizer = make_optimizer(spec)
    x = START
    for update in UPDATES[:8]:
        x = whole.step(x, update)
    resumed = make_optimizer(spec)
    resumed.load(json.loads(json.dumps(whole.state())))
    y = x
    for update in UPDATES[8:]:
        x, y = whole.step(x, update), resumed.step(y, update)
    assert x.tobytes() == y.tobytes()
    assert whole.average is not None
    assert whole.average.tobytes() == resumed.average.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_step_writes_into_none_of_its_arguments(kind: Any) -> None:
    x, update = START.copy(), UPDATES[0].copy()
    optimizer = make_optimizer(OptimizerSpec(kind=kind))
    moved = optimizer.step(x, update)
    moved += 1.0
    optimizer.step(x, update)
    np.testing.assert_array_equal(x, START)
    np.testing.assert_array_equal(update, UPDATES[0])


def test_states_and_vectors_that_do_not_fit_are_refused() -> None:
    adam = make_optimizer(OptimizerSpec(kind="adam"))
    adam.step(START, UPDATES[0])
    state = adam.state()
    with pytest.raises(ConfigError, match="cannot be loaded into 'yogi'"):
        make_optimizer(OptimizerSpec(kind="yogi")).load(state)
    for damage in ({"steps": -1}, {"slots": {"mean": "AAAA"}}, {"slots": {"mean": "?"}}):
        with pytest.raises(ConfigError, match="damaged"):
            make_optimizer(OptimizerSpec(kind="adam")).load({**state, **damage})
    with pytest.raises(ConfigError, match="one length"):
        adam.step(START[:3], UPDATES[0][:3])
    with pytest.raises(ConfigError, match="one length"):
        adam.step(START, UPDATES[0][:3])


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "sgd", "momentum": 0.9},
        {"kind": "adam", "nesterov": True},
        {"kind": "yogi", "bias_correction": True},
        {"kind": "adam", "bias_correction": True, "initial_square": 0.1},
        {"kind": "sgd", "learning_rate": 0.0},
        {"kind": "sgd", "learning_rate": float("inf")},
        {"kind": "momentum", "momentum": 1.0},
        {"kind": "lion"},
        {"schedule": {"kind": "cosine"}},
        {"schedule": {"kind": "constant", "rounds": 3}},
    ],
)
def test_settings_that_nobody_would_read_are_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OptimizerSpec.model_validate(facts)
