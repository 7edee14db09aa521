"""A training evaluated between its rounds: charged, stopped early, the best round, killed, told."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.claims import Findings
from privagg.audit.selected import BEST, check_selection
from privagg.errors import ApprovalError, BudgetExceededError, ConfigError
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Charge, Released, RoundEnded
from privagg.protocol.names import COORDINATOR
from privagg.report import Report
from privagg.report.language import speaking
from privagg.report.render import render_html
from privagg.report.selected import looks_of
from privagg.run.results import RunResult
from tests.report.test_languages import left, visible
from tests.run.test_evaluating import CONFIG, SITES, write

pytestmark = pytest.mark.usefixtures("no_page")

ROUNDS = (
    CONFIG.replace("rounds = 2", "rounds = 6").replace(
        'optimizer = { kind = "adam", learning_rate = 0.5 }',
        'optimizer = { kind = "sgd", learning_rate = 4.0 }',
    )
    + """
[evaluation.rounds]
every = 2
epsilon = 30
"""
)
STOPS = ROUNDS + "patience = 1\nleast = 1.0\n"


def ready(folder: Path, text: str = ROUNDS) -> Federation:
    federation = Federation.from_toml(write(folder, text))
    federation.approve(who="Dr. Ito", why="the study")
    federation.approve(who="Dr. Ito", why="the study", job="rounds")
    return federation


def charges(federation: Federation) -> dict[str, int]:
    """Run -> how often any site was charged for it."""
    found: dict[str, int] = {}
    for ledger in local_ledgers(federation.setup.output).values():
        for entry in ledger.entries():
            if isinstance(entry.payload, Charge):
                found[entry.payload.run] = found.get(entry.payload.run, 0) + 1
    return found


def recorded(federation: Federation) -> list[Any]:
    ledger = Ledger.open(local_folder(federation.setup.output, COORDINATOR).ledger)
    return [entry.payload for entry in ledger.entries()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, RunResult]:
    federation = ready(tmp_path_factory.mktemp("trained"))
    return federation, federation.run(run_id="t-1")


def test_every_second_round_is_evaluated_and_the_best_is_released(
    trained: tuple[Federation, RunResult],
) -> None:
    federation, result = trained
    assert result.outcome == "finished"
    assert charges(federation) == {"t-1": 6 * len(SITES), "t-1.rounds": 3 * len(SITES)}
    assert result.report_json is not None
    assert result.bundle is not None
    folder = federation.setup.output / "runs" / "t-1"
    kept = sorted(path.name for path in folder.glob("model-round-*"))
    assert kept == [f"model-round-{n}.safetensors" for n in (2, 4, 6)]
    said = recorded(federation)
    looks = looks_of(said, "t-1.rounds")
    assert len(looks.opened) == 3
    best = 2 * (1 + int(np.argmax([each[1] for each in looks.opened])))
    chosen = [p.facts for p in said if isinstance(p, Released) and p.facts.get("run") == "t-1"]
    assert chosen[-1]["selected"] == {"looks": "t-1.rounds", "round": best}
    model = (federation.setup.output / "model.safetensors").read_bytes()
    assert model == (folder / f"model-round-{best}.safetensors").read_bytes()
    assert chosen[-1]["model_sha256"] == hashlib.sha256(model).hexdigest()
    looked = folder.with_name("t-1.rounds") / "bundle.privagg.zip"
    for bundle in (result.bundle, looked):
        assert bundle is not None
        assert verify_file(bundle, Brought()).holds
    proved = {claim.subject for claim in verify_file(result.bundle, Brought()).of(Verdict.PROVED)}
    assert BEST in proved
    report = Report.from_json(result.report_json.read_bytes())
    assert f"that of round {best}:" in " ".join(report.summary)
    with speaking("zh"):
        assert set(left(visible(render_html(report)))) <= {"the study"}


@pytest.mark.parametrize("what", ["another round", "no round", "another model", "too few rounds"])
def test_another_round_than_the_figures_say_is_found_out(
    trained: tuple[Federation, RunResult], what: str
) -> None:
    federation, result = trained
    assert result.report_json is not None
    report = Report.from_json(result.report_json.read_bytes())
    assert report.model is not None
    assert report.model.selection is not None
    changed = {
        "another round": lambda: {"selection": report.model.selection.model_copy(
            update={"round": report.model.selection.round % 6 + 2})},
        "no round": lambda: {"selection": None},
        "another model": lambda: {"sha256": "0" * 64},
        "too few rounds": dict,
    }[what]()  # fmt: skip
    model = report.model.model_copy(update=changed)
    rounds = report.rounds[:5] if what == "too few rounds" else report.rounds
    claimed = report.model_copy(update={"model": model, "rounds": rounds})
    ledger = Ledger.open(local_folder(federation.setup.output, COORDINATOR).ledger)
    findings = Findings()
    check_selection(findings, claimed, federation.plan, {COORDINATOR: ledger})  # type: ignore[dict-item]
    assert [claim.verdict for claim in findings.claims if claim.subject == BEST] == [
        Verdict.CONTRADICTED
    ]


def test_it_stops_where_the_opened_figures_say_so(tmp_path: Path) -> None:
    """With an improvement that nothing reaches, the second look is the last."""
    federation = ready(tmp_path, STOPS)
    result = federation.run(run_id="t-1")
    assert (result.outcome, len(result.rounds)) == ("finished", 4)
    assert result.reason.startswith("stopped early after round 4")
    assert charges(federation) == {"t-1": 4 * len(SITES), "t-1.rounds": 2 * len(SITES)}
    assert result.report_json is not None
    assert not federation.unfinished()


def test_what_is_not_approved_or_has_no_room_begins_nothing(tmp_path: Path) -> None:
    federation = Federation.from_toml(write(tmp_path, ROUNDS))
    federation.approve(who="Dr. Ito", why="the study")
    for begin in (federation.check_ready, federation.run):
        with pytest.raises(ApprovalError, match="--job rounds"):
            begin()
    assert charges(federation) == {}
    assert not federation.unfinished()
    small = ROUNDS.replace("budget_epsilon = 200", "budget_epsilon = 31")
    federation = ready(tmp_path / "small", small)
    for begin in (federation.check_ready, federation.run):
        with pytest.raises(BudgetExceededError, match="6 rounds and their evaluations"):
            begin()
    assert charges(federation) == {}


def test_a_run_that_is_given_up_ends_its_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = ready(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("privagg.run.selecting.Selecting.conclude", _killed)
        with pytest.raises(MemoryError):
            federation.run(run_id="t-1")
    assert [each.begun.run for each in federation.unfinished()] == ["t-1"]
    federation.give_up("t-1")
    assert not federation.unfinished()
    ended = [p for p in recorded(federation) if p.kind == "run-finished"]
    assert [p.run for p in ended] == ["t-1.rounds", "t-1"]


def _killed(*_: Any, **__: Any) -> None:
    raise MemoryError("killed")


@pytest.mark.parametrize(
    "where",
    ["local.Run.look", "selecting.Selecting.finish", "coordinator.Coordinator.advance"],
)
def test_a_run_that_is_cut_off_goes_on_and_decides_as_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    federation = ready(tmp_path, STOPS)
    with monkeypatch.context() as patch:
        patch.setattr(f"privagg.run.{where}", _killed)
        with pytest.raises(MemoryError):
            federation.run(run_id="t-1")
    result = federation.run(resume="t-1")
    assert (result.outcome, len(result.rounds) <= 4) == ("finished", True)
    assert charges(federation) == {"t-1": 4 * len(SITES), "t-1.rounds": 2 * len(SITES)}
    said = recorded(federation)
    opened = [p for p in said if isinstance(p, RoundEnded) and p.run == "t-1.rounds"]
    assert [p.round for p in opened] == [1, 2]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("every = 2", "every = 7", "makes 0 evaluations"),
        ("every = 2", "every = 0", "every"),
        ("every = 2", "every = 2\npatience = 0", "patience"),
        ("every = 2", 'every = 2\nfigure = "auc"', "figure"),
        ("epsilon = 30", "", "either epsilon"),
        ("epsilon = 30", "epsilon = 30\nshare = 0.2", "it has both"),
        ("epsilon = 30", "share = 1", "share"),
        ("\nepsilon = 20", "\nshare = 0.6", "leaves nothing"),
    ],
)
def test_schedules_and_shares_that_do_not_fit_are_told(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = ROUNDS.replace(old, new, 1)
    if told == "leaves nothing":
        text = text.replace("epsilon = 30", "share = 0.4")
    with pytest.raises(ConfigError, match=told):
        Federation.from_toml(write(tmp_path, text))


def test_shares_come_out_of_what_training_may_cost(tmp_path: Path) -> None:
    """Training, looks and one evaluation fit privacy.epsilon together, which is the budget."""
    text = ROUNDS.replace("\nepsilon = 20", "\nshare = 0.3").replace("epsilon = 30", "share = 0.2")
    federation = Federation.from_toml(write(tmp_path, text.replace("budget_epsilon = 200\n", "")))
    accountant, plan = federation.setup.accountant, federation.plan
    spent = accountant.epsilon(plan.total_committed("north"), plan.delta).upper
    assert spent <= 5 < spent * Decimal("1.01")
    assert 1.9 < federation.beside("rounds").cost <= 2
    assert 2.9 < federation.evaluating.foreseen.cost <= 3
    federation.approve(who="Dr. Ito", why="the study")
    federation.approve(who="Dr. Ito", why="the study", job="rounds")
    federation.run(run_id="t-1")
    federation.approve(who="Dr. Ito", why="the study", job="evaluation")
    federation.evaluate()
