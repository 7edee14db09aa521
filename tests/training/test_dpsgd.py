"""Clipped gradient sums against stock Opacus, and the laws their sensitivity rests on."""

from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError, ModelError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training.data import DatasetRecords, TensorRecords
from privagg.training.declared import ModelSpec
from privagg.training.dpsgd import DpSgd
from privagg.training.losses import class_loss
from privagg.training.models import (
    build_model,
    get_parameters,
    require_separable,
    set_parameters,
)
from privagg.training.objective import Objective
from privagg.training.torch_state import deterministic_torch

# What stock Opacus says about being used as here; ours is silent.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook"),
    pytest.mark.filterwarnings("ignore:Secure RNG"),
]

S = 2**24
RANDOM = DeterministicRandomness(b"slots")
MODELS = [
    (ModelSpec(kind="logistic"), (13,), 2),
    (ModelSpec(kind="logistic"), (1, 4, 4), 5),
    (ModelSpec(kind="mlp", hidden=(16,)), (13,), 2),
    (ModelSpec(kind="cnn"), (1, 8, 8), 10),
]
Case = tuple[ModelSpec, tuple[int, ...], int]


@pytest.fixture(autouse=True)
def _one_thread():
    with deterministic_torch():
        yield


def grid(clip: str = "1", sensitivity: int = S) -> Grid:
    return Grid(Decimal(clip), sensitivity_grid=sensitivity, contribution_bound=2**50)


def make(case: Case, count: int, *, clip: str = "1", batch: int = 16, seed: int = 0) -> DpSgd:
    spec, shape, classes = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape))
    records = TensorRecords.of(x, rng.integers(0, classes, count))
    return DpSgd(
        build_model(spec, shape, classes, seed=1), records, grid(clip), physical_batch=batch
    )


def summed(trainer: DpSgd, w: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The sum with slots of a fixed seed."""
    return trainer.gradient_sum(w, mask, RANDOM.stream("slots"))


def in_order(trainer: DpSgd, mask: np.ndarray) -> np.ndarray:
    """Every record in the slot of its own number, whoever else is there."""
    places = np.full(trainer.slot_count, -1)
    places[: len(mask)] = np.where(mask, np.arange(len(mask)), -1)
    return places


def start_of(trainer: DpSgd, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(trainer.dimension) * 0.3


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_noiseless_path_follows_stock_opacus_step_for_step(case: Case) -> None:
    """Same batches, no noise, a fixed expected batch: one path through DPOptimizer, one through us.

    The two may differ by one grid unit a record and a step, by float32 arithmetic, and by the 1e-6
    that Opacus adds to a norm before it divides.
    """
    spec, shape, classes = case
    expected_batch, rate, clip, count = 12, 0.5, 0.7, 40
    ours = make(case, count, clip=str(clip))
    theirs = GradSampleModule(build_model(spec, shape, classes, seed=1), loss_reduction="mean")
    w = start_of(ours)
    set_parameters(theirs, w)
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=rate),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=expected_batch,
    )
    rng = np.random.default_rng(8)
    for _ in range(6):
        mask = rng.random(count) < 0.3
        x, y = ours._records.gather(np.flatnonzero(mask))
        optimizer.zero_grad()
        class_loss(theirs(x), y).mean().backward()
        optimizer.step()
        w = w - rate / expected_batch * summed(ours, w, mask) * (clip / S)
        np.testing.assert_allclose(get_parameters(theirs), w, rtol=2e-5, atol=4e-6)


def test_noiseless_path_follows_a_whole_privacy_engine() -> None:
    """As a user of Opacus would set it up, over an epoch of fixed batches."""
    case, count, size = MODELS[2], 48, 8
    ours = make(case, count, batch=size)
    spec, shape, classes = case
    x, y = ours._records.gather(np.arange(count))
    module = build_model(spec, shape, classes, seed=1)
    w = get_parameters(module)
    model, optimizer, loader = PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=0.3),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=size, shuffle=False),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    for step, (inputs, classes_of) in enumerate(loader):
        optimizer.zero_grad()
        class_loss(model(inputs), classes_of).mean().backward()
        optimizer.step()
        mask = np.arange(count) // size == step
        w = w - 0.3 / size * summed(ours, w, mask) / S
        np.testing.assert_allclose(get_parameters(model._module), w, rtol=2e-5, atol=4e-6)


@pytest.fixture(scope="module")
def clipped() -> DpSgd:
    """Gradients partly above and partly below the clip norm, several physical batches."""
    return make(MODELS[0], 24, clip="0.8", batch=8)


@settings(max_examples=40, deadline=None)
@given(chosen=st.lists(st.booleans(), min_size=24, max_size=24), record=st.integers(0, 23))
def test_one_record_moves_the_sum_by_its_own_clipped_integers_exactly(
    clipped: DpSgd, chosen: list[bool], record: int
) -> None:
    w = start_of(clipped)
    mask = np.array(chosen)
    mask[record] = True
    without = mask.copy()
    without[record] = False
    only = np.arange(24) == record
    both, others, own = (
        clipped.slotted_sum(w, in_order(clipped, chosen)) for chosen in (mask, without, only)
    )
    np.testing.assert_array_equal(both - others, own)
    assert sum(int(z) ** 2 for z in own) <= S**2


def test_clipping_clips_some_and_leaves_some(clipped: DpSgd) -> None:
    w = start_of(clipped)
    set_parameters(clipped._model, w)
    norms = np.linalg.norm(
        np.concatenate([clipped.per_record_gradients(np.arange(i, i + 8)) for i in (0, 8, 16)]),
        axis=1,
    )
    assert (norms > 0.8).any()
    assert (norms < 0.8).any()


def test_physical_batches_are_a_speed_setting() -> None:
    sums = [make(MODELS[2], 40, batch=batch) for batch in (4, 16, 64)]
    mask = np.arange(40) % 3 != 0
    first, *others = (summed(trainer, start_of(trainer), mask) for trainer in sums)
    for other in others:  # float32 in another order: a few parts in 2^24 a record
        assert np.abs(first - other).max() <= 8 * 27


def test_no_record_gives_zeros() -> None:
    trainer = make(MODELS[0], 10)
    empty = summed(trainer, start_of(trainer), np.zeros(10, dtype=np.bool_))
    assert empty.dtype == np.int64
    assert not empty.any()
    nobody = make(MODELS[0], 0)
    assert not summed(nobody, start_of(nobody), np.zeros(0, dtype=np.bool_)).any()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
def test_a_record_whose_gradient_is_not_finite_contributes_zero(poison: float) -> None:
    clean = make(MODELS[2], 9)
    x, y = clean._records.gather(np.arange(9))
    x = x.clone()
    x[4] = poison
    dirty = DpSgd(
        clean._model.__class__(*clean._model), TensorRecords(x, y), grid(), physical_batch=16
    )
    others = np.arange(9) != 4
    w = start_of(clean) * 100
    np.testing.assert_array_equal(
        dirty.slotted_sum(w, in_order(dirty, np.ones(9, dtype=np.bool_))),
        clean.slotted_sum(w, in_order(clean, others)),
    )


class Odd(nn.Module):
    """One layer used twice, one parameter never, one dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.never = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.0)
        self.last = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.dropout(torch.tanh(self.twice(torch.tanh(self.twice(x))))))


def test_layers_used_twice_or_never_agree_with_plain_autograd() -> None:
    model = Odd()
    records = TensorRecords.of(np.random.default_rng(1).standard_normal((5, 4)), [0, 1, 1, 0, 1])
    trainer = DpSgd(model, records, grid("100"), physical_batch=5)
    w = start_of(trainer)
    total = summed(trainer, w, np.ones(5, dtype=np.bool_)) * (100 / S)
    plain = Odd()
    set_parameters(plain, w)
    class_loss(plain(records.x), records.y).sum().backward()
    expected = [
        np.zeros(p.numel()) if p.grad is None else p.grad.numpy().reshape(-1)
        for p in plain.parameters()
    ]
    np.testing.assert_allclose(total, np.concatenate(expected), atol=5 * 100 / S + 1e-5)


class Tokens(nn.Module):
    """Whole numbers that arrive as floats, an embedding, normalisation within a record."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 3)
        self.norm = nn.LayerNorm(3)
        self.last = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.embedding(x.long()).mean(dim=1)))


def test_a_model_over_tokens_agrees_with_plain_autograd() -> None:
    model = Tokens()
    require_separable(model, (6,), 2)
    rng = np.random.default_rng(1)
    records = TensorRecords.of(rng.integers(0, 10, (7, 6)), rng.integers(0, 2, 7))
    trainer = DpSgd(model, records, grid("100"), physical_batch=4)
    w = start_of(trainer)
    total = summed(trainer, w, np.ones(7, dtype=np.bool_)) * (100 / S)
    plain = Tokens()
    set_parameters(plain, w)
    class_loss(plain(records.x), records.y).sum().backward()
    expected = np.concatenate([p.grad.numpy().reshape(-1) for p in plain.parameters()])
    np.testing.assert_allclose(total, expected, atol=7 * 100 / S + 1e-5)


@pytest.mark.parametrize("bad", [[3], [0, 6], list(range(7))])
def test_a_record_whose_gradient_cannot_be_computed_contributes_zero_and_stops_nobody(
    bad: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A round that fails whenever one record is sampled would show that the record is there."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 10, (7, 6)).astype(np.float64), rng.integers(0, 2, 7)
    clean = DpSgd(Tokens(), TensorRecords.of(x, y), grid(), physical_batch=4)
    good = ~np.isin(np.arange(7), bad)
    expected = clean.slotted_sum(start_of(clean), in_order(clean, good))
    x[bad, 2] = 10  # the embedding has indices 0 to 9
    dirty = DpSgd(Tokens(), TensorRecords.of(x, y), grid(), physical_batch=4)
    total = dirty.slotted_sum(start_of(clean), in_order(dirty, np.ones(7, dtype=np.bool_)))
    np.testing.assert_array_equal(total, expected)
    assert len(caplog.records) == len(bad)


class DrawsInForward(nn.Linear):
    """Dropout that no layer's name gives away, and that the output does not show at zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=self.training))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)), r"'1' \(Dropout\)"),
        (nn.Sequential(nn.RReLU(), nn.Linear(4, 1)), r"'0' \(RReLU\)"),
        (DrawsInForward(4, 1), "in its forward"),
    ],
)
def test_models_that_draw_are_refused_at_record_level(model: nn.Module, named: str) -> None:
    records = TensorRecords.of(np.ones((3, 4)), [0, 1, 1])
    with pytest.raises(ModelError, match=f"{named}.*dropout to 0"):
        DpSgd(model, records, grid())


def test_records_read_lazily_give_the_same_sum() -> None:
    memory = make(MODELS[0], 12)
    x, y = memory._records.gather(np.arange(12))
    lazy = DpSgd(
        build_model("logistic", (13,), 2),
        DatasetRecords(TensorDataset(x, y)),
        grid(),
        physical_batch=16,
    )
    mask = np.arange(12) % 2 == 0
    w = start_of(memory)
    np.testing.assert_array_equal(summed(memory, w, mask), summed(lazy, w, mask))


def test_what_does_not_fit_is_refused() -> None:
    trainer = make(MODELS[0], 5)
    with pytest.raises(ConfigError, match="does not fit 5 records"):
        summed(trainer, start_of(trainer), np.ones(4, dtype=np.bool_))
    with pytest.raises(ModelError, match="has 14"):
        summed(trainer, np.zeros(13), np.ones(5, dtype=np.bool_))
    with pytest.raises(ConfigError, match="at least 1"):
        make(MODELS[0], 5, batch=0)


def test_a_layer_that_opacus_cannot_take_is_named() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ModelError, match=r"(?s)per-record gradients.*BatchNorm"):
        DpSgd(model, TensorRecords.of(np.zeros((2, 4)), [0, 1]), grid())


def test_a_batch_that_failed_leaves_nothing_behind() -> None:
    """Opacus adds up what it finds; a leftover would count a record twice."""
    trainer = make(MODELS[2], 6)
    x, y = trainer._records.gather(np.arange(6))
    failing = [False]

    def loss(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if failing[0]:
            raise KeyboardInterrupt
        return class_loss(outputs, classes)

    model = build_model(MODELS[2][0], (13,), 2, seed=1)
    ours = DpSgd(model, TensorRecords(x, y), grid(), physical_batch=16, objective=Objective(loss))
    w, mask = start_of(trainer), np.ones(6, dtype=np.bool_)
    failing[0] = True
    with pytest.raises(KeyboardInterrupt):
        summed(ours, w, mask)
    failing[0] = False
    np.testing.assert_array_equal(summed(ours, w, mask), summed(trainer, w, mask))
