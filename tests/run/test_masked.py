"""Whole runs under a scheme that nobody holds a key of: the same model, and what evidence shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privagg import Federation
from privagg.audit.agreed import CARDS, MADE_OF_CARDS, RELEASES
from privagg.audit.attestation import InTotoAttestation, Predicate
from privagg.audit.bundle import REPORT, STATEMENTS, ReportBundle
from privagg.audit.claims import Verdict
from privagg.audit.statements import pack_statements, unpack_statements
from privagg.audit.verify import Brought, Verification, verify_bundle, verify_file
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import RunStarted
from privagg.protocol.frames import Message
from privagg.protocol.messages import KeyStatement, Release, Statement
from privagg.protocol.names import COORDINATOR
from privagg.report.build import build_report
from privagg.report.language import speaking, told
from privagg.report.model import Report
from privagg.report.sentences import told_summary, told_unprotected
from privagg.run.outputs import statements_of
from privagg.run.results import RunResult
from tests.approvals import approved
from tests.models import but_for_its_plan
from tests.report.test_languages import left
from tests.run.small import run_small, write_small

pytestmark = pytest.mark.usefixtures("no_page")


def federation(folder: Path, scheme: str) -> Federation:
    """The same under both schemes but for who can open."""
    path = write_small(folder, scheme=scheme)
    if scheme != "masked":
        path.write_text(path.read_text().replace("[training]", "colluders = 0\n\n[training]", 1))
    return approved(Federation.from_toml(path))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, no_page: None) -> RunResult:
    """A run of two sites, and what it leaves in `out` beside the configuration."""
    return run_small(federation(tmp_path_factory.mktemp("m") / "masked", "masked"))


def verdicts(found: Verification, subject: str) -> set[Verdict]:
    return {claim.verdict for claim in found.claims if claim.subject == subject}


def test_a_masked_run_ends_with_the_plaintext_models_bytes_and_proves_who_agreed(
    masked: RunResult, tmp_path: Path
) -> None:
    runs = {"plaintext": run_small(federation(tmp_path, "plaintext")), "masked": masked}
    models = {name: but_for_its_plan(run) for name, run in runs.items()}
    assert models["plaintext"] == models["masked"]
    assert runs["plaintext"].metrics == runs["masked"].metrics
    bundle = runs["masked"].bundle
    assert bundle is not None
    whole = verify_file(bundle, Brought())
    assert whole.holds
    for subject in (CARDS, MADE_OF_CARDS, RELEASES):
        assert verdicts(whole, subject) == {Verdict.PROVED}
    report = runs["masked"].report_json
    assert report is not None
    made = Report.from_json(report.read_bytes())
    facts = json.loads(report.read_text())
    assert "at least 2 of the 2 institutions asked had to agree" in " ".join(facts["summary"])
    seen = [row for site in facts["sites"] for row in site["guarantees"]]
    assert any(row["sees"].startswith("masked uploads and ") for row in seen)
    told_of = [*facts["summary"], *facts["unprotected"], *facts["assumptions"], str(seen)]
    assert not re.search("encrypt|ciphertext", " ".join(told_of))
    said = facts["custody_plainly"]
    assert "at least 2 of the 2 sites asked agree on one list of contributors" in said
    assert "The aggregator with 1 of them could read a single contribution" in said
    with speaking("zh"):
        assert "2 家" in told(said)
        assert left(told(said) + "".join(told_summary(made) + told_unprotected(made))) == []
        assert [left(told(each)) for each in made.assumptions if left(told(each))] == []
    folder = output_of(masked)
    left_out = rewritten(bundle, folder, lambda each: [] if each.kind == Release.kind else [each])
    assert verdicts(left_out, RELEASES) == {Verdict.ATTESTED}
    not_on_it = rewritten(bundle, folder, lambda each: [off_the_list(each, folder)])
    assert verdicts(not_on_it, RELEASES) == {Verdict.ATTESTED}
    no_cards = rewritten(bundle, folder, lambda each: [] if is_card(each) else [each])
    for subject in (CARDS, MADE_OF_CARDS):
        assert verdicts(no_cards, subject) == {Verdict.ATTESTED}
    assert verdicts(no_cards, RELEASES) == {Verdict.PROVED}  # the key says who had cards
    twice = rewritten(bundle, folder, lambda each: [each, *second_list(each, folder)])
    assert not twice.holds
    notes = [claim.note for claim in twice.claims if claim.verdict is Verdict.CONTRADICTED]
    assert any("'south' signed two lists of contributors" in note for note in notes)


def swapped(facts: dict[str, Any]) -> None:
    cards = facts["cards"]
    cards["north"], cards["south"] = cards["south"], cards["north"]


def another(facts: dict[str, Any]) -> None:
    facts["cards"]["south"] = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()


def added(facts: dict[str, Any]) -> None:
    facts["cards"]["west"] = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()


def missing(facts: dict[str, Any]) -> None:
    del facts["cards"]["south"]


def no_key(facts: dict[str, Any]) -> None:
    facts["cards"]["south"] = "00" * 32


def other_rule(facts: dict[str, Any]) -> None:
    facts["scheme"]["parameters"]["rule"]["always_consents"] = True


def none(facts: dict[str, Any]) -> None:
    del facts["cards"]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("change", [swapped, another, added, missing, no_key, other_rule, none])
def test_the_key_is_made_again_from_the_cards(
    masked: RunResult, tmp_path: Path, change: Callable[[dict[str, Any]], None], signed: bool
) -> None:
    """A coordinator records other cards, another rule or none, and shows or hides what is signed.

    Where the rule is another, what sites signed names other parameters already.
    """
    found = verify_bundle(recorded(masked, tmp_path, change, signed=signed), Brought())
    if change is other_rule and signed:
        assert "stated a key for parameters" in notes(found)
    else:
        assert verdicts(found, MADE_OF_CARDS) == {Verdict.CONTRADICTED}
    if change is none:
        assert "keeps back the cards" in notes(found)
    assert not found.holds


def notes(found: Verification) -> str:
    return " ".join(claim.note for claim in found.of(Verdict.CONTRADICTED))


def recorded(
    run: RunResult, folder: Path, change: Callable[[dict[str, Any]], None], *, signed: bool
) -> ReportBundle:
    """The bundle of a coordinator that wrote down something else as the run began."""
    output = output_of(run)
    honest = local_ledgers(output)
    identity = local_folder(output, COORDINATOR).identity()
    ledger = Ledger.create(folder / "ledger.sqlite", COORDINATOR, signing_key=identity.key)
    for entry in honest.pop(COORDINATOR).entries()[1:]:
        payload = deepcopy(entry.payload.to_json())
        if isinstance(entry.payload, RunStarted):
            change(payload["facts"])
        ledger.record(entry.kind, payload)
    report = build_report(run=run.run, coordinator=ledger, sites=honest)
    statements = statements_of(output, run.run).of(run.run)
    assert statements
    kept = [each for each in statements if signed or each.kind != KeyStatement.kind]
    ledgers = {COORDINATOR: ledger, **honest}
    return ReportBundle.make(report.to_json().encode(), ledgers, identity, kept)


def output_of(run: RunResult) -> Path:
    assert run.bundle is not None
    return run.bundle.parents[2]


def rewritten(
    bundle: Path, folder: Path, change: Callable[[Statement], list[Statement]]
) -> Verification:
    """The verdicts on a bundle whose statements its coordinator changed."""
    whole = ReportBundle.parse(bundle.read_bytes())
    kept = [new for old in unpack_statements(whole.files[STATEMENTS]) for new in change(old)]
    files = {**whole.files, STATEMENTS: pack_statements(kept)}
    identity = local_folder(folder, "coordinator").identity()
    report = json.loads(whole.files[REPORT])
    said = Predicate(
        federation=report["federation"], run=report["run"], signer="coordinator",
        plan_digest=report["plan_digest"],
    )  # fmt: skip
    path = folder.parent / "rewritten.zip"
    ReportBundle(files, InTotoAttestation.sign(identity, files, said)).write(path)
    return verify_file(path, Brought())


def is_card(statement: Statement) -> bool:
    said = json.loads(statement.header)
    return statement.kind == KeyStatement.kind and said["sender"] != "coordinator"


def off_the_list(statement: Statement, folder: Path) -> Statement:
    """A site's release of the very list, which it says names itself alone."""
    if statement.kind != Release.kind:
        return statement
    said = Release.model_validate_json(statement.header)
    lies = said.model_copy(update={"contributors": (said.sender,)})
    return Message.sign(local_folder(folder, said.sender).identity(), lies).statement


def second_list(statement: Statement, folder: Path) -> list[Statement]:
    """South's release of a list, signed by south for another one besides."""
    said = json.loads(statement.header)
    if statement.kind != Release.kind or said["sender"] != "south":
        return []
    identity = local_folder(folder, "south").identity()
    lies = Release.model_validate_json(statement.header).model_copy(
        update={"list_digest": "ab" * 32}
    )
    return [Message.sign(identity, lies).statement]
