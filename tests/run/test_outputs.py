"""What was paid for stays: under kills at every write, on a full disk, beside earlier files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.errors import ConfigError
from privagg.privacy.ledger import Ledger
from privagg.programs.program import MODEL_NAME
from privagg.run.outputs import (
    last_ended,
    make_run_folder,
    places_of,
    run_folder,
    settle,
    show_latest,
)
from tests.faults import Killed, Writes

NAMES = (MODEL_NAME, BUNDLE_NAME, "report.html", "report.json")


class Output:
    """An output folder with a coordinator's ledger in it, and runs that cost nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ledger = root / "parties" / "coordinator" / "ledger.sqlite"
        ledger.parent.mkdir(parents=True)
        self.ledger = Ledger.create(ledger, "coordinator", signing_key=Ed25519PrivateKey.generate())

    def run(self, run: str, *, ended: str = "finished", opened: bool = True) -> dict[str, bytes]:
        """A run in the ledger, and what it writes into its own folder."""
        self.ledger.record("run-started", {"run": run, "facts": {}})
        outcome = "opened" if opened else "stopped"
        place = {"run": run, "round": 1, "attempt": 1}
        self.ledger.record("round", {**place, "outcome": outcome, "facts": {}})
        files = contents(run)
        for name, data in files.items():
            (self.folder(run) / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder(run) / name).write_bytes(data)
        facts = {"run": run, "model_sha256": hashlib.sha256(files[MODEL_NAME]).hexdigest()}
        self.ledger.record("released", {"what": "model", "who": "coordinator", "facts": facts})
        if ended:
            self.ledger.record("run-finished", {"run": run, "outcome": ended})
        return files

    def search(self, name: str, *runs: str) -> dict[str, bytes]:
        """A search whose first run is selected."""
        method = {"method": "composition", "who": "coordinator"}
        self.ledger.record("tuning", {"name": name, "runs": list(runs), **method})
        for run in runs:
            self.run(run)
        facts = {"search": name, "selected_run": runs[0]}
        self.ledger.record("released", {"what": "settings", "who": "coordinator", "facts": facts})
        files = {
            **contents(runs[0]),
            "report.json": json.dumps({"run": runs[0], "all": 1}).encode(),
        }
        self.folder(name).mkdir()
        for file, data in files.items():
            (self.folder(name) / file).write_bytes(data)
        return files

    def folder(self, run: str) -> Path:
        return run_folder(self.root, run)

    def show(self) -> Path | None:
        return show_latest(self.root, self.ledger)

    def shown(self) -> dict[str, bytes]:
        return files_in(self.root)


def contents(run: str) -> dict[str, bytes]:
    """What a run writes."""
    return {name: f"{name} of {run}".encode() for name in NAMES} | {
        "report.json": json.dumps({"run": run}).encode()
    }


def files_in(folder: Path) -> dict[str, bytes]:
    """Name -> content of every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "out")


def test_the_latest_is_shown_and_the_first_stays_byte_for_byte(output: Output) -> None:
    first = output.run("one")
    assert output.show() == output.folder("one")
    assert output.shown() == first
    (output.folder("one") / "report.zh.pdf").write_bytes(b"asked for later")
    output.show()
    assert output.shown() == first | {"report.zh.pdf": b"asked for later"}
    second = output.run("two")
    output.show()
    assert output.shown() == second  # and no page of the first
    assert files_in(output.folder("one")) == first | {"report.zh.pdf": b"asked for later"}


@pytest.mark.parametrize(
    ("ended", "opened"), [("failed", True), ("", True), ("stopped", False)], ids=str
)
def test_what_left_no_result_takes_nobodys_place(output: Output, ended: str, opened: bool) -> None:
    first = output.run("one")
    output.show()
    output.run("two", ended=ended, opened=opened)
    output.show()
    assert output.shown() == first


def test_a_first_run_that_opened_nothing_is_shown(output: Output) -> None:
    files = output.run("one", ended="stopped", opened=False)
    output.show()
    assert output.shown() == files


def test_candidates_are_not_shown_and_the_selection_has_a_folder(output: Output) -> None:
    before = output.run("one")
    output.show()
    output.ledger.record(
        "tuning", {"name": "lost", "runs": ["c"], "method": "composition", "who": "coordinator"}
    )
    output.run("c")
    output.show()
    assert output.shown() == before  # the search selected nothing
    selected = output.search("search", "a", "b")
    output.show()
    assert output.shown() == selected
    assert files_in(output.folder("a")) == contents("a")
    again = output.search("search-again", "d", "e")
    output.show()
    assert output.shown() == again
    assert files_in(output.folder("search")) == selected


@pytest.mark.parametrize("earlier", ["run", "earlier version", "edited"])
def test_killed_at_any_write_nothing_is_lost_and_the_next_call_finishes(
    tmp_path: Path, earlier: str
) -> None:
    lives = 0
    while True:
        made = Output(tmp_path / str(lives) / "out")
        first, second = prepare(made, earlier)
        with Writes.ending_after(lives) as watch:
            try:
                made.show()
                ended = True
            except Killed:
                ended = False
        held = {path.read_bytes() for path in made.root.rglob("*") if path.is_file()}
        assert set(first.values()) | set(second.values()) <= held
        leave_half_a_copy(made)
        settle(made.root)  # another process
        assert made.shown() == second
        one = files_in(made.folder("one"))
        assert set(first.values()) <= set(one.values())
        assert not [name for name in one if name.startswith(".")]
        if ended:
            break
        lives += 1
    assert lives == watch.seen >= 2 * len(second)


def prepare(made: Output, earlier: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files of a first run that OUT shows in some way, and a second run that it shall show."""
    first = made.run("one")
    made.show()
    if earlier == "earlier version":
        shutil.rmtree(made.root / "runs")
        (made.root / "report.pdf").write_bytes(b"page of the first")
        first["report.pdf"] = b"page of the first"
    if earlier == "edited":
        (made.root / "report.html").write_bytes(b"edited by hand")
        first = {**first, "own page": b"edited by hand"}
    return first, made.run("two")


def leave_half_a_copy(made: Output) -> None:
    """What a kill within a write leaves."""
    for part in (".latest", ".kept"):
        for path in made.root.rglob(f".*{part}"):
            path.write_bytes(path.read_bytes()[:3])


def test_the_next_call_writes_nothing_where_all_is_shown(output: Output) -> None:
    output.run("one")
    output.show()
    with Writes.ending_after(0) as watch:
        settle(output.root)
    assert watch.seen == 0


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_leaves_what_is_shown_and_says_where_the_files_are(
    output: Output, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    first, second = output.run("one"), {}
    output.show()
    second = output.run("two")

    def full(*_: Any) -> None:
        raise OSError(fault, os.strerror(fault))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(ConfigError, match=r"the files lie in .*two; .*out cannot show them"):
            output.show()
    assert output.shown() == first
    settle(output.root)
    assert output.shown() == second


def test_files_without_a_link_between_them(output: Output) -> None:
    """Whoever edits or deletes one copy changes no other."""
    files = output.run("one")
    output.show()
    (output.root / MODEL_NAME).write_bytes(b"changed in place")
    (output.root / BUNDLE_NAME).unlink()
    assert files_in(output.folder("one")) == files
    settle(output.root)
    assert output.shown() == files
    changed = [d for n, d in files_in(output.folder("one")).items() if n not in files]
    assert changed == [b"changed in place"]  # nobody's file is thrown away


def test_a_deleted_folder_of_the_latest_run_brings_no_earlier_one_up(output: Output) -> None:
    output.run("one")
    output.show()
    second = output.run("two")
    output.show()
    shutil.rmtree(output.folder("two"))
    settle(output.root)
    assert output.shown() == second


def test_files_of_nobody_known_are_kept_too(output: Output) -> None:
    (output.root / MODEL_NAME).write_bytes(b"from elsewhere")
    (output.root / "report.json").write_bytes(b"{ no report")
    (output.root / "notes.txt").write_bytes(b"the user's own")
    second = output.run("two")
    output.show()
    assert output.shown() == second | {"notes.txt": b"the user's own"}
    kept = files_in(output.root / "runs" / "of-unknown-run")
    assert kept == {MODEL_NAME: b"from elsewhere", "report.json": b"{ no report"}


@pytest.mark.parametrize(
    "run", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a b", "a\n", "é", "x" * 129, "a\0"]
)
def test_a_hostile_name_makes_no_folder(output: Output, run: str) -> None:
    with pytest.raises(ConfigError, match="no run can be called"):
        make_run_folder(output.root, run)
    assert not (output.root / "runs").exists()


@pytest.mark.parametrize("run", ["../../escape", "", 7, None, [1]])
def test_a_report_that_names_a_hostile_run_leads_nowhere(output: Output, run: object) -> None:
    (output.root / "report.json").write_text(json.dumps({"run": run}))
    output.run("two")
    output.show()
    runs = {path.name for path in (output.root / "runs").iterdir()}
    assert runs == {"two", "of-unknown-run"}
    assert not (output.root.parent / "escape").exists()


def test_a_name_that_was_used_gets_no_second_run(output: Output) -> None:
    files = output.run("one")
    with pytest.raises(ConfigError, match="none is replaced; nothing was spent"):
        make_run_folder(output.root, "one")
    assert files_in(output.folder("one")) == files


def test_a_report_made_anew_goes_where_its_run_lies(output: Output) -> None:
    output.run("one")
    output.search("search", "a", "b")
    output.show()
    assert places_of(output.root, output.ledger, "one") == (output.folder("one"),)
    assert places_of(output.root, output.ledger, "a") == (output.folder("search"), output.root)
    assert places_of(output.root, output.ledger, "b") == (output.folder("b"),)
    assert last_ended([]) is None
