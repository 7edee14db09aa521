"""What compression saves and costs: bytes of an upload, accuracy, epsilon, for each encoding.

    python -m tests.benchmarks.compression --json out/compression.json

Handwritten digits (scikit-learn's 1,797 images of 8 x 8, public) among 40 people, client level: the
unit is a person with all of their images. Every row has the same epsilon, the noise being sized
for the row's own encoded sensitivity. Contributions are the real ones, from the system's generator,
and are added as integers in the clear: every scheme opens the same integers, which
`tests/test_compression.py` checks, so encrypting here would cost time and change nothing. Bytes are
those of the BFV parameters that the plan's bounds ask for, here and for a million parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from privagg import Federation
from privagg.config.plan import build_plan, requirement_of
from privagg.encoding.planned import decode_sum
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.learners import make_learner
from privagg.programs.optimizers import make_optimizer
from privagg.training.data import TensorRecords
from privagg.training.evaluate import evaluate
from privagg.training.models import get_parameters
from tests.benchmarks.replay import over_draws
from tests.benchmarks.tables import Column, Row, show, write_json

PEOPLE = 40
TEST_IMAGES = 357
LARGE = 10**6
EPSILON, DELTA = "8", "1e-5"

Terms = dict[str, Any]
ENCODINGS: dict[str, Terms | None] = {
    "none (2^16 steps)": None,
    "16 bits": {"bits": 16},
    "12 bits": {"bits": 12},
    "8 bits": {"bits": 8},
    "8 bits, nearest": {"bits": 8, "rounding": "nearest"},
    "8 bits, rotation": {"bits": 8, "rotation": True},
    "6 bits, rotation": {"bits": 6, "rotation": True},
    "random-k, half": {"keep": "0.5"},
    "random-k, a tenth": {"keep": "0.1"},
    "top-k, half": {"keep": "0.5", "mask": "top-k"},
    "8 bits, rotation, random-k half": {"bits": 8, "rotation": True, "keep": "0.5"},
}


def digits() -> tuple[dict[str, TensorRecords], TensorRecords]:
    """Person -> their images, and the public test images."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x = torch.tensor(bunch.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(bunch.target[order])
    people = {
        f"person-{i}": TensorRecords(x[TEST_IMAGES + i :: PEOPLE], y[TEST_IMAGES + i :: PEOPLE])
        for i in range(PEOPLE)
    }
    return people, TensorRecords(x[:TEST_IMAGES], y[:TEST_IMAGES], public=True)


def federation(terms: Terms | None) -> Federation:
    """Forty people under one encoding; hyperparameters are the same for all of them."""
    people, test = digits()
    sites = [{"name": name, "data": "-", "records": len(held)} for name, held in people.items()]
    values: dict[str, Any] = {
        "federation": {"name": "digits"},
        "privacy": {"mode": "client", "unit": "person", "epsilon": EPSILON, "delta": DELTA},
        "training": {
            "rounds": 12,
            "local_steps": 10,
            "local_learning_rate": 0.5,
            "local_batch_size": 16,
            "optimizer": {"kind": "sgd", "learning_rate": 1.0, "average_from": 4},
        },
        "secure": {"scheme": "bfv", "custody": "authority"},
        "data": {"kind": "dataset", "shape": (64,), "classes": 10},
        "sites": sites,
    }
    if terms is not None:
        values["compression"] = terms
    return Federation.from_dict(values, records=people, public_records=test)


def accuracy(job: Federation, run: str) -> float:
    """One whole training: everybody's contribution, its integer sum, its decoding, the step."""
    plan, config = job.plan, job.config
    learners = {
        site.name: make_learner(
            plan,
            site.name,
            model=job.setup.fresh_model(),
            records=job.setup.records_of(site),
            rule=config.training.client_rule,
        )
        for site in config.sites
    }
    parameters = get_parameters(job.setup.model)
    optimizer = make_optimizer(config.training.optimizer)
    for number in range(1, plan.rounds + 1):
        place = (run, number, 1)
        total = np.zeros(plan.upload_dimension, dtype=np.int64)
        for learner in learners.values():
            total += learner.contribution(parameters, SystemRandomness(), place)
        update = decode_sum(plan, place, parameters, total, plan.names)
        parameters = optimizer.step(parameters, update)
    assert job.setup.public_records is not None
    released = parameters if optimizer.average is None else optimizer.average
    return evaluate(job.setup.model, released, job.setup.public_records).figures["accuracy"]


def at_a_million(job: Federation) -> dict[str, float]:
    """The same people and noise multiplier with a million parameters: size and sensitivity."""
    noise = {"noise_multiplier": job.plan.noise_multiplier, "epsilon": 10**6}
    privacy = job.config.privacy.model_copy(update=noise)
    config = job.config.model_copy(update={"privacy": privacy})
    plan = build_plan(config, dimension=LARGE, accountant=job.setup.accountant)
    assert isinstance(plan, ClientPlan)
    size = job.setup.scheme.choose_parameters(requirement_of(plan, security_bits=128)).payload_bytes
    return {
        "million_bytes_a_parameter": size / LARGE,
        "million_sensitivity": plan.sensitivity_grid / plan.steps,
    }


def measure(name: str, terms: Terms | None, draws: int) -> dict[str, Any]:
    """One row."""
    job = federation(terms)
    plan = job.plan
    assert isinstance(plan, ClientPlan)
    heaviest = plan.names[0]
    spent = job.setup.accountant.epsilon(plan.total_committed(heaviest), plan.delta).upper
    return {
        "encoding": name,
        "terms": terms or {},
        "parameters": plan.dimension,
        "sent": plan.upload_dimension,
        "clip_norm_grid": plan.steps,
        "sensitivity_grid": plan.sensitivity_grid,
        "noise_multiplier": str(plan.noise_multiplier),
        "epsilon": float(spent),
        "delta": float(plan.delta),
        "sum_bits": (2 * plan.sum_bound + 1).bit_length(),
        "upload_bytes": job.parameters.payload_bytes,
        **at_a_million(job),
        **over_draws("accuracy", [accuracy(job, f"draw-{i}") for i in range(draws)]),
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description="what compressed uploads save and cost")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--draws", type=int, default=5, help="noise draws of every row")
    parser.add_argument("--quick", action="store_true", help="one draw of three rows")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = list(ENCODINGS)[::4] if options.quick else list(ENCODINGS)
    draws = 1 if options.quick else options.draws
    rows = [measure(name, ENCODINGS[name], draws) for name in names]
    _show(rows)
    write_json(options.json, rows)


def _show(rows: Sequence[Row]) -> None:
    columns: dict[str, Column] = {
        "encoding": "encoding",
        "sent": lambda row: f"{row['sent']} of {row['parameters']}",
        "sensitivity": lambda row: f"{row['sensitivity_grid'] / row['clip_norm_grid']:.3f} C",
        "sum bits": "sum_bits",
        "upload": lambda row: f"{row['upload_bytes'] / 1000:.1f} kB",
        "epsilon": lambda row: f"{row['epsilon']:.3f}",
        "accuracy": lambda row: f"{row['accuracy']:.3f} ± {row['accuracy_se']:.3f}",
        "upload at 1 M": lambda row: f"{row['million_bytes_a_parameter']:.2f} B/parameter",
        "sensitivity at 1 M": lambda row: f"{row['million_sensitivity']:.3f} C",
    }
    caption = "± is the standard error over noise draws; the test images are public."
    show(f"Digits of {PEOPLE} people, client level, delta = {DELTA}", columns, rows, caption)


if __name__ == "__main__":
    main()
