"""Questions asked of a federation, whole: approved, charged, opened once, reported and verified."""

from __future__ import annotations

import csv
import io
import json
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_bundle, verify_file, verify_report
from privagg.audit.answered import ANSWERS, SUM
from privagg.audit.attestation import InTotoAttestation
from privagg.audit.bundle import ReportBundle
from privagg.encoding.vectors import sum_of_text, sum_text
from privagg.errors import ApprovalError, BudgetExceededError, ConfigError, ResumeError
from privagg.identity.keys import Identity
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Charge, RoundEnded
from privagg.protocol.names import COORDINATOR
from privagg.report import Report, build_report
from privagg.report.answered import asked_names
from privagg.report.language import speaking
from privagg.report.render import render_html
from privagg.run.listing import runs_at
from privagg.run.results import RunResult
from tests.commands import call
from tests.report.test_languages import left, visible
from tests.run.small import SITES, write_small

QUESTIONS = """
[ask]
epsilon = 2
level = 0.9

[[questions]]
name = "people"
kind = "count"
by = ["sick"]

[[questions]]
name = "age"
kind = "mean"
of = "age"
share = 4

[[questions]]
name = "ages"
kind = "quantiles"
of = "age"
at = [0.5]
bins = 8

[[questions]]
name = "gaps"
kind = "missing"
of = ["age", "bmi"]
"""


def write_asking(folder: Path, questions: str = QUESTIONS, **facts: Any) -> Path:
    path = write_small(folder, **facts)
    text = path.read_text().replace("budget_epsilon = inf", "budget_epsilon = 60")
    path.write_text(text + questions)
    return path


def federation_in(folder: Path, **facts: Any) -> Federation:
    made = Federation.from_toml(write_asking(folder, **facts))
    made.approve(who="Dr. Ito", why="before the study", job="questions")
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, RunResult]:
    made = federation_in(tmp_path_factory.mktemp("asked"), scheme="bfv")
    return made, made.ask(run_id="asked-1")


def charges(output: Path) -> list[Charge]:
    return [
        entry.payload
        for name, ledger in local_ledgers(output).items()
        if name in SITES
        for entry in ledger.entries()
        if isinstance(entry.payload, Charge)
    ]


def figures_of(result: RunResult) -> dict[tuple[str, str], dict[str, Any]]:
    assert result.answers is not None
    facts = json.loads(result.answers.read_text())
    return {
        (answer["question"]["name"], figure["what"] + "".join(figure["group"].values())): figure
        for answer in facts["answers"]
        for figure in answer["figures"]
    }


def test_an_asking_is_answered_near_the_truth_and_charged_what_it_says(
    asked: tuple[Federation, RunResult],
) -> None:
    federation, result = asked
    setup, tables = federation.asking, federation.setup.base
    frame = pd.concat([pd.read_csv(tables / f"{name}.csv") for name in SITES])
    truth = {
        ("people", "countyes"): (frame.sick == 1).sum(),
        ("people", "countno"): (frame.sick == 0).sum(),
        ("age", "count"): len(frame),
        ("gaps", "countage"): 0,
    }
    found = figures_of(result)
    for key, value in truth.items():
        ends = found[key]["records"]
        # Half an interval is 1.64 deviations; its lower end is never below 0.
        half = ends["high"] - found[key]["raw"]
        assert abs(found[key]["raw"] - value) < 4 * half
        assert found[key]["population"]["low"] <= ends["low"]
    assert result.outcome == "finished"
    facts = json.loads(result.answers.read_text()) if result.answers else {}
    assert facts["plan_digest"] == setup.plan.digest
    assert facts["contributors"] == list(SITES)
    assert facts["level"] == 0.9
    assert facts["unit"] == "record"
    assert Decimal(facts["epsilon"]) == setup.cost
    assert Decimal("1.99") < setup.cost <= 2
    for charge in charges(federation.setup.output):
        assert charge.unit == "record"
        assert charge.epsilon_after == setup.cost


def test_its_bundle_verifies_and_the_answers_are_proved(
    asked: tuple[Federation, RunResult],
) -> None:
    _, result = asked
    assert result.bundle is not None
    made = verify_file(result.bundle, Brought())
    assert made.holds
    assert {claim.subject for claim in made.of(Verdict.PROVED)} >= {ANSWERS, SUM}


def forged(federation: Federation, result: RunResult, files: dict[str, bytes]) -> ReportBundle:
    """The bundle with other files, signed by its coordinator."""
    assert result.bundle is not None
    honest = ReportBundle.read(result.bundle)
    signer: Identity = local_folder(federation.setup.output, COORDINATOR).identity()
    merged = {**honest.files, **files}
    said = honest.attestation.statement.predicate
    return ReportBundle(merged, InTotoAttestation.sign(signer, merged, said))


def contradicted(bundle: ReportBundle) -> dict[str, str]:
    made = verify_bundle(bundle, Brought())
    return {claim.subject: claim.note for claim in made.of(Verdict.CONTRADICTED)}


def test_a_plan_of_training_that_says_it_asks_is_reported_as_training(
    asked: tuple[Federation, RunResult],
) -> None:
    report = Report.from_json(asked[1].report_json.read_bytes())  # type: ignore[union-attr]
    assert asked_names(report) == ["people", "age", "ages", "gaps"]
    trained = report.model_copy(update={"plan": {**report.plan, "mode": "record-distributed"}})
    assert asked_names(trained) == []


@pytest.mark.parametrize("told", ["as they are", "made up", "left out"])
def test_a_report_alone_proves_no_answers(asked: tuple[Federation, RunResult], told: str) -> None:
    _, result = asked
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    if told == "made up":
        report["answers"]["answers"][0]["figures"][0]["value"] = 12345.0
    elif told == "left out":
        report["answers"] = None
    made = verify_report(json.dumps(report).encode(), Brought())
    assert made.holds
    about = {claim.subject: claim.verdict for claim in made.claims if "answers" in claim.subject}
    assert about == {ANSWERS: Verdict.UNDECIDED}


@pytest.mark.parametrize("part", ["value", "raw", "records", "population"])
def test_a_changed_figure_is_contradicted(asked: tuple[Federation, RunResult], part: str) -> None:
    federation, result = asked
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    figure = report["answers"]["answers"][0]["figures"][0]
    if part in ("value", "raw"):
        figure[part] += 1.0
    else:
        figure[part]["low"] -= 1.0
    data = (json.dumps(report, indent=2) + "\n").encode()
    found = contradicted(forged(federation, result, {"report.json": data}))
    assert f"answers.answers[0].figures[0].{part}" in found[ANSWERS]


def test_a_changed_sum_is_contradicted_by_the_key_holders_signature(
    asked: tuple[Federation, RunResult], tmp_path: Path
) -> None:
    """A coordinator that records another sum, with answers that follow from it."""
    federation, result = asked
    honest = local_ledgers(federation.setup.output)
    identity = local_folder(federation.setup.output, COORDINATOR).identity()
    ledger = Ledger.create(tmp_path / "ledger.sqlite", COORDINATOR, signing_key=identity.key)
    length = federation.asking.plan.upload_dimension
    for entry in honest.pop(COORDINATOR).entries()[1:]:
        payload = deepcopy(entry.payload.to_json())
        if isinstance(entry.payload, RoundEnded):
            total = sum_of_text(payload["facts"]["opened"], length) + 10**6
            payload["facts"]["opened"] = sum_text(total)
        ledger.record(entry.kind, payload)
    report = build_report(run=result.run, coordinator=ledger, sites=honest)
    assert result.bundle is not None
    files = ReportBundle.read(result.bundle).files
    made = ReportBundle.make(report.to_json().encode(), {COORDINATOR: ledger, **honest}, identity)
    told = {**made.files, "statements.jsonl.gz": files["statements.jsonl.gz"]}
    said = made.attestation.statement.predicate
    found = contradicted(ReportBundle(told, InTotoAttestation.sign(identity, told, said)))
    assert found[SUM] == "the record holds another sum than was opened"
    assert ANSWERS not in found


def test_the_report_says_what_was_asked_in_words(asked: tuple[Federation, RunResult]) -> None:
    _, result = asked
    assert result.report_json is not None
    assert result.report_html is not None
    report = Report.from_json(result.report_json.read_bytes())
    assert report.summary[0] == (
        "2 institutions (north and south) were asked 4 questions in the federation small, run "
        "asked-1: “people”, “age”, “ages” and “gaps”."
    )
    assert report.model is None
    page = result.report_html.read_text()
    assert "The answers" in page
    assert "count (sick = yes) is about" in page
    assert "the model" not in " ".join(report.summary)
    assert "sers of the model" not in page
    with speaking("zh"):
        chinese = render_html(report)
    assert set(left(visible(chinese))) <= {"before the study"}  # an owner's own words
    assert "计数（sick = yes） 约为" in chinese


REGRESSIONS = """
[ask]
epsilon = 20

[[questions]]
name = "illness"
kind = "logistic"
of = "sick"
on = ["age", "bmi"]
rounds = 2

[[questions]]
name = "weight"
kind = "linear"
of = "bmi"
on = ["age"]

[[questions]]
name = "both"
kind = "covariance"
of = ["age", "bmi"]
"""


def test_regressions_are_asked_told_and_verified_as_other_questions_are(tmp_path: Path) -> None:
    """Two rounds; figures, standard errors, words in both languages, and the auditor's answer."""
    path = write_asking(tmp_path, REGRESSIONS)
    assert "logistic regression of sick on age, bmi" in call("check", path).out
    made = Federation.from_toml(path)
    made.approve(who="Dr. Ito", why="before the study", job="questions")
    result = made.ask()
    assert result.outcome == "finished"
    assert len(charges(made.setup.output)) == 2 * len(SITES)
    slope = figures_of(result)["weight", "coefficientage"]
    assert slope["standard_errors"]["records"] < slope["standard_errors"]["population"]
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
    assert result.report_json is not None
    report = Report.from_json(result.report_json.read_bytes())
    page = render_html(report)
    assert "correlation (of = age, with = bmi)" in page
    told = [each for each in figures_of(result).values() if each["what"] == "odds ratio"]
    assert ("answer-1-ratios" in page) == any(each["records"] for each in told)
    (between,) = (each for each in figures_of(result).values() if each["what"] == "correlation")
    assert ("answer-3-correlations" in page) == bool(between["records"])
    with speaking("zh"):
        chinese = render_html(report)
    assert set(left(visible(chinese))) <= {"before the study"}
    assert "sick 对 age, bmi 的逻辑回归" in chinese


def test_asking_again_costs_again_and_is_another_run(tmp_path: Path) -> None:
    federation = federation_in(tmp_path)
    first, second = federation.ask(), federation.ask()
    assert first.run != second.run
    spent = [charge.epsilon_after for charge in charges(federation.setup.output)]
    assert len(spent) == 4
    assert max(spent) > min(spent)
    assert first.answers is not None
    assert first.answers.exists()
    assert second.answers is not None
    shown = federation.setup.output / "answers.json"
    assert shown.read_bytes() == second.answers.read_bytes()
    rows = runs_at(federation.setup.output)
    assert [(row.program, row.rounds, row.opened) for row in rows] == [("questions", 1, 1)] * 2


def test_questions_never_replace_the_shown_model(tmp_path: Path) -> None:
    federation = federation_in(tmp_path)
    federation.approve(who="Dr. Ito", why="the study")
    trained = federation.run()
    out = federation.setup.output
    shown = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    result = federation.ask()
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert result.answers is not None
    assert after == {**shown, "answers.json": result.answers.read_bytes()}
    assert trained.model is not None
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def test_without_approval_or_room_nothing_is_asked(tmp_path: Path) -> None:
    federation = Federation.from_toml(write_asking(tmp_path))
    federation.approve(who="Dr. Ito", why="training only")
    with pytest.raises(ApprovalError, match="not approved these questions.* --job questions"):
        federation.ask()
    with pytest.raises(BudgetExceededError, match="budget"):
        federation.approve(who="w", why="y", job="questions", budget=Decimal(1))
    assert not charges(federation.setup.output)


def test_an_asking_that_is_cut_off_is_resumed_and_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_in(tmp_path)

    def cut(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("privagg.run.coordinator.Coordinator._release", cut)
        with pytest.raises(MemoryError):
            federation.ask(run_id="cut-1")
    (left,) = federation.unfinished()
    assert left.begun.job == "questions"
    with pytest.raises(ResumeError, match=r"privagg ask .* --resume cut-1"):
        federation.ask()
    with pytest.raises(ResumeError, match="job: 'questions' then, 'training' now"):
        federation.approve(who="Dr. Ito", why="the study")
        federation.run(resume="cut-1")
    result = federation.ask(resume="cut-1")
    assert len(charges(federation.setup.output)) == len(SITES)
    assert result.answers is not None
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def test_an_asking_that_is_cut_off_can_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_in(tmp_path)

    def cut(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("privagg.run.rounds.run_round", cut)
        with pytest.raises(MemoryError):
            federation.ask(run_id="cut-2")
    result = federation.give_up("cut-2")
    assert (result.outcome, result.answers, result.model) == ("stopped", None, None)
    assert not charges(federation.setup.output)
    assert federation.ask().answers is not None


def test_where_a_site_does_not_answer_nothing_is_said_and_the_charge_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_in(tmp_path)

    def ill(*_: Any) -> None:
        raise ArithmeticError("no")

    monkeypatch.setattr("privagg.programs.sums.SumsLearner.contribution", ill)
    result = federation.ask()
    assert (result.outcome, result.answers) == ("stopped", None)
    assert not (federation.setup.output / "answers.json").exists()
    assert len(charges(federation.setup.output)) == len(SITES)
    assert result.report_json is not None
    assert Report.from_json(result.report_json.read_bytes()).answers is None
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def test_the_command_line_asks_from_check_to_csv(tmp_path: Path) -> None:
    path = write_asking(tmp_path)
    plan = call("check", path)
    assert plan.code == 0, plan.err
    assert "Questions of small" in plan.out
    assert "how many records by sick" in plan.out
    assert call("check", path, "--json").json["asking"]["level"] == 0.9
    refused = call("ask", path)
    assert refused.code == 2
    assert "--all-sites --job questions" in refused.err
    assert call("approve", path, "--all-sites", "--job", "questions", "--yes").code == 0
    table = tmp_path / "answers.csv"
    answer = call("ask", path, "--csv", table, "--plots", tmp_path / "plots")
    assert answer.code == 0, answer.err
    assert (tmp_path / "plots" / "answer-1-counts.svg").read_text().startswith("<svg ")
    assert "for these records between" in answer.out
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["question"] for row in rows} == {"people", "age", "ages", "gaps"}
    facts = call("ask", path, "--json").json
    assert facts["answers"]["level"] == 0.9
    assert call("verify", facts["bundle"]).code == 0
    assert "questions" in call("runs", path).out
    chinese = call("verify", facts["bundle"], "--language", "zh")
    assert "答案由解密总和得出" in chinese.out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[ask]\nepsilon = 2\nlevel = 0.9", "", r"need \[ask\] with epsilon"),
        (QUESTIONS, "\n[ask]\nepsilon = 1\n", r"\[ask\] needs a question"),
        ('of = "age"\nshare = 4', 'of = "weight"', "'weight', which has no declared range"),
        ('by = ["sick"]', 'by = ["ward"]', "'ward', which has no declared categories"),
        ("share = 4", "share = 0", "share"),
        ("bins = 8", "bins = 8\nshare = 0.0000000001", "too small beside"),
        ('kind = "count"', 'kind = "counts"', "did you mean 'count'"),
    ],
)
def test_a_question_that_cannot_be_asked_is_told(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in QUESTIONS
    path = write_asking(tmp_path, QUESTIONS.replace(old, new, 1))
    with pytest.raises(ConfigError, match=told):
        Federation.from_toml(path)


def test_without_questions_there_is_nothing_to_ask(tmp_path: Path) -> None:
    answer = call("ask", write_small(tmp_path))
    assert answer.code == 2
    assert "asks no question; write [ask]" in answer.err
