"""A federation of two small sites, for runs that are killed and resumed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.randomness import DeterministicRandomness
from privagg.run.results import RunResult
from tests.approvals import approved
from tests.flower.story import story
from tests.simulator import opened_rounds

SEED = b"the kills' source of randomness"
RUN = "small-1"
SITES = {"north": 30, "south": 24}

CONFIG = """\
[federation]
name = "small"

[privacy]
epsilon = 50
delta = 1e-4
noise_multiplier = 2
budget_epsilon = inf         # the deterministic source is charged as what it is

[training]
model = "logistic"
rounds = {rounds}
sampling_rate = 0.5
optimizer = {{ kind = "adam", learning_rate = 0.1 }}

[secure]
scheme = "{scheme}"
custody = "{custody}"

[data]
target = {{ name = "sick", positive = "== 1" }}

[[data.features]]
name = "age"
range = [18, 100]

[[data.features]]
name = "bmi"
range = [10, 50]

[evaluation]
data = "public.csv"
public = true
"""

SITE = '\n[[sites]]\nname = "{name}"\ndata = "{name}.csv"\nrecords = {records}\n'


def write_small(
    folder: Path,
    *,
    rounds: int = 2,
    scheme: str = "plaintext",
    custody: str = "authority",
    sites: Mapping[str, int] = SITES,
    spans: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """The tables and the configuration; returns the configuration's path.

    Args:
        folder: for all of it.
        rounds, scheme, custody: as in the configuration; `masked` sets its own custody.
        sites: each with its number of records.
        spans: site -> a line of its section, on the rounds that it takes part in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, records) in enumerate({**sites, "public": 20}.items()):
        draw = np.random.default_rng(number)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "bmi", "sick"])
            for _ in range(records):
                age, bmi = int(draw.integers(18, 100)), int(draw.integers(10, 50))
                writer.writerow([age, bmi, int(draw.random() < (age + bmi) / 150)])
    together = scheme == "masked"
    custody = "every-site" if together else custody
    text = CONFIG.format(rounds=rounds, scheme=scheme, custody=custody)
    # Of two sites none may collude: what is left of a sum would be the other's upload.
    none = together and len(sites) == 2
    text = text.replace("[training]", "colluders = 0\n\n[training]" if none else "[training]")
    text += "".join(
        SITE.format(name=name, records=records) + spans.get(name, "")
        for name, records in sites.items()
    )
    path = folder / "small.toml"
    path.write_text(text)
    return path


def make_small(folder: Path, **facts: Any) -> Federation:
    """The federation, approved."""
    return approved(Federation.from_toml(write_small(folder, **facts)))


def run_small(federation: Federation, **facts: Any) -> RunResult:
    """A run, or what is left of one, with known randomness."""
    if "resume" not in facts:
        facts.setdefault("run_id", RUN)
    return federation.run(randomness=DeterministicRandomness(SEED), **facts)


def told(result: RunResult) -> dict[str, Any]:
    """What a run leaves behind, but for times, signatures and keys."""
    assert result.model is not None
    assert result.report_json is not None
    return {
        "outcome": (result.outcome, result.reason),
        "model": result.model.read_bytes(),
        "metrics": result.metrics,
        "report": _comparable(json.loads(result.report_json.read_text())),
    }


NOT_SAID_TWICE = frozenset(
    {"seconds", "generated", "date", "parties", "key_id", "root", "checkpoint", "public_key",
     "owner_key", "bytes_up", "bytes_down", "upload_bytes", "exchanges"}
)  # fmt: skip
"""Times, days (midnight may pass), keys, signatures, and how often something was sent."""


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _comparable(inner) for name, inner in value.items() if name not in NOT_SAID_TWICE
        }
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    return value


def ledgers_of(federation: Federation) -> dict[str, list[tuple[str, str]]]:
    """What every ledger says, in order."""
    return {name: story(ledger) for name, ledger in local_ledgers(federation.setup.output).items()}


def opened(federation: Federation) -> list[tuple[str, int, int]]:
    """(run, round, attempt) of everything that was opened."""
    return opened_rounds(
        local_folder(federation.setup.output, federation.setup.holders[0]).openings
    )


def require_evidence(result: RunResult) -> None:
    """A stranger finds nothing wrong with the bundle."""
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
