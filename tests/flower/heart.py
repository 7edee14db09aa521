"""Four hospitals with invented patients, in the columns of the heart-disease tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from privagg.federation import Federation
from privagg.flower.deploy.join import Agreement
from privagg.flower.deploy.trial import Trial, make_trial
from tests.approvals import approved_trial

SITES = {"cleveland": 40, "hungarian": 34, "switzerland": 16, "va": 24}
COLUMNS = ("age", "trestbps", "chol", "thalach", "oldpeak", "sex", "fbs", "exang", "cp", "restecg")
SEED = b"the test's source of randomness"

CONFIG = """\
[federation]
name = "heart"

[privacy]
epsilon = 50
delta = 1e-4
noise_multiplier = 2
budget_epsilon = inf         # the deterministic source is charged as what it is
dropouts = 1

[training]
model = "logistic"
rounds = {rounds}
sampling_rate = 0.5

[training.optimizer]
kind = "adam"
learning_rate = 0.1

[secure]
scheme = "{scheme}"
custody = "{custody}"

[data]
features = [
  {{ name = "age", range = [35, 75] }},
  {{ name = "trestbps", range = [90, 170] }},
  {{ name = "chol", range = [100, 340] }},
  {{ name = "thalach", range = [90, 200] }},
  {{ name = "oldpeak", range = [-1, 3] }},
  {{ name = "sex", range = [0, 1] }},
  {{ name = "fbs", range = [0, 1] }},
  {{ name = "exang", range = [0, 1] }},
  {{ name = "cp", categories = [1, 2, 3, 4], drop_first = true }},
  {{ name = "restecg", categories = [0, 1, 2], drop_first = true }},
]

[data.target]
name = "num"
positive = ">0"
"""

SITE = '\n[[sites]]\nname = "{name}"\ndata = "data/{name}.csv"\nrecords = {records}\n'
EVALUATION = '\n[evaluation]\ndata = "data/public.csv"\npublic = true\n'


def write_tables(folder: Path) -> None:
    """One table a hospital and one that is public; the disease follows age and chest pain."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, records) in enumerate({**SITES, "public": 60}.items()):
        draw = np.random.default_rng(number)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, "num"])
            for _ in range(records):
                writer.writerow(_patient(draw))


def _patient(draw: np.random.Generator) -> list[Any]:
    age, pain = int(draw.integers(35, 76)), int(draw.integers(1, 5))
    sick = int(draw.random() < 1 / (1 + np.exp(-(0.08 * (age - 55) + 0.9 * (pain - 2.5)))))
    measured = [int(draw.integers(90, 170)), int(draw.integers(100, 340))]
    effort = [int(draw.integers(90, 200)), round(float(draw.uniform(-1, 3)), 1)]
    yes_no = [int(draw.integers(0, 2)) for _ in range(3)]
    return [age, *measured, *effort, *yes_no, pain, int(draw.integers(0, 3)), sick]


def write_federation(
    folder: Path, *, rounds: int = 5, scheme: str = "ckks", custody: str = "authority"
) -> Path:
    """The tables and the configuration; returns the configuration's path."""
    write_tables(folder / "data")
    text = CONFIG.format(rounds=rounds, scheme=scheme, custody=custody)
    text += "".join(SITE.format(name=name, records=records) for name, records in SITES.items())
    path = folder / "heart.toml"
    path.write_text(text + EVALUATION)
    return path


def make_deployment(config: Path, root: Path) -> Trial:
    """Every party's folder, with keys, cards and pins."""
    federation = Federation.from_toml(config)
    agreement = Agreement.of(federation.setup, config)
    trial = make_trial(root, config, agreement)
    return approved_trial(trial)
