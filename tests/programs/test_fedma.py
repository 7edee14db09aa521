"""FedMA: against averaging by hand, its one clip in exact integers, networks of other widths."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from privagg.errors import ConfigError, ModelError
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.fedma import Fedma, FedmaClient
from privagg.programs.learners import make_learner
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.program import Opened
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.models import build_model, get_parameters
from privagg.training.neurons import Layers, matched, resized
from tests.programs.rounds import trained

RANDOM = DeterministicRandomness(11)
PLACE = ("run", 1, 1)
S = 2**24
STEPS, RATE = 5, 0.4
WIDTHS = {"a": 5, "b": 3, "c": 4}
BETA = 0.25


def network(seed: int, *widths: int) -> nn.Sequential:
    torch.manual_seed(seed)
    sizes, layers = (6, *widths), list[nn.Module]()
    for ins, into in itertools.pairwise(sizes):
        layers += [nn.Linear(ins, into), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 2))


def records(site: str) -> TensorRecords:
    rng = np.random.default_rng(WIDTHS[site])
    x = rng.standard_normal((24, 6)) + rng.standard_normal(6)
    return TensorRecords.of(x, (x @ rng.standard_normal(6) > 0).astype(int))


def plan(dimension: int, **more: Any) -> ClientPlan:
    facts: dict[str, Any] = {
        "sites": [{"name": name, "records": 24} for name in WIDTHS], "dimension": dimension,
        "rounds": 3, "clip_norm_l2": Decimal(50), "sensitivity_grid": S, "colluders": 0,
        "noise_multiplier": Decimal(0), "delta": Decimal("1e-5"), "custody": "authority",
        "scheme": "plaintext",
    }  # fmt: skip
    return ClientPlan(**{**facts, **more})


SPEC = AlgorithmSpec(kind="fedma", count_share=BETA)
RULE = ClientRule(steps=STEPS, learning_rate=RATE, batch_size=64, algorithm=SPEC)


def client(site: str, model: nn.Module, held: TensorRecords | None = None, **more: Any) -> Any:
    layers = Layers.of(model)
    agreed = plan(layers.dimension + layers.slots, **more)
    return FedmaClient(agreed, site, model, records(site) if held is None else held, RULE)


def program(model: nn.Module, agreed: ClientPlan) -> Fedma:
    return Fedma(model, OptimizerSpec(), algorithm=SPEC, plan=agreed)


def permuted(model: nn.Sequential, *orders: list[int]) -> nn.Sequential:
    """The same function with some of its neurons, in another order; written by hand."""
    made, before = list[nn.Module](), list(range(6))
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer, order in zip(linear, [*orders, [0, 1]], strict=True):
        own = nn.Linear(len(before), len(order))
        own.weight.data = layer.weight.data[order][:, before].clone()
        own.bias.data, before = layer.bias.data[order].clone(), order
        made += [own, nn.Tanh()]
    return nn.Sequential(*made[:-1])


def brought(path: Path, model: nn.Module) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), path)
    return path


# --- neurons -------------------------------------------------------------------------------------


def test_a_networks_parameters_are_found_wherever_its_neurons_lie() -> None:
    whole, orders = network(1, 7, 6), ([4, 0, 6, 2], [5, 1, 3])
    part = permuted(whole, *orders)
    layers, own = Layers.of(whole), Layers.of(part)
    assert own == Layers((6, 4, 3, 2))
    found = matched(own, get_parameters(part), layers, get_parameters(whole))
    assert [each.tolist() for each in found] == list(orders)
    places = layers.places(found)
    np.testing.assert_array_equal(get_parameters(whole)[places], get_parameters(part))
    assert len(set(places.tolist())) == own.dimension
    assert layers.dimension == len(get_parameters(whole)) == get_parameters(network(2, 7, 6)).size
    assert Layers.of(resized(whole, own)) == own


def test_matching_is_the_best_of_all_assignments() -> None:
    own, slots = Layers((6, 3, 2)), Layers((6, 5, 2))
    vector, published = (get_parameters(network(seed, w)) for seed, w in ((3, 3), (4, 5)))

    def rows(layers: Layers, values: Any) -> Any:
        return np.column_stack(layers.neurons(values)[0])

    mine, there = rows(own, vector), rows(slots, published)
    best = min(
        itertools.permutations(range(5), 3), key=lambda at: ((mine - there[list(at)]) ** 2).sum()
    )
    assert matched(own, vector, slots, published)[0].tolist() == list(best)


@pytest.mark.parametrize(
    "model",
    [
        build_model("logistic", (6,), 2),
        nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 2)),
        nn.Linear(6, 2),
    ],
)
def test_other_networks_have_no_neurons_to_match(model: nn.Module) -> None:
    with pytest.raises(ModelError, match="linear layers in a row"):
        Layers.of(model)


# --- rounds --------------------------------------------------------------------------------------


def by_hand(published: nn.Sequential, first: dict[str, nn.Sequential], rounds: int) -> Any:
    """Matched averaging with one hidden layer, in torch, by the sites that have a neuron."""
    w1, b1, w2, b2 = (p.detach().clone() for p in published.parameters())
    kept: dict[str, list[int]] = {}
    for _ in range(rounds):
        sums, filled = [torch.zeros_like(p) for p in (w1, b1, w2, b2)], torch.zeros(len(b1))
        for site, own in first.items():
            at, held = kept.get(site), records(site)
            start = [*own.parameters()] if at is None else [w1[at], b1[at], w2[:, at], b2]
            p = [each.detach().clone().requires_grad_(True) for each in start]
            for _ in range(STEPS):
                out = torch.tanh(held.x @ p[0].T + p[1]) @ p[2].T + p[3]
                slopes = torch.autograd.grad(nn.functional.cross_entropy(out, held.y), p)
                p = [
                    (a - RATE * g).detach().requires_grad_(True)
                    for a, g in zip(p, slopes, strict=True)
                ]
            ends = [each.detach() for each in p]
            far = torch.cdist(torch.cat([ends[0], ends[1][:, None]], 1),
                              torch.cat([w1, b1[:, None]], 1)) ** 2  # fmt: skip
            orders = itertools.permutations(range(len(b1)), len(far))
            at = list(min(orders, key=lambda o: far[range(len(far)), list(o)].sum()))
            kept[site] = at
            sums[0][at] += ends[0] - w1[at]
            sums[1][at] += ends[1] - b1[at]
            sums[2][:, at] += ends[2] - w2[:, at]
            sums[3] += ends[3] - b2
            filled[at] += 1
        count = filled.clamp(min=1)
        w1, b1 = w1 + sums[0] / count[:, None], b1 + sums[1] / count
        w2, b2 = w2 + sums[2] / count, b2 + sums[3] / len(first)
    return np.concatenate([each.numpy().ravel() for each in (w1, b1, w2, b2)]), filled / len(first)


def test_rounds_are_matched_averaging_by_hand(tmp_path: Path) -> None:
    published = network(7, 5)
    first = {site: network(20 + width, width) for site, width in WIDTHS.items()}
    first["a"] = permuted(published, [3, 1, 4, 0, 2])
    sites = {}
    for site, own in first.items():
        sites[site] = client(site, network(7, 5))
        sites[site].bring(brought(tmp_path / f"{site}.safetensors", own))
    agreed = sites["a"]._plan
    found = trained(agreed, sites, program(network(7, 5), agreed), RANDOM)
    expected, shares = by_hand(published, first, agreed.rounds)
    np.testing.assert_allclose(found[:-5], expected, atol=2e-4)
    np.testing.assert_allclose(found[-5:], shares, atol=2e-5)
    assert 0 < shares.min() < shares.max() == 1  # some neurons are not everybody's


def test_permuted_starts_end_where_the_common_start_does(tmp_path: Path) -> None:
    published, ends = network(7, 5), []
    orders = {"a": [3, 1, 4, 0, 2], "b": [4, 3, 2, 1, 0], "c": [1, 2, 3, 4, 0]}
    for own in (False, True):
        sites = {site: client(site, network(7, 5)) for site in WIDTHS}
        for site, each in sites.items() if own else ():
            each.bring(brought(tmp_path / f"{site}.safetensors", permuted(published, orders[site])))
        agreed = sites["a"]._plan
        ends.append(trained(agreed, sites, program(network(7, 5), agreed), RANDOM))
    np.testing.assert_allclose(*ends, atol=1e-4)


def test_a_slot_that_nobody_fills_stays_and_noise_is_not_divided_by_nothing() -> None:
    model = network(7, 5)
    layers, first = Layers.of(model), get_parameters(model)
    for noise in (Decimal(0), Decimal(4)):
        agreed = plan(layers.dimension + 5, noise_multiplier=noise)
        coordinator = program(model, agreed)
        update = np.ones(agreed.dimension)
        update[-5:] = 0.0, -1e9, 1e9, 0.0, 0.0
        opened = Opened(PLACE, np.zeros(agreed.dimension, int), update, agreed.names)
        moved = coordinator.fold(coordinator.begin(), opened)
        rows = (moved[:-5] - first)[:30].reshape(5, 6)
        assert moved[-5:].tolist() == [0, 0, 1, 0, 0]
        np.testing.assert_allclose(rows[2], 1.0)
        np.testing.assert_allclose(rows[[0, 1, 3, 4]], 1.0 if noise else 3.0, atol=1e-5)


# --- the one clip --------------------------------------------------------------------------------


def squares(sent: Any) -> int:
    return sum(int(z) ** 2 for z in sent)


def test_no_network_no_model_and_no_counts_lengthen_an_upload(tmp_path: Path) -> None:
    """A search over hostile networks, published slots and clips: at most S, in exact integers."""
    draw, longest = np.random.default_rng(5), 0
    for number in range(60):
        width, clip = int(draw.integers(1, 6)), Decimal(f"{10.0 ** draw.integers(-6, 7):f}")
        own = network(number, width)
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.mul_(float(10.0 ** draw.integers(-8, 12)))
        ours = client("a", network(7, 5), clip_norm_l2=clip)
        ours.bring(brought(tmp_path / "own.safetensors", own))
        state = draw.standard_normal(ours._plan.dimension) * 10.0 ** draw.integers(-9, 30)
        if number % 7 == 0:
            state[draw.integers(len(state))] = draw.choice([np.nan, np.inf, -1e308])
        longest = max(longest, squares(ours.contribution(state, RANDOM, ("run", number + 1, 1))))
        assert longest <= S**2
        nobody = client("a", network(7, 5), records("a").take([]), clip_norm_l2=clip)
        assert not nobody.contribution(state, RANDOM, PLACE).any()
    assert longest > 0.999 * S**2  # the bound is reached, so that no smaller one would do


def test_counts_beside_a_clipped_update_would_not_do() -> None:
    """Why one clip: an update of length C with five counts of its own is longer than S."""
    ours = client("a", network(7, 5), clip_norm_l2=Decimal(2))
    grid, far = 2.0 / S, np.full(47, 1e6)
    sent = ours._with_counts(far, [np.arange(5)])
    assert np.linalg.norm(sent) <= 2.0 * (1 + 1e-12)
    apart = np.append(far * (2.0 / np.linalg.norm(far)), sent[47:]) / grid
    assert squares(np.trunc(apart)) > S**2


# --- a network of a site's own -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (network(1, 6), "at most 5 hidden neurons"),
        (network(1, 4, 4), r"holds .*4\.weight"),
        (nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)), "6 inputs and 2 outputs"),
        (nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 4)), "6 inputs and 2 outputs"),
    ],
)
def test_another_kind_of_network_is_refused(own: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        client("a", network(7, 5)).bring(brought(tmp_path / "own.safetensors", own))


def test_a_network_that_is_not_there_or_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        client("a", network(7, 5)).bring(tmp_path / "none.safetensors")
    own = network(1, 3)
    own[0].weight.data[1, 1] = float("nan")
    with pytest.raises(ConfigError, match="not finite"):
        client("a", network(7, 5)).bring(brought(tmp_path / "own.safetensors", own))


def test_a_network_is_brought_to_no_other_algorithm(tmp_path: Path) -> None:
    path, model = brought(tmp_path / "own.safetensors", network(1, 3)), network(7, 5)
    given: dict[str, Any] = {"model": model, "records": records("a"), "network": path}
    plain = ClientRule(steps=STEPS, learning_rate=RATE, batch_size=64, algorithm=AlgorithmSpec())
    with pytest.raises(ConfigError, match="only training.algorithm 'fedma' begins from one"):
        make_learner(plan(Layers.of(model).dimension), "a", rule=plain, **given)
    made = make_learner(plan(Layers.of(model).dimension + 5), "a", rule=RULE, **given)
    assert isinstance(made, FedmaClient)


@pytest.mark.parametrize(("before", "after"), [((5,), (3,)), ((4, 2), (3, 3))])
def test_slots_kept_for_another_network_are_not_used(
    before: tuple[int, ...], after: tuple[int, ...], tmp_path: Path
) -> None:
    """Whoever takes another network after a stop begins with it, as in a first round."""
    widths = (5,) if len(before) == 1 else (5, 3)
    state = np.append(get_parameters(network(7, *widths)), np.zeros(sum(widths)))
    path = brought(tmp_path / "own.safetensors", network(1, *after))
    ours, other = (client("a", network(7, *widths)) for _ in range(2))
    other.bring(brought(tmp_path / "other.safetensors", network(3, *before)))
    other.contribution(state, RANDOM, PLACE)  # keeps as many slots as it had neurons
    for each in (ours, other):
        each.bring(path)
    np.testing.assert_array_equal(
        *(each.contribution(state, RANDOM, ("run", 2, 1)) for each in (ours, other))
    )
