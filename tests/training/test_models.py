"""Models: what is built, what is refused and why, parameters as one vector."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from privagg.errors import ModelError
from privagg.training.declared import ModelSpec
from privagg.training.losses import class_loss
from privagg.training.models import (
    ParameterLayout,
    build_model,
    get_parameters,
    require_separable,
    set_parameters,
)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "outputs", "dimension"),
    [
        (ModelSpec(kind="logistic"), (13,), 2, 1, 14),
        (ModelSpec(kind="logistic"), (1, 8, 8), 10, 10, 650),
        (ModelSpec(kind="mlp", hidden=(128,)), (1, 28, 28), 10, 10, 101_770),
        (ModelSpec(kind="mlp", hidden=(8, 4)), (30,), 2, 1, 289),
        (ModelSpec(kind="cnn"), (1, 8, 8), 10, 10, 1946),
        (ModelSpec(kind="cnn", channels=(4, 8)), (3, 5, 7), 2, 1, 441),
    ],
)
def test_built_in_models(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, outputs: int, dimension: int
) -> None:
    model = build_model(spec, shape, classes, seed=3)
    assert model(torch.zeros(5, *shape)).shape == (5, outputs)
    assert ParameterLayout.of(model).dimension == len(get_parameters(model)) == dimension


def test_initial_parameters_follow_from_the_public_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = get_parameters(build_model("mlp", (4,), 2, seed=7))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert np.array_equal(first, get_parameters(build_model("mlp", (4,), 2, seed=7)))
    assert not np.array_equal(first, get_parameters(build_model("mlp", (4,), 2, seed=8)))
    assert not get_parameters(build_model("logistic", (4,), 2, seed=7)).any()


def test_parameters_survive_the_way_through_a_vector() -> None:
    model = build_model("cnn", (1, 8, 8), 3, seed=0)
    layout = ParameterLayout.of(model)
    values = np.random.default_rng(0).standard_normal(layout.dimension).astype(np.float32)
    set_parameters(model, values.astype(np.float64))
    np.testing.assert_array_equal(get_parameters(model), values)
    named = layout.to_tensors(values.astype(np.float64))
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(named[name], parameter.detach().numpy())
    np.testing.assert_array_equal(layout.from_tensors(named), values)


def test_vectors_and_files_of_another_model_are_refused() -> None:
    model = build_model("logistic", (4,), 2)
    layout = ParameterLayout.of(model)
    with pytest.raises(ModelError, match="has 5"):
        set_parameters(model, np.zeros(4))
    with pytest.raises(ModelError, match="has 5"):
        layout.to_tensors(np.zeros((5, 1)))
    with pytest.raises(ModelError, match=r"'1\.weight' of shape \(1, 4\)"):
        layout.from_tensors({"1.weight": np.zeros((4, 1)), "1.bias": np.zeros(1)})


def test_frozen_parameters_are_no_part_of_the_vector() -> None:
    model = build_model("mlp", (4,), 2)
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    assert ParameterLayout.of(model).dimension == 129
    frozen = model[1].weight.clone()
    set_parameters(model, np.ones(129))
    assert torch.equal(model[1].weight, frozen)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(4), (4,)),
        (nn.SyncBatchNorm(4), (4,)),
        (nn.BatchNorm2d(3), (3, 4, 4)),
        (nn.BatchNorm1d(4, track_running_stats=False), (4,)),
        (nn.InstanceNorm2d(3, track_running_stats=True), (3, 4, 4)),
    ],
)
def test_layers_that_mix_records_are_refused_by_path(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    inner = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(1))
    model = nn.Sequential(nn.Identity(), inner)
    with pytest.raises(ModelError, match=r"'1\.0' is \w*Norm.*GroupNorm"):
        require_separable(model, shape, 2)


def test_instance_norm_without_statistics_is_fine() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.Flatten(), nn.Linear(48, 1))
    require_separable(model, (3, 4, 4), 2)


class CentresTheBatch(nn.Module):
    """Batch normalisation under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x - x.mean(dim=0))


class CountsRecords(nn.Module):
    """Keeps a statistic of what passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.detach().mean()
        return self.linear(x)


class AttendsOverTheBatch(nn.Module):
    """batch_first=False on batch-first data."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=False)
        self.linear = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.attention(x, x, x)[0])


class Mixes(nn.Module):
    """A linear layer on what `mix` makes of the batch, without a gradient to other records."""

    def __init__(self, mix: Callable[[torch.Tensor], torch.Tensor], zero: bool = False) -> None:
        super().__init__()
        self.mix = mix
        self.linear = nn.Linear(4, 1)
        if zero:
            nn.init.zeros_(self.linear.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.mix(x))


class TokensOverTheBatch(nn.Module):
    """Indices carry no gradient at all, so a mean over the batch shows in outputs only."""

    def __init__(self, mixing: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 3)
        self.last = nn.Linear(3, 1)
        self.mixing = mixing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.embedding(x.long()).mean(dim=1)
        return self.last(inner - inner.mean(dim=0) if self.mixing else inner)


@pytest.mark.parametrize(
    "model",
    [
        Mixes(lambda x: x - x.detach().mean(dim=0)),
        Mixes(lambda x: x - x.detach().mean(dim=0), zero=True),
        Mixes(lambda x: x * (x > 0).float().max()),
        Mixes(lambda x: x + (x > 0).float().amax(dim=0)),
        Mixes(lambda x: x / (x != 0).any(dim=1).sum().clamp(min=1)),
        Mixes(lambda x: x + torch.sign(x.detach()).roll(1, 0)),
        Mixes(lambda x: x + torch.sign(x.detach()).cumsum(0)),
        TokensOverTheBatch(mixing=True),
    ],
)
def test_mixing_without_a_gradient_is_refused(model: nn.Module) -> None:
    before = get_parameters(model)
    with pytest.raises(ModelError, match=r"depends on another record.*no_grad"):
        require_separable(model, (4,), 2)
    np.testing.assert_array_equal(get_parameters(model), before)


def test_a_model_that_refuses_a_mixed_batch_is_refused() -> None:
    def only_alike(x: torch.Tensor) -> torch.Tensor:
        if (x < 0).any() and (x > 0).any():
            raise ValueError("signs differ")
        return x

    with pytest.raises(ModelError, match=r"signs differ.*across records"):
        require_separable(Mixes(only_alike), (4,), 2)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)),
        Mixes(lambda x: x / (x.detach().norm(dim=1, keepdim=True))),  # zeros give NaN
        TokensOverTheBatch(mixing=False),
    ],
)
def test_models_that_keep_records_apart_are_left_as_they_were(model: nn.Module) -> None:
    model.eval()
    before, state = get_parameters(model), torch.get_rng_state()
    require_separable(model, (4,), 2)
    np.testing.assert_array_equal(get_parameters(model), before)
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (CentresTheBatch(), "depends on another record"),
        (AttendsOverTheBatch(), "depends on another record"),
        (CountsRecords(), "'seen' changes"),
        (nn.Flatten(), "no trainable parameter"),
        (nn.Linear(4, 3), r"output for 3 records is \(3, 3\)"),
        (nn.Linear(5, 1), r"does not take inputs of shape \(B, 4\)"),
        (nn.LazyLinear(1), "shape is not known yet"),
        (nn.Linear(4, 1).double(), "float64"),
    ],
)
def test_models_that_cannot_be_trained_are_refused(model: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        require_separable(model, (4,), 2)


def test_a_value_that_is_no_number_is_named_and_no_record_is_blamed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].requires_grad_(False).bias[2] = torch.nan
    with pytest.raises(ModelError, match=r"is no number.*its values '0\.bias' are not"):
        require_separable(model, (4,), 2)
    roots = Mixes(lambda x: x + (0 * x).abs().sqrt())
    with pytest.raises(ModelError, match="gradient with respect to .* is no number"):
        require_separable(roots, (4,), 2)


def two_logits(input_shape: tuple[int, ...], classes: int, width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, classes))


class FromNothing(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 1))


def returns_text() -> str:
    return "model"


def fails() -> nn.Module:
    raise RuntimeError("out of cheese")


def test_models_of_ones_own() -> None:
    spec = ModelSpec(kind=f"{__name__}:two_logits", options={"width": 6})
    assert ParameterLayout.of(build_model(spec, (4,), 2, seed=1)).dimension == 44
    assert ParameterLayout.of(build_model(f"{__name__}:FromNothing", (4,), 2)).dimension == 5


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no.such.package:model", "cannot be imported"),
        (f"{__name__}:absent", "cannot be imported"),
        (f"{__name__}:returns_text", "returned a str"),
        (f"{__name__}:fails", "out of cheese"),
        ("transformer", "unknown model 'transformer'"),
    ],
)
def test_factories_that_fail_are_named(kind: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        build_model(kind, (4,), 2)


def test_a_model_beyond_any_memory_is_refused_by_its_settings() -> None:
    with pytest.raises(ModelError, match=r"no room for the model 'mlp'.*hidden = \[10000000, 1"):
        build_model(ModelSpec(kind="mlp", hidden=(10**7, 10**7)), (4,), 2)


def test_cnn_says_what_it_needs() -> None:
    with pytest.raises(ModelError, match="at least 4x4"):
        build_model("cnn", (30,), 2)
    with pytest.raises(ModelError, match="multiples of 4"):
        build_model(ModelSpec(kind="cnn", channels=(6, 8)), (1, 8, 8), 2)


def test_losses_by_hand() -> None:
    logits = torch.tensor([[2.0], [-1.0]])
    expected = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0))]
    np.testing.assert_allclose(class_loss(logits, torch.tensor([1, 0])), expected, rtol=1e-6)
    logits = torch.tensor([[0.0, np.log(3.0), 0.0]])
    np.testing.assert_allclose(class_loss(logits, torch.tensor([1])), [-np.log(0.6)])
