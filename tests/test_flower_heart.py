"""The Flower example whole: its two apps, four hospitals and a key holder, from their folders."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("flwr")

from flwr.app import Context, RecordDict

from privagg import Federation
from privagg.deployment.joining import Agreement
from privagg.deployment.trial import make_trial
from privagg.runtime.flower.inprocess import InProcessGrid

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "flower_heart"


def write_table(path: Path, rng: np.random.Generator) -> None:
    """Made-up patients in the columns of the real tables, some with gaps."""
    count = 40
    columns: dict[str, Any] = {
        "age": rng.integers(30, 80, count),
        "trestbps": rng.integers(90, 180, count),
        "chol": rng.integers(0, 400, count),
        "thalach": rng.integers(80, 200, count),
        "oldpeak": rng.uniform(-1, 4, count).round(1),
        "cp": rng.integers(1, 5, count),
    }
    columns |= {name: rng.integers(0, 2, count) for name in ("sex", "fbs", "exang")}
    table = pd.DataFrame(columns)
    table["num"] = (table["exang"] + table["cp"] > 3).astype(int)
    table.loc[0, "chol"] = np.nan
    table.to_csv(path, index=False)


def test_the_flower_heart_app_runs_from_its_parties_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLE / "flower_heart.toml").read_text().replace("rounds = 5", "rounds = 2")
    config = tmp_path / "flower_heart.toml"
    config.write_text(text)
    federation = Federation.from_toml(config)
    plan = federation.plan
    agreement = Agreement.of(federation.config, config, plan, federation.opener)
    trial = make_trial(
        tmp_path / "parties", config, agreement, federation.scheme, federation.parameters
    )
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("PRIVAGG_PARTY", str(trial.coordinator.party.root))
    client = importlib.import_module("flower_heart.client_app").app
    server = importlib.import_module("flower_heart.server_app").app
    settings = {"num-server-rounds": 2, "learning-rate": 0.5, "local-steps": 5}
    nodes, rng = {}, np.random.default_rng(3)
    for number, name in enumerate(agreement.nodes, start=1):
        write_table(tmp_path / f"{name}.csv", rng)
        folder, data = trial.parties[name].party.root, tmp_path / f"{name}.csv"
        nodes[number] = {"party-folder": str(folder), "data": str(data)}
    grid = InProcessGrid(dict.fromkeys(nodes, client), node_configs=nodes, run_config=settings)
    server(grid, Context(1, 0, {}, RecordDict(), settings))

    (output,) = (trial.coordinator.party.root / "out").iterdir()
    report = json.loads((output / "report.json").read_text())
    assert report["outcome"] == "finished"
    assert [r["outcome"] for r in report["rounds"]] == ["opened", "opened"]
    assert {s["name"] for s in report["sites"]} == set(plan.names)
    assert (output / "bundle.privagg.zip").stat().st_size > 0
