"""The client rules against hand-written references, and what they promise to the plan."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ConfigError
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, TrainingPlan
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.programs.clients import ClientLearner
from privagg.programs.learners import make_learner
from privagg.programs.training import DistributedLearner, LocalLearner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.losses import class_loss
from privagg.training.models import build_model
from privagg.training.objective import Objective

PLACE = ("run", 1, 1)
RANDOM = DeterministicRandomness(4)
SIZES = {"a": 30, "b": 20, "c": 5}
S = 2**24
EVERYBODY = {"sampling_rate": 1}


def common(**facts: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "sites": [{"name": name, "records": size} for name, size in SIZES.items()],
        "dimension": 4,
        "rounds": 3,
        "clip_norm_l2": Decimal("1"),
        "sensitivity_grid": S,
        "noise_multiplier": Decimal(0),
        "delta": Decimal("1e-5"),
        "custody": "authority",
        "scheme": "plaintext",
    }
    return {**base, **facts}


def data(site: str) -> TensorRecords:
    rng = np.random.default_rng(SIZES[site])
    return TensorRecords.of(rng.standard_normal((SIZES[site], 3)), rng.integers(0, 2, SIZES[site]))


def squared_error(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """A quadratic, so that local training has a recursion that can be written down."""
    return 0.5 * (outputs[:, 0] - classes) ** 2


def learner(plan: TrainingPlan, site: str = "a", *, quadratic: bool = False, **rule: Any) -> Any:
    objective = Objective(squared_error if quadratic else class_loss)
    model = build_model("logistic", (3,), 2)
    return make_learner(
        plan,
        site,
        model=model,
        records=data(site),
        rule=ClientRule(**rule),
        objective=objective,
    )


def with_intercept(site: str) -> tuple[np.ndarray, np.ndarray]:
    records = data(site)
    x = records.x.numpy().astype(np.float64)
    return np.column_stack([x, np.ones(len(x))]), records.y.numpy().astype(np.float64)


W = np.array([0.5, -1.0, 0.25, 0.75])


# --- record level, distributed -----------------------------------------------------------------


def test_distributed_contributions_add_up_to_the_unions_gradient() -> None:
    """A secure sum over sites is one step on the pooled data: same integers, whoever holds what."""
    plan = DistributedPlan(**common(**EVERYBODY))
    parts = [learner(plan, site).contribution(W, RANDOM, PLACE) for site in SIZES]
    pooled = TensorRecords(
        torch.cat([data(site).x for site in SIZES]), torch.cat([data(site).y for site in SIZES])
    )
    one = DistributedPlan(
        **common(**EVERYBODY, sites=[{"name": "all", "records": 55}], colluders=0)
    )
    model = build_model("logistic", (3,), 2)
    whole = DistributedLearner(one, "all", model, pooled, ClientRule())
    np.testing.assert_array_equal(sum(parts), whole.contribution(W, RANDOM, PLACE))


def test_distributed_sum_against_numpy() -> None:
    plan = DistributedPlan(**common(**EVERYBODY, clip_norm_l2=Decimal("0.6")))
    x, y = with_intercept("a")
    gradients = (1 / (1 + np.exp(-x @ W)) - y)[:, None] * x
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = (gradients * np.minimum(1, 0.6 / norms)).sum(axis=0)
    ours = learner(plan, engine="opacus")
    total = ours.contribution(W, RANDOM, PLACE) * float(plan.unit_per_grid)
    np.testing.assert_allclose(total, expected, atol=30 * 0.6 / S + 1e-5)


@pytest.mark.parametrize("site_records", [0, 30])
def test_an_empty_batch_still_gives_the_noise_of_the_plan(site_records: int) -> None:
    plan = DistributedPlan(
        **common(sampling_rate=Decimal("1e-9"), noise_multiplier=Decimal(2), sensitivity_grid=2**10)
    )
    model, records = build_model("logistic", (3,), 2), data("a").take(range(site_records))
    ours = DistributedLearner(plan, "a", model, records, ClientRule())
    assert plan.noise is not None
    noise = plan.noise.sample(RANDOM.stream("noise", *PLACE, "a", 0), 4)
    np.testing.assert_array_equal(ours.contribution(W, RANDOM, PLACE), noise)
    assert noise.any()


def test_the_noise_is_added_to_the_same_sum() -> None:
    facts = common(**EVERYBODY, sensitivity_grid=2**10)
    noisy = DistributedPlan(**{**facts, "noise_multiplier": Decimal(3)})
    plain = DistributedPlan(**facts)
    assert noisy.noise is not None
    noise = noisy.noise.sample(RANDOM.stream("noise", *PLACE, "a", 0), 4)
    difference = learner(noisy).contribution(W, RANDOM, PLACE) - learner(plain).contribution(
        W, RANDOM, PLACE
    )
    np.testing.assert_array_equal(difference, noise)


def test_records_are_sampled_afresh_for_every_site_round_and_attempt() -> None:
    plan = DistributedPlan(**common(sampling_rate=Decimal("0.5")))
    ours = learner(plan)
    places = [PLACE, ("run", 2, 1), ("run", 1, 2), ("other", 1, 1)]
    sums = {ours.contribution(W, RANDOM, place).tobytes() for place in places}
    assert len(sums) == len(places)
    again = learner(plan).contribution(W, RANDOM, PLACE)
    np.testing.assert_array_equal(again, ours.contribution(W, RANDOM, PLACE))
    drawn = {ours.contribution(W, SystemRandomness(), PLACE).tobytes() for _ in range(4)}
    assert len(drawn) > 1  # fails by chance below 2^-80: 30 records each in or out


def test_contributions_stay_within_the_plans_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient sum far above what the declared size and rate allow is clamped, not sent."""
    everybody = np.ones(50, dtype=np.bool_)
    monkeypatch.setattr("privagg.training.draws.poisson_sample", lambda *_: everybody)
    sites = [{"name": name, "records": 50} for name in SIZES]
    plan = DistributedPlan(**common(sampling_rate=Decimal("1e-9"), sites=sites))
    x = TensorRecords.of(np.full((50, 3), 9.0), np.ones(50))
    ours = DistributedLearner(plan, "a", build_model("logistic", (3,), 2), x, ClientRule())
    sent = ours.contribution(-W * 0, RANDOM, PLACE)
    assert np.abs(sent).max() == plan.contribution_bound(plan.site("a"))
    assert np.abs(sent).max() <= plan.upload_bound


# --- record level, local -----------------------------------------------------------------------


def local_plan(**facts: Any) -> LocalPlan:
    base: dict[str, Any] = {**EVERYBODY, "local_steps": 5, "update_bound": Decimal(8)}
    return LocalPlan(**common(**{**base, **facts}))


@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("clip", ["0.5", "50"])
def test_local_steps_against_a_hand_written_reference(mu: float, clip: str) -> None:
    """DP-SGD without noise on a quadratic, FedAvg (mu = 0) and FedProx."""
    plan = local_plan(clip_norm_l2=Decimal(clip))
    x, y = with_intercept("a")
    w, rate = W.copy(), 0.2
    for _ in range(5):
        gradients = (x @ w - y)[:, None] * x
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        mean = (gradients * np.minimum(1, float(clip) / norms)).sum(axis=0) / SIZES["a"]
        w = w - rate * (mean + mu * (w - W))
    ours = learner(plan, quadratic=True, learning_rate=rate, prox_mu=mu, engine="opacus")
    np.testing.assert_allclose(ours.delta(W, RANDOM, PLACE), w - W, atol=2e-5)


def test_local_update_is_weighted_and_clamped_on_its_own_grid() -> None:
    sites = [{"name": name, "records": size, "weight": size} for name, size in SIZES.items()]
    plan = local_plan(sites=sites, update_bound=Decimal("0.01"))
    ours = learner(plan, learning_rate=0.1)
    delta = ours.delta(W, RANDOM, PLACE)
    sent = ours.contribution(W, RANDOM, PLACE)
    levels = plan.update_levels
    expected = np.clip(np.rint(delta / 0.01 * levels), -levels, levels) * 30
    np.testing.assert_array_equal(sent, expected)
    assert np.abs(sent).max() == 30 * levels <= plan.upload_bound
    assert np.abs(delta).max() > 0.01


def test_every_local_step_has_noise_of_its_own() -> None:
    """With no records at all the update is minus the rate times the sum of the steps' noise."""
    plan = local_plan(noise_multiplier=Decimal(1), sensitivity_grid=2**12, local_steps=3)
    empty = data("a").take([])
    ours = LocalLearner(
        plan, "a", build_model("logistic", (3,), 2), empty, ClientRule(learning_rate=0.5)
    )
    assert plan.noise is not None
    draws = [plan.noise.sample(RANDOM.stream("noise", *PLACE, "a", step), 4) for step in range(3)]
    assert len({draw.tobytes() for draw in draws}) == 3
    expected = -0.5 * np.sum(draws, axis=0) / 2**12 / 30
    np.testing.assert_allclose(ours.delta(W, RANDOM, PLACE), expected, rtol=1e-12)


def test_a_learning_rate_that_blows_up_still_sends_bounded_integers() -> None:
    plan = local_plan(local_steps=40)
    sent = learner(plan, quadratic=True, learning_rate=1e30).contribution(W, RANDOM, PLACE)
    assert np.abs(sent).max() <= plan.upload_bound


# --- client level ------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_client_update_against_the_closed_form_on_a_quadratic(mu: float) -> None:
    """K full-batch steps: w_k - w* = (I - rate (H + mu I))^k (w_0 - w*), H the mean of x x'."""
    plan = ClientPlan(**common(clip_norm_l2=Decimal(100)))
    x, y = with_intercept("a")
    hessian = x.T @ x / len(x) + mu * np.eye(4)
    fixed = np.linalg.solve(hessian, x.T @ y / len(x) + mu * W)
    shrink = np.linalg.matrix_power(np.eye(4) - 0.1 * hessian, 12)
    expected = fixed + shrink @ (W - fixed) - W
    ours = learner(plan, quadratic=True, steps=12, learning_rate=0.1, prox_mu=mu, batch_size=64)
    np.testing.assert_allclose(ours.delta(W, RANDOM, PLACE), expected, atol=5e-6)
    sent = ours.contribution(W, RANDOM, PLACE) * float(plan.unit_per_grid)
    np.testing.assert_allclose(sent, expected, atol=5e-6 + 100 / S)


def test_client_update_is_clipped_exactly_and_weighted() -> None:
    sites = [{"name": name, "records": size, "weight": 7} for name, size in SIZES.items()]
    plan = ClientPlan(**common(sites=sites, clip_norm_l2=Decimal("0.01")))
    ours = learner(plan, steps=20, learning_rate=1.0)
    delta, sent = ours.delta(W, RANDOM, PLACE), ours.contribution(W, RANDOM, PLACE)
    assert np.linalg.norm(delta) > 0.01
    assert sum(int(z) ** 2 for z in sent) <= (7 * S) ** 2
    np.testing.assert_allclose(sent / (7 * S), delta / np.linalg.norm(delta), atol=1e-6)


def test_fedavg_over_clients_is_the_weighted_mean_of_their_updates() -> None:
    sites = [{"name": name, "records": size, "weight": size} for name, size in SIZES.items()]
    plan = ClientPlan(**common(sites=sites, clip_norm_l2=Decimal(100)))
    learners = [learner(plan, site, steps=4, learning_rate=0.3) for site in SIZES]
    opened = sum(one.contribution(W, RANDOM, PLACE) for one in learners)
    mean = opened * float(plan.unit_per_grid / plan.divisor(list(SIZES)))
    deltas = np.array([one.delta(W, RANDOM, PLACE) for one in learners])
    np.testing.assert_allclose(mean, np.average(deltas, axis=0, weights=[30, 20, 5]), atol=1e-5)


def test_batches_pass_over_every_record_before_any_comes_again() -> None:
    seen: list[int] = []

    def noting(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        seen.append(len(classes))
        return (outputs[:, 0] * 0) + classes * 0.0

    plan = ClientPlan(**common())
    records = TensorRecords.of(np.arange(90).reshape(30, 3), np.arange(30))
    gathered: list[np.ndarray] = []

    class Noting(TensorRecords):
        def gather(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            gathered.append(indices)
            return super().gather(indices)

    ours = ClientLearner(
        plan,
        "a",
        build_model("logistic", (3,), 2),
        Noting(records.x, records.y),
        ClientRule(steps=6, batch_size=10),
        objective=Objective(noting),
    )
    ours.delta(W, RANDOM, PLACE)
    assert seen == [10] * 6
    first, second = np.concatenate(gathered[:3]), np.concatenate(gathered[3:])
    assert sorted(first) == sorted(second) == list(range(30))
    assert first.tolist() != second.tolist()


def test_layers_that_draw_follow_the_sites_randomness() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1, bias=False))
    plan = ClientPlan(**common(dimension=40))
    ours = ClientLearner(plan, "a", model, data("a"), ClientRule(steps=3))
    w = np.linspace(-1, 1, 40)
    first = ours.delta(w, RANDOM, PLACE)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, ours.delta(w, RANDOM, PLACE))
    assert (first != ours.delta(w, DeterministicRandomness(5), PLACE)).any()


def test_local_steps_follow_from_public_numbers() -> None:
    assert ClientRule(steps=7).step_count(1000) == 7
    assert ClientRule(epochs=3, batch_size=32).step_count(65) == 9
    assert ClientRule(batch_size=10).step_count(30) == 3
    with pytest.raises(ValueError, match="not both"):
        ClientRule(steps=1, epochs=1)


def test_a_client_without_records_or_with_a_broken_update_sends_zero_and_noise() -> None:
    plan = ClientPlan(**common(noise_multiplier=Decimal(2), sensitivity_grid=2**10))
    assert plan.noise is not None
    noise = plan.noise.sample(RANDOM.stream("noise", *PLACE, "a", 0), 4)
    model = build_model("logistic", (3,), 2)
    empty = ClientLearner(plan, "a", model, data("a").take([]), ClientRule())
    np.testing.assert_array_equal(empty.contribution(W, RANDOM, PLACE), noise)
    broken = learner(plan, quadratic=True, steps=60, learning_rate=1e30)
    assert not np.isfinite(broken.delta(W, RANDOM, PLACE)).all()
    np.testing.assert_array_equal(broken.contribution(W, RANDOM, PLACE), noise)


def test_a_client_whose_records_cannot_be_trained_on_sends_zero_and_noise() -> None:
    """A refusal would show what its records are; without records it would not refuse."""
    plan = ClientPlan(**common(noise_multiplier=Decimal(2), sensitivity_grid=2**10))
    assert plan.noise is not None
    noise = plan.noise.sample(RANDOM.stream("noise", *PLACE, "a", 0), 4)
    strange = TensorRecords.of(np.ones((5, 3)), np.full(5, 7))
    model = build_model("logistic", (3,), 2)

    def loss(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return class_loss(torch.cat([outputs, -outputs], dim=1), classes)

    with pytest.raises(IndexError):
        loss(torch.zeros(5, 1), strange.y)
    ours = ClientLearner(plan, "a", model, strange, ClientRule(), objective=Objective(loss))
    np.testing.assert_array_equal(ours.contribution(W, RANDOM, PLACE), noise)


# --- all of them -------------------------------------------------------------------------------

PLANS: list[tuple[type, dict[str, Any]]] = [
    (DistributedPlan, {"sampling_rate": Decimal("0.5")}),
    (LocalPlan, {"sampling_rate": Decimal("0.5"), "local_steps": 3, "update_bound": 1}),
    (ClientPlan, {}),
]


@pytest.mark.parametrize(("kind", "facts"), PLANS)
def test_the_same_randomness_gives_the_same_integers(
    kind: type[TrainingPlan], facts: dict[str, Any]
) -> None:
    plan = kind(**common(**facts, noise_multiplier=Decimal(1), sensitivity_grid=2**16))
    sent = []
    for _ in range(2):
        torch.rand(3)  # torch's own generator must not matter
        sent.append(learner(plan, steps=3).contribution(W, RANDOM, PLACE))
    assert sent[0].dtype == np.int64
    np.testing.assert_array_equal(*sent)
    assert np.abs(sent[0]).max() <= plan.upload_bound


@pytest.mark.parametrize(("kind", "facts"), PLANS)
def test_a_model_of_another_size_than_the_plans_is_refused(
    kind: type[TrainingPlan], facts: dict[str, Any]
) -> None:
    plan = kind(**common(**facts, dimension=5))
    with pytest.raises(ConfigError, match="5 parameters, the model has 4"):
        learner(plan)


def test_the_grid_is_the_plans() -> None:
    plan = DistributedPlan(**common(**EVERYBODY, clip_norm_l2=Decimal("0.3")))
    grid = Grid(*plan.gradient_terms("c"))
    assert 1 / grid.scale == plan.unit_per_grid
    assert grid.contribution_bound == plan.contribution_bound(plan.site("c"))


def test_own_modules_train_too() -> None:
    plan = DistributedPlan(**common(**EVERYBODY))
    model = nn.Sequential(nn.Linear(3, 1))
    ours = make_learner(plan, "a", model=model, records=data("a"), rule=ClientRule())
    assert ours.contribution(W, RANDOM, PLACE).any()
