"""Questions under integer Laplace noise, whole: asked, charged, opened, reported, verified."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.answered import ANSWERS, SUM
from privagg.privacy.accountants import default_accountant
from privagg.report import Report
from privagg.report.language import speaking
from privagg.report.render import render_html
from privagg.run.results import RunResult
from tests.commands import call
from tests.report.test_languages import left, visible
from tests.run.test_asking import charges, federation_in, figures_of, write_asking

CELLS = """
[ask]
epsilon = 1

[[questions]]
name = "people"
kind = "count"
by = ["sick"]

[[questions]]
name = "ages"
kind = "quantiles"
of = "age"
at = [0.5]
bins = 8
share = 2
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, RunResult]:
    made = federation_in(tmp_path_factory.mktemp("cells"), questions=CELLS, scheme="bfv")
    return made, made.ask(run_id="cells-1")


def test_cells_alone_are_asked_under_laplace_noise_and_cost_what_it_says(
    asked: tuple[Federation, RunResult],
) -> None:
    federation, result = asked
    (opening,) = federation.asking.plan.openings
    assert opening.moves == (2, 1)
    assert result.outcome == "finished"
    assert Decimal("0.99") < federation.asking.cost <= 1
    made = charges(federation.setup.output)
    assert {charge.epsilon_after for charge in made} == {federation.asking.cost}
    raw = figures_of(result)["people", "countyes"]["raw"]
    assert raw == int(raw)  # a record adds 1 to a count that has one part


def test_its_bundle_verifies_and_every_figure_is_recomputed(
    asked: tuple[Federation, RunResult],
) -> None:
    _, result = asked
    assert result.bundle is not None
    found = verify_file(result.bundle, Brought())
    assert found.holds
    assert {claim.subject for claim in found.of(Verdict.PROVED)} >= {ANSWERS, SUM}
    assert not found.of(Verdict.CONTRADICTED)


def test_the_report_has_a_row_for_whoever_reads_one_upload(
    asked: tuple[Federation, RunResult],
) -> None:
    _, result = asked
    assert result.report_json is not None
    report = Report.from_json(result.report_json.read_bytes())
    rows = {(row.observer, row.colluding_sites): row.epsilon for row in report.sites[0].guarantees}
    # One site may collude, so each share is as much as is charged, and both together are more.
    assert Decimal("0.99") < rows["aggregator+key-holder", 0] <= 1
    assert rows["model-users", 0] < Decimal("0.95") * rows["sites", 1]
    with speaking("zh"):
        assert set(left(visible(render_html(report)))) <= {"before the study"}


def test_training_after_it_is_charged_to_the_same_budget(tmp_path: Path) -> None:
    """Laplace and Gaussian rounds in one ledger; `verify` recomputes what they come to."""
    path = write_asking(tmp_path, questions=CELLS, scheme="plaintext")
    checked = call("check", path)
    assert "integer Laplace; against whoever reads" in checked.out
    for job in ("questions", "training"):
        assert call("approve", path, "--all-sites", "--job", job, "--yes").code == 0
    federation = Federation.from_toml(path)
    federation.ask()
    trained = federation.run()
    assert trained.bundle is not None
    assert verify_file(trained.bundle, Brought()).holds
    last = charges(federation.setup.output)[-1]
    plan = federation.plan
    alone = default_accountant().epsilon(plan.total_committed("north"), plan.delta).upper
    asking = federation.asking.cost
    assert max(asking, alone) < last.epsilon_after < asking + alone
