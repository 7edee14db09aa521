"""Each algorithm against the paper's own recursion, written down by hand; and its one clip."""

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from privagg.errors import ConfigError, ModelError
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, TrainingPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.adaptive_clip import AdaptiveClip
from privagg.programs.gradient import GradientTraining
from privagg.programs.halves import Halves, scores_of
from privagg.programs.home import Remembered
from privagg.programs.learners import LEARNERS, make_learner
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.program import Opened
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.evaluate import predict_logits, shifted_loss
from privagg.training.local_sgd import keep_home
from privagg.training.losses import class_loss
from privagg.training.models import build_model, get_parameters
from privagg.training.objective import Objective
from privagg.training.targets import NumberedClasses
from tests.programs.rounds import trained

RANDOM = DeterministicRandomness(7)
PLACE = ("run", 1, 1)
SITES = {"a": 30, "b": 20, "c": 12}
S = 2**24
STEPS, RATE = 4, 0.1
W = np.array([0.5, -1.0, 0.25, 0.75])


def facts(**more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "sites": [{"name": name, "records": size} for name, size in SITES.items()],
        "dimension": 4,
        "rounds": 4,
        "clip_norm_l2": Decimal(20),
        "sensitivity_grid": S,
        "noise_multiplier": Decimal(0),
        "delta": Decimal("1e-5"),
        "custody": "authority",
        "scheme": "plaintext",
    }
    return {**base, **more}


def records(site: str) -> TensorRecords:
    """Each site's own relation: its records lie elsewhere than the others'."""
    rng = np.random.default_rng(SITES[site])
    x = rng.standard_normal((SITES[site], 3)) + rng.standard_normal(3)
    return TensorRecords.of(x, (x @ rng.standard_normal(3) > 0).astype(int))


def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * (outputs[:, 0] - targets) ** 2


def quadratic(site: str) -> tuple[np.ndarray, np.ndarray]:
    """H and b of a site's loss w'Hw/2 - b'w."""
    held = records(site)
    x = np.column_stack([held.x.numpy().astype(np.float64), np.ones(len(held))])
    return x.T @ x / len(x), x.T @ held.y.numpy().astype(np.float64) / len(x)


def learner(plan: TrainingPlan, site: str, algorithm: dict[str, Any], **more: Any) -> Any:
    rule = ClientRule(
        steps=STEPS, learning_rate=RATE, batch_size=64, engine="opacus",
        algorithm=AlgorithmSpec(**algorithm),
    )  # fmt: skip
    given: dict[str, Any] = {"model": build_model("logistic", (3,), 2), "records": records(site)}
    return make_learner(plan, site, rule=rule, objective=Objective(squared), **{**given, **more})


def coordinator(model: nn.Module | None = None) -> GradientTraining:
    return GradientTraining(model or build_model("logistic", (3,), 2), OptimizerSpec())


# --- SCAFFOLD ------------------------------------------------------------------------------------


def scaffold_by_hand(rounds: int) -> np.ndarray:
    """Algorithm 1 of the paper, option II, everybody takes part."""
    w, server = np.zeros(4), np.zeros(4)
    own = {site: np.zeros(4) for site in SITES}
    for _ in range(rounds):
        ends = {}
        for site in SITES:
            y, (hessian, b) = w.copy(), quadratic(site)
            for _ in range(STEPS):
                y = y - RATE * (hessian @ y - b - own[site] + server)
            ends[site] = y
        fresh = {s: own[s] - server + (w - ends[s]) / (STEPS * RATE) for s in SITES}
        server = server + np.mean([fresh[s] - own[s] for s in SITES], axis=0)
        w = np.mean(list(ends.values()), axis=0)
        own = fresh
    return w


@pytest.mark.parametrize("mode", ["client", "record-local"])
def test_scaffold_is_the_papers(mode: str) -> None:
    plan: TrainingPlan
    if mode == "client":
        plan = ClientPlan(**facts())
    else:
        steps = {"local_steps": STEPS, "update_bound": Decimal(100), "update_levels": 2**30}
        plan = LocalPlan(**facts(sampling_rate=1, clip_norm_l2=Decimal(100), **steps))
    sites = {site: learner(plan, site, {"kind": "scaffold"}) for site in SITES}
    found = trained(plan, sites, coordinator(), RANDOM)
    np.testing.assert_allclose(found, scaffold_by_hand(plan.rounds), atol=2e-5)
    plain = {site: learner(plan, site, {}) for site in SITES}
    fedavg = trained(plan, plain, coordinator(), RANDOM)
    assert np.abs(fedavg - found).max() > 0.005  # the sites do drift apart


def test_the_mean_of_the_sites_variates_is_the_servers_noise_included() -> None:
    """What makes the server's a function of the opened sum, so that nothing else is opened."""
    plan = ClientPlan(**facts(noise_multiplier=Decimal(1), clip_norm_l2=Decimal("0.3"), rounds=3))
    sites = {site: learner(plan, site, {"kind": "scaffold"}) for site in SITES}
    last = trained(plan, sites, coordinator(), RANDOM)
    kept = [sites[site].home.load("run", 4) for site in SITES]
    server = -(last - kept[0]["model"]) / (STEPS * RATE)
    mean = np.mean([each["own"] for each in kept], axis=0)
    np.testing.assert_allclose(mean, server, atol=1e-6)


def test_an_attempt_that_is_made_again_starts_where_the_first_one_did() -> None:
    plan = ClientPlan(**facts())
    ours, other = (learner(plan, "a", {"kind": "scaffold"}) for _ in range(2))
    ours.contribution(W, RANDOM, ("run", 1, 1))
    other.contribution(W, RANDOM, ("run", 1, 1))
    other.contribution(W + 1, RANDOM, ("run", 1, 2))  # stopped: its round has another attempt
    other.contribution(W, RANDOM, ("run", 1, 3))
    moved = W - 0.25
    np.testing.assert_array_equal(
        ours.contribution(moved, RANDOM, ("run", 2, 1)),
        other.contribution(moved, RANDOM, ("run", 2, 1)),
    )


# --- a part that stays at home -------------------------------------------------------------------


def two_layers() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def personal_by_hand(site: str, rounds: int, head_first: int | None) -> tuple[list[Any], Any]:
    """FedPer (None), or FedRep's alternation, at a single site with all records a step."""
    model, held = two_layers(), records(site)
    body, head = list(model[0].parameters()), list(model[2].parameters())
    for _ in range(rounds):
        for step in range(STEPS):
            loss = squared(model(held.x), held.y).mean()
            slopes = torch.autograd.grad(loss, [*body, *head])
            with torch.no_grad():
                for weight, slope in zip([*body, *head], slopes, strict=True):
                    is_head = any(weight is one for one in head)
                    if head_first is None or (step < head_first) == is_head:
                        weight.sub_(RATE * slope)
    return [p.detach().numpy() for p in head], get_parameters(model)


@pytest.mark.parametrize("head_first", [None, 3])
def test_a_personal_part_goes_on_where_it_was_and_is_not_sent(head_first: int | None) -> None:
    kind = {"kind": "fedper"} if head_first is None else {"kind": "fedrep"}
    more = {} if head_first is None else {"personal_steps": head_first}
    algorithm = {**kind, **more, "personal": ("2.*",)}
    plan = ClientPlan(**facts(dimension=16, sites=[{"name": "a", "records": 30}], colluders=0))
    models = two_layers(), two_layers()
    for model in models:
        keep_home(model, ("2.*",))
    ours = learner(plan, "a", algorithm, model=models[0])
    found = trained(plan, {"a": ours}, coordinator(models[1]), RANDOM)
    head, whole = personal_by_hand("a", plan.rounds, head_first)
    np.testing.assert_allclose(found, whole[:16], atol=2e-3)
    kept = ours.home.load("run", plan.rounds + 1)
    for name, expected in zip(("2.weight", "2.bias"), head, strict=True):
        np.testing.assert_allclose(kept[name], expected, atol=2e-3)


def test_a_site_without_records_sends_nothing_whatever_it_has_at_home() -> None:
    """Who has no records looks like who never had any: that is what is hidden."""
    plan = ClientPlan(**facts(dimension=16))
    model = two_layers()
    keep_home(model, ("2.*",))
    empty = learner(
        plan, "a", {"kind": "fedper", "personal": ("2.*",)}, model=model,
        records=records("a").take([]),
    )  # fmt: skip
    assert not empty.contribution(np.ones(16), RANDOM, PLACE).any()


def test_what_stays_at_home_is_named_by_what_is_there() -> None:
    with pytest.raises(ModelError, match=r"personal: '3\.\*' fits no parameter; there are: 0\."):
        keep_home(two_layers(), ("3.*",))
    with pytest.raises(ModelError, match="nothing is shared"):
        keep_home(two_layers(), ("*",))


# --- Per-FedAvg ----------------------------------------------------------------------------------


def test_a_meta_step_on_a_quadratic_is_the_closed_form() -> None:
    """w - b (I - a H) (H (w - a g) - c), g = H w - c: both orders, with one batch of everything."""
    plan, inner = ClientPlan(**facts()), 0.3
    hessian, b = quadratic("a")
    w = W.copy()
    for _ in range(STEPS):
        moved = w - inner * (hessian @ w - b)
        w = w - RATE * (np.eye(4) - inner * hessian) @ (hessian @ moved - b)
    ours = learner(plan, "a", {"kind": "per-fedavg", "inner_learning_rate": inner})
    np.testing.assert_allclose(ours.delta(W, RANDOM, PLACE), w - W, atol=5e-6)


# --- adaptive clipping ---------------------------------------------------------------------------

ADAPTIVE = {"kind": "adaptive-clip", "count_share": 0.25, "quantile": 0.4}


@pytest.mark.parametrize("clip", [1e-9, 0.01, 0.3, 50.0, 1e9])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_update_and_count_together_keep_to_one_clip(clip: float, scale: float) -> None:
    """Whatever clip the coordinator names: against no records, at most S in exact integers."""
    plan = ClientPlan(**facts(dimension=5, clip_norm_l2=Decimal("0.3")))
    state = np.append(W * scale, clip)
    sent = learner(plan, "a", ADAPTIVE).contribution(state, RANDOM, PLACE)
    empty = learner(plan, "a", ADAPTIVE, records=records("a").take([]))
    assert not empty.contribution(state, RANDOM, PLACE).any()
    assert 0 < sum(int(z) ** 2 for z in sent) <= S**2


def test_the_clip_follows_the_quantile_of_the_norms() -> None:
    spec = AlgorithmSpec(**ADAPTIVE)
    program = AdaptiveClip(
        build_model("logistic", (3,), 2), OptimizerSpec(), algorithm=spec, clip=4.0
    )
    norms, clip = np.array([0.2, 0.5, 0.9]), 4.0
    state = program.begin()
    for number in range(1, 200):
        inside = norms <= state[-1]
        bits = np.where(inside, 0.25 * 4, -0.25 * 4)
        update = np.append(np.zeros(4), bits.mean())
        state = program.fold(state, Opened(("run", number, 1), np.zeros(5, int), update, ()))
        clip *= np.exp(-0.2 * (inside.mean() - 0.4))  # the paper's line
        assert state[-1] == pytest.approx(clip)
    assert 0.15 < state[-1] < 0.6  # from 4 to about the 0.4-quantile


def test_an_update_within_the_clip_arrives_as_it_is() -> None:
    plan = ClientPlan(**facts(dimension=5, clip_norm_l2=Decimal(2), rounds=1))
    spec = AlgorithmSpec(**ADAPTIVE)
    program = AdaptiveClip(
        build_model("logistic", (3,), 2), OptimizerSpec(), algorithm=spec, clip=2.0
    )
    sites = {site: learner(plan, site, ADAPTIVE) for site in SITES}
    found = trained(plan, sites, program, RANDOM)
    plain = ClientPlan(**facts(clip_norm_l2=Decimal(2), rounds=1))
    usual = {site: learner(plain, site, {}) for site in SITES}
    np.testing.assert_allclose(found[:-1], trained(plain, usual, coordinator(), RANDOM), atol=1e-5)


# --- scores by halves ----------------------------------------------------------------------------


def test_scores_are_the_sites_own_where_sums_are() -> None:
    """Where what a half improves is the mean of its members' worth, the regression finds it."""
    worth = {"a": 0.5, "b": 0.1, "c": -0.3, "d": 0.2}
    pairs = [("a", "b"), ("c", "d"), ("a", "c"), ("b", "d"), ("a", "d")]
    rounds = [(pair, np.mean([worth[name] for name in pair])) for pair in pairs]
    found = scores_of(tuple(worth), rounds)
    mean = np.mean(list(worth.values()))
    assert found == pytest.approx({name: value - mean for name, value in worth.items()})
    assert set(scores_of(tuple(worth), rounds[:1]).values()) == {0.0}  # one round ranks nobody


def test_who_breaks_the_model_is_scored_as_the_worst_and_not_left_out() -> None:
    """A loss that is no number makes no score one; nor does a model that was broken before."""
    public = TensorRecords(records("a").x, records("a").y, True)
    target, names = NumberedClasses(count=2), ("a", "b", "c", "d")
    model = build_model("logistic", (3,), 2)
    program = Halves(model, OptimizerSpec(), public, target, class_loss, sites=names)
    state, good, slight = program.begin(), W * [1, 1, 1, 0], W * -0.1
    broken = np.full(4, 1e38)
    for pair, update in (("ab", slight), ("cd", good), ("ac", slight), ("bd", broken)):
        program.fold(state, Opened(PLACE, np.zeros(4, np.int64), update, tuple(pair)))
    kept = program.kept()
    assert [each["score"] is None for each in kept["scores"]] == [False, False, False, True]
    found = list(program.contributions.values())
    assert np.isfinite(found).all()
    json.dumps(kept, allow_nan=False)
    program.fold(broken, Opened(PLACE, np.zeros(4, np.int64), slight, ("a", "d")))
    assert list(program.contributions.values()) == found
    again = Halves(model, OptimizerSpec(), public, target, class_loss, sites=names)
    again.resume(json.loads(json.dumps(kept)))
    assert list(again.contributions.values()) == found
    only = scores_of(names, [(("a", "b"), None), (("c", "d"), 1.0)])
    assert set(only.values()) == {0.0}  # the worst of one is that one
    for strange in ("nan", float("inf"), "x"):
        with pytest.raises(ConfigError, match="no scored rounds"):
            again.resume({"scores": [{"sites": ["a"], "score": strange}]})


def test_a_shift_of_the_outputs_moves_no_score_and_early_rounds_have_no_credit() -> None:
    """A model that expects another mix of classes has the same loss; scipy finds the same shift."""
    held, model = records("a"), build_model("logistic", (3,), 2)
    public = TensorRecords(held.x, held.y, True)
    sizes, found = len(get_parameters(model)), []
    for shift in (0.0, 5.0):
        moved = np.append(np.linspace(-1, 1, sizes - 1), shift)
        found.append(shifted_loss(model, moved, public, class_loss))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    outputs = predict_logits(model, np.append(np.linspace(-1, 1, sizes - 1), 0.0), held.x)
    best = minimize_scalar(lambda b: float(class_loss(outputs + b, held.y).mean()), (-9, 9))
    assert found[0] == pytest.approx(best.fun, abs=1e-5)
    worth, pairs = (
        {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0},
        ("ab", "ac", "cd", "bd", "ad", "bc") * 4,
    )
    rounds = [
        (tuple(pair), (worth[pair[0]] + worth[pair[1]]) / 2 + 9 / at - 4 / at**2)
        for at, pair in enumerate(pairs, 1)
    ]
    assert scores_of(tuple(worth), rounds) == pytest.approx(
        {name: value - 1.5 for name, value in worth.items()}, abs=1e-9
    )


# --- all of them ---------------------------------------------------------------------------------


def test_record_level_has_only_what_its_guarantee_holds_for() -> None:
    assert set(LEARNERS[DistributedPlan]) == {"fedavg"}
    assert set(LEARNERS[LocalPlan]) == {"fedavg", "scaffold"}
    plan = DistributedPlan(**facts(sampling_rate=1))
    with pytest.raises(ConfigError, match="'scaffold' is none of mode 'record-distributed'"):
        learner(plan, "a", {"kind": "scaffold"})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"kind": "fedper"}, "'fedper' needs 'personal'"),
        ({"kind": "fedrep", "personal": ["a"]}, "needs 'personal_steps'"),
        ({"kind": "per-fedavg"}, "needs 'inner_learning_rate'"),
        ({"kind": "scaffold", "quantile": 0.3}, "'quantile' is an option of adaptive-clip"),
    ],
)
def test_an_option_belongs_to_its_algorithm(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AlgorithmSpec(**spec)


def test_a_home_keeps_the_rounds_before() -> None:
    home = Remembered()
    for number in (1, 2, 10):
        home.save(("run", number, 1), {"x": np.full(1, number)})
    found = home.load("run", 10)
    assert found is not None
    assert found["x"] == 2
    assert home.load("run", 1) is None
