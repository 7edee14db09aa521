"""Time to an event: whole people, censored rightly, against person-period rows and lifelines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.linear_model import LogisticRegression

from privagg.encoding.grid import Grid
from privagg.programs.questions.columns import Columns
from privagg.training.data import TensorRecords
from privagg.training.dpsgd import DpSgd
from privagg.training.factories import ApprovedCode
from privagg.training.features import NumericFeature
from privagg.training.inspection import check_table
from privagg.training.measures import concordance
from privagg.training.models import build_model, get_parameters
from privagg.training.objective import Objective
from privagg.training.table import TableSchema
from privagg.training.targets import AnyTarget, TimeToEvent


def target(**changes: Any) -> TimeToEvent:
    facts = {"kind": "time-to-event", "name": "survival", "time": "days", "event": "status",
             "event_is": "died", "until": 100, "intervals": 4}  # fmt: skip
    return TimeToEvent.model_validate(facts | changes)


def frame(days: list[object], status: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"days": days, "status": status}, dtype=object)


# --- declared, read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"until": None}, "needs `until`, the longest follow-up"),
        ({"intervals": (50, 20), "until": None}, "ascending order, got \\[50.0, 20.0\\]"),
        ({"intervals": (50, 90)}, "`intervals` end at 90 and `until` says 100"),
        ({"intervals": 0}, "greater than or equal to 1"),
        ({"until": -1}, "greater than 0"),
        ({"event": "days"}, "one column"),
        ({"event_is": "> x"}, "needs a number"),
        ({"typical": 1}, "less than or equal to 0.999"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    facts = target().model_dump(mode="json") | changes
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(AnyTarget).validate_python(facts)


def test_times_and_events_are_read_cell_by_cell() -> None:
    days = ["0", 25, "100", 101, -1, None, "x", 50, 50]
    status = ["died", "alive", "Died", "died", "died", "died", "died", None, "lost"]
    cells = frame(days, status)
    found = target().read(cells)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found[:4], [[0, 1], [0.25, 0], [1, 1], [1, 0]]  # after `until` nobody has the event
    )  # fmt: skip
    assert target().known(found).tolist() == [True] * 4 + [False] * 4 + [True]
    assert found[8].tolist() == [0.5, 0]


def test_the_owner_hears_what_is_left_out_and_what_ends_early() -> None:
    schema = TableSchema(features=(NumericFeature(name="x", range=(0, 1)),), target=target())
    given = frame([5, 120, -1, "x"], ["alive", "died", "died", "died"]).assign(x=1)
    told = {finding.message for finding in check_table(schema, given)}
    assert "2 cells are no times from 0 (left out)" in told
    assert any("1 record is followed beyond 100" in text for text in told)
    assert any("no record has the event until 100" in text for text in told)


def test_questions_over_the_same_columns_see_the_same_events() -> None:
    schema = TableSchema(features=(NumericFeature(name="x", range=(0, 1)),), target=target())
    columns = Columns.read(
        frame([10, 120, -1, 30], ["died", "died", "died", "alive"]).assign(x=1), schema
    )
    assert columns.numbers("days").tolist() == [10, 100, 0, 30]
    assert columns.codes("status").tolist() == [1, 0, 1, 0]


# --- the loss, against others ---------------------------------------------------------------------


def person_periods(
    asked: TimeToEvent, days: np.ndarray, died: np.ndarray
) -> list[tuple[int, int, int, float]]:
    """(person, interval, event, weight): written out, one interval after the other."""
    rows = []
    for person, (day, event) in enumerate(zip(days, died, strict=True)):
        start = 0.0
        for interval, end in enumerate(asked.ends):
            if day <= end:
                rows.append((person, interval, int(event), 1.0 if event else
                             (day - start) / (end - start)))  # fmt: skip
                break
            rows.append((person, interval, 0, 1.0))
            start = end
    return rows


def study(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns; days until an event or a censoring that knows nothing of it; which it was."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 2))
    death = 60 * draw.exponential(size=count) / np.exp(0.8 * x[:, 0] - 0.5 * x[:, 1])
    censored = draw.uniform(5, 100, count)
    return x, np.minimum(death, censored), death <= censored


@pytest.mark.parametrize("intervals", [4, (10.0, 30.0, 100.0)])
def test_scikit_learns_fit_of_person_periods_is_where_our_gradient_vanishes(intervals: Any) -> None:
    asked = target(intervals=intervals, until=100 if intervals == 4 else None, typical=0.3)
    x, days, died = study(500)
    rows = person_periods(asked, days, died)
    person, interval, event, weight = map(np.array, zip(*rows, strict=True))
    periods = np.eye(asked.outputs)[interval]
    design = np.concatenate([x[person], periods], axis=1)
    fit = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-12, max_iter=10_000)
    slopes = fit.fit(design, event, sample_weight=weight).coef_[0]
    logits = (x @ slopes[:2])[:, None] + slopes[2:]
    outputs = torch.from_numpy(logits - asked.starting_logits).requires_grad_(True)
    table = pd.DataFrame({"days": days, "status": np.where(died, "died", "alive")})
    encoded = torch.from_numpy(asked.read(table)).double()
    losses = asked.per_record_loss(outputs, encoded)
    (found,) = torch.autograd.grad(losses.sum(), outputs)
    residuals = found.numpy()
    scale = np.abs(residuals).sum()
    assert np.abs(residuals.sum(axis=0)).max() < 1e-5 * scale
    assert np.abs(x.T @ residuals.sum(axis=1)).max() < 1e-5 * scale
    # The loss is scikit-learn's, person by person; so is the curve.
    chance = fit.predict_proba(design)[:, 1]
    each = -weight * np.where(event == 1, np.log(chance), np.log1p(-chance))
    np.testing.assert_allclose(
        losses.detach().numpy(), np.bincount(person, each, len(x)), rtol=1e-5
    )
    hazards = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        asked.predictions(logits - asked.starting_logits), np.cumprod(1 - hazards, axis=1)
    )
    figures = asked.figures(logits - asked.starting_logits, asked.read(table))
    assert figures["log_likelihood"] == pytest.approx(-each.sum() / len(x), rel=1e-5)
    null = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-12, max_iter=10_000)
    chance = null.fit(periods, event, sample_weight=weight).predict_proba(periods)[:, 1]
    each = weight * np.where(event == 1, np.log(chance), np.log1p(-chance))
    assert figures["base_log_likelihood"] == pytest.approx(each.sum() / len(x), rel=1e-5)
    assert figures["base_log_likelihood"] < figures["log_likelihood"]


def test_censoring_does_not_move_the_hazards() -> None:
    """Twenty thousand people with one hazard; two thirds are censored, anywhere in an interval."""
    draw = np.random.default_rng(5)
    death, censored = 80 * draw.exponential(size=20_000), draw.uniform(0, 100, 20_000)
    asked = target()
    table = pd.DataFrame({
        "days": np.minimum(death, censored),
        "status": np.where(death <= censored, "died", "lost"),
    })  # fmt: skip
    outputs = torch.zeros((1, 4), dtype=torch.float64, requires_grad=True)
    encoded = torch.from_numpy(asked.read(table)).double()
    optimizer = torch.optim.LBFGS([outputs], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = asked.per_record_loss(outputs.expand(len(encoded), 4), encoded).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    curve = asked.predictions(outputs.detach().numpy())[0]
    np.testing.assert_allclose(curve, np.exp(-asked.ends / 80), atol=0.02)


def test_a_model_starts_where_the_typical_share_has_the_event() -> None:
    for share in (0.1, 0.5, 0.9):
        asked = target(typical=share, intervals=(5, 20, 100))
        curve = asked.predictions(np.zeros((1, 3)))[0]
        np.testing.assert_allclose(curve, (1 - share) ** (asked.ends / 100))


# --- one person is one gradient -------------------------------------------------------------------


def test_no_person_moves_the_sum_by_more_than_one_clip_however_many_intervals() -> None:
    """A search over people, columns and models; its gradients, clipped by interval, would."""
    asked, grid = target(intervals=200), Grid(1, 2**12)
    draw, longest, by_interval = np.random.default_rng(0), 0.0, 0.0
    for scale in (0.0, 1.0, 30.0):
        count = 40
        x = (draw.choice([-1, 0, 1], (count, 3)) * 10 ** draw.uniform(-2, 4)).astype(np.float32)
        y = asked.examples(draw, count)
        y[:10] = [1, 0]
        y[10:20] = [1, 1]
        model = build_model("logistic", (3,), asked, seed=1)
        trainer = DpSgd(
            model, TensorRecords.of(x, y), grid, physical_batch=1, batches=1,
            objective=Objective.of(asked, None, ApprovedCode()),
        )  # fmt: skip
        parameters = draw.normal(size=len(get_parameters(model))) * scale + scale
        for person in range(count):
            moved = trainer.slotted_sum(parameters, np.array([person]))
            longest = max(longest, float((moved.astype(np.float64) ** 2).sum()))
        by_interval = max(by_interval, _by_interval(asked, x, y, parameters))
    assert 0.9 * 2**24 < longest <= 2**24
    assert by_interval > 100


def _by_interval(asked: TimeToEvent, x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> float:
    """The longest gradient of a person of whom each interval was clipped to 1 by itself."""
    longest = 0.0
    for row, seen in zip(x, y, strict=True):
        logits = torch.from_numpy(float(row @ parameters[:3]) + parameters[3:])[None]
        logits.requires_grad_(True)
        loss = asked.per_record_loss(logits, torch.from_numpy(seen[None]).double())
        (residuals,) = torch.autograd.grad(loss.sum(), logits)
        each = residuals[0].numpy()
        norms = np.abs(each) * np.sqrt(1 + row.astype(np.float64) @ row)
        clipped = each / np.maximum(norms, 1.0)
        whole = np.append(row * clipped.sum(), clipped)
        longest = max(longest, float(np.sqrt((whole**2).sum())))
    return longest


# --- the C-index ----------------------------------------------------------------------------------


def test_the_c_index_by_hand() -> None:
    """Five people, a to e. At one time d, without the event, outlived b and c, who had it."""
    times, events = np.array([2.0, 4, 4, 4, 8]), np.array([True, True, True, False, False])
    risks = np.array([3.0, 2, 5, 3, 1])
    pairs = {("a", "b"): 1, ("a", "c"): 0, ("a", "d"): 0.5, ("a", "e"): 1}
    pairs |= {("b", "d"): 0, ("b", "e"): 1, ("c", "d"): 1, ("c", "e"): 1}
    assert concordance(risks, times, events) == sum(pairs.values()) / len(pairs)
    assert concordance(risks[3:], times[3:], events[3:]) is None


def test_the_c_index_is_that_of_lifelines() -> None:
    """lifelines.utils.concordance_index(times, -risks, events) of lifelines 0.30.3."""
    draw = np.random.default_rng(11)
    times, events = draw.integers(1, 40, 80).astype(float), draw.random(80) < 0.6
    risks = np.round(draw.normal(size=80) - times / 30, 1)
    assert concordance(risks, times, events) == pytest.approx(0.6068665377176016, abs=1e-12)


def test_the_figures_lead_with_it_beside_one_half() -> None:
    x, days, died = study(200)
    table = pd.DataFrame({"days": days, "status": np.where(died, "died", "alive")})
    asked = target(until=200)
    encoded = asked.read(table)
    outputs = np.tile((0.8 * x[:, 0] - 0.5 * x[:, 1])[:, None], (1, 4))
    found = asked.figures(outputs, encoded)
    assert found["c_index"] == concordance(outputs[:, 0], days, died)
    assert found["base_c_index"] == 0.5
    assert asked.shown[:2] == ("c_index", "base_c_index")
    assert asked.figures(np.full_like(outputs, np.nan), encoded)["c_index"] == 0.5
