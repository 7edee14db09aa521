"""The verbs: exit codes, the table as a person sees it, JSON for machines."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privagg.audit.bundle import NAME
from privagg.audit.certificates import write_certificates
from privagg.cli.app import app
from privagg.errors import ConfigError, LedgerError, UnreadableBundleError, VerificationError
from privagg.privacy.ledger import CheckpointKeeper, Ledger
from privagg.protocol.statements import StatementStore
from tests.audit.conftest import Evidence

RUNNER = CliRunner()


@pytest.fixture
def folder(evidence: Evidence, tmp_path: Path) -> Path:
    evidence.bundle.write(tmp_path / NAME)
    (tmp_path / "report.json").write_bytes(evidence.bundle.files["report.json"])
    return tmp_path


def test_a_bundle_that_holds_exits_with_0_and_a_table(folder: Path) -> None:
    result = RUNNER.invoke(app, ["verify", str(folder / NAME)])
    assert result.exit_code == 0, result.output
    assert "claimed" in result.output
    assert "recomputed" in result.output
    assert "completeness of history not verifiable" in result.output
    assert result.output.startswith("NOTHING CONTRADICTED: ")
    assert "each of them" in result.output


def test_json_carries_every_claim(folder: Path) -> None:
    result = RUNNER.invoke(app, ["verify", str(folder / NAME), "--json"])
    made = json.loads(result.output)
    assert made["format"] == "privagg-verification/2"
    assert made["contradicted"] is False
    assert {claim["verdict"] for claim in made["claims"]} == {"proved", "attested", "not decided"}
    assert all(claim["by"] for claim in made["claims"] if claim["verdict"] == "attested")
    assert made["compared"] > 300


def test_a_claim_that_fails_exits_with_1(evidence: Evidence, folder: Path) -> None:
    report = evidence.report
    report["sites"][0]["epsilon_after_run"] = "0.1"
    evidence.with_report(report).write(folder / "edited.zip")
    result = RUNNER.invoke(app, ["verify", str(folder / "edited.zip")])
    assert result.exit_code == 1
    assert "CONTRADICTED  epsilon_after_run" in result.output
    assert result.output.startswith("CONTRADICTED: ")


def test_a_flipped_byte_names_its_file_and_exits_with_2(folder: Path) -> None:
    data = bytearray((folder / NAME).read_bytes())
    data[data.index(b'"epsilon_after_run": "0.') + 25] ^= 1
    (folder / "flipped.zip").write_bytes(data)
    result = RUNNER.invoke(app, ["verify", str(folder / "flipped.zip")])
    assert isinstance(result.exception, UnreadableBundleError)
    assert result.exception.exit_code == 2
    assert str(result.exception).startswith("report.json in the bundle was changed")


def test_checkpoints_and_receipts_kept_earlier_are_taken(evidence: Evidence, folder: Path) -> None:
    note = folder / "leuven.checkpoint"
    note.write_text(evidence.world.sites["leuven"].checkpoint(4))
    arguments = ["verify", str(folder / NAME), "--checkpoint", str(note)]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0
    assert "holds the kept checkpoint" in result.output
    (folder / "junk").write_bytes(b"\xff\xfe")
    result = RUNNER.invoke(app, [*arguments, "--checkpoint", str(folder / "junk")])
    assert isinstance(result.exception, UnreadableBundleError)
    result = RUNNER.invoke(app, ["verify", str(folder / NAME), "--key", "leuven=zz"])
    assert isinstance(result.exception, ConfigError)


def test_a_kept_checkpoint_goes_from_its_keeper_to_the_auditor_and_finds_a_rollback(
    evidence: Evidence, folder: Path
) -> None:
    world, path = evidence.world, folder / "kept.sqlite"
    longer = folder / "leuven-longer.sqlite"
    world.sites["leuven"].backup(longer)
    ledger = Ledger.open(longer, signing_key=world.identities["leuven"].key)
    before = len(ledger)
    keeper = CheckpointKeeper.open(path)
    origin, verifier = ledger.verifier.name, ledger.verifier
    keeper.keep(origin, ledger.checkpoint(), verifier=verifier)
    ledger.record("released", {"what": "a table nobody was to know of", "who": "leuven"})
    keeper.keep(
        origin, ledger.checkpoint(), verifier=verifier, proof=ledger.consistency_proof(before)
    )
    listed = RUNNER.invoke(app, ["ledger", "kept", str(path), "--all"])
    assert listed.exit_code == 0, listed.exception
    assert listed.output.split("\n")[1].split()[:2] == ["leuven", str(before)]
    verdicts = {}
    for name, options in {"then": ["--entries", str(before)], "now": []}.items():
        shown = RUNNER.invoke(app, ["ledger", "kept", str(path), "--site", "leuven", *options])
        note = folder / f"{name}.checkpoint"
        note.write_text(shown.output)
        verdicts[name] = RUNNER.invoke(
            app, ["verify", str(folder / NAME), "--checkpoint", str(note)]
        )
    assert verdicts["then"].exit_code == 0
    assert "completeness of history not verifiable" in verdicts["then"].output  # of the others
    assert verdicts["now"].exit_code == 1
    assert "the ledger was rolled back" in verdicts["now"].output
    missing = RUNNER.invoke(app, ["ledger", "kept", str(path), "--site", "charite"])
    assert "kept are those of leuven" in str(missing.exception)
    nowhere = RUNNER.invoke(app, ["ledger", "kept", str(folder / "nowhere.sqlite")])
    assert isinstance(nowhere.exception, LedgerError)


def test_a_report_alone_says_how_far_it_goes(folder: Path) -> None:
    result = RUNNER.invoke(app, ["verify", str(folder / "report.json")])
    assert result.exit_code == 0
    assert "report without its ledgers" in result.output
    assert result.output.startswith("NOTHING CONTRADICTED: ")
    assert "ask for the bundle" in result.output


def test_bundling_signs_only_what_follows_from_the_ledgers(
    evidence: Evidence, folder: Path
) -> None:
    out = folder / "out"
    for name, ledger in {
        "coordinator": evidence.world.coordinator, **evidence.world.sites
    }.items():  # fmt: skip
        (out / "parties" / name).mkdir(parents=True)
        ledger.backup(out / "parties" / name / "ledger.sqlite")
    (out / "report.json").write_bytes(evidence.bundle.files["report.json"])
    StatementStore.beside(out).keep(evidence.world.statements)
    result = RUNNER.invoke(app, ["bundle", str(out)])
    assert isinstance(result.exception, ConfigError)
    key = out / "parties" / "coordinator" / "identity.pem"
    evidence.world.identities["coordinator"]._store(key)
    result = RUNNER.invoke(app, ["bundle", str(out)])
    assert result.exit_code == 0, result.exception
    assert (out / NAME).read_bytes() == evidence.bundle.to_bytes()
    text = (out / "report.json").read_text().replace('"finished"', '"stopped"', 1)
    (out / "report.json").write_text(text)
    result = RUNNER.invoke(app, ["bundle", str(out), "-o", str(folder / "other.zip")])
    assert isinstance(result.exception, VerificationError)
    assert not (folder / "other.zip").exists()


def test_every_budget_gets_a_certificate_at_or_above_what_is_proven(
    evidence: Evidence, folder: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    result = RUNNER.invoke(app, ["verify", str(folder / NAME), "--certificate", str(proof)])
    assert result.exit_code == 0, result.output
    written = write_certificates(folder / NAME, proof, evidence.methods)
    assert {each.path for each in written} == set(proof.iterdir())
    spent = {site["name"]: Decimal(site["epsilon_after_run"]) for site in evidence.report["sites"]}
    for each in written:
        assert each.epsilon >= Fraction(spent[each.budget.split(",")[0]])
        assert each.path is not None
        assert f"{each.checker} {each.path}" in result.stderr
    assert len(written) == 2 * len(spent), "by moments, and by convolution"


def test_a_report_alone_has_no_certificate(folder: Path, tmp_path: Path) -> None:
    result = RUNNER.invoke(
        app, ["verify", str(folder / "report.json"), "--certificate", str(tmp_path / "proof")]
    )
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "proof").exists()
