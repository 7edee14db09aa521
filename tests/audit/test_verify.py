"""Honest evidence holds, whatever the run was like; what it cannot show is said."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from privagg.audit import (
    Brought,
    Methods,
    ReportBundle,
    Verdict,
    verify_bundle,
    verify_file,
    verify_report,
)
from privagg.audit.bundle import NAME
from privagg.errors import UnreadableBundleError
from privagg.identity.keys import Identity
from tests.audit.conftest import Evidence, bundle_of, failures
from tests.report.conftest import world as world  # the federations that reports are tested on
from tests.report.worlds import WORLDS, World

BLOCKED = (
    "torch", "opacus", "tenseal", "phe", "pandas", "pyarrow", "numba", "gmpy2", "sklearn",
    "safetensors", "matplotlib", "jinja2", "psycopg", "flwr",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_an_honest_bundle_holds_and_so_does_its_report_alone(
    world: Callable[[str], World], methods: Methods, name: str
) -> None:
    bundle = bundle_of(world(name))
    made = verify_bundle(bundle, Brought(methods=methods))
    assert made.holds, failures(made)
    assert made.compared > 300
    alone = verify_report(bundle.files["report.json"], Brought(methods=methods))
    assert alone.holds, failures(alone)
    said = {claim.settle for claim in alone.of(Verdict.UNDECIDED)}
    assert "only the ledgers could show it; ask for the bundle" in said


def test_every_value_of_the_report_is_compared(evidence: Evidence) -> None:
    """What is taken on trust has a line of its own."""
    made = evidence.verify()
    undecided = {c.subject for c in made.of(Verdict.UNDECIDED) if c.section == "run"}
    assert undecided == {"the model file itself"}
    stated = {c.subject for c in made.of(Verdict.ATTESTED) if c.section == "run"}
    assert stated == {
        "when the report was made",
        "versions of the software", "sizes and times of messages", "table declared public",
        "metrics", "refusals and absences",
    }  # fmt: skip
    assert not [c for c in made.claims if c.subject == "other values"]


def test_a_second_method_encloses_each_epsilon(evidence: Evidence) -> None:
    made = evidence.verify()
    told = [c for c in made.claims if c.subject == "second method: ε charged"]
    assert len(told) == 3
    assert all("RDP" in c.recomputed and "PLD" in c.recomputed for c in told)


def test_without_a_kept_checkpoint_completeness_is_left_open(evidence: Evidence) -> None:
    made = evidence.verify()
    open_ = [c for c in made.of(Verdict.UNDECIDED) if c.subject == "history"]
    assert {c.section for c in open_} == {"coordinator", *evidence.world.sites}
    assert all("completeness of history not verifiable" in c.settle for c in open_)


def test_a_kept_checkpoint_settles_history(evidence: Evidence) -> None:
    kept = evidence.world.sites["leuven"].checkpoint(3)
    made = evidence.verify(checkpoints=[kept])
    assert made.holds
    assert any(c.subject == "history" for c in made.of(Verdict.PROVED))
    open_ = {c.section for c in made.of(Verdict.UNDECIDED) if c.subject == "history"}
    assert open_ == {"coordinator", "st-anna", "charite"}


def test_known_keys_are_required(evidence: Evidence) -> None:
    keys = {name: i.public_hex for name, i in evidence.world.identities.items()}
    made = evidence.verify(keys=keys)
    assert made.holds
    assert not [c for c in made.of(Verdict.UNDECIDED) if c.subject == "whose keys these are"]
    made = evidence.verify(keys={**keys, "leuven": Identity.generate("x").public_hex})
    assert "the party was replaced" in failures(made)
    assert "no party called" in failures(evidence.verify(keys={"nobody": "ab" * 32}))


def test_the_model_file_is_held_against_the_report(evidence: Evidence) -> None:
    other = hashlib.sha256(b"another").hexdigest()
    assert "the model file itself" in failures(evidence.verify(model_sha256=other))
    made = evidence.verify(model_sha256=evidence.report["model"]["sha256"])
    assert made.holds
    assert "the model file itself" not in {claim.subject for claim in made.of(Verdict.UNDECIDED)}


def test_entries_after_the_report_are_left_out(tmp_path: Path, methods: Methods) -> None:
    made = WORLDS["weighted"](tmp_path)
    report = made.report().to_json().encode()
    made._charge("a", "later-run", 1)
    ledgers = {"coordinator": made.coordinator, **made.sites}

    bundle = ReportBundle.make(report, ledgers, made.identities["coordinator"])
    assert verify_bundle(bundle, Brought(methods=methods)).holds


def test_it_works_where_nothing_but_the_base_is_installed(
    evidence: Evidence, tmp_path: Path
) -> None:
    path = tmp_path / NAME
    evidence.bundle.write(path)
    (tmp_path / "report.json").write_bytes(evidence.bundle.files["report.json"])
    kept = tmp_path / "kept.txt"
    kept.write_text(evidence.world.sites["charite"].checkpoint(2))
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from privagg.cli import main
main()
"""
    for source in (path, tmp_path / "report.json"):
        run = subprocess.run(
            [sys.executable, "-c", program, "verify", str(source), "--checkpoint", str(kept)],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.startswith("NOTHING CONTRADICTED: ")
        assert "\x1b" not in run.stdout


def test_what_is_neither_bundle_nor_report_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"{}", b"PK\3\4", b"[" * 100_000, b"\xff" * 50, b'{"format":"x"}'):
        path.write_bytes(data)
        with pytest.raises(UnreadableBundleError):
            verify_file(path, Brought())
    with pytest.raises(UnreadableBundleError, match="cannot read"):
        verify_file(tmp_path / "nowhere", Brought())


def test_a_bundle_is_the_same_bytes_again(evidence: Evidence) -> None:
    data = evidence.bundle.to_bytes()
    assert type(evidence.bundle).parse(data).to_bytes() == data
