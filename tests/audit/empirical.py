"""Lower bounds on epsilon from trials: what a distinguisher achieves against the sites' own code.

Canaries are put into a site's data or left out; the observer sees the integers that the row of the
report says it sees, and guesses by the likelihood ratio of the mechanism that the row claims, whose
threshold is fixed before any trial. Clopper-Pearson bounds on how often it is right give a lower
bound on epsilon, at the row's delta, which a true claim exceeds but in one of `1 / FALSE_ALARM`
audits. It can only refute: a bound below the claim proves nothing about other observers or data.

Every canary has a coordinate, or a round, of its own, so trials are independent where noise and
sampling are (tests/privacy/test_noise.py, tests/privacy/test_randomness.py).

Source: Jagielski, Ullman & Oprea 2020, "Auditing differentially private machine learning" (bounds
from frequencies); Nasr et al. 2023, "Tight auditing of differentially private machine learning"
(distinguishing the mechanism's own pair of distributions); Steinke, Nasr & Jagielski 2023, "Privacy
auditing with one (1) training run" (many canaries at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from privagg.encoding.planned import transform_of
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.events import DpEvent
from privagg.privacy.plan import ClientPlan, LocalPlan, TrainingPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.draws import Draws, RoundId, noised_update
from privagg.training.models import build_model
from privagg.training.objective import Objective

FALSE_ALARM = 1e-4
"""How often an audit refutes a claim that is true, at most."""

AUDITED_EPSILON = 0.5
"""Claims are audited at the delta where epsilon is about this: rarer events take more trials."""

SITES = ("a", "b", "c")
CANARIES = 64
"""Coordinates with a canary of their own; the records of the first half are there."""

Values = NDArray[np.float64]
SENT_FAR = 1e6  # a canary's feature: clipping leaves its gradient along its own coordinate


@dataclass(frozen=True)
class Trials:
    """What the observer measured: in units of the sensitivity, 1 where the canary is in, else 0.

    Attributes:
        present: one number a trial with the canary in the data.
        absent: one number a trial without it.
    """

    present: Values
    absent: Values


@dataclass(frozen=True)
class Audit:
    """A claim beside what the trials prove.

    Attributes:
        claimed: the row's epsilon at the audited delta.
        lower: epsilon is at least this, unless one of `1 / FALSE_ALARM` audits went wrong.
    """

    claimed: float
    lower: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is too small."""
        return self.lower > self.claimed


def audit(event: DpEvent, trials: Trials) -> Audit:
    """Hold the certified epsilon of `event` against what the observer can tell.

    Args:
        event: one mechanism; where it is repeated, it is unsampled and the observer sees the mean.
    """
    (term,) = event.terms
    q, noise = float(term.mechanism.sampling_rate), float(term.mechanism.noise_multiplier)
    noise /= math.sqrt(term.count)
    above, delta = _hardest_set(q, noise)
    claimed = float(CertifiedAccountant().epsilon(event, delta).upper)
    bounds = [_lower(trials.present > above, trials.absent > above, float(delta))]
    if q == 1:  # then removing the canary is the mirror image of adding it
        below = 1 - above
        bounds.append(_lower(trials.absent < below, trials.present < below, float(delta)))
    return Audit(claimed, max(bounds))


def _hardest_set(q: float, noise: float) -> tuple[float, Decimal]:
    """Where the likelihood ratio is e^`AUDITED_EPSILON`, and delta there, rounded up."""
    ratio = math.exp(AUDITED_EPSILON)
    above = noise**2 * math.log((ratio - 1 + q) / q) + 0.5
    without = float(stats.norm.sf(above / noise))
    present = q * float(stats.norm.sf((above - 1) / noise)) + (1 - q) * without
    return above, Decimal(math.ceil(1000 * (present - ratio * without))) / 1000


def _lower(hits: NDArray[np.bool_], false_hits: NDArray[np.bool_], delta: float) -> float:
    """log((P - delta) / Q) at a lower confidence bound of P and an upper one of Q."""
    share = FALSE_ALARM / 4  # two directions of two bounds
    n, k = len(hits), int(hits.sum())
    m, j = len(false_hits), int(false_hits.sum())
    p = float(stats.beta.ppf(share, k, n - k + 1)) if k else 0.0
    q = float(stats.beta.ppf(1 - share, j + 1, m - j)) if j < m else 1.0
    return math.log((p - delta) / q) if p > delta else -math.inf


def row(plan: TrainingPlan, observer: str, colluding_sites: int = 0) -> DpEvent:
    """One round as the plan says that this observer sees site `a`, when nobody drops out."""
    (found,) = (
        seen
        for seen in plan.observers("a", plan.addends)
        if (seen.name, seen.colluding_sites) == (observer, colluding_sites)
    )
    return found.event


OBSERVERS: dict[tuple[str, int], tuple[str, ...]] = {
    ("model-users", 0): SITES,
    ("sites", 1): ("a", "b"),
    ("aggregator+key-holder", 0): ("a",),
}
"""(observer, colluding sites) -> whose uploads, added up, are what it cannot take apart further."""


# --- record level ---------------------------------------------------------------------------------


def record_trials(plan: TrainingPlan, runs: int, *, seed: int = 0) -> dict[tuple[str, int], Trials]:
    """Rounds of all sites with canaries at site `a`, through the learners that run at sites."""
    # The loss is linear, so that a record's gradient is its input whatever the model.
    rule, source = ClientRule(), DeterministicRandomness(seed)
    learners = {
        site: make_learner(
            plan,
            site,
            model=build_model("logistic", (CANARIES,), 2),
            records=_canaries() if site == "a" else _canaries().take([]),
            rule=rule,
            objective=Objective(_linear),
        )
        for site in (SITES if not isinstance(plan, LocalPlan) else ("a",))
    }
    released = np.zeros(plan.dimension)
    found: dict[tuple[str, int], list[Values]] = {}
    for place in _places(runs):
        sent = {
            site: learner.contribution(released, source, place)
            for site, learner in learners.items()
        }
        for observer, unknown in OBSERVERS.items():
            seen = sum(sent[site] for site in unknown if site in sent)
            values = _in_sensitivities(plan, rule, place, np.asarray(seen, dtype=np.float64))
            found.setdefault(observer, []).append(values[:CANARIES])
    return {observer: _by_half(np.array(values)) for observer, values in found.items()}


def _canaries() -> TensorRecords:
    half = CANARIES // 2
    return TensorRecords.of(SENT_FAR * np.eye(half, CANARIES), np.zeros(half))


def _linear(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return outputs[:, 0]


def _in_sensitivities(plan: TrainingPlan, rule: ClientRule, place: RoundId, seen: Values) -> Values:
    """What was seen, as coordinates of a gradient in units of a record's sensitivity."""
    transform = transform_of(plan, place, np.zeros(plan.dimension))
    whole = transform.undo(seen)
    if transform.mask is not None:  # what was not sent says nothing
        whole[np.setdiff1d(np.arange(plan.dimension), transform.mask.indices)] = np.nan
        whole[transform.mask.indices] /= transform.mask.factors
    if not isinstance(plan, LocalPlan):
        return whole / plan.sensitivity_grid
    of_one_record = plan.local_steps * rule.learning_rate * float(plan.clip_norm_l2)
    step = of_one_record / float(plan.step_divisor(plan.site("a")))
    return np.asarray(-whole * float(plan.unit_per_grid) / step)


def _by_half(values: Values) -> Trials:
    half = CANARIES // 2
    present, absent = values[:, :half].ravel(), values[:, half:].ravel()
    return Trials(present[~np.isnan(present)], absent[~np.isnan(absent)])


# --- client level ---------------------------------------------------------------------------------

Contribution = Callable[[bool, DeterministicRandomness, RoundId], NDArray[np.int64]]


def client_trials(
    plan: ClientPlan,
    canary: Values,
    runs: int,
    *,
    contribution: Contribution | None = None,
    seed: int = 0,
) -> dict[tuple[str, int], Trials]:
    """Rounds in which client `a` has the update `canary`, or none.

    Args:
        canary: float64 `(d,)`; the observer looks along it.
        contribution: what `a` sends where it is present, or absent; by default the path that an
            update takes from anywhere, a Flower app for one.
    """
    source, released = DeterministicRandomness(seed), np.zeros(plan.dimension)

    def of_update(present: bool, randomness: DeterministicRandomness, place: RoundId) -> Any:
        update = canary if present else np.zeros(plan.dimension)
        return noised_update(plan, update, Draws(randomness, place, "a", plan), released=released)

    found: dict[tuple[str, int], tuple[list[float], list[float]]] = {}
    for number, place in enumerate(_places(2 * runs)):
        present = number % 2 == 0
        along = transform_of(plan, place, released).apply(canary)
        length = float(np.linalg.norm(along))
        if length == 0:  # the public mask has left the canary out
            continue
        along = along / length
        sent = {"a": (contribution or of_update)(present, source, place)}
        for site in SITES[1:]:  # zero, and their noise
            sent[site] = Draws(source, place, site, plan).noise(plan.upload_dimension)
        unit = plan.site("a").weight * plan.sensitivity_grid
        for observer, unknown in OBSERVERS.items():
            seen = sum(sent[site] for site in unknown)
            lists = found.setdefault(observer, ([], []))
            lists[not present].append(float(along @ seen) / unit)
    return {name: Trials(np.array(p), np.array(q)) for name, (p, q) in found.items()}


def client_learner(plan: ClientPlan) -> Contribution:
    """What the learner of client `a` sends: with one canary record, or without records."""
    rule, released = ClientRule(steps=1), np.zeros(plan.dimension)
    with_record, without = (
        make_learner(
            plan,
            "a",
            model=build_model("logistic", (plan.dimension - 1,), 2),
            records=records,
            rule=rule,
            objective=Objective(_linear),
        )
        for records in (_one_record(plan), _one_record(plan).take([]))
    )

    def contribution(present: bool, randomness: DeterministicRandomness, place: RoundId) -> Any:
        learner = with_record if present else without
        return learner.contribution(released, randomness, place)

    return contribution


def _one_record(plan: TrainingPlan) -> TensorRecords:
    # One step down a linear loss is along -x, so minus a far feature is an update along +e_0.
    return TensorRecords.of(-SENT_FAR * np.eye(1, plan.dimension - 1), [0])


def first_coordinate(dimension: int) -> Values:
    """An update along one coordinate, longer than any clip norm."""
    return SENT_FAR * np.eye(1, dimension)[0]


def _places(runs: int) -> Iterator[RoundId]:
    return (("audit", number, 1) for number in range(1, runs + 1))
