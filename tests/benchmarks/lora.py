"""Adapters of a small transformer at epsilon = 8, and the same adapters without privacy.

    python -m tests.benchmarks.lora --json out/lora.json [--seeds N] [--steps N] [--rounds N]

The example `examples/adapters`: a transformer that was trained on docstrings of public packages is
adapted by three sites to those of four others. `private` is a whole job as its configuration has it
(uploads are not encrypted, as that changes nothing of the model); `plain` trains the same adapters
of the same base on all sites' texts together with Adam, one batch of the same expected size a step,
as many steps; `base` is the private model before its first round. Accuracy is of files that no site
has, with its standard error over seeds: of the adapters' and the head's first values, of sampling
and noise.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from privagg import Federation
from privagg.privacy.randomness import DeterministicRandomness
from privagg.training.models import ParameterLayout
from tests.benchmarks.tables import show, write_json

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "adapters"


def accuracy(federation: Federation, model: torch.nn.Module) -> float:
    """Of a model on the example's public texts."""
    records = federation.setup.public_records
    assert records is not None
    x, y = records.gather(np.arange(len(records)))
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def private(federation: Federation, seed: int) -> tuple[float, float]:
    """Accuracy and epsilon of a whole job."""
    federation.approve(who="a benchmark", why="its figures", without_guarantee=True)
    randomness = DeterministicRandomness(f"lora {seed}".encode())
    result = federation.run(randomness=randomness)
    assert result.outcome == "finished", result.reason
    site = federation.plan.names[0]
    cost = federation.setup.accountant.epsilon(
        federation.plan.total_committed(site), federation.plan.delta
    )
    return accuracy(federation, federation.trained_model(result.model)), float(cost.upper)


def plain(federation: Federation, seed: int) -> float:
    """Accuracy of the same adapters, trained as anybody would."""
    setup, plan = federation.setup, federation.plan
    model = setup.fresh_model()
    parts = [setup.records_of(site) for site in setup.config.sites]
    gathered = [records.gather(np.arange(len(records))) for records in parts]
    x, y = torch.cat([a for a, _ in gathered]), torch.cat([b for _, b in gathered])
    batch = round(len(x) * float(plan.record_rate or 1))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(plan.rounds):
        rows = torch.randint(0, len(x), (batch,), generator=drawn)
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return accuracy(federation, model)


def configured(folder: Path, seed: int, rounds: int | None) -> Federation:
    """The example's federation in its folder, under another seed, its sums not encrypted."""
    text = (EXAMPLE / "adapters.toml").read_text()
    text = text.replace("seed = 1 ", f"seed = {seed} ")
    text = text.replace('scheme = "masked"', 'scheme = "plaintext"\ncustody = "authority"')
    if rounds:
        text = text.replace("rounds = 60", f"rounds = {rounds}")
    text = text.replace("[federation]", f'[federation]\noutput = "out/seed-{seed}"')
    text = text.replace("epsilon = 8", "epsilon = 8\nbudget_epsilon = inf")
    path = folder / f"adapters-{seed}.toml"
    path.write_text(text)
    return Federation.from_toml(path)


def rows(seeds: int, steps: int | None, rounds: int | None) -> list[dict[str, Any]]:
    """One row a way of training."""
    found: dict[str, list[float]] = {"private": [], "plain": [], "base": []}
    epsilon, federation, started = Decimal(0), None, time.process_time()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "adapters"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
        sys.path.insert(0, str(folder))
        made = runpy.run_path(str(folder / "prepare.py"))["prepare"]
        made(*([steps] if steps else []))
        for seed in range(1, seeds + 1):
            federation = configured(folder, seed, rounds)
            federation.trust(federation.setup.factories())
            found["base"].append(accuracy(federation, federation.setup.fresh_model()))
            found["plain"].append(plain(federation, seed))
            reached, epsilon = private(federation, seed)
            found["private"].append(reached)
        assert federation is not None
        model = federation.setup.model
        facts = {
            "trained": ParameterLayout.of(model).dimension,
            "parameters": sum(p.numel() for p in model.parameters()),
            "rounds": federation.plan.rounds,
        }
    seconds = time.process_time() - started
    return [
        {
            "way": way, "epsilon": epsilon if way == "private" else None,
            "accuracy": float(np.mean(values)), "accuracies": values,
            "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values)))
            if len(values) > 1 else None,
            "seeds": len(values), **facts, "processor_s_of_all": round(seconds),
        }
        for way, values in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of the base's training on public texts")
    parser.add_argument("--rounds", type=int, help="in place of the example's")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    found = rows(asked.seeds, asked.steps, asked.rounds)
    write_json(asked.json, found)
    show(
        "LoRA adapters over three sites, files that no site has",
        {"training": "way", "epsilon": "epsilon", "accuracy": "accuracy", "se": "standard_error"},
        found,
    )


if __name__ == "__main__":
    main()
