"""Features' means, opened first: what two gradients tell, and what training makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from privagg.errors import ConfigError
from privagg.programs.centring import PROBE, Centring
from privagg.programs.gradient import GradientTraining
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.program import Opened
from privagg.training.declared import ModelSpec
from privagg.training.models import Centre, build_model, set_parameters
from privagg.training.rehearsal import require_model_apart

Floats = npt.NDArray[np.float64]
Mean = Callable[[Floats], Floats]

WIDTH, RECORDS, CONSTANT = 3, 400, Centre.constant
CENTRED = ModelSpec(centred=True)


def records(classes: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(classes)
    x = rng.normal([0.9, -0.5, 0.2], [0.1, 0.4, 0.3], (RECORDS, WIDTH))
    scores = (x - x.mean(axis=0)) @ rng.normal(0, 2, (WIDTH, classes)) + np.arange(classes) / 2
    return x, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


def mean_gradient(x: Floats, y: npt.NDArray[np.int64], classes: int) -> Mean:
    """Minus the mean gradient at a state (centre, weights, intercepts), in numpy alone."""
    outputs = 1 if classes == 2 else classes
    truth = np.eye(classes)[y][:, -outputs:]

    def downhill(state: Floats) -> Floats:
        centre, weights = state[:WIDTH], state[WIDTH:].reshape(outputs, WIDTH + 1)
        inputs = np.column_stack([x - centre, np.full(len(x), CONSTANT)])
        logits = inputs @ weights.T
        answers = 1 / (1 + np.exp(-logits)) if outputs == 1 else softmax(logits, axis=1)
        slopes = (truth - answers).T @ inputs / len(x)
        return np.concatenate([np.zeros(WIDTH), slopes.reshape(-1)])

    return downhill


def program(classes: int = 2, **facts: object) -> GradientTraining:
    model = build_model(CENTRED, (WIDTH,), classes)
    return GradientTraining(model, OptimizerSpec.model_validate(facts))


def folded(job: GradientTraining, state: Floats, downhill: Mean, number: int) -> Floats:
    opened = Opened(("run", number, 1), np.zeros(0, np.int64), downhill(state), ("a",))
    return job.fold(state, opened)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_two_openings_tell_the_means_and_the_classes_shares(classes: int) -> None:
    x, y = records(classes)
    centring = Centring(1 if classes == 2 else classes, WIDTH, CONSTANT)
    downhill = mean_gradient(x, y, classes)
    second, nothing = centring.probe(downhill(centring.begin()))
    assert nothing is None
    intercepts = CONSTANT * second[WIDTH:].reshape(-1, WIDTH + 1)[:, -1]
    np.testing.assert_array_equal(np.abs(intercepts), PROBE)
    start, first = centring.probe(downhill(second))
    np.testing.assert_allclose(start[:WIDTH], x.mean(axis=0), rtol=1e-9)
    shares = np.bincount(y, minlength=classes) / RECORDS
    given = CONSTANT * start[WIDTH:].reshape(-1, WIDTH + 1)[:, -1]
    answers = 1 / (1 + np.exp(-given)) if classes == 2 else softmax(given)
    np.testing.assert_allclose(answers, shares[-centring.outputs :], rtol=1e-9)
    np.testing.assert_allclose(first, downhill(start)[WIDTH:], atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_reaches_what_scikit_learn_finds(classes: int) -> None:
    x, y = records(classes)
    job, downhill = program(classes, kind="momentum", learning_rate=2.0), None
    downhill, state = mean_gradient(x, y, classes), job.begin()
    for number in range(1, 1500):
        state = folded(job, state, downhill, number)
    peer = LogisticRegression(C=1e12, tol=1e-10, max_iter=5000).fit(x, y)
    model = build_model(CENTRED, (WIDTH,), classes)
    set_parameters(model, state)
    with torch.no_grad():
        logits = model(torch.from_numpy(x.astype(np.float32))).numpy().astype(np.float64)
    ours = 1 / (1 + np.exp(-logits[:, 0])) if classes == 2 else softmax(logits, axis=1)
    theirs = peer.predict_proba(x)[:, 1] if classes == 2 else peer.predict_proba(x)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_noise_that_hides_the_means_leaves_features_where_they_are() -> None:
    centring = Centring(1, WIDTH, CONSTANT)
    centring.probe(np.array([0.0, 0, 0, 5.0, -4.0, 9.0, 0.01]))
    start, first = centring.probe(np.array([0.0, 0, 0, 1.0, 1.0, 1.0, 0.02]))
    np.testing.assert_array_equal(start[: 2 * WIDTH], 0)
    assert np.isfinite(start).all()
    assert first is not None
    np.testing.assert_array_equal(first, [3.0, -1.5, 5.0, 0.0])


def test_a_shrunken_gradient_tells_the_same() -> None:
    """Clipping that shrinks every record alike, as a clip far below all norms does to long ones."""
    x, y = records(2)
    downhill, found = mean_gradient(x, y, 2), []
    for shrunk in (1.0, 0.3):
        centring = Centring(1, WIDTH, CONSTANT)
        second, _ = centring.probe(shrunk * downhill(centring.begin()))
        found.append(centring.probe(shrunk * downhill(second))[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_goes_on_to_the_last_bit_wherever_it_was_cut_off(cut: int) -> None:
    downhill = mean_gradient(*records(2), 2)
    whole = program(kind="momentum", learning_rate=0.5, average_from=1)
    path = [whole.begin()]
    for number in range(1, 6):
        path.append(folded(whole, path[-1], downhill, number))
    first = program(kind="momentum", learning_rate=0.5, average_from=1)
    state = first.begin()
    for number in range(1, cut + 1):
        state = folded(first, state, downhill, number)
    resumed = program(kind="momentum", learning_rate=0.5, average_from=1)
    resumed.resume(first.kept())
    for number in range(cut + 1, 6):
        state = folded(resumed, state, downhill, number)
    assert state.tobytes() == path[-1].tobytes()
    assert resumed.kept() == whole.kept()


def test_an_intercept_that_was_asked_for_is_never_released_as_a_model(tmp_path: Path) -> None:
    downhill, job = mean_gradient(*records(2), 2), program()
    state = folded(job, job.begin(), downhill, 1)
    np.testing.assert_array_equal(job.finish(state, tmp_path, measured=False).state, 0)
    state = folded(job, state, downhill, 2)
    assert job.finish(state, tmp_path, measured=False).state.tobytes() == state.tobytes()


@pytest.mark.parametrize(
    "damage", [{"done": 1}, {"done": None}, {"first": "AAAA"}, {"first": "AAAAAAAAAAA="}]
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    centring = Centring(1, WIDTH, CONSTANT)
    centring.probe(np.ones(2 * WIDTH + 1))
    with pytest.raises(ConfigError, match="centring|damaged"):
        Centring(1, WIDTH, CONSTANT).load({**centring.state(), **damage})


def test_no_gradient_reaches_the_centre_and_records_stay_apart() -> None:
    model = build_model(CENTRED, (WIDTH,), 2)
    assert require_model_apart(model, (WIDTH,), 8) is not None
    state = np.array([0.5, -1.0, 2.0, 0.3, 0.2, -0.1, 0.7])
    set_parameters(model, state)
    x = torch.tensor([[1.0, 2.0, 3.0]])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], torch.ones(1))
    centre, weights = model.parameters()
    nothing, found = torch.autograd.grad(loss, (centre, weights), allow_unused=True)
    assert nothing is None
    logit = (np.array([0.5, 3.0, 1.0, CONSTANT]) * state[WIDTH:]).sum()
    expected = -np.array([0.5, 3.0, 1.0, CONSTANT]) / (1 + np.exp(logit))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)
