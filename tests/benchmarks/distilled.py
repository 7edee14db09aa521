"""Distillation by votes: teachers of three kinds, what privacy costs, and PATE's row on Adult.

`digits`: scikit-learn's, dealt to three sites with unlike label mixes (each digit by a Dirichlet
law of 0.5); 300 public queries, one teacher a site, a logistic student, accuracy on 400 others.
`mixed` has another kind of teacher at each site; the oracle is the same votes in plain
scikit-learn, and `alone` the best of the sites' own models of that kind. With privacy, which takes
many teachers: 20 a site and 60 queries, all of their votes at once.

`adult` (Papernot et al., ICLR 2017, appendix C): 250 teachers, random forests, and a student
that is one; theirs is at epsilon 2.66 and δ = 1e-5, 0.832 on the test set, 0.850 without privacy.
Ours answers 500 of the test rows, all at once, and is measured on the others.
Noise is every site's share, drawn anew for each of 10 draws over the same votes, from the operating
system.

`logits`: class logits of networks that stay at home, logistic, of 32 and of 64 hidden neurons, one
kind at every third site, on `matching`'s digits with unlike label mixes. Told is the mean accuracy
of the sites' own networks on 400 digits that nobody has; the oracle is the same in plain torch, and
`alone` the same steps with nothing shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from privagg import Federation
from privagg.config.asking import AskSetup
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.programs.distill import teachers
from privagg.programs.distill.labels import Labels
from privagg.programs.learners import make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.programs.questions.columns import Columns
from privagg.programs.shards import ShardsLearner, learner_of
from privagg.programs.sums_program import NoisySum
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.declared import ClientRule
from privagg.training.draws import Draws
from privagg.training.local_sgd import LARGEST_LOGIT, keep_home
from privagg.training.losses import class_loss
from privagg.training.table import TableSchema
from privagg.training.targets import NumberedClasses
from privagg.training.taught import Taught
from tests.benchmarks.defaults import TABLES
from tests.benchmarks.matching import client_plan, digits, right
from tests.benchmarks.tables import Row
from tests.programs.rounds import trained

FloatArray = npt.NDArray[np.float64]
Places = Sequence[int]

KINDS = ("logistic", "forest", "network")
SITES = ("north", "east", "south")
DRAWS = 10
EPSILONS = ("8", "1")
MIXED = dict(zip(SITES, KINDS, strict=True))
PIXELS = [f"p{place}" for place in range(64)]


class Asking:
    """One asking: its votes are counted once, and noised as often as is wanted.

    Args:
        data: columns and target, as declared.
        sites: each one's records.
        settings: of `distill`.
    """

    def __init__(
        self, data: Mapping[str, Any], sites: Mapping[str, Columns], settings: Mapping[str, Any]
    ) -> None:
        self._data, self._sites, self._settings = data, sites, settings
        plan, program = self._setup("8")
        totals = []
        for site, records in sites.items():
            learner = learner_of(plan, site, program, records)
            assert isinstance(learner, ShardsLearner)
            draws = Draws(SystemRandomness(), ("count", 1, 1), site, plan)
            totals.append(learner.total(1, program.begin(), plan.openings[0], draws))
        self._total = np.sum(totals, axis=0)

    def labels(self, epsilon: str | None) -> Labels:
        """What is released; None: without noise."""
        plan, program = self._setup(epsilon or "8")
        total = self._total
        if epsilon is not None:
            for site in plan.names:
                draws = Draws(SystemRandomness(), ("noise", 1, 1), site, plan)
                total = total + draws.noise(len(total))
        found = program.model([NoisySum(total, 0.0, plan.names)])
        return Labels.model_validate(found)

    @cache  # noqa: B019  # as long as the asking itself
    def _setup(self, epsilon: str) -> Any:
        made = Federation.from_dict(
            {
                "federation": {"name": "distilled"},
                "privacy": {"epsilon": 1, "delta": "1e-5", "budget_epsilon": 100, "colluders": 0},
                "training": {"model": "logistic", "rounds": 1},
                "secure": {"scheme": "plaintext", "custody": "authority"},
                "data": self._data,
                "ask": {"epsilon": epsilon, "program": "distill", "settings": self._settings},
                "sites": [
                    {"name": name, "data": "none.csv", "records": len(records)}
                    for name, records in self._sites.items()
                ],
            }
        )
        setup = AskSetup.of(made.setup)
        return setup.plan, setup.sums


# --- digits --------------------------------------------------------------------------------------


class Digits:
    """Digits at three sites with unlike label mixes, queries and a test set."""

    def __init__(self, seed: int) -> None:
        self.x, self.y = load_digits(return_X_y=True)
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(self.y))
        self.queries, self.test, rest = np.split(order, [300, 700])
        mix = draw.dirichlet(np.full(len(SITES), 0.5), 10)
        owner = np.array([draw.choice(len(SITES), p=mix[digit]) for digit in self.y[rest]])
        self.parts = [rest[owner == place] for place in range(len(SITES))]

    @property
    def data(self) -> dict[str, Any]:
        features = [{"name": name, "range": [0, 16]} for name in PIXELS]
        return {"features": features, "target": {"name": "digit", "classes": list(range(10))}}

    def columns(self, places: npt.NDArray[np.int64]) -> Columns:
        numbers = {name: self.x[places][:, at] for at, name in enumerate(PIXELS)}
        return Columns(numbers, {"digit": self.y[places].astype(np.int64)}, len(places))

    def asking(
        self, kinds: str | Mapping[str, str], shards: int, queries: int, votes: str
    ) -> Asking:
        sites = dict(zip(SITES, map(self.columns, self.parts), strict=True))
        asked = self.x[self.queries[:queries]].tolist()
        return Asking(
            self.data, sites,
            {"queries": asked, "shards": shards, "teachers": kinds, "votes": votes},
        )  # fmt: skip

    def accuracy(self, labels: Labels) -> float:
        """Of the student that the labels name."""
        said = labels.predictions(self.columns(self.test)).argmax(axis=1)
        return float((said == self.y[self.test]).mean())

    @cached_property
    def own(self) -> dict[tuple[str, str], Any]:
        """Kind and site -> a model of that site's records, in plain scikit-learn."""
        return {
            (kind, site): teachers.teacher(kind)(0).fit(self.x[part] / 8 - 1, self.y[part])
            for kind in KINDS
            for site, part in zip(SITES, self.parts, strict=True)
        }

    def oracle(self, kinds: Mapping[str, str], votes: str) -> float:
        """PATE's votes and student without privagg's program: one model a site."""
        x, total = self.x / 8 - 1, np.zeros((len(self.queries), 10))
        for site in SITES:
            model = self.own[kinds[site], site]
            said = model.predict_proba(x[self.queries])
            each = said if votes == "shared" else said == said.max(axis=1, keepdims=True)
            total[:, model.classes_] += each
        student = teachers.logistic(0).fit(x[self.queries], total.argmax(axis=1))
        return float(student.score(x[self.test], self.y[self.test]))

    def alone(self, kind: str) -> float:
        """The best of the sites' own models."""
        x, y = self.x[self.test] / 8 - 1, self.y[self.test]
        return max(float(self.own[kind, site].score(x, y)) for site in SITES)


def rows_of_digits(seeds: int) -> Iterator[Row]:
    """Rows of digits without privacy."""
    worlds = [Digits(seed) for seed in range(seeds)]
    for name, kinds in (*((kind, dict.fromkeys(SITES, kind)) for kind in KINDS), ("mixed", MIXED)):
        for votes in ("whole", "shared"):
            asked = (each.asking(kinds, 1, 300, votes) for each in worlds)
            pairs = zip(worlds, asked, strict=True)
            found = [each.accuracy(asking.labels(None)) for each, asking in pairs]
            truth = [each.oracle(kinds, votes) for each in worlds]
            yield _row("digits", f"distill, {name}, {votes} votes", None, found, truth)
        if name != "mixed":
            yield _row("digits", f"{name}, alone", None, [each.alone(name) for each in worlds])


def rows_of_private_digits(seeds: int) -> Iterator[Row]:
    """Rows of digits with privacy: many teachers, few queries."""
    worlds = [Digits(seed) for seed in range(seeds)]
    for votes in ("whole", "shared"):
        made = [(each, each.asking(MIXED, 20, 60, votes)) for each in worlds]
        for epsilon in (None, *EPSILONS):
            draws = 1 if epsilon is None else DRAWS
            found = [
                float(np.mean([each.accuracy(asking.labels(epsilon)) for _ in range(draws)]))
                for each, asking in made
            ]
            yield _row("digits, 60 teachers", f"distill, mixed, {votes} votes", epsilon, found)


# --- adult ---------------------------------------------------------------------------------------


def rows_of_adult(folder: Path, queries: int = 500) -> Iterator[Row]:
    """PATE's row: 252 teachers, one opening of all votes."""
    data, held = TABLES["adult"]["data"], pd.read_csv(folder / "test.csv")
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES["adult"]["sites"]}
    schema = TableSchema.model_validate(data)
    sites = {name: Columns.read(table, schema) for name, table in tables.items()}
    names = [each.name for each in schema.features]
    asked = held.iloc[:queries]
    test = Columns.read(held.iloc[queries:], schema)
    cells = asked[names].astype(object).where(asked[names].notna(), "").to_numpy().tolist()
    settings = {"queries": cells, "shards": 84, "teachers": "forest", "student": "forest"}
    asking = Asking(data, sites, settings)
    truth, target = test.codes(schema.target.name), Columns.read(asked, schema)
    for epsilon in (None, "8", "2.66", "1"):
        found, right = list[float](), list[float]()
        for _ in range(1 if epsilon is None else DRAWS):
            labels = asking.labels(epsilon)
            right.append(float((labels.classes == target.codes(schema.target.name)).mean()))
            found.append(float((labels.predictions(test).argmax(axis=1) == truth).mean()))
        yield _row("adult, 252 teachers", "distill, forest", epsilon, found)
        yield {**_row("adult, 252 teachers", "distill, forest", epsilon, right),
               "metric": "labels that are right"}  # fmt: skip


# --- class logits --------------------------------------------------------------------------------

KINDS_AT_HOME = ((), (32,), (64,))
"""Hidden neurons of every third site's network."""

ROUNDS, STEPS, RATE, PULL, CLIP = 5, 20, 0.5, 0.3, "1"


def _at_home(site: int) -> nn.Module:
    torch.manual_seed(site)
    widths = (64, *KINDS_AT_HOME[site % len(KINDS_AT_HOME)])
    layers = [one for pair in pairwise(widths) for one in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def logits_by_hand(seed: int, sites: int, pull: float) -> float:
    """Class logits as the papers have them, in plain torch."""
    held, test = digits(seed, sites)
    table, seen, own = torch.zeros(10, 10), torch.zeros(10), [_at_home(n) for n in range(sites)]
    for _ in range(ROUNDS):
        sums, shares = torch.zeros(10, 10), torch.zeros(10)
        for model, records in zip(own, held, strict=True):
            if not len(records):
                continue
            for _ in range(STEPS):
                z = model(records.x)
                apart = 0.5 * ((z - table[records.y]) ** 2).mean(1) * (seen[records.y] > 1e-4)
                loss = functional.cross_entropy(z, records.y) + pull * apart.mean()
                slopes = torch.autograd.grad(loss, list(model.parameters()))
                with torch.no_grad():
                    for weight, slope in zip(model.parameters(), slopes, strict=True):
                        weight.sub_(RATE * slope)
            hot = functional.one_hot(records.y, 10).float() / len(records)
            with torch.no_grad():
                sums += hot.T @ model(records.x).clamp(-LARGEST_LOGIT, LARGEST_LOGIT) / sites
            shares += hot.sum(0) / sites
        table, seen = sums / shares.clamp(min=1e-4)[:, None], shares
    return float(np.mean([right(model, test) for model in own]))


def logits_by_privagg(seed: int, sites: int, epsilon: str | None) -> float:
    held, test = digits(seed, sites)
    spec = AlgorithmSpec(kind="class-logits", strength=PULL)
    plan = client_plan(held, 110, ROUNDS, CLIP, epsilon)
    rule = ClientRule(steps=STEPS, learning_rate=RATE, batch_size=2000, algorithm=spec)

    def taught(site: int) -> Taught:
        model = Taught(_at_home(site), NumberedClasses(count=10))
        keep_home(model, spec.personal)
        return model

    own = [taught(number) for number in range(sites)]
    learners = {
        f"s{number}": make_learner(plan, f"s{number}", model=model, records=held[number], rule=rule)
        for number, model in enumerate(own)
    }  # fmt: skip
    program = make_training(
        plan, spec, model=taught(0), optimizer=OptimizerSpec(), public=None,
        target=NumberedClasses(count=10), loss=class_loss, card={},
    )  # fmt: skip
    randomness = DeterministicRandomness(seed) if plan.noise is None else SystemRandomness()
    trained(plan, learners, program, randomness)
    return float(np.mean([right(model, test) for model in own]))


def rows_of_logits(seeds: int) -> Iterator[Row]:
    """Rows of class logits: without privacy at 10 and 50 sites, with it at 50."""
    for sites, priced in ((10, ()), (50, EPSILONS)):
        task, way = f"digits, {sites} sites", "class logits, three kinds"
        truth = [logits_by_hand(seed, sites, PULL) for seed in range(seeds)]
        alone = [logits_by_hand(seed, sites, 0.0) for seed in range(seeds)]
        yield _row(task, "the same alone", None, alone)
        for epsilon in (None, *priced):
            found = [logits_by_privagg(seed, sites, epsilon) for seed in range(seeds)]
            yield _row(task, way, epsilon, found, truth if epsilon is None else None)


def _row(
    task: str, way: str, epsilon: str | None, found: Sequence[float], truth: Any = None
) -> Row:
    values = np.asarray(found)
    se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return {
        "task": task, "algorithm": way, "epsilon": epsilon, "metric": "accuracy",
        "value": float(values.mean()), "se": se,
        "oracle": None if truth is None else float(np.mean(truth)),
    }  # fmt: skip
