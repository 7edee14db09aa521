"""Every kind of target, whole: the template of `init` checked, run, reported and predicted by."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from privagg import Federation
from privagg.cli.training import TARGETS
from privagg.config.data import TableData
from privagg.config.schema import Config
from privagg.errors import ConfigError, DataError, ModelError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.report import Report
from privagg.report.annexes.facts import target as target_facts
from privagg.training.data import TensorRecords
from tests.approvals import approved
from tests.commands import call
from tests.run.small import run_small, write_small

SIZES = {"riverside": 220, "hillcrest": 140, "lakeview": 90, "public": 60}

PUBLIC = '[evaluation]\ndata = "public.csv"\npublic = true\n'

CHANGES = {
    'scheme = "masked"': 'scheme = "plaintext"\ncustody = "authority"',
    "# budget_epsilon = 3": "noise_multiplier = 3\nbudget_epsilon = inf",
    "epsilon = 1 ": "epsilon = 50 ",
}

CELLS: dict[str, dict[str, list[object]]] = {
    "binary": {"readmitted": ["yes", "no"]},
    "multiclass": {"severity": ["mild", "moderate", "severe"]},
    "ordinal": {"severity": ["mild", "moderate", "severe"]},
    "regression": {"length_of_stay": [0, 2, 5, 9, 30, 70, None]},
    "multi-label": {name: ["yes", "no"] for name in ("infection", "bleeding", "readmitted")},
    "time-to-event": {"days": [0, 30, 187.5, 400, 999, 2000, None], "status": ["died", "alive"]},
}

OUTPUTS = {"binary": 2, "multiclass": 3, "ordinal": 3, "regression": 0, "multi-label": 3,
           "time-to-event": 8}  # fmt: skip


def write_template(folder: Path, kind: str) -> Path:
    """The template of a kind with tables beside it, in few rounds."""
    path = folder / "my.toml"
    assert call("init", path, "--target", kind).code == 0
    text = path.read_text()
    for before, after in CHANGES.items():
        assert before in text, before
        text = text.replace(before, after, 1)
    text = re.sub(r"(?m)^(# )?rounds = 40", "rounds = 3", text)
    path.write_text(text + PUBLIC)
    for number, (name, count) in enumerate(SIZES.items()):
        draw = np.random.default_rng(number)
        columns: dict[str, Any] = {
            "age": draw.integers(18, 100, count),
            "creatinine": draw.uniform(20, 900, count),
            "smoker": draw.choice(["no", "former", "current"], count),
        }
        for column, cells in CELLS[kind].items():
            columns[column] = [cells[place] for place in draw.integers(0, len(cells), count)]
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    return path


@pytest.mark.parametrize("kind", TARGETS)
def test_the_template_of_every_target_runs(kind: str, tmp_path: Path) -> None:
    path = write_template(tmp_path, kind)
    checked = call("check", path)
    assert checked.code == 0, checked.err
    assert "predicts" in checked.out
    federation = approved(Federation.from_toml(path))
    result = federation.run(randomness=DeterministicRandomness(b"targets"))
    assert result.outcome == "finished"
    target = federation.config.data.target
    assert {*target.shown[:2], "loss"} <= set(result.metrics)
    assert result.model is not None
    with safe_open(result.model, "np") as file:
        card = json.loads(file.metadata()["privagg"])
    assert card["target"]["name"] == target.name
    assert card["predictions"] == target.predicted
    predicted = federation.predict(tmp_path / "public.csv")
    assert predicted.shape == ((60, OUTPUTS[kind]) if OUTPUTS[kind] else (60,))
    assert np.isfinite(predicted).all()
    told = call("predict", result.model, tmp_path / "public.csv")
    names, *rows = csv.reader(io.StringIO(told.out))
    assert names == list(target.prediction_names)
    by_file = np.array(rows, dtype=np.float64).reshape(predicted.shape)
    np.testing.assert_allclose(by_file, predicted, rtol=1e-5)
    assert result.report_html is not None
    page = result.report_html.read_text()
    assert ("off by" in page) == (kind == "regression")
    classes = kind not in ("regression", "time-to-event")
    assert ("always naming its largest class" in page) == classes
    assert ("in the right order" in page) == (kind == "time-to-event")
    listed = call("runs", tmp_path / "out")
    assert ("RMSE" in listed.out) == (kind == "regression")


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["record-local", "client"])
@pytest.mark.parametrize("kind", ["regression", "ordinal", "multi-label", "time-to-event"])
def test_the_other_modes_train_them_too(kind: str, mode: str, tmp_path: Path) -> None:
    path = write_template(tmp_path, kind)
    text = path.read_text().replace('mode = "record-distributed"', f'mode = "{mode}"')
    text = text.replace("noise_multiplier = 3", "noise_multiplier = 30")
    if mode == "record-local":
        text = text.replace("dropouts = 0", "").replace("colluders = 1", "")
    else:
        text = text.replace("sampling_rate = 0.2", "")
    path.write_text(text)
    result = approved(Federation.from_toml(path)).run(randomness=DeterministicRandomness(b"t"))
    assert result.outcome == "finished"
    assert np.isfinite(result.parameters).all()
    assert result.parameters.any()


@pytest.mark.nightly
def test_what_is_learned_under_little_noise_beats_the_mean(tmp_path: Path) -> None:
    """A straight line through the middle of the range, found by clipped gradients."""
    path = write_template(tmp_path, "regression")
    text = path.read_text().replace("noise_multiplier = 3", "noise_multiplier = 2")
    text = text.replace("epsilon = 50 ", "epsilon = 300 ").replace("rounds = 3", "rounds = 20")
    path.write_text(text.replace("sampling_rate = 0.2", "sampling_rate = 1"))
    for name in SIZES:
        table = pd.read_csv(tmp_path / f"{name}.csv")
        table["length_of_stay"] = table["age"] / 2
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    federation = approved(Federation.from_toml(path))
    metrics = federation.run(randomness=DeterministicRandomness(b"t")).metrics
    assert metrics["rmse"] < 0.5 * metrics["base_rmse"]
    assert metrics["r2"] > 0.75


# --- class weights -------------------------------------------------------------------------------

ASK = """
[ask]
epsilon = 2

[[questions]]
name = "people"
kind = "count"
by = ["sick"]
"""


def weighted(folder: Path, weights: str) -> Path:
    """The small federation, its target weighted."""
    path = write_small(folder)
    text = path.read_text()
    rule = 'positive = "== 1" }'
    assert rule in text
    path.write_text(text.replace(rule, f'positive = "== 1", class_weights = {weights} }}') + ASK)
    return path


def test_declared_weights_change_what_is_learned_and_stand_in_the_plan(tmp_path: Path) -> None:
    path = weighted(tmp_path / "a", "[1, 5]")
    equal = approved(Federation.from_toml(write_small(tmp_path / "b")))
    federation = approved(Federation.from_toml(path))
    assert federation.plan.recipe["data"]["target"]["class_weights"] == [1.0, 5.0]
    assert federation.plan.digest != equal.plan.digest
    assert (run_small(federation).parameters != run_small(equal).parameters).any()
    assert "class weights 1, 5, declared" in call("check", path).out


def test_counted_weights_rest_on_an_asking_that_was_charged(tmp_path: Path) -> None:
    path = weighted(tmp_path, "[1, 1]")
    asking = Federation.from_toml(path)
    asking.approve(who="t", why="t", job="questions", without_guarantee=True, overlaps="t")
    asked = asking.ask(randomness=DeterministicRandomness(b"q"))
    assert asked.answers is not None
    data = asked.answers.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    counts = {
        figure["group"]["sick"]: figure["value"]
        for figure in json.loads(data)["answers"][0]["figures"]
    }
    text = path.read_text()
    given = f'{{ answers = "out/answers.json", sha256 = "{digest}", question = "people" }}'
    path.write_text(text.replace("class_weights = [1, 1]", f"class_weights = {given}"))
    federation = approved(Federation.from_toml(path))
    settled = federation.config.data.target.settled(tmp_path)
    whole = (counts["no"] + counts["yes"]) / 2
    assert settled.class_weights == pytest.approx((whole / counts["no"], whole / counts["yes"]))
    told = call("check", path)
    assert json.loads(data)["run"] in told.out
    assert "charged then" in told.out
    assert "answers" not in federation.plan.recipe["data"]["target"]["class_weights"]
    finished = run_small(federation)
    assert finished.outcome == "finished"
    assert finished.report_json is not None
    annex = target_facts(Report.model_validate_json(finished.report_json.read_text()))
    assert digest in annex[1].text
    # Another file, or one that no run here released: nobody was charged for it.
    for changed, words in ((data + b" ", "SHA-256"), (None, "no run here released")):
        file = tmp_path / "out" / "answers.json"
        if changed is None:
            facts = json.loads(data)
            facts["answers"][0]["figures"][0]["value"] += 5
            changed = json.dumps(facts).encode()
            sha = hashlib.sha256(changed).hexdigest()
            path.write_text(path.read_text().replace(digest, sha))
        file.write_bytes(changed)
        with pytest.raises(ConfigError, match=words):
            Federation.from_toml(path).check_ready()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("[]", "no object"),
        ("{", "no file of answers"),
        ('{"run": "r", "epsilon": "1", "delta": "0.1", "answers": []}', "no answer 'people'"),
    ],
)
def test_a_file_that_counts_nothing_is_refused(answers: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(answers)
    digest = hashlib.sha256(answers.encode()).hexdigest()
    path = weighted(tmp_path, f'{{ answers = "a.json", sha256 = "{digest}", question = "people" }}')
    told = call("check", path)
    assert told.code == 2
    assert words in told.err


def test_a_count_of_nobody_gives_no_weight(tmp_path: Path) -> None:
    figures = [
        {"what": "count", "group": {"sick": label}, "value": value}
        for label, value in (("no", 10.0), ("yes", 0.0))
    ]
    facts = {"run": "r", "epsilon": "1", "delta": "0.1",
             "answers": [{"question": {"name": "people"}, "figures": figures}]}  # fmt: skip
    data = json.dumps(facts).encode()
    (tmp_path / "a.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    given = f'{{ answers = "a.json", sha256 = "{digest}", question = "people" }}'
    told = call("check", weighted(tmp_path, given))
    assert told.code == 2
    assert "sick = yes is 0" in told.err


# --- a loss of one's own --------------------------------------------------------------------------

LOSSES = '''
import torch
from torch.nn import functional


def focal(outputs, targets):
    """Lin et al. 2017."""
    loss = functional.binary_cross_entropy_with_logits(
        outputs[:, 0], targets.to(outputs.dtype), reduction="none")
    return (1 - torch.exp(-loss)) ** 2 * loss


def mean(outputs, targets):
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())


def normalised(outputs, targets):
    centred = (outputs - outputs.mean(dim=0)) / (outputs.std(dim=0) + 1)
    return (centred[:, 0] - targets) ** 2


def ranked(outputs, targets):
    return torch.relu(1 - (outputs - outputs.T)).mean(dim=1) * targets


def hidden(outputs, targets):
    with torch.no_grad():
        share = targets.float().mean()
    return (outputs[:, 0] - targets) ** 2 * (1 + share)


def divided(outputs, targets):
    return (outputs[:, 0] - targets) ** 2 / len(outputs)


class _Kept:
    total = 0.0


def remembers(outputs, targets):
    _Kept.total += float(outputs.nan_to_num(0, 0, 0).abs().sum())
    return (outputs[:, 0] - targets) ** 2 * (1 + _Kept.total)


def draws(outputs, targets):
    return (outputs[:, 0] - targets) ** 2 * torch.rand(len(outputs))


def fails(outputs, targets):
    raise RuntimeError("no such thing")


def constant(outputs, targets):
    return torch.zeros(len(outputs))
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small federation, with losses of its own beside it."""
    (tmp_path / "own_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return write_small(tmp_path)


def with_loss(path: Path, name: str) -> Path:
    path.write_text(path.read_text().replace("rounds =", f'loss = "own_losses:{name}"\nrounds ='))
    return path


def test_a_loss_of_ones_own_runs_once_its_code_is_approved(own: Path) -> None:
    refused = call("check", with_loss(own, "focal"))
    assert refused.code != 0
    assert "own_losses:focal" in refused.err
    assert "own_losses" not in sys.modules
    federation = approved(Federation.from_toml(own))
    assert federation.plan.recipe["loss"] == "own_losses:focal"
    assert run_small(federation).outcome == "finished"
    told = call("check", own)
    assert "by a loss of your own, own_losses:focal" in told.out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mean", "each record's own loss"),
        ("normalised", "mixes records"),
        ("ranked", "mixes records"),
        ("hidden", "mixes records"),
        ("divided", "number of records"),
        ("remembers", "mixes records"),
        ("draws", "draws random numbers"),
        ("fails", "no such thing"),
        ("constant", "no gradient"),
    ],
)
def test_a_loss_that_does_not_keep_records_apart_is_refused_by_its_name(
    name: str, words: str, own: Path
) -> None:
    federation = Federation.from_toml(with_loss(own, name))
    with pytest.raises(ModelError, match=words) as refusal:
        approved(federation)
        run_small(federation)
    assert f"own_losses:{name}" in str(refusal.value)


def test_records_given_with_other_targets_than_declared_are_refused(tmp_path: Path) -> None:
    path = write_template(tmp_path, "regression")
    x = np.zeros((30, 5))
    for y in (np.zeros(30, np.int64), np.zeros((30, 2), np.float32)):
        given = TensorRecords.of(x, y)
        federation = Federation.from_toml(path, records={"riverside": given})
        with pytest.raises(DataError, match="riverside.*float32 of shape"):
            approved(federation)


def test_what_nothing_reads_or_measures_is_refused(tmp_path: Path) -> None:
    def refused(change: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as error:
            Federation.from_dict({**facts, **change})
        return str(error.value)

    path = weighted(tmp_path, "[1, 2]")
    config = Federation.from_toml(path).config
    assert isinstance(config, Config)
    assert isinstance(config.data, TableData)
    facts = config.model_dump(exclude_unset=True)
    training = {**facts["training"], "loss": "own:loss"}
    assert "class_weights has no effect" in refused({"training": training})
    metric = {"grid": {"training.rounds": [1, 2]}, "metric": "rmse"}
    assert "no figure of this target" in refused({"tuning": metric})
    assert Decimal(str(facts["privacy"]["epsilon"])) == 50
