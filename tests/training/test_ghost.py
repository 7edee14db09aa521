"""Exact ghost clipping: norms and sums against Python's integers, and a search for one that moves.

The oracle of norms and sums is Python's integers on contributions formed one by one; of gradients,
Opacus' hooks (`tests/attacks/test_layers.py`).
"""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from opacus.layers import DPMultiheadAttention
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError
from privagg.training.data import TensorRecords
from privagg.training.dpsgd import DpSgd
from privagg.training.ghost import clipping
from privagg.training.ghost import pieces as pieces_module
from privagg.training.ghost.engine import ExactEngine
from privagg.training.ghost.pieces import (
    EXACT64,
    LARGEST_FACTORED_GRID,
    Factors,
    Formed,
    Left,
    Piece,
    Tokens,
)
from privagg.training.models import build_model, get_parameters
from privagg.training.objective import CLASSES
from privagg.training.torch_state import deterministic_torch
from tests.zoo import ACCEPTED, VOCABULARY, Computed

WILD = (0.0, 1e-41, 1e-20, 1.0, 300.0, 1e19, 3e38, math.inf, -math.inf, math.nan)


@pytest.fixture(autouse=True)
def _one_thread():
    with deterministic_torch():
        yield


def pieces_of(sizes: np.ndarray, sensitivity: int, seed: int = 0) -> list[Piece]:
    """One piece of every kind, record r's gradients of about the size `sizes[r]`."""
    rng = np.random.default_rng(seed)
    count = len(sizes)

    def drawn(*shape: int) -> torch.Tensor:
        values = rng.standard_normal((count, *shape)) * sizes.reshape(-1, *(1,) * len(shape))
        return torch.from_numpy(values.astype(np.float32))

    def weight(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape))

    tokens = torch.from_numpy(rng.integers(0, 3, (count, 6)))
    inputs = torch.from_numpy(rng.standard_normal((count, 5, 7)).astype(np.float32))
    found: list[Piece] = [
        Formed(weight(9), drawn(9)),
        Factors(weight(4, 7), Left(inputs[:, :1], sensitivity), drawn(1, 4)),
        Tokens(weight(3, 4), tokens, drawn(6, 4)),
    ]
    if sensitivity <= LARGEST_FACTORED_GRID:
        found.append(Factors(weight(8, 7), Left(inputs, sensitivity), drawn(5, 8)))
    return found


def formed(piece: Piece) -> list[list[int]]:
    """Each record's contribution as Python's integers, made from the integers of its factors."""
    if isinstance(piece, Formed):
        return [[int(v) for v in row] for row in piece.integers().tolist()]
    shape = tuple(piece.parameter.shape)
    rows = []
    for values in piece.integers().double().numpy():
        if isinstance(piece, Tokens):
            tokens, g = values[:6].astype(int), values[6:].reshape(6, -1)
            a = np.eye(shape[0])[tokens]
            a, g = g, a
        else:
            positions = len(values) // sum(shape)
            a = values[: positions * shape[1]].reshape(positions, -1)
            g = values[positions * shape[1] :].reshape(positions, -1)
        whole = [[[int(v) for v in row] for row in side] for side in (g, a)]
        total = [[0] * len(whole[1][0]) for _ in whole[0][0]]
        for left, right in zip(*whole, strict=True):
            for i, x in enumerate(left):
                for j, y in enumerate(right):
                    total[i][j] += x * y
        rows.append([v for row in total for v in row])
    return rows


@pytest.mark.parametrize("sensitivity", [2**6, 2**16, 2**22, 2**26])
def test_norms_are_those_of_the_formed_integers(sensitivity: int) -> None:
    """Small ones are known exactly; none beyond the limit passes for one within it."""
    sizes = 10.0 ** np.linspace(-3, 12, 40)
    known = 0
    for piece in pieces_of(sizes, sensitivity):
        piece.quantise(torch.full((len(sizes),), float(sensitivity)).double())
        for found, row in zip(piece.squares().tolist(), formed(piece), strict=True):
            true = sum(v * v for v in row)
            assert found == true or not found < EXACT64, piece
            known += true > 0 and found == true
    assert known > 20


@pytest.mark.parametrize("margin", [None, 0.0, -0.5])
@pytest.mark.parametrize("sensitivity", [2**6, 2**16, 2**20, 2**26])
def test_the_sum_is_that_of_python_integers(
    sensitivity: int, margin: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no margin, and with one that makes everybody too long: the check alone bounds them."""
    if margin is not None:
        monkeypatch.setattr(clipping, "margin_of", lambda *_: margin)
    sizes = 10.0 ** np.linspace(-3, 9, 60)
    kept = torch.arange(len(sizes)) % 7 != 3
    pieces = pieces_of(sizes, sensitivity)
    clipping.clip(pieces, Grid(1, sensitivity), kept)
    total = clipping.add_up(pieces, [piece.parameter for piece in pieces])
    by_record = zip(*(formed(piece) for piece in pieces), strict=True)
    rows = [list(itertools.chain.from_iterable(parts)) for parts in by_record]
    squares = [sum(v * v for v in row) for row in rows]
    assert max(squares) <= sensitivity**2
    assert not any(square for square, there in zip(squares, kept, strict=True) if not there)
    assert sum(square > 0 for square in squares) > 25
    assert total.tolist() == [sum(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("kinds", "sensitivity", "most"),
    [
        ("Formed", 2**16, 3e-5),
        ("Formed", 2**22, 1e-5),
        ("Tokens", 2**16, 3e-4),
        ("one position", 2**16, 5e-3),
        ("all", 2**16, 1e-2),
        ("all", 2**22, 2e-3),
    ],
)
def test_a_long_record_is_as_long_as_rounding_lets_it(
    kinds: str, sensitivity: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The margin is enough for all of these records, and none of them loses twice of it."""
    pieces = pieces_of(np.linspace(1, 1000, 3000), sensitivity, seed=5)
    chosen = {"Formed": pieces[:1], "one position": pieces[1:2], "Tokens": pieces[2:3]}
    pieces = chosen.get(kinds, pieces)
    margin = clipping.margin_of(pieces, sensitivity)
    assert margin <= most
    for kind in (Formed, Factors, Tokens):
        monkeypatch.setattr(kind, "shrunk", None)  # nobody is shrunk
    clipping.clip(pieces, Grid(1, sensitivity), torch.ones(3000, dtype=torch.bool))
    norms = sum(piece.squares() for piece in pieces).sqrt() / sensitivity
    assert 1 - 2 * margin <= float(norms.min()) <= float(norms.max()) <= 1


@pytest.mark.parametrize("odd", [1.0, 2.0**12, 2.0**24 - 1])
@pytest.mark.parametrize("size", [3.0, 300.0, 20_000.0])
def test_a_product_in_float32_is_the_same_as_in_float64(size: float, odd: float) -> None:
    """Whole, in parts, and where one row is far larger than the others; against int64."""
    rng = np.random.default_rng(4)
    right, left = (np.rint(size * rng.standard_normal((1500, n))).astype("f4") for n in (20, 30))
    left[700], right[700, 3] = odd, 1
    found = pieces_module._product(torch.from_numpy(right), torch.from_numpy(left))
    whole = right.astype(np.int64).T @ left.astype(np.int64)
    assert found.tolist() == whole.tolist()
    # Column norms alone, so that float32 is used at all: a sum beyond it would be rounded.
    if size == 3 and odd == 1:
        assert np.array_equal(found, (right.T @ left))


# --- through a trainer ---------------------------------------------------------------------------

MODELS: dict[str, Any] = {
    "mlp": (lambda: build_model("mlp", (30,), 10), (30,), False),
    "cnn": (lambda: build_model("cnn", (1, 8, 8), 10), (1, 8, 8), False),
    **{
        name: (ACCEPTED[name].make, ACCEPTED[name].shape, ACCEPTED[name].tokens)
        for name in ("Conv1d", "Embedding", "DPGRU", "DPMultiheadAttention")
    },
}


def trainer_with(name: str, sensitivity: int, clip: str = "1") -> tuple[DpSgd, int]:
    """Twenty ordinary records and, after them, wild ones."""
    make, shape, tokens = MODELS[name]
    rng = np.random.default_rng(1)
    ordinary = (
        rng.integers(0, VOCABULARY, (20, *shape)) if tokens else rng.standard_normal((20, *shape))
    )
    signs = np.sign(rng.standard_normal(shape))
    wild = [np.full(shape, v) for v in range(5)] if tokens else [v * signs for v in WILD]
    x = np.concatenate([ordinary, np.stack(wild), ordinary[:1]]).astype(np.float32)
    records = TensorRecords(torch.from_numpy(x), torch.from_numpy(rng.integers(0, 2, len(x))))
    torch.manual_seed(2)
    grid = Grid(Decimal(clip), sensitivity)
    trainer = DpSgd(make(), records, grid, physical_batch=8, batches=4, engine="exact")
    return trainer, len(x)


@pytest.mark.parametrize("sensitivity", [2**16])
@pytest.mark.parametrize("name", MODELS)
def test_no_record_moves_the_sum_by_more_than_s(name: str, sensitivity: int) -> None:
    """Records that are huge, denormal, infinite, no numbers, copies; the others stay."""
    trainer, count = trainer_with(name, sensitivity, "0.05")
    rng = np.random.default_rng(3)
    parameters = get_parameters(trainer.model)
    parameters += 0.3 * rng.standard_normal(len(parameters))
    moved_at_all = 0
    for record in range(20, count):
        places = np.full(32, -1)
        order = rng.permutation(32)
        places[order[:20]] = np.arange(20)
        without = trainer.slotted_sum(parameters, places)
        places[order[20]] = record
        moved = trainer.slotted_sum(parameters, places) - without
        alone = np.where(places == record, record, -1)
        np.testing.assert_array_equal(moved, trainer.slotted_sum(parameters, alone))
        assert sum(v * v for v in moved.tolist()) <= sensitivity**2
        moved_at_all += bool(moved.any())
    assert moved_at_all > 2


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_record_that_is_not_finite_moves_nothing(value: float) -> None:
    trainer, _ = trainer_with("mlp", 2**16)
    record = 20 + next(i for i, wild in enumerate(WILD) if str(wild) == str(value))
    places = np.full(32, -1)
    places[:8] = [0, 1, record, 2, 3, 4, 5, 6]
    parameters = get_parameters(trainer.model)
    both = trainer.slotted_sum(parameters, places)
    np.testing.assert_array_equal(
        both, trainer.slotted_sum(parameters, np.where(places == record, -1, places))
    )
    assert both.any()


def test_memory_is_that_of_integers_once_they_are_made() -> None:
    """Queries, keys and values share what enters them; no float outlives its integer."""
    model = Computed(
        lambda m, x: m.head(m.attention(x, x, x, need_weights=False)[0].mean(1)),
        attention=DPMultiheadAttention(32, 2, batch_first=True),
        head=nn.Linear(32, 2),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    engine = ExactEngine(model, CLASSES, Grid(1, 2**16))
    found = engine._pieces(torch.randn(8, 6, 32), torch.zeros(8).long())
    made = [piece for piece in found if isinstance(piece, Factors)]
    entered: dict[int, set[str]] = {}
    for piece in made:
        entered.setdefault(id(piece._left), set()).add(names[id(piece.parameter)].split(".")[-2])
    assert list(entered.values()) == [{"qlinear", "klinear", "vlinear"}, {"out_proj"}]
    clipping.clip(made, Grid(1, 2**16), torch.ones(8, dtype=torch.bool))
    for piece in made:
        assert piece._left.floats is None
        assert not hasattr(piece, "_g")


def test_numbers_beyond_the_proof_are_refused() -> None:
    records = TensorRecords.of(np.zeros((2, 4)), np.zeros(2))
    model = build_model("mlp", (4,), 2)
    with pytest.raises(ConfigError, match=r"at most 2\^26.*'opacus'|\"opacus\""):
        DpSgd(model, records, Grid(1, 2**27), engine="exact")
    with pytest.raises(ConfigError, match="65536 records together"):
        DpSgd(model, records, Grid(1, 2**16), physical_batch=2**17, engine="exact")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 9)),
        (nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 7, 6)),
        (nn.Conv2d(2, 3, 3, dilation=2), (2, 7, 6)),
        (nn.Conv2d(4, 4, 3, groups=2, padding="same"), (4, 5, 5)),
        (nn.Conv2d(16, 24, 3, stride=2), (16, 5, 5)),  # factored: four positions
    ],
    ids=str,
)
def test_convolutions_of_every_shape_have_each_records_own_gradient(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """Against autograd on one record at a time."""
    x = torch.from_numpy(np.random.default_rng(6).standard_normal((5, *shape)).astype("f4"))
    width = layer(x).flatten(1).shape[1]
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 2))
    records = TensorRecords(x, torch.tensor([0, 1, 1, 0, 1]))
    trainer = DpSgd(model, records, Grid(1, 2**20), physical_batch=5, engine="exact")
    own = [trainer.own_gradient(*records.gather(np.array([i]))) for i in range(5)]
    found = trainer.batch_gradients(*records.gather(np.arange(5)))
    np.testing.assert_allclose(found, np.stack(own), rtol=2e-4, atol=2e-6)
