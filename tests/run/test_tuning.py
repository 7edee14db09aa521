"""A search over settings: charged run by run, tied together beforehand, verified by a stranger."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.errors import BudgetExceededError, ConfigError, ResumeError, SearchError
from privagg.party.local import local_ledgers
from privagg.party.open import ledger_here
from privagg.privacy.ledger.composition import compose
from privagg.privacy.ledger.entries import Tuning
from privagg.protocol.in_memory import LocalTransport
from privagg.report import Report
from privagg.run import local
from privagg.run.tuning import Candidate, SearchResult
from privagg.training.datasets import write_breast_cancer
from tests.approvals import approved
from tests.faults import Fragile, Killed
from tests.test_federation import config, federation

pytestmark = pytest.mark.usefixtures("no_page")
GRID = {"training.optimizer.learning_rate": [0.5, 3.0], "training.sampling_rate": ["0.2", "0.4"]}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_breast_cancer(tmp_path_factory.mktemp("tables"))


def searching(tables: dict[str, Path], folder: Path, **changes: Any) -> Federation:
    sections: dict[str, Any] = {
        "training": {"rounds": 2},
        "privacy": {"budget_epsilon": "8"},
        "tuning": {"grid": GRID, "metric": "auc"},
        **changes,
    }
    made = federation(tables, folder, **sections)
    return approved(made) if made.config.tuning else made


@pytest.fixture(scope="module")
def searched(
    tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Federation, SearchResult, list[Candidate]]:
    made = searching(tables, tmp_path_factory.mktemp("searched"))
    heard: list[Candidate] = []
    return made, made.tune(on_candidate=heard.append), heard


Searched = tuple[Federation, SearchResult, list[Candidate]]


def test_every_candidate_is_charged_in_full(searched: Searched) -> None:
    made, result, heard = searched
    assert [candidate.run for candidate in heard] == [c.run for c in result.candidates]
    assert len(heard) == 4
    plans = [candidate.setup.plan for candidate in result.candidates]
    assert len({plan.digest for plan in plans}) == 4
    for name in made.plan.names:
        spent = ledger_here(made.setup, name).spent(made.setup.budget_key(name))
        first, *others = [plan.total_committed(name) for plan in plans]
        expected = compose(first, *others)
        assert spent.event == compose(type(expected)(), expected)
        assert spent.charges == 4 * 2
        assert spent.epsilon.upper > max(c.setup.config.privacy.epsilon / 2 for c in heard)


def test_the_search_stands_in_every_ledger_before_its_first_charge(searched: Searched) -> None:
    made, result, _ = searched
    for party in ("coordinator", *made.plan.names):
        entries = ledger_here(made.setup, party).entries()
        (place,) = [i for i, e in enumerate(entries) if isinstance(e.payload, Tuning)]
        told = entries[place].payload.to_json()
        assert told["runs"] == [candidate.run for candidate in result.candidates]
        assert told["facts"]["candidates"][1]["settings"] == {
            "training.optimizer.learning_rate": "0.5", "training.sampling_rate": "0.4",
        }  # fmt: skip
        first = next(i for i, e in enumerate(entries) if e.kind in ("charge", "run-started"))
        assert place < first


def test_the_best_on_the_public_table_is_selected_and_released(searched: Searched) -> None:
    made, result, heard = searched
    values = [c.result.metrics["auc"] for c in heard if c.result is not None]
    assert result.best.run == heard[values.index(max(values))].run
    best = result.best.result
    assert best is not None
    assert best.model == made.setup.output / "runs" / result.name / "model.safetensors"
    assert best.model.read_bytes() == (made.setup.output / "model.safetensors").read_bytes()
    chosen = ledger_here(made.setup, "coordinator").entries()[-1].payload.to_json()
    assert chosen["facts"]["selected_run"] == result.best.run
    for candidate in heard:
        assert (made.setup.output / "runs" / candidate.run / "report.json").is_file()


def test_the_report_tells_what_the_search_cost_and_a_stranger_agrees(searched: Searched) -> None:
    made, result, _ = searched
    best = result.best.result
    assert best is not None
    assert best.report_json is not None
    assert best.bundle is not None
    report = Report.from_json(best.report_json.read_bytes())
    assert report.run == result.best.run
    (search,) = report.tuning
    assert search.runs == tuple(candidate.run for candidate in result.candidates)
    assert set(search.recorded_in) == {"coordinator", *made.plan.names}
    assert {(cost.site, cost.charges) for cost in search.costs} == {
        (name, 8) for name in made.plan.names
    }
    verification = verify_file(best.bundle, Brought())
    assert verification.holds, verification.of(Verdict.CONTRADICTED)


def test_a_budget_too_small_for_all_candidates_spends_nothing(
    tables: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BudgetExceededError, match="4 candidates, each charged in full"):
        searching(tables, tmp_path, privacy={"budget_epsilon": "2.5"})
    for ledger in local_ledgers(tmp_path / "out").values():
        assert [entry.kind for entry in ledger.entries()] == ["created"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tuning": {"grid": {"privacy.epsilon": ["9"]}}}, "cannot be searched over"),
        ({"tuning": {"grid": {"training.sampling_rate": []}}}, "at least 1 entr"),
        ({"tuning": {"grid": {"training.rounds": list(range(1, 1002))}}}, "1001 candidates"),
        ({"tuning": {"grid": GRID, "method": "repeat-and-select"}}, "composition"),
        ({"tuning": {"grid": {"training.nonsense": [1]}}}, "unknown key 'training.nonsense'"),
        ({"tuning": {"grid": {"training.sampling_rate": ["2"]}}}, "at most 1"),
    ],
)
def test_what_cannot_be_searched_is_refused_beforehand(
    tables: dict[str, Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        searching(tables, tmp_path, **changes).tune()
    assert not (tmp_path / "out" / "parties").exists()


def test_a_search_needs_a_grid_and_a_public_table(tables: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[tuning\] section"):
        federation(tables, tmp_path).tune()
    values = config(tables, tuning={"grid": GRID})
    del values["evaluation"]
    with pytest.raises(ConfigError, match="declared public"):
        Federation.from_dict(values, base=tmp_path).tune()


def test_a_search_in_which_nothing_finished_selects_nothing_and_stays_charged(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privagg.run import tuning as search

    class Stopping(search.Run):
        def drive(self, on_round: Any) -> Any:
            result = super().drive(on_round)
            result.outcome = "stopped"
            return result

    monkeypatch.setattr(search, "Run", Stopping)
    made = searching(
        tables, tmp_path, tuning={"grid": {"training.rounds": [1]}}, privacy={"epsilon": "3"}
    )
    with pytest.raises(SearchError, match="no candidate finished"):
        made.tune()
    name = made.plan.names[0]
    assert ledger_here(made.setup, name).spent(made.setup.budget_key(name)).epsilon.upper > Decimal(
        "0.1"
    )


def test_a_candidate_that_was_cut_off_is_finished_by_itself_as_the_refusal_says(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = iter((99, 4))  # the second candidate dies in its second round
    made = searching(tables, tmp_path, tuning={"grid": {"training.sampling_rate": ["0.2", "0.4"]}})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(
            local,
            "LocalTransport",
            lambda handlers: Fragile(LocalTransport(handlers), next(lives), before=False),
        )
        made.tune()
    (left,) = made.unfinished()
    with pytest.raises(ResumeError, match=r"without \[tuning\]") as refused:
        made.tune()
    assert f"--resume {left.begun.run}" in str(refused.value)
    assert 'with training.sampling_rate = "0.4"' in str(refused.value)
    alone = federation(
        tables,
        tmp_path,
        training={"rounds": 2, "sampling_rate": "0.4"},
        privacy={"budget_epsilon": "8"},
    )
    assert alone.run(resume=left.begun.run).outcome == "finished"
    assert made.unfinished() == []
