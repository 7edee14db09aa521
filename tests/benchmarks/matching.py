"""FedMA on digits with unlike label mixes, beside FedAvg, from common and from permuted starts.

The oracle is matched averaging in plain torch, written from the paper without privagg, on the same
records, starts and batches (all records of a site). `permuted`: every site's network has the common
start's neurons in an order of its own. FedAvg adds such networks as they are: once, where sites
then go on from the average (`first round`), or always, where each keeps its order (`own orders`).
`widths`: the sites' networks have 32, 48 and 64 of the 64 neurons; `apart`: and starts of their
own, drawn apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.accountants import default_accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.programs.fedma import FedmaClient
from privagg.programs.learners import make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.losses import class_loss
from privagg.training.models import set_parameters
from privagg.training.targets import NumberedClasses
from tests.programs.rounds import trained

SLOTS, RATE, TEST, ALPHA = 64, 0.5, 400, 0.5
FEW, MANY = (10, 5, 20), (100, 5, 10)
"""Sites, rounds and local steps."""

Start = tuple[nn.Sequential, list[int]]
"""A site's own network, and which neurons of the common start those are."""

Result = tuple[str, str | None, str, list[float], float | None]
"""Algorithm, epsilon, metric, the seeds' values, the oracle's mean."""


def digits(seed: int, sites: int) -> tuple[list[TensorRecords], TensorRecords]:
    """Each site's records, classes dealt out by a Dirichlet law; and those that nobody has."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(x))
    test, rest = order[:TEST], order[TEST:]
    own: list[list[int]] = [[] for _ in range(sites)]
    for label in range(10):
        here = rest[y[rest] == label]
        cuts = (np.cumsum(draw.dirichlet([ALPHA] * sites)) * len(here)).astype(int)[:-1]
        for held, more in zip(own, np.split(here, cuts), strict=True):
            held.extend(more)
    held = [TensorRecords.of(x[each] / 16, y[each]) for each in own]
    return held, TensorRecords.of(x[test] / 16, y[test])


def network(seed: int, width: int = SLOTS) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def some_of(model: nn.Sequential, neurons: list[int]) -> nn.Sequential:
    """The network of some neurons of another's, in this order."""
    made = network(0, len(neurons))
    (w1, b1, w2, b2), own = (list(each.parameters()) for each in (model, made))
    for parameter, values in zip(own, (w1[neurons], b1[neurons], w2[:, neurons], b2), strict=True):
        parameter.data = values.detach().clone()
    return made


def starts(seed: int, kind: str, sites: int) -> list[Start]:
    """Each site's first network."""
    draw, found = np.random.default_rng(seed + 99), list[Start]()
    for number in range(sites):
        narrow = "widths" in kind or "apart" in kind
        width = (32, 48, 64)[number % 3] if narrow else SLOTS
        neurons = list(range(SLOTS)) if "common" in kind else draw.permutation(SLOTS)[:width]
        own = some_of(network(seed), list(neurons))
        own = network(1000 * seed + number + 1, width) if "apart" in kind else own
        found.append((own, [int(each) for each in neurons]))
    return found


def right(model: nn.Module, records: TensorRecords) -> float:
    with torch.no_grad():
        return float((model(records.x).argmax(1) == records.y).double().mean())


# --- the oracle: plain torch, from the paper -----------------------------------------------------


def oracle(seed: int, kind: str, scale: tuple[int, int, int]) -> float:
    sites, rounds, steps = scale
    held, test = digits(seed, sites)
    model, first, at = network(seed), starts(seed, kind, sites), dict[int, list[int]]()
    for _ in range(rounds):
        sums, filled = [torch.zeros_like(p) for p in model.parameters()], torch.zeros(SLOTS)
        for site, records in enumerate(held):
            own = some_of(model, at[site]) if site in at else some_of(first[site][0], [
                *range(len(first[site][1]))
            ])  # fmt: skip
            for _ in range(steps if len(records) else 0):
                loss = functional.cross_entropy(own(records.x), records.y)
                slopes = torch.autograd.grad(loss, list(own.parameters()))
                with torch.no_grad():
                    for parameter, slope in zip(own.parameters(), slopes, strict=True):
                        parameter.sub_(RATE * slope)
            if not len(records):
                continue  # whoever has no records sends nothing
            slots = _slots_of(own, model, kind)
            at[site] = first[site][1] if "own orders" in kind else slots
            places = [slots, slots, (slice(None), slots), slice(None)]
            moves = zip(own.parameters(), some_of(model, slots).parameters(), strict=True)
            for total, place, (end, start) in zip(sums, places, moves, strict=True):
                total[place] += (end - start).detach()
            filled[slots] += 1
        count = filled.clamp(min=1)
        shares = (count[:, None], count, count, torch.tensor(float(sites)))
        with torch.no_grad():
            for parameter, total, share in zip(model.parameters(), sums, shares, strict=True):
                parameter.add_(total / share)
    return right(model, test)


def _slots_of(own: nn.Sequential, model: nn.Sequential, kind: str) -> list[int]:
    if "fedavg" in kind:
        return list(range(SLOTS))
    mine, there = (
        torch.cat([each[0].weight, each[0].bias[:, None]], 1).detach() for each in (own, model)
    )
    return [int(slot) for slot in linear_sum_assignment(torch.cdist(mine, there).numpy() ** 2)[1]]


# --- the same by privagg -------------------------------------------------------------------------


class Unmatched(FedmaClient):
    """FedAvg's site: its neurons are added as they stand, in an order that it may keep."""

    order: IntVector | None = None

    def _start(self, published: FloatVector, round_id: Any) -> FloatVector:
        if round_id[1] > 1 and self.order is not None:
            return published[self._slots.places([self.order])]
        return super()._start(published, round_id)

    def _matched(self, trained: FloatVector, published: FloatVector) -> list[IntVector]:
        return [np.arange(SLOTS)]


def by_privagg(
    seed: int, kind: str, scale: tuple[int, int, int], epsilon: str | None = None
) -> float:
    sites, rounds, steps = scale
    held, test = digits(seed, sites)
    spec = AlgorithmSpec(kind="fedma")
    dimension = 65 * SLOTS + 10 * (SLOTS + 1) + SLOTS
    plan = client_plan(held, dimension, rounds, "1" if epsilon else "50", epsilon)
    rule = ClientRule(steps=steps, learning_rate=RATE, batch_size=2000, algorithm=spec)
    learners: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (own, order) in enumerate(starts(seed, kind, sites)):
            path = Path(folder) / f"{number}.safetensors"
            save_file(own.state_dict(), path)
            name, records = f"s{number}", held[number]
            if "fedavg" not in kind:
                learners[name] = make_learner(
                    plan, name, model=network(seed), records=records, rule=rule, network=path
                )
                continue
            learners[name] = Unmatched(plan, name, network(seed), records, rule)
            learners[name].bring(path)
            learners[name].order = np.array(order) if "own orders" in kind else None
    program = make_training(
        plan, spec, model=network(seed), optimizer=OptimizerSpec(), public=None,
        target=NumberedClasses(count=10), loss=class_loss, card={},
    )  # fmt: skip
    randomness = DeterministicRandomness(seed) if plan.noise is None else SystemRandomness()
    model = network(seed)
    set_parameters(model, program.released(trained(plan, learners, program, randomness)))
    return right(model, test)


def client_plan(
    held: list[TensorRecords], dimension: int, rounds: int, clip: str, epsilon: str | None
) -> ClientPlan:
    """A client-level plan of sites with these records; without noise where epsilon is None."""
    sites = [{"name": f"s{n}", "records": max(len(each), 1)} for n, each in enumerate(held)]
    plan = ClientPlan(
        sites=sites, dimension=dimension, rounds=rounds, clip_norm_l2=Decimal(clip),
        sensitivity_grid=2**20, colluders=0, noise_multiplier=Decimal(0), delta=Decimal("1e-3"),
        custody="authority", scheme="plaintext",
    )  # fmt: skip
    if epsilon is None:
        return plan
    noise = calibrate(
        lambda sigma: plan.with_noise(sigma).total_committed("s0"),
        epsilon=Decimal(epsilon), delta=plan.delta, accountant=default_accountant(),
    )  # fmt: skip
    return plan.with_noise(noise)


KINDS = ("fedavg, common start", "fedavg, permuted, first round", "fedavg, permuted, own orders",
         "fedma, permuted", "fedma, widths 32/48/64", "fedma, widths, apart")  # fmt: skip


def results(seeds: int) -> Iterator[Result]:
    """Every kind after one round and after all; then what privacy costs."""
    for kind in KINDS:
        for scale, metric in (((10, 1, 20), "accuracy after 1 round"), (FEW, "accuracy")):
            truth = [oracle(seed, kind, scale) for seed in range(seeds)]
            found = [by_privagg(seed, kind, scale) for seed in range(seeds)]
            yield kind, None, metric, found, float(np.mean(truth))
    priced = (("fedma, widths 32/48/64", FEW), ("fedma, widths 32/48/64", MANY), (KINDS[0], MANY))
    for kind, scale in priced:
        metric = f"accuracy, {scale[0]} sites"
        for epsilon in (None, "8", "1"):
            found = [by_privagg(seed, kind, scale, epsilon) for seed in range(seeds)]
            yield kind, epsilon, metric, found, None
