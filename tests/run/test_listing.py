"""What was bought is listed from ledgers and folders alone, in whatever state they are."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from privagg.audit import Brought, Verdict, verify_file
from privagg.cli.app import app
from privagg.errors import ConfigError
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.local import local_ledgers
from privagg.report import Report
from privagg.run.listing import FILES, ListedRun, runs_at
from privagg.run.results import RoundReport, RunResult
from privagg.run.tuning import SearchResult
from privagg.training.datasets import write_breast_cancer
from tests.approvals import approved
from tests.report.worlds import SHARED, World, distributed
from tests.test_federation import federation

RUN = World.run


def listed(where: Path) -> dict[str, ListedRun]:
    return {each.name: each for each in runs_at(where, SHARED)}


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- runs that were really made -------------------------------------------------------------------


class Made:
    """A federation in a folder that its paths are relative to, as they are typed."""

    def __init__(self, folder: Path) -> None:
        tables = write_breast_cancer(folder / "tables")
        sections: dict[str, Any] = {
            "training": {"rounds": 2}, "privacy": {"budget_epsilon": "20"},
        }  # fmt: skip
        grid = {"grid": {"training.optimizer.learning_rate": [0.5, 3.0]}, "metric": "auc"}
        self.plain = approved(federation(tables, Path(), **sections))
        self.searching = approved(federation(tables, Path(), **sections, tuning=grid))
        self.out = folder / "out"
        self.first = self.plain.run()
        self.kept = files_under(self.out / "runs" / self.first.run)
        self.stopped = self.plain.run(on_round=interrupt)
        self.search = self.searching.tune()
        self.selected = files_under(self.out / "runs" / self.search.name)
        self.again = self.searching.tune()
        self.relative = [str(path) for path in files_of(self.first)]


def files_of(result: RunResult) -> list[Path]:
    return [path for path in (result.model, result.report_json, result.bundle) if path is not None]


def interrupt(_: RoundReport) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder, before = tmp_path_factory.mktemp("made"), Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("privagg.report.write.can_draw", lambda: False)
            yield Made(folder)
    finally:
        os.chdir(before)


def test_later_runs_and_searches_leave_the_first_byte_for_byte(made: Made) -> None:
    assert files_under(made.out / "runs" / made.first.run) == made.kept
    assert files_under(made.out / "runs" / made.search.name) == made.selected
    assert len(made.relative) == 3
    for path in made.relative:
        assert path.startswith(f"out/runs/{made.first.run}/")
    best = made.again.best.result
    assert best is not None
    for path in files_of(best):
        assert path.parent == Path("out/runs") / made.again.name
        assert (made.out / path.name).read_bytes() == path.read_bytes()


def test_bundles_of_every_run_verify_where_they_lie(made: Made) -> None:
    for each in made.plain.runs():
        found = verify_file(each.files["bundle"], Brought())
        assert found.holds, found.of(Verdict.CONTRADICTED)


def test_the_list_agrees_with_the_reports(made: Made) -> None:
    rows = {each.name: each for each in made.plain.runs()}
    searches: tuple[SearchResult, ...] = (made.search, made.again)
    assert list(rows) == [
        made.first.run, made.stopped.run,
        *(name for s in searches for name in (s.name, *(c.run for c in s.candidates))),
    ]  # fmt: skip
    for row in rows.values():
        report = Report.from_json(row.files["report"].read_bytes())
        costs = {site.name: site.committed.epsilon for site in report.sites}
        if row.candidates:
            costs = {cost.site: cost.epsilon for s in report.tuning if s.name == row.name
                     for cost in s.costs}  # fmt: skip
        assert {site: charged.epsilon for site, charged in row.charged.items()} == costs
        assert all(charged.by_ledger for charged in row.charged.values())
        assert not row.is_gone
    first, stopped, search = (
        rows[name] for name in (made.first.run, made.stopped.run, made.search.name)
    )
    assert (first.ending, first.opened, first.rounds) == ("finished", 2, 2)
    assert first.metrics == made.first.metrics
    assert (stopped.ending, stopped.last) == ("stopped", 1)
    assert (search.ending, search.candidates) == ("selected", 2)
    assert made.search.best.run in search.reason
    assert [row.name for row in rows.values() if row.is_shown] == [made.again.name]


def test_an_earlier_runs_report_is_made_again_in_its_own_folder(made: Made) -> None:
    assert made.first.bundle is not None
    shown = {p.name: p.read_bytes() for p in made.out.iterdir() if p.is_file()}
    before = files_under(made.out / "runs" / made.search.name)
    answer = CliRunner().invoke(app, ["report", "out", "--run", made.first.run, "-f", "registry"])
    assert answer.exit_code == 0, answer.exception
    assert f"out/runs/{made.first.run}/registry.yaml" in answer.output
    assert {p.name: p.read_bytes() for p in made.out.iterdir() if p.is_file()} == shown
    assert CliRunner().invoke(app, ["report", "out", "-f", "registry"]).exit_code == 0
    own = made.out / "runs" / made.again.name / "registry.yaml"
    assert own.read_bytes() == (made.out / "registry.yaml").read_bytes()
    assert files_under(made.out / "runs" / made.search.name) == before
    assert CliRunner().invoke(app, ["bundle", "out"]).exit_code == 0
    bundle = made.out / "runs" / made.again.name / "bundle.privagg.zip"
    assert bundle.read_bytes() == (made.out / "bundle.privagg.zip").read_bytes()
    assert verify_file(bundle, Brought()).holds
    made.first.bundle.unlink()
    assert CliRunner().invoke(app, ["report", "out", "--run", made.first.run]).exit_code == 0
    answer = CliRunner().invoke(app, ["bundle", "out", "--run", made.first.run])
    assert answer.exit_code == 0, answer.exception
    assert verify_file(made.first.bundle, Brought()).holds
    assert (made.out / "bundle.privagg.zip").read_bytes() == bundle.read_bytes()


def test_a_name_that_was_used_is_refused_before_anything_is_charged(made: Made) -> None:
    before = {party: len(ledger) for party, ledger in local_ledgers(made.out).items()}
    with pytest.raises(ConfigError, match=r"already; nothing was spent"):
        made.plain.run(run_id=made.first.run)
    with pytest.raises(ConfigError, match="no run can be called"):
        made.plain.run(run_id="../escape")
    assert {party: len(ledger) for party, ledger in local_ledgers(made.out).items()} == before


# --- runs whose ledgers were filled by the rules --------------------------------------------------


def world_at(tmp_path: Path, **changes: Any) -> World:
    (tmp_path / "world").mkdir(parents=True, exist_ok=True)
    return World(tmp_path / "world", distributed(rounds=4), **changes)


def lay_out(world: World, place: Path, *, without: str = "", deployment: bool = False) -> Path:
    """The world's ledgers as a local run, or a deployment, keeps them."""
    ledgers = {"coordinator": world.coordinator, **world.sites}
    for name, ledger in ledgers.items():
        if name != without:
            folder = place / name if deployment else place / "parties" / name
            PartyFolder.create(folder, PartyFile(name=name))
            ledger.backup(folder / "ledger.sqlite")
    return place


def begun(tmp_path: Path, rounds: int = 1) -> World:
    """A run that was cut off."""
    world = world_at(tmp_path)
    world.start()
    world.state_key()
    for number in range(1, rounds + 1):
        world._round(number, np.random.default_rng(1))
    return world


def leave_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        (folder / name).write_text(json.dumps({"run": RUN}))


def test_a_finished_run_whose_files_are_gone_stays_charged(tmp_path: Path) -> None:
    out = lay_out(world_at(tmp_path).play(), tmp_path / "out")
    row = listed(out)[RUN]
    assert (row.ending, row.files, row.is_gone) == ("finished", {}, True)
    assert row.largest is not None
    assert row.largest.epsilon > 0
    answer = CliRunner().invoke(app, ["runs", str(out)])
    assert answer.exit_code == 0
    assert "what it was charged stays charged" in answer.output
    leave_files(out / "runs" / RUN)
    assert not listed(out)[RUN].is_gone
    assert set(listed(out)[RUN].files) == set(FILES)


@pytest.mark.parametrize("ending", ["stopped", "failed"])
def test_how_a_run_ended_and_why(tmp_path: Path, ending: str) -> None:
    world = world_at(tmp_path, outcome=ending, reason="two of three sites vanished")
    row = listed(lay_out(world.play(), tmp_path / "out"))[RUN]
    assert (row.ending, row.reason, row.last) == (ending, "two of three sites vanished", 4)


def test_a_run_that_was_cut_off_goes_on_where_its_journal_is(tmp_path: Path) -> None:
    out = lay_out(begun(tmp_path), tmp_path / "out")
    row = listed(out)[RUN]
    assert (row.ending, row.last, row.resumed, row.ended) == ("interrupted", 1, "", "")
    journal = out / "parties" / "coordinator" / "out" / RUN
    journal.mkdir(parents=True)
    (journal / "state.json").write_text("{}")
    assert listed(out)[RUN].resumed == "run"
    answer = CliRunner().invoke(app, ["runs", str(out)])
    assert "interrupted in round 2 of 4" in answer.output
    assert f"privagg run CONFIG --resume {RUN}" in answer.output
    with (journal / "driving").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert listed(out)[RUN].ending == "under way"
    assert listed(out)[RUN].ending == "interrupted"


def test_a_charge_that_the_coordinators_ledger_does_not_know_is_told(tmp_path: Path) -> None:
    known = listed(lay_out(begun(tmp_path), tmp_path / "out"))[RUN].charged
    out = lay_out(begun(tmp_path / "again"), tmp_path / "gone", without="coordinator")
    row = listed(out)[RUN]
    assert (row.ending, row.began, row.is_gone) == ("unrecorded", "", True)
    assert {s: c.epsilon for s, c in row.charged.items()} == {
        s: c.epsilon for s, c in known.items()
    }
    assert "sites' ledgers were charged" in CliRunner().invoke(app, ["runs", str(out)]).output


def test_an_earlier_charge_under_no_run_of_ours(tmp_path: Path) -> None:
    world = world_at(tmp_path, earlier_charges=1, searched=True).play()
    rows = listed(lay_out(world, tmp_path / "out"))
    assert rows["earlier-run"].ending == "unrecorded"
    search = rows["learning rate"]
    assert (search.ending, search.candidates) == ("interrupted", 1)
    assert search.reason == "0 of 1 candidates ended, and nothing was selected"


def test_where_the_sites_are_elsewhere_the_plan_bounds_what_was_charged(tmp_path: Path) -> None:
    world = begun(tmp_path, rounds=2)
    trial = lay_out(world, tmp_path / "trial", deployment=True)
    by_ledger = listed(trial)[RUN]
    assert by_ledger.deployment is not None
    alone = tmp_path / "machine" / "coordinator"
    shutil.copytree(trial / "coordinator", alone)
    by_plan = listed(alone)[RUN]
    for site, charged in by_ledger.charged.items():
        assert charged.by_ledger
        assert not by_plan.charged[site].by_ledger
        assert by_plan.charged[site].epsilon == charged.epsilon
    journal = PartyFolder(alone).run_folder(RUN)
    journal.mkdir(parents=True)
    attempt = {"round": 3, "attempt": 1, "cohort": list(world.plan.names)}
    (journal / "attempt.json").write_text(json.dumps(attempt))
    (journal / "state.json").write_text("{}")
    under_way = listed(alone)[RUN]  # its sites may have charged it already
    for site in world.plan.names:
        assert under_way.charged[site].epsilon > by_plan.charged[site].epsilon
    answer = CliRunner().invoke(app, ["runs", str(alone)])
    assert f"--runtime flower --deployment {alone} --resume {RUN}" in answer.output
    assert "by the plan for every attempt" in answer.output


def test_known_randomness_is_listed_as_no_privacy(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"generator": "known", "secure": False}
    world = world_at(tmp_path, budget=Decimal("Infinity"), **changes).play()
    trial = lay_out(world, tmp_path / "trial", deployment=True)
    alone = tmp_path / "machine" / "coordinator"
    shutil.copytree(trial / "coordinator", alone)
    for place in (trial, alone):
        assert all(c.epsilon == Decimal("Infinity") for c in listed(place)[RUN].charged.values())


def test_files_that_an_earlier_version_left_are_found(tmp_path: Path) -> None:
    out = lay_out(world_at(tmp_path).play(), tmp_path / "out")
    leave_files(out / "candidates" / RUN)
    assert {p.parent.name for p in listed(out)[RUN].files.values()} == {RUN}
    shutil.rmtree(out / "candidates")
    (out / "report.json").write_text(json.dumps({"run": RUN}))
    (out / "report.html").write_text("its page")
    assert listed(out)[RUN].files == {"report": out / "report.json", "page": out / "report.html"}
    (out / "report.json").write_text(json.dumps({"run": "another"}))
    assert listed(out)[RUN].files == {}


def test_a_place_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no runs"):
        runs_at(tmp_path)
    site = tmp_path / "north"
    PartyFolder.create(site, PartyFile(name="north"))
    with pytest.raises(ConfigError, match="the folder of 'north'"):
        runs_at(site)
    out = lay_out(world_at(tmp_path), tmp_path / "out")
    assert runs_at(out) == []
    assert "no run yet" in CliRunner().invoke(app, ["runs", str(out)]).output


def test_json_has_every_row(tmp_path: Path) -> None:
    out = lay_out(world_at(tmp_path).play(), tmp_path / "out")
    (row,) = json.loads(CliRunner().invoke(app, ["runs", str(out), "--json"]).output)
    assert (row["run"], row["ending"], row["files_gone"]) == (RUN, "finished", True)
    assert Decimal(row["charged"]["leuven"]["epsilon"]) > 0
