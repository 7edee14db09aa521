"""Each algorithm beside its own oracle in plain torch; personal models; who contributed what.

    python -m tests.benchmarks.algorithms --data ../shared/data/heart --json out/algorithms.json

Every learner's integers are added in the clear, which is the sum that every scheme opens. Rows:
task, algorithm, epsilon (None: without privacy), metric, value, se over seeds, oracle.

`sites`: 20 sites share a representation and differ in their heads and in where their records lie.
The oracle is written from the paper, without privagg, on the same records, start and batches (all
records of a site). `matching`: FedMA on digits (`tests/benchmarks/matching.py`). `heart`: FLamby's
four hospitals, a global model of which each site is charged epsilon 1, then trained on at home;
pull and steps are chosen at home, on records held out there. `scores`, `distill`, `logits` and
`sines`: see `contribution`, `distilled` and `sines` beside this file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from privagg import Federation
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.personal import HomeRule, personalise
from privagg.privacy.accountants import default_accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.programs.learners import extra_coordinates, make_learner, make_training
from privagg.programs.optimizers import OptimizerSpec
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.local_sgd import keep_home
from privagg.training.losses import class_loss
from privagg.training.models import set_parameters
from privagg.training.targets import NumberedClasses
from tests.benchmarks import contribution, distilled, matching, sines
from tests.benchmarks.heart import HOSPITALS, TestSets, configuration, write_split
from tests.benchmarks.tables import Row, show, write_json
from tests.programs.rounds import trained

SITES, RECORDS, ROUNDS, STEPS, RATE, CLIP, ALPHA = 20, 40, 10, 4, 0.5, 4.0, 0.3
EPSILONS = (None, "8", "1")
PARTS = ("sites", "matching", "heart", "scores", "distill", "logits", "sines")
KINDS: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "scaffold": {"kind": "scaffold"},
    "per-fedavg": {"kind": "per-fedavg", "inner_learning_rate": ALPHA},
    "fedper": {"kind": "fedper", "personal": ("2.*",)},
    "fedrep": {"kind": "fedrep", "personal": ("2.*",), "personal_steps": 2},
    "adaptive-clip": {"kind": "adaptive-clip", "clip_learning_rate": 0.5},
}
World = Mapping[str, tuple[TensorRecords, TensorRecords]]


def world(seed: int) -> World:
    """Each site's training and test records."""
    draw = np.random.default_rng(seed)
    shared, found = draw.standard_normal((10, 2)), {}
    for number in range(SITES):
        x = draw.standard_normal((2 * RECORDS, 10)) + 0.5 * draw.standard_normal(10)
        head = np.array([1.0, 0.0]) + 0.8 * draw.standard_normal(2)
        y = (np.tanh(x @ shared / 3) @ head + 0.2 * draw.standard_normal(len(x)) > 0).astype(int)
        halves = (
            TensorRecords.of(x[:RECORDS], y[:RECORDS]),
            TensorRecords.of(x[RECORDS:], y[RECORDS:]),
        )
        found[f"s{number}"] = halves
    return found


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 2))


def right(model: nn.Module, records: TensorRecords) -> float:
    with torch.no_grad():
        return float((model(records.x).argmax(1) == records.y).double().mean())


# --- the oracles: plain torch, from the papers ---------------------------------------------------

Oracle = Callable[[World, int], float]


def _slopes(model: nn.Module, records: TensorRecords, graph: bool = False) -> list[torch.Tensor]:
    loss = functional.cross_entropy(model(records.x), records.y)
    return list(torch.autograd.grad(loss, list(model.parameters()), create_graph=graph))


def _flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def _at(seed: int, vector: torch.Tensor) -> nn.Sequential:
    model = network(seed)
    nn.utils.vector_to_parameters(vector.clone(), model.parameters())
    return model


def _run(model: nn.Module, records: TensorRecords, add: torch.Tensor | float = 0.0) -> None:
    for _ in range(STEPS):
        slope = torch.cat([each.flatten() for each in _slopes(model, records)]) + add
        moved = _flat(model) - RATE * slope
        nn.utils.vector_to_parameters(moved, model.parameters())


def _mean_accuracy(seed: int, w: torch.Tensor, sites: World) -> float:
    return float(np.mean([right(_at(seed, w), test) for _, test in sites.values()]))


def oracle_fedavg(sites: World, seed: int) -> float:
    w = _flat(network(seed))
    for _ in range(ROUNDS):
        ends = []
        for train, _ in sites.values():
            model = _at(seed, w)
            _run(model, train)
            ends.append(_flat(model))
        w = torch.stack(ends).mean(0)
    return _mean_accuracy(seed, w, sites)


def oracle_scaffold(sites: World, seed: int) -> float:
    w = _flat(network(seed))
    server, own = torch.zeros_like(w), {name: torch.zeros_like(w) for name in sites}
    for _ in range(ROUNDS):
        ends, fresh = [], {}
        for name, (train, _) in sites.items():
            model = _at(seed, w)
            _run(model, train, server - own[name])
            ends.append(_flat(model))
            fresh[name] = own[name] - server + (w - ends[-1]) / (STEPS * RATE)
        server = server + torch.stack([fresh[n] - own[n] for n in sites]).mean(0)
        w, own = torch.stack(ends).mean(0), fresh
    return _mean_accuracy(seed, w, sites)


def oracle_meta(sites: World, seed: int) -> float:
    w = _flat(network(seed))
    for _ in range(ROUNDS):
        ends = []
        for train, _ in sites.values():
            model = _at(seed, w)
            for _ in range(STEPS):
                inner = _slopes(model, train, graph=True)
                named = dict(model.named_parameters())
                moved = {n: p - ALPHA * g for (n, p), g in zip(named.items(), inner, strict=True)}
                outer = functional.cross_entropy(
                    torch.func.functional_call(model, moved, (train.x,)), train.y
                )
                slopes = torch.autograd.grad(outer, list(named.values()))
                with torch.no_grad():
                    for parameter, slope in zip(named.values(), slopes, strict=True):
                        parameter.sub_(RATE * slope)
            ends.append(_flat(model))
        w = torch.stack(ends).mean(0)
    found = []
    for train, test in sites.values():
        model = _at(seed, w)
        step = torch.cat([each.flatten() for each in _slopes(model, train)])
        found.append(right(_at(seed, w - ALPHA * step), test))
    return float(np.mean(found))


def oracle_personal(first: int | None) -> Oracle:
    def oracle(sites: World, seed: int) -> float:
        body = _flat(network(seed)[0])
        heads = {name: _flat(network(seed)[2]) for name in sites}
        for _ in range(ROUNDS):
            ends = []
            for name, (train, _) in sites.items():
                model = _at(seed, torch.cat([body, heads[name]]))
                for step in range(STEPS):
                    slopes = _slopes(model, train)
                    with torch.no_grad():
                        for place, (p, g) in enumerate(
                            zip(model.parameters(), slopes, strict=True)
                        ):
                            if first is None or (step < first) == (place >= 2):
                                p.sub_(RATE * g)
                ends.append(_flat(model[0]))
                heads[name] = _flat(model[2])
            body = torch.stack(ends).mean(0)
        pairs = sites.items()
        found = [right(_at(seed, torch.cat([body, heads[n]])), test) for n, (_, test) in pairs]
        return float(np.mean(found))

    return oracle


def oracle_adaptive(sites: World, seed: int) -> float:
    w, clip = _flat(network(seed)), CLIP
    for _ in range(ROUNDS):
        moves, inside = [], []
        for train, _ in sites.values():
            model = _at(seed, w)
            _run(model, train)
            move = _flat(model) - w
            inside.append(float(move.norm() <= clip))
            moves.append(move * min(1.0, clip / float(move.norm())))
        w = w + torch.stack(moves).mean(0)
        clip *= float(np.exp(-0.5 * (np.mean(inside) - 0.5)))
    return _mean_accuracy(seed, w, sites)


ORACLES: dict[str, Oracle] = {
    "fedavg": oracle_fedavg,
    "scaffold": oracle_scaffold,
    "per-fedavg": oracle_meta,
    "fedper": oracle_personal(None),
    "fedrep": oracle_personal(2),
    "adaptive-clip": oracle_adaptive,
}


# --- the same by privagg -------------------------------------------------------------------------


def plan_of(algorithm: AlgorithmSpec, epsilon: str | None) -> ClientPlan:
    dimension = 44 if algorithm.personal else 54 + extra_coordinates(algorithm, network(0))
    plan = ClientPlan(
        sites=[{"name": f"s{n}", "records": RECORDS} for n in range(SITES)], dimension=dimension,
        rounds=ROUNDS, clip_norm_l2=Decimal(str(CLIP)), sensitivity_grid=2**20,
        noise_multiplier=Decimal(0), delta=Decimal("1e-5"), custody="authority", scheme="plaintext",
    )  # fmt: skip
    if epsilon is None:
        return plan
    noise = calibrate(
        lambda sigma: plan.with_noise(sigma).total_committed("s0"),
        epsilon=Decimal(epsilon), delta=plan.delta, accountant=default_accountant(),
    )  # fmt: skip
    return plan.with_noise(noise)


def by_privagg(kind: str, plan: ClientPlan, sites: World, seed: int) -> float:
    algorithm = AlgorithmSpec(**KINDS[kind])
    rule = ClientRule(steps=STEPS, learning_rate=RATE, batch_size=RECORDS, algorithm=algorithm)

    def fresh() -> nn.Sequential:
        model = network(seed)
        keep_home(model, algorithm.personal) if algorithm.personal else None
        return model

    learners: dict[str, Any] = {
        name: make_learner(plan, name, model=fresh(), records=train, rule=rule)
        for name, (train, _) in sites.items()
    }
    program = make_training(
        plan, algorithm, model=fresh(), optimizer=OptimizerSpec(), public=None,
        target=NumberedClasses(count=2), loss=class_loss, card={},
    )  # fmt: skip
    randomness = DeterministicRandomness(seed) if plan.noise is None else SystemRandomness()
    w = program.released(trained(plan, learners, program, randomness))
    found = []
    for name, (train, test) in sites.items():
        model = fresh()
        set_parameters(model, w)
        if algorithm.personal:
            own = learners[name].home.load("run", ROUNDS + 1)
            model.load_state_dict({n: torch.from_numpy(v) for n, v in own.items()}, strict=False)
        if kind == "per-fedavg":
            step = torch.cat([each.flatten() for each in _slopes(model, train)])
            model = _at(seed, _flat(model) - ALPHA * step)
        found.append(right(model, test))
    return float(np.mean(found))


def rows_of_sites(seeds: int) -> list[Row]:
    worlds = {seed: world(seed) for seed in range(seeds)}
    rows = []
    for kind, oracle in ORACLES.items():
        truth = [oracle(worlds[seed], seed) for seed in worlds]
        for epsilon in EPSILONS:
            plan = plan_of(AlgorithmSpec(**KINDS[kind]), epsilon)
            found = [by_privagg(kind, plan, worlds[seed], seed) for seed in worlds]
            rows.append(row_of("sites", kind, epsilon, "accuracy", found, np.mean(truth)))
            print(rows[-1], flush=True)
    return rows


def row_of(task: str, kind: str, epsilon: str | None, metric: str, found: Any, oracle: Any) -> Row:
    values = np.asarray(found, dtype=float)
    se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    truth = None if oracle is None else float(oracle)
    return {
        "task": task, "algorithm": kind, "epsilon": epsilon, "metric": metric,
        "value": float(values.mean()), "se": se, "oracle": truth,
    }  # fmt: skip


# --- heart: models at home ------------------------------------------------------------------------

CANDIDATES = [
    HomeRule(steps, 0.5, 10**6, pull) for pull in (0.03, 0.1, 0.3, 1.0) for steps in (20, 100)
]


def _chosen(federation: Federation, folder: PartyFolder, model: Path) -> HomeRule:
    """The rule whose mean loss over splits of the site's own training records is least."""

    def loss(rule: HomeRule) -> float:
        held = HomeRule(rule.steps, rule.learning_rate, rule.batch_size, rule.pull, held_out=0.25)
        splits = map(DeterministicRandomness, range(4))
        setup = federation.setup
        made = (personalise(setup, folder, model, held, randomness=split) for split in splits)
        return float(np.mean([each.personal["loss"] for each in made]))

    return min(CANDIDATES, key=loss)


def rows_of_heart(data: Path, draws: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        values = configuration("record-distributed", write_split(data, base))
        values["privacy"] |= {"epsilon": "1"}
        federation = Federation.from_dict(values, base=base)
        setup, tests = federation.setup, TestSets(federation, base)
        learners = {site: setup.learner(site) for site in federation.plan.names}
        opened, own = [], []
        for number in range(draws):
            program = setup.program()
            state = trained(federation.plan, learners, program, SystemRandomness())
            parameters = program.released(state)
            program.save(parameters, base / "model.safetensors")
            opened.append(tests.accuracy(parameters))
            own.append(float(np.mean([
                _at_home(federation, tests, base, site, number) for site in HOSPITALS
            ])))  # fmt: skip
            print(number, opened[-1], own[-1], flush=True)
    better = np.array(own) - np.array(opened)
    return [
        row_of("heart", "global", "1", "accuracy", opened, None),
        row_of("heart", "personal", "1", "accuracy", own, None),
        row_of("heart", "personal - global", "1", "accuracy", better, None),
    ]


def _at_home(federation: Federation, tests: TestSets, base: Path, site: str, number: int) -> float:
    folder = PartyFolder.create(base / str(number) / site, PartyFile(name=site))
    model = base / "model.safetensors"
    made = personalise(federation.setup, folder, model, _chosen(federation, folder, model))
    network = federation.trained_model(made.path)
    held = tests._sets[HOSPITALS.index(site)]
    outputs = network(held.x).detach()
    predicted = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
    return float((predicted.long() == held.y).double().mean())


def main() -> None:
    """Prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description="the literature's algorithms beside their oracles")
    parser.add_argument("--data", type=Path, help="folder of the heart tables")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--long", action="store_true", help="sines with the papers' tasks, hours")
    options = parser.parse_args()
    parts = options.part or [
        part for part in PARTS if options.data or part not in ("heart", "scores")
    ]
    rows = rows_of_sites(options.seeds) if "sites" in parts else []
    if "matching" in parts:
        for kind, epsilon, metric, found, oracle in matching.results(options.seeds):
            rows.append(row_of("digits", kind, epsilon, metric, found, oracle))
            print(rows[-1], flush=True)
    rows += rows_of_heart(options.data, options.seeds) if "heart" in parts else []
    if "scores" in parts:
        rows += contribution.rows_of_scores(options.data, 2 * options.seeds)
    if "distill" in parts:
        rows += distilled.rows_of_digits(options.seeds)
        rows += distilled.rows_of_private_digits(options.seeds)
        rows += distilled.rows_of_adult(options.data.parent / "adult") if options.data else []
    rows += distilled.rows_of_logits(options.seeds) if "logits" in parts else []
    rows += sines.rows_of_sines(options.seeds) if "sines" in parts else []
    rows += sines.rows_of_long_sines(options.seeds) if options.long else []
    columns = {name: name for name in rows[0]}
    show("Algorithms of the literature", columns, rows, "± is over seeds; epsilon - is none")
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
