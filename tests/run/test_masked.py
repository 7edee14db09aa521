"""Whole runs under a scheme that nobody holds a key of: the same model, and what evidence shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from privagg import Federation
from privagg.audit.agreed import CARDS, RELEASES
from privagg.audit.attestation import InTotoAttestation, Predicate
from privagg.audit.bundle import REPORT, STATEMENTS, ReportBundle
from privagg.audit.claims import Verdict
from privagg.audit.statements import pack_statements, unpack_statements
from privagg.audit.verify import Brought, Verification, verify_file
from privagg.party.local import local_folder
from privagg.protocol.frames import Message
from privagg.protocol.messages import KeyStatement, Release, Statement
from privagg.report.language import speaking, told
from tests.approvals import approved
from tests.run.small import run_small, write_small

pytestmark = pytest.mark.usefixtures("no_page")


def federation(folder: Path, scheme: str) -> Federation:
    """The same under both schemes but for who can open."""
    path = write_small(folder, scheme=scheme)
    if scheme != "masked":
        path.write_text(path.read_text().replace("[training]", "colluders = 0\n\n[training]", 1))
    return approved(Federation.from_toml(path))


def verdicts(found: Verification, subject: str) -> set[Verdict]:
    return {claim.verdict for claim in found.claims if claim.subject == subject}


def test_a_masked_run_ends_with_the_plaintext_models_bytes_and_proves_who_agreed(
    tmp_path: Path,
) -> None:
    runs = {name: run_small(federation(tmp_path / name, name)) for name in ("plaintext", "masked")}
    models = {name: run.model.read_bytes() for name, run in runs.items() if run.model is not None}
    assert models["plaintext"] == models["masked"]
    assert runs["plaintext"].metrics == runs["masked"].metrics
    bundle = runs["masked"].bundle
    assert bundle is not None
    whole = verify_file(bundle, Brought())
    assert whole.holds
    assert verdicts(whole, CARDS) == verdicts(whole, RELEASES) == {Verdict.PROVED}
    report = runs["masked"].report_json
    assert report is not None
    facts = json.loads(report.read_text())
    assert "at least 2 of the 2 institutions asked had to agree" in " ".join(facts["summary"])
    said = facts["custody_plainly"]
    assert "at least 2 of the 2 sites asked agree on one list of contributors" in said
    assert "The aggregator with 1 of them could read a single contribution" in said
    with speaking("zh"):
        assert "2 家" in told(said)
    left_out = rewritten(bundle, tmp_path, lambda each: [] if each.kind == Release.kind else [each])
    assert verdicts(left_out, RELEASES) == {Verdict.ATTESTED}
    no_cards = rewritten(bundle, tmp_path, lambda each: [] if is_card(each) else [each])
    assert verdicts(no_cards, CARDS) == verdicts(no_cards, RELEASES) == {Verdict.ATTESTED}
    twice = rewritten(bundle, tmp_path, lambda each: [each, *second_list(each, tmp_path)])
    assert not twice.holds
    notes = [claim.note for claim in twice.claims if claim.verdict is Verdict.CONTRADICTED]
    assert any("'south' signed two lists of contributors" in note for note in notes)


def rewritten(
    bundle: Path, folder: Path, change: Callable[[Statement], list[Statement]]
) -> Verification:
    """The verdicts on a bundle whose statements its coordinator changed."""
    whole = ReportBundle.parse(bundle.read_bytes())
    kept = [new for old in unpack_statements(whole.files[STATEMENTS]) for new in change(old)]
    files = {**whole.files, STATEMENTS: pack_statements(kept)}
    identity = local_folder(folder / "masked" / "out", "coordinator").identity()
    report = json.loads(whole.files[REPORT])
    said = Predicate(
        federation=report["federation"], run=report["run"], signer="coordinator",
        plan_digest=report["plan_digest"],
    )  # fmt: skip
    path = folder / "rewritten.zip"
    ReportBundle(files, InTotoAttestation.sign(identity, files, said)).write(path)
    return verify_file(path, Brought())


def is_card(statement: Statement) -> bool:
    said = json.loads(statement.header)
    return statement.kind == KeyStatement.kind and said["sender"] != "coordinator"


def second_list(statement: Statement, folder: Path) -> list[Statement]:
    """South's release of a list, signed by south for another one besides."""
    said = json.loads(statement.header)
    if statement.kind != Release.kind or said["sender"] != "south":
        return []
    identity = local_folder(folder / "masked" / "out", "south").identity()
    lies = Release.model_validate_json(statement.header).model_copy(
        update={"list_digest": "ab" * 32}
    )
    return [Message.sign(identity, lies).statement]
