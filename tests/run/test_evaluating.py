"""Private evaluation, whole: held out, trained without, approved, charged, answered, verified."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.answered import ANSWERS
from privagg.errors import ApprovalError, ConfigError, ModelError
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge
from privagg.report import Report
from privagg.report.language import speaking
from privagg.report.render import render_html
from privagg.run.results import RunResult
from tests.commands import call
from tests.report.test_languages import left, visible

pytestmark = pytest.mark.usefixtures("no_page")

SITES = {"north": 300, "south": 200}

CONFIG = """\
[federation]
name = "wards"

[privacy]
epsilon = 10
delta = 1e-4
budget_epsilon = 200

[training]
model = "logistic"
rounds = 2
optimizer = { kind = "adam", learning_rate = 0.5 }

[secure]
scheme = "plaintext"
custody = "authority"

[data]
target = { name = "sick", positive = "== 1" }

[[data.features]]
name = "age"
range = [18, 100]

[[data.features]]
name = "ward"
categories = ["east", "west"]

[evaluation]
private = true
epsilon = 20
held_out = 0.3
by_site = true
subgroups = ["ward"]
"""


def write(folder: Path, text: str = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, records) in enumerate(SITES.items()):
        draw = np.random.default_rng(number)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "ward", "sick"])
            for _ in range(records):
                age = round(float(draw.uniform(18, 100)), 3)
                sick = int(draw.random() < (age - 10) / 100)
                writer.writerow([age, draw.choice(["east", "west"]), sick])
        text += f'\n[[sites]]\nname = "{name}"\ndata = "{name}.csv"\nrecords = {records}\n'
    path = folder / "wards.toml"
    path.write_text(text)
    return path


def trained(folder: Path, text: str = CONFIG) -> Federation:
    federation = Federation.from_toml(write(folder, text))
    federation.approve(who="Dr. Ito", why="the study")
    federation.run()
    return federation


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, RunResult]:
    federation = trained(tmp_path_factory.mktemp("evaluated"))
    federation.approve(who="Dr. Ito", why="the study", job="evaluation")
    return federation, federation.evaluate()


def sides(federation: Federation) -> dict[str, tuple[set[bytes], set[bytes]]]:
    """Site -> the inputs that are trained with, and those that are evaluated on."""
    found = {}
    for section in federation.config.sites:
        records = federation.setup.records_of(section)
        kept = {row.tobytes() for row in records.gather(np.arange(len(records)))[0].numpy()}
        held = federation.evaluating.lines_of(section.name)
        found[section.name] = (kept, {row.tobytes() for row in held.inputs})
    return found


def own_area(federation: Federation) -> float:
    """By scikit-learn, on the held-out records as they lie at the sites."""
    held = [federation.evaluating.lines_of(name) for name in SITES]
    model = federation.trained_model()
    inputs = torch.from_numpy(np.concatenate([one.inputs for one in held]))
    scores = model(inputs).detach().numpy()[:, 0]
    return float(roc_auc_score(np.concatenate([one.targets for one in held]), scores))


def test_no_record_is_on_both_sides_and_none_is_lost(
    evaluated: tuple[Federation, RunResult],
) -> None:
    federation, _ = evaluated
    for name, (kept, held) in sides(federation).items():
        assert kept.isdisjoint(held)
        assert len(kept | held) > 0.99 * SITES[name]
        assert 0.15 < len(held) / SITES[name] < 0.45


def test_a_copy_of_a_record_is_on_its_side_however_it_is_written(tmp_path: Path) -> None:
    """Doubled, in another order of lines and columns, with other spellings and other targets."""
    federation = Federation.from_toml(write(tmp_path))
    section = federation.config.sites[0]
    kept = federation.setup.records_of(section)
    every = federation.setup.all_records_of(section)
    path = tmp_path / section.data
    header, *lines = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header[::-1])
        for age, ward, sick in [*lines[::-1], *lines]:
            writer.writerow([1 - int(sick), f" {ward.upper()} ", f"{float(age):e}"])
    again = Federation.from_toml(tmp_path / "wards.toml")
    copies = again.setup.records_of(section)
    assert len(copies) == 2 * len(kept)
    assert len(again.setup.all_records_of(section)) == 2 * len(every)
    before, after = (
        {row.tobytes() for row in one.gather(np.arange(len(one)))[0].numpy()}
        for one in (kept, copies)
    )
    assert before == after


@pytest.mark.parametrize("mode", ["record-distributed", "record-local", "client"])
def test_no_mode_trains_with_a_record_that_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("privagg.config.setup.make_learner", lambda *_, records, **__: records)
    text = CONFIG.replace("epsilon = 10\n", f'epsilon = 10\nmode = "{mode}"\n')
    federation = Federation.from_toml(write(tmp_path, text))
    for site in federation.config.sites:
        kept, every = federation.setup.records_of(site), federation.setup.all_records_of(site)
        rule = federation.config.held_out
        assert rule is not None
        columns = federation.evaluating.schema.columns
        inputs = kept.gather(np.arange(len(kept)))[0].numpy()
        assert not rule.mask(inputs, columns).any()
        held = rule.mask(every.gather(np.arange(len(every)))[0].numpy(), columns)
        assert len(kept) == len(every) - held.sum()
        assert federation.setup.learner(site.name) is kept


def test_the_answers_are_reported_and_recomputed(evaluated: tuple[Federation, RunResult]) -> None:
    federation, result = evaluated
    assert result.outcome == "finished"
    assert result.report_json is not None
    assert result.bundle is not None
    report = Report.from_json(result.report_json.read_bytes())
    assert report.answers is not None
    names = [answer.question["name"] for answer in report.answers.answers]
    assert names == ["all records", "ROC curve", "calibration", "by site", "by ward"]
    first = {figure.what: figure for figure in report.answers.answers[0].figures}
    held = sum(len(each) for _, each in sides(federation).values())
    assert abs((first["count"].value or 0) - held) < 60
    area = first["area under the ROC curve"]
    assert area.value is not None
    assert area.records is not None
    deviation = (area.records.high - area.records.low) / 2 / 1.95
    assert abs(area.value - own_area(federation)) < max(5 * deviation, 0.02)
    verdict = verify_file(result.bundle, Brought())
    assert verdict.holds
    assert ANSWERS in {claim.subject for claim in verdict.of(Verdict.PROVED)}
    with speaking("zh"):
        assert set(left(visible(render_html(report)))) <= {"the study"}
    ledgers = local_ledgers(federation.setup.output).values()
    charged = [e.payload for one in ledgers for e in one.entries() if isinstance(e.payload, Charge)]
    assert {each.run for each in charged if each.run == result.run}


def test_the_plans_say_which_records_are_held_out(evaluated: tuple[Federation, RunResult]) -> None:
    federation, _ = evaluated
    rule = {"share": "0.3", "key": "wards"}
    assert federation.plan.recipe["held_out"] == rule
    assert federation.evaluating.plan.recipe["asked"]["held_out"] == rule
    plain = Federation.from_toml(write(federation.setup.base / "plain", CONFIG.split("[eval")[0]))
    assert "held_out" not in plain.plan.recipe


def test_the_command_line_evaluates_from_check_to_csv(tmp_path: Path) -> None:
    path = write(tmp_path)
    plan = call("check", path)
    assert plan.code == 0, plan.err
    assert "Evaluation of wards" in plan.out
    assert "none yet" in plan.out
    assert call("check", path, "--json").json["evaluation"]["program"] == "evaluation"
    refused = call("evaluate", path)
    assert refused.code == 2
    assert "there is no model" in refused.err
    assert call("approve", path, "--all-sites", "--yes").code == 0
    assert call("run", path).code == 0
    refused = call("evaluate", path)
    assert refused.code == 2
    assert "not approved this evaluation" in refused.err
    assert "--job evaluation" in refused.err
    assert call("approve", path, "--all-sites", "--job", "evaluation", "--yes").code == 0
    table = tmp_path / "figures.csv"
    answer = call("evaluate", path, "--csv", table)
    assert answer.code == 0, answer.err
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["group"] for row in rows if row["question"] == "by site"} == {
        "site=north", "site=south"
    }  # fmt: skip
    facts = call("evaluate", path, "--json").json
    assert call("verify", facts["bundle"]).code == 0
    assert json.loads(Path(facts["answers_json"]).read_text())["level"] == 0.95


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('["ward"]', '["age"]', "'age', which has no declared categories"),
        ('["ward"]', '["city"]', "'city', which has no declared categories"),
        ('["ward"]', '"all"', "subgroups"),
        ('["ward"]', '["ward", "ward"]', "named twice: ward"),
        ("held_out = 0.3", "held_out = 0", "held_out"),
        ("held_out = 0.3", "held_out = 1", "held_out"),
        ("held_out = 0.3", "threshold = 1", "threshold"),
        ("held_out = 0.3", "threshold = 0.001", "between 0.002 and 0.998"),
        ("held_out = 0.3", 'noise = "laplace"', "nothing but ones"),
        ("held_out = 0.3", 'noise = "none"', "noise"),
        ("held_out = 0.3", 'model_sha256 = "abc"', "model_sha256"),
        ("held_out = 0.3", 'data = "public.csv"', "keep one of both"),
        ("private = true", "private = false", "should be true"),
        ("epsilon = 20\n", "", "either epsilon, what it may cost, or share"),
        ('categories = ["east", "west"]', "range = [0, 1]", "no declared categories"),
    ],
)
def test_settings_that_cannot_be_evaluated_are_told(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in CONFIG
    path = write(tmp_path, CONFIG.replace(old, new, 1))
    with pytest.raises(ConfigError, match=told):
        Federation.from_toml(path)


GRADES = CONFIG.replace(
    'target = { name = "sick", positive = "== 1" }',
    'target = { name = "sick", kind = "ordinal", classes = [0, 1, 2] }',
)


def test_grades_have_the_noise_that_leaves_less(tmp_path: Path) -> None:
    """A record is in one cell for each family of groups, so Laplace noise is less in a few."""
    federation = Federation.from_toml(write(tmp_path, GRADES))
    foreseen = federation.evaluating.foreseen
    assert foreseen.plan.openings[0].moves == (1, 1, 1)
    assert foreseen.plan.openings[0].length == 9 * (1 + 2 + 3)
    assert foreseen.cost <= 20
    against = {one.name for one in foreseen.plan.in_round(1).observers("north", 2)}
    assert len(against) > 1
    told = foreseen.sums.largest_stddev(foreseen.plan)
    gaussian = write(tmp_path, GRADES.replace("held_out = 0.3", 'noise = "gaussian"'))
    usual = Federation.from_toml(gaussian).evaluating.foreseen
    assert usual.plan.openings[0].moves is None
    assert told < usual.sums.largest_stddev(usual.plan)
    answer = call("check", write(tmp_path, GRADES))
    assert "integer Laplace" in answer.out


def test_only_an_opened_model_that_saw_none_of_them_is_evaluated(tmp_path: Path) -> None:
    open_to_all = CONFIG.split("[eval")[0]
    federation = trained(tmp_path, open_to_all)
    private = Federation.from_toml(write(tmp_path))
    private.approve(who="Dr. Ito", why="the study", job="evaluation")
    with pytest.raises(ConfigError, match="trained without holding out"):
        private.evaluate()
    other_key = CONFIG.replace("held_out = 0.3", 'held_out = 0.3\nkey = "another"')
    trained(tmp_path, other_key)
    with pytest.raises(ConfigError, match="trained without holding out"):
        Federation.from_toml(write(tmp_path)).evaluate()
    stranger = tmp_path / "stranger.safetensors"
    stranger.write_bytes((federation.setup.output / "model.safetensors").read_bytes())
    wider = CONFIG.replace('model = "logistic"', 'model = { kind = "mlp", hidden = [3] }')
    named = f'held_out = 0.3\nmodel = "{stranger.name}"'
    with pytest.raises(ModelError, match="holds no parameter"):
        Federation.from_toml(write(tmp_path, wider.replace("held_out = 0.3", named))).evaluate()
    pinned = named + f'\nmodel_sha256 = "{"0" * 64}"'
    with pytest.raises(ConfigError, match="model_sha256 names"):
        Federation.from_toml(write(tmp_path, CONFIG.replace("held_out = 0.3", pinned))).evaluate()
    other = Federation.from_toml(
        write(
            tmp_path / "other",
            CONFIG.replace("held_out = 0.3", 'model = "../stranger.safetensors"'),
        )
    )
    with pytest.raises(ConfigError, match="no run recorded"):
        other.check_ready(job="evaluation")
    with pytest.raises(ApprovalError):
        trained(tmp_path / "fresh").evaluate()


def test_an_evaluation_that_is_cut_off_is_resumed_and_charged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = trained(tmp_path)
    federation.approve(who="Dr. Ito", why="the study", job="evaluation")

    def cut(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("privagg.run.coordinator.Coordinator._release", cut)
        with pytest.raises(MemoryError):
            federation.evaluate(run_id="cut-1")
    result = federation.evaluate(resume="cut-1")
    assert result.answers is not None
    ledgers = local_ledgers(federation.setup.output).values()
    charged = [e.payload for one in ledgers for e in one.entries() if isinstance(e.payload, Charge)]
    assert len([each for each in charged if each.run == "cut-1"]) == 2 * len(SITES)
