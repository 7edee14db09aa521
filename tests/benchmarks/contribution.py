"""Who contributed what: scores by halves beside exact Shapley values of all 16 coalitions.

Four sites of patients, one with 40 % of its labels flipped. A value is minus the loss on the
hospitals' test sets after 24 rounds of a coalition alone; the scores come from one training whose
rounds ask two of the four. Sites take whole-batch steps, so that what a half improves follows from
who is in it and from the round's model, not from batches. `hospitals`: the four as they are, of
199, 172, 30 and 85 patients; `dealt`: all their patients, dealt evenly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from decimal import Decimal
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from privagg import Federation
from privagg.config.setup import Setup
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.models import get_parameters
from tests.benchmarks.heart import HOSPITALS, TestSets, configuration, write_split
from tests.benchmarks.tables import Row
from tests.programs.rounds import trained

ROUNDS, FLIPPED = 24, 0.4
RULE = ClientRule(steps=20, learning_rate=0.1, batch_size=512, algorithm=AlgorithmSpec())
Held = Mapping[str, TensorRecords]


class Hospitals:
    """The heart hospitals' records, and the table that scores are measured on.

    Args:
        data: folder of the tables.
    """

    def __init__(self, data: Path) -> None:
        with tempfile.TemporaryDirectory() as name:
            base = Path(name)
            values = configuration("record-distributed", write_split(data, base))
            values["privacy"] |= {"epsilon": 1}
            federation = Federation.from_dict(values, base=base)
            self.setup: Setup = federation.setup
            sets = TestSets(federation, base)._sets
            self.public = TensorRecords(
                torch.cat([each.x for each in sets]), torch.cat([each.y for each in sets]), True
            )
            sections = map(self.setup.section, HOSPITALS)
            self.held: Held = {each.name: self.setup.records_of(each) for each in sections}

    def dealt(self, seed: int) -> Held:
        """All patients in four equal parts."""
        x = torch.cat([each.x for each in self.held.values()])
        y = torch.cat([each.y for each in self.held.values()])
        order = torch.from_numpy(np.random.default_rng((1, seed)).permutation(len(y)))
        parts = torch.tensor_split(order, len(HOSPITALS))
        return {
            name: TensorRecords(x[part], y[part])
            for name, part in zip(HOSPITALS, parts, strict=True)
        }


def flipped(records: TensorRecords, seed: int) -> TensorRecords:
    """The same with some labels turned round."""
    some = np.random.default_rng(seed).permutation(len(records))[: round(FLIPPED * len(records))]
    y = records.y.clone()
    y[some] = 1 - y[some]
    return TensorRecords(records.x, y)


def scores(hospitals: Hospitals, held: Held, seed: int) -> tuple[dict[str, float], ...]:
    """Each site's score by halves, and its exact value."""
    setup = hospitals.setup
    plan = ClientPlan(
        sites=[{"name": s, "records": len(held[s])} for s in HOSPITALS], rounds=ROUNDS,
        dimension=len(get_parameters(setup.fresh_model())), clip_norm_l2=Decimal(2), cohort_size=2,
        noise_multiplier=Decimal(0), delta=Decimal("1e-4"), custody="authority", scheme="plaintext",
    )  # fmt: skip
    learners = {
        site: make_learner(
            plan, site, model=setup.fresh_model(), records=held[site], rule=RULE,
            objective=setup.objective,
        )
        for site in HOSPITALS
    }  # fmt: skip

    def run(kind: str, cohort: Any) -> tuple[Any, float]:
        program: Any = make_training(
            plan, AlgorithmSpec(kind=kind), model=setup.fresh_model(), optimizer=OptimizerSpec(),
            public=hospitals.public, target=setup.config.data.target, loss=setup.objective.loss,
            card={},
        )  # fmt: skip
        state = trained(plan, learners, program, DeterministicRandomness(seed), cohort=cohort)
        return program, -program.figures(state)["loss"]

    draw = np.random.default_rng(seed)
    orders = [sorted(draw.choice(4, 2, replace=False)) for _ in range(ROUNDS)]
    program, _ = run("halves", lambda n: tuple(HOSPITALS[place] for place in orders[n - 1]))
    found = {site: program.contributions[f"contribution_{site}"] for site in HOSPITALS}
    worth = {(): -program.figures(program.begin())["loss"]}
    for size in range(1, 5):
        for some in combinations(HOSPITALS, size):
            worth[some] = run("fedavg", lambda _, some=some: some)[1]
    return found, {site: shapley(site, worth) for site in HOSPITALS}


def shapley(site: str, worth: Mapping[tuple[str, ...], float]) -> float:
    """The exact value: the mean gain over all orders of the four."""
    total = 0.0
    for some, value in worth.items():
        if site not in some:
            both = tuple(sorted((*some, site), key=HOSPITALS.index))
            total += (worth[both] - value) / (4 * comb(3, len(some)))
    return total


def rows_of_scores(data: Path, seeds: int) -> list[Row]:
    """A row for each table and measure: value and standard error over seeds, and what is exact."""
    hospitals, rows = Hospitals(data), list[Row]()
    for task in ("hospitals", "dealt"):
        last, truly, ranks = [], [], []
        for seed in range(seeds):
            held = dict(hospitals.held if task == "hospitals" else hospitals.dealt(seed))
            spoiled = HOSPITALS[seed % 4]
            held[spoiled] = flipped(held[spoiled], seed)
            found, exact = scores(hospitals, held, seed)
            last.append(min(found, key=found.__getitem__) == spoiled)
            truly.append(min(exact, key=exact.__getitem__) == spoiled)
            pairs = [(found[name], exact[name]) for name in found]
            ranks.append(spearmanr(*zip(*pairs, strict=True)).statistic)
            print(task, seed, spoiled, last[-1], truly[-1], round(ranks[-1], 2), flush=True)
        for metric, values, oracle in (
            ("flipped site is last", last, float(np.mean(truly))),
            ("rank correlation with exact Shapley", ranks, 1.0),
        ):
            each = np.asarray(values, float)
            se = float(each.std(ddof=1) / np.sqrt(len(each)))
            rows.append({"task": f"scores, {task}", "algorithm": "halves", "epsilon": None,
                         "metric": metric, "value": float(each.mean()), "se": se,
                         "oracle": oracle})  # fmt: skip
    return rows
