"""What is not trained: chosen by name, held apart, pinned by its bits, saved with the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ModelError
from privagg.training.data import TensorRecords
from privagg.training.declared import ModelSpec
from privagg.training.dpsgd import DpSgd
from privagg.training.frozen import choose_trainable, frozen_digest, require_frozen, state_of
from privagg.training.models import ParameterLayout, build_model, get_parameters, require_separable
from privagg.training.saving import load_model, save_model


class Based(nn.Module):
    """A base with a tied weight, a buffer of its own and one that is not kept, below a head."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(3, 4)
        self.again = nn.Linear(3, 4, bias=False)
        self.again.weight = self.base.weight
        self.register_buffer("shift", torch.linspace(-1, 1, 3).to(torch.bfloat16))
        self.register_buffer("made", torch.ones(3), persistent=False)
        self.middle = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x - self.shift) + self.again(x * self.made)
        return self.head(torch.tanh(self.middle(y)))


def based(*trainable: str) -> Based:
    torch.manual_seed(5)
    model = Based()
    choose_trainable(model, trainable or ("head.*",))
    return model


def test_names_choose_what_is_trained_and_nothing_else() -> None:
    model = based("head.*", "middle.bia?")
    assert ParameterLayout.of(model).names == ("middle.bias", "head.weight", "head.bias")
    spec = ModelSpec(kind="opacus.layers:anything", trainable=("head.*",))
    assert spec.model_dump()["trainable"] == ("head.*",)
    assert "trainable" not in ModelSpec().model_dump()
    with pytest.raises(ValueError, match=r"'trainable' is an option of package\.module:factory"):
        ModelSpec(kind="mlp", trainable=("1.*",))


def test_a_name_that_fits_nothing_or_half_a_tied_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'haed\.\*' fits no parameter; .* base\.weight"):
        choose_trainable(Based(), ["head.*", "haed.*"])
    with pytest.raises(ModelError, match=r"fits 'again\.weight' and not 'base\.weight'"):
        choose_trainable(Based(), ["again.*"])
    both = based("again.weight", "base.weight")
    assert ParameterLayout.of(both).names == ("base.weight",)
    quantised = nn.Sequential(nn.Linear(3, 2))
    quantised.codes = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="'codes' cannot be trained"):
        choose_trainable(quantised, ["*"])


@pytest.mark.parametrize("trained", [("base.weight",), ("other.weight",), ("base.*", "other.*")])
def test_memory_that_a_step_would_move_twice_is_refused(trained: tuple[str, ...]) -> None:
    model = nn.Module()
    model.base, model.other = nn.Linear(3, 4), nn.Linear(3, 2)
    model.other.weight = nn.Parameter(model.base.weight.data[1:3])
    model.forward = lambda x: model.other(x) + model.base(x)[:, :2]  # type: ignore[method-assign]
    choose_trainable(model, trained)
    with pytest.raises(ModelError, match=r"'base\.weight' and 'other\.weight' lie in the same"):
        require_separable(model, (3,), 2)
    choose_trainable(model, ["base.bias", "other.bias"])  # nothing moves either
    require_separable(model, (3,), 2)


def test_the_digest_covers_names_types_shapes_and_bits_of_what_is_frozen() -> None:
    own = frozen_digest(based())
    assert own == frozen_digest(based())
    assert frozen_digest(build_model("mlp", (3,), 2)) is None
    other = based()
    with torch.no_grad():
        other.head.weight.add_(1)
    require_frozen(other, own)  # what is trained may differ
    changed = []
    for name in ("base.weight", "base.bias", "middle.weight", "shift"):
        model = based()
        tensor = model.state_dict()[name].view(torch.uint8)
        tensor.view(-1)[0] ^= 1  # the last bit of the first value
        changed.append(frozen_digest(model))
        with pytest.raises(ModelError, match=f"agreed on is {own}.*Nothing was charged"):
            require_frozen(model, own)
    named, typed, shaped = based(), based(), based()
    named.register_buffer("swift", named.shift)
    typed.shift = typed.shift.view(torch.float16)
    shaped.shift = shaped.shift[None]
    changed += [frozen_digest(model) for model in (named, typed, shaped, based("head.weight"))]
    assert len({own, *changed}) == len(changed) + 1


def test_a_state_that_no_file_holds_is_refused_by_name() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(ModelError, match="'0._extra_state' is a dict"):
        state_of(nn.Sequential(Extra(2, 2)))
    with pytest.raises(ModelError, match="'weight' is .* on meta"):
        state_of(nn.Linear(2, 2, device="meta"))


def test_a_models_file_loads_strictly_and_only_over_the_same_base(tmp_path: Path) -> None:
    model, path = based(), tmp_path / "model.safetensors"
    values = np.arange(10, dtype=np.float64)
    digest = save_model(model, values, path, {"privagg": "{}"})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    fresh = Based()
    fresh.load_state_dict(load_file(path), strict=True)
    assert frozen_digest(based()) == frozen_digest_of(fresh)
    assert torch.equal(fresh.head.weight, torch.arange(8.0).reshape(2, 4))
    np.testing.assert_array_equal(get_parameters(load_model(based(), path)), values)
    other = based()
    with torch.no_grad():
        other.middle.bias[0] = -0.0
    with pytest.raises(ModelError, match=r"'middle\.bias' is another .*trained on another base"):
        load_model(other, path)
    path.write_bytes(save_arrays({"head.weight": np.ones((2, 4)), "head.bias": np.ones(2)}))
    with pytest.raises(ModelError, match="does not hold the frozen tensor"):
        load_model(based(), path)


def frozen_digest_of(model: Based) -> str | None:
    choose_trainable(model, ["head.*"])
    return frozen_digest(model)


def test_files_of_models_that_train_whole_keep_their_bytes(tmp_path: Path) -> None:
    model, path = build_model("mlp", (3,), 2), tmp_path / "model.safetensors"
    values = np.linspace(-1, 1, ParameterLayout.of(model).dimension)
    save_model(model, values, path)
    arrays = ParameterLayout.of(model).to_tensors(values)
    assert path.read_bytes() == save_arrays(dict(arrays), metadata={})


def test_a_tied_weight_that_is_trained_lies_under_both_names(tmp_path: Path) -> None:
    model, path = based("base.*", "again.*"), tmp_path / "model.safetensors"
    values = np.arange(16, dtype=np.float64)
    save_model(model, values, path)
    fresh = Based()
    fresh.load_state_dict(load_file(path), strict=True)
    assert fresh.again.weight is fresh.base.weight
    assert torch.equal(fresh.base.weight, torch.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(get_parameters(load_model(model, path)), values)


@pytest.mark.parametrize("engine", ["exact", "opacus"])
def test_frozen_layers_are_neither_caught_nor_moved(engine: str) -> None:
    """Below, between and above what is trained; gradients are those of autograd."""
    model = based("again.weight", "base.weight", "head.bias")
    require_separable(model, (3,), 2)
    before = {name: t.detach().clone() for name, t in state_of(model).items()}
    rng = np.random.default_rng(3)
    records = TensorRecords.of(rng.normal(size=(6, 3)), rng.integers(0, 2, 6))
    trainer = DpSgd(
        model, records, Grid(clip_norm_l2=1, sensitivity_grid=2**20),
        physical_batch=6, engine=engine,
    )  # fmt: skip
    x, y = records.gather(np.arange(6))
    rows = trainer.batch_gradients(x, y)
    assert rows.shape == (6, 14)
    own = np.concatenate([trainer.own_gradient(x[i : i + 1], y[i : i + 1])[None] for i in range(6)])
    np.testing.assert_allclose(rows, own, rtol=1e-4, atol=1e-6)
    if engine == "exact":
        breakdown = trainer._engine._breakdown
        assert set(breakdown.layers) == {"base", "again", "head"}
        caught = trainer._engine._taps.caught(lambda: model(x).sum())
        pieces = breakdown.pieces(caught, 6)
        assert {id(p.parameter) for p in pieces} == {id(model.base.weight), id(model.head.bias)}
    assert trainer.slotted_sum(get_parameters(model) + 1, np.arange(6)).any()
    moved = {n for n, t in state_of(model).items() if not torch.equal(t.detach(), before[n])}
    assert moved == {"base.weight", "again.weight", "head.bias"}
