"""What a coordinator says that a run has cost is what the sites' ledgers say, and nothing less."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from privagg import Federation
from privagg.cli.flowerrun import _print_result
from privagg.cli.live import RoundLines
from privagg.protocol.job import RoundOutcome
from privagg.run.committed import CommittedSpending
from privagg.run.results import RoundReport
from tests.approvals import approved
from tests.flower.conftest import RUN, World
from tests.flower.heart import SITES, write_federation

pytestmark = pytest.mark.usefixtures("no_page")


def test_it_is_what_every_ledger_says_after_each_round(tmp_path: Path) -> None:
    federation = Federation.from_toml(write_federation(tmp_path, rounds=3, scheme="plaintext"))
    committed = CommittedSpending(federation.plan, federation.setup.accountant, secure=True)
    seen: list[Decimal] = []

    def compare(report: RoundReport) -> None:
        spent = {site: epsilon for site, (epsilon, _) in report.epsilon.items()}
        assert committed.after(report.outcome) == spent
        assert committed.after(report.outcome) == spent, "an attempt that is told again counts once"
        seen.append(spent["va"])

    approved(federation).run(on_round=compare)
    assert len(seen) == 3
    assert 0 < seen[0] < seen[1] < seen[2] < Decimal("Infinity")


def test_a_site_that_was_not_asked_is_charged_nothing(tmp_path: Path) -> None:
    federation = Federation.from_toml(write_federation(tmp_path, rounds=3, scheme="plaintext"))
    committed = CommittedSpending(federation.plan, federation.setup.accountant, secure=True)
    found = committed.after(RoundOutcome(1, 1, ("va",)))
    again = committed.after(RoundOutcome(1, 2, ("va", "hungarian")))
    assert found["cleveland"] == again["cleveland"] == 0
    assert again["hungarian"] == found["va"] < again["va"]


def test_where_randomness_is_known_it_is_infinite(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for report in world.lead().rounds:
        assert report.committed == dict.fromkeys(SITES, Decimal("Infinity"))
    output = world.trial.coordinator.party.run_folder(RUN)
    told = [json.loads(line) for line in (output / "rounds.jsonl").read_text().splitlines()]
    assert [line["committed"]["va"] for line in told] == ["Infinity"] * 3
    _print_result(json.loads((output / "result.json").read_text()), as_json=False)
    out = capsys.readouterr().out
    assert "ε spent over all jobs: cleveland ∞ of ∞" in out
    assert "on the public table: accuracy" in out


def lines_of(report: RoundReport) -> str:
    out = Console(width=200, record=True, quiet=True)
    lines = RoundLines(out, 5, ("a", "b"), shown=(), ledgers_here=False)
    with out.capture() as captured:
        out.quiet = False
        lines.header()
        lines(report)
    return captured.get()


def test_a_line_says_whose_epsilon_it_is() -> None:
    outcome = RoundOutcome(2, 1, ("a", "b"), "opened", survivors=("a",), bytes_up={"a": 7})
    outcome = replace(outcome, seconds={"add": 0.1, "open": 0.2, "round": 6.0})
    committed = {"a": Decimal("0.25"), "b": Decimal("0.25")}
    text = lines_of(RoundReport(outcome, {}, {}, 0.0, committed))
    assert "ε of this run" in text
    assert " 0.25 " in text
    assert "encrypt" not in text
    assert "–" not in text
    committed["b"] = Decimal("Infinity")
    assert "0.25 to ∞" in lines_of(RoundReport(outcome, {}, {}, 0.0, committed))
