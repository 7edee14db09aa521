"""Every way of changing the evidence is found, and named."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from privagg.audit import ReportBundle, Verification
from privagg.audit.untrusted import check_numbers
from privagg.cli.console import console
from privagg.cli.verify import print_verification
from privagg.errors import UnreadableBundleError, VerificationError
from privagg.identity.keys import Identity
from privagg.privacy.ledger import Bundle, Checkpoint, Ledger
from privagg.privacy.ledger.merkle import Frontier, leaf_hash
from tests.audit.conftest import Evidence, bundle_of, failures
from tests.report.worlds import World, distributed

Path = tuple[str | int, ...]
EXPORT = "ledgers/leuven.jsonl"


# --- edits of a report by whoever signs it --------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("sites", 0, "epsilon_after_run"), "0.1", "epsilon_after_run"),
        (("sites", 0, "epsilon_before_run"), "0.01", "epsilon_before_run"),
        (("sites", 1, "budget", "epsilon"), "20", "budget.epsilon"),
        (("sites", 1, "committed", "epsilon"), "0.2", "committed.epsilon"),
        (("sites", 1, "committed", "certified"), False, "committed.certified"),
        (("sites", 2, "guarantees", 1, "epsilon"), "0.2", r"guarantees[1].epsilon"),
        (("sites", 2, "guarantees", 0, "assumptions"), [], "assumptions (length)"),
        (("sites", 2, "guarantees", 0, "event", "terms", 0, "count"), 9, "event.terms[0].count"),
        (("sites", 0, "history", 1, "epsilon_after"), "0.1", "history[1].epsilon_after"),
        (("sites", 0, "history", 1, "outcome"), "aborted", "history[1].outcome"),
        (("sites", 0, "declared_records"), 9, "declared_records"),
        (("sites", 0, "accountants", 0, "epsilon"), "0.1", "accountants[0].epsilon"),
        (("sites", 0, "ledger", "root"), "ab" * 32, "another ledger"),
        (("sites", 0, "ledger", "entries"), 4, "another ledger"),
        (("rounds", 1, "survivors"), ["st-anna"], "rounds[1].survivors"),
        (("rounds", 0, "metrics", "accuracy"), 0.99, "rounds[0].metrics.accuracy"),
        (("model", "sha256"), "cd" * 32, "model.sha256"),
        (("plan", "noise_multiplier"), "30", "plan"),
        (("plan_digest",), "ab" * 32, "plan_digest"),
        (("custody",), "sites", "custody"),
        (("scheme", "protects"), False, "scheme"),
        (("summary", 0), "All is well.", "summary[0]"),
        (("unprotected", 0), "Nothing.", "unprotected[0]"),
        (("assumptions",), [], "assumptions (length)"),
        (("generator",), "dice", "generator"),
    ],
)
def test_a_report_edited_by_its_own_signer_is_found(
    evidence: Evidence, path: Path, value: Any, named: str
) -> None:
    report = evidence.report
    assert _get(report, path) != value
    _put(report, path, value)
    made = evidence.verify(evidence.with_report(report))
    assert not made.holds
    assert named in failures(made)


def test_a_peers_figure_is_recomputed_too(evidence: Evidence) -> None:
    report = evidence.report
    assert report["sites"][0]["accountants"][2]["name"] == "pld"
    report["sites"][0]["accountants"][2]["epsilon"] = "0.1"
    assert "pld's figure beside it" in failures(evidence.verify(evidence.with_report(report)))
    report = evidence.report
    report["sites"][0]["accountants"].append(
        {**report["sites"][0]["accountants"][2], "name": "prv"}
    )
    made = evidence.verify(evidence.with_report(report))
    assert made.holds
    assert any("recorded, not recomputed" in claim.settle for claim in made.claims)


def test_a_missing_or_added_institution_is_found(evidence: Evidence) -> None:
    report = evidence.report
    del report["sites"][2]
    assert not evidence.verify(evidence.with_report(report)).holds
    report = evidence.report
    report["sites"].append({**report["sites"][0], "name": "elsewhere"})
    assert "does not hold this ledger" in failures(evidence.verify(evidence.with_report(report)))


# --- signatures, keys, files ----------------------------------------------------------------------


def test_a_changed_file_is_named(evidence: Evidence) -> None:
    report = evidence.report
    report["generated"] = "2020-01-01T00:00:00Z"  # nothing but the signature covers it
    files = {**evidence.bundle.files, "report.json": json.dumps(report).encode()}
    made = evidence.verify(ReportBundle(files, evidence.bundle.attestation))
    assert "digest of report.json" in failures(made)
    files = {**evidence.bundle.files, "notes.txt": b"hello"}
    made = evidence.verify(ReportBundle(files, evidence.bundle.attestation))
    assert "digest of notes.txt: not covered" in failures(made).replace(" / ", ": ")[:200]
    assert "do not belong to the report" in failures(made)


def test_a_swapped_key_and_a_forged_signature_are_named(evidence: Evidence) -> None:
    stranger = Identity.generate("coordinator")
    made = evidence.verify(evidence.resigned({}, stranger))
    assert "the key was swapped" in failures(made)
    honest = evidence.bundle.attestation
    forged = replace(honest, signature=stranger.sign(honest.payload))
    made = evidence.verify(ReportBundle(evidence.bundle.files, forged))
    assert "forged" in failures(made)
    made = evidence.verify(evidence.resigned({}, evidence.world.identities["leuven"]))
    assert not made.holds


def test_a_federation_forged_whole_needs_known_keys(evidence: Evidence, tmp_path: Any) -> None:
    """Its signatures all hold; only a key known from elsewhere tells it apart."""
    other = World(tmp_path, distributed(rounds=3), dropped={2: ("leuven",)}).play()
    forged = bundle_of(other)
    assert evidence.verify(forged).holds
    known = evidence.world.identities["st-anna"].public_hex
    assert "the party was replaced" in failures(evidence.verify(forged, keys={"st-anna": known}))


def test_a_ledger_of_another_federation_is_found(evidence: Evidence, tmp_path: Any) -> None:
    other = World(tmp_path, distributed(rounds=3), dropped={2: ("leuven",)}).play()
    export = b"".join(other.sites["leuven"].bundle().to_bytes())
    made = evidence.verify(evidence.resigned({EXPORT: export}))
    assert "leuven" in failures(made)
    assert "another ledger" in failures(made) or "key was swapped" in failures(made)


# --- ledgers --------------------------------------------------------------------------------------


def _lines(evidence: Evidence) -> list[bytes]:
    return evidence.bundle.files[EXPORT].splitlines(keepends=True)


def _with_lines(evidence: Evidence, lines: list[bytes]) -> Verification:
    return evidence.verify(evidence.resigned({EXPORT: b"".join(lines)}))


def test_deleting_reordering_truncating_entries_is_found(evidence: Evidence) -> None:
    lines = _lines(evidence)
    half = (len(lines) - 1) // 2
    for place in range(1, half + 1):
        without = lines[:place] + lines[place + 1 :]
        assert not _with_lines(evidence, without).holds
        paired = [line for n, line in enumerate(lines) if n not in (place, place + half)]
        assert not _with_lines(evidence, paired).holds
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:]]
    assert "entry 1" in failures(_with_lines(evidence, swapped))
    assert not _with_lines(evidence, lines[:-1]).holds
    short = [*lines[:half], *lines[half + 1 : -1]]  # the last entry and its checkpoint: a rollback
    assert "another ledger" in failures(_with_lines(evidence, short))


def test_a_replayed_checkpoint_inside_a_ledger_is_found(evidence: Evidence) -> None:
    lines = _lines(evidence)
    lines[-1] = lines[-2]
    assert "wrong place" in failures(_with_lines(evidence, lines))


def test_an_entry_edited_with_everything_signed_anew_is_found(evidence: Evidence) -> None:
    """The owner of a ledger lies about epsilon and re-signs all of it: the proof contradicts."""
    export = Bundle.parse(evidence.bundle.files[EXPORT])
    bodies = list(export.bodies)
    place = next(i for i, body in enumerate(bodies) if b'"kind":"charge"' in body)
    entry = json.loads(bodies[place])
    entry["payload"]["epsilon_after"] = "0.001"
    bodies[place] = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    key = evidence.world.identities["leuven"].key
    trees = accumulate(
        bodies, lambda tree, body: tree.append(leaf_hash(body))[0], initial=Frontier()
    )
    notes = tuple(
        Checkpoint("privagg.ledger/leuven", tree.size, tree.root()).sign(key)
        for tree in trees
        if tree.size
    )
    forged = b"".join(Bundle(tuple(bodies), notes).to_bytes())
    made = evidence.verify(evidence.resigned({EXPORT: forged}))
    assert f"entry {place}: the running totals" in failures(made)


# --- history --------------------------------------------------------------------------------------


def test_rollback_and_fork_are_found_by_kept_checkpoints(evidence: Evidence, tmp_path: Any) -> None:
    leuven = evidence.world.sites["leuven"]
    kept = leuven.checkpoint()
    identities = evidence.world.identities
    other = World(tmp_path, distributed(rounds=1), run="elsewhere")
    # The same owner with the same key tells another story of the same length.
    fork = Ledger.create(tmp_path / "fork.sqlite", "leuven", signing_key=identities["leuven"].key)
    for number in range(1, 12):
        fork.record("released", {"what": f"figure {number}", "who": "leuven"})
    made = evidence.verify(checkpoints=[fork.checkpoint(4)])
    assert "forked" in failures(made)
    made = evidence.verify(checkpoints=[kept, fork.checkpoint(12)])
    assert "rolled back" in failures(made) or "forked" in failures(made)
    longer = Ledger.open(tmp_path / "fork.sqlite").checkpoint()
    assert not evidence.verify(checkpoints=[longer]).holds
    made = evidence.verify(checkpoints=[other.sites["charite"].checkpoint()])
    assert "does not verify" in failures(made) or "no signature" in failures(made)
    with pytest.raises(UnreadableBundleError, match="not a checkpoint"):
        evidence.verify(checkpoints=["hello"])


# --- bytes ----------------------------------------------------------------------------------------


def _found(evidence: Evidence, data: bytes) -> bool:
    try:
        return not evidence.verify(ReportBundle.parse(data)).holds
    except VerificationError:
        return True


@pytest.mark.parametrize("edits", [100, pytest.param(1000, marks=pytest.mark.nightly)])
def test_of_random_edits_none_is_missed(evidence: Evidence, edits: int) -> None:
    """68 % byte flips, 2 % edits under a forged key, 30 % signed by the coordinator itself."""
    rng = np.random.default_rng(20)
    data = evidence.bundle.to_bytes()
    for _ in range(68 * edits // 100):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        assert _found(evidence, bytes(changed))
    paths = [path for path in _leaves(evidence.report) if not _open_to_all(path)]
    stranger = Identity.generate("coordinator")
    for number in range(32 * edits // 100):
        report = evidence.report
        path = paths[int(rng.integers(len(paths)))]
        _put(report, path, _edited(_get(report, path), rng))
        bundle = evidence.with_report(report)
        if number < edits // 50:  # whatever was edited, the signature is not the coordinator's
            bundle = evidence.resigned({"report.json": bundle.files["report.json"]}, stranger)
        assert _found(evidence, bundle.to_bytes()), path


@pytest.mark.parametrize("edits", [25, pytest.param(150, marks=pytest.mark.nightly)])
def test_random_bytes_in_a_ledger_signed_anew_are_found(evidence: Evidence, edits: int) -> None:
    """Whoever puts the bundle together changes a site's ledger, whose key it does not have."""
    rng = np.random.default_rng(21)
    export = evidence.bundle.files[EXPORT]
    for _ in range(edits):
        changed = bytearray(export)
        changed[rng.integers(len(export))] ^= 1 << int(rng.integers(8))
        assert _found(evidence, evidence.resigned({EXPORT: bytes(changed)}).to_bytes())


def _open_to_all(path: Path) -> bool:
    """What nothing recomputes, and `verify` says so: the time, a peer accountant unknown here."""
    peer = len(path) == 5 and path[2] == "accountants" and path[3] > 0 and path[4] == "name"
    return peer or path == ("generated",)


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, number))
    else:
        yield path


def _edited(value: Any, rng: np.random.Generator) -> Any:
    """A value that means something else; a number changes by a thousandth at least."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(value + 1 if rng.random() < 0.5 else 2 * value + 3)
    if value is None:
        return "x"
    try:
        number = Decimal(value)
    except ArithmeticError:
        place = int(rng.integers(len(value) + 1))
        return f"{value[:place]}{rng.choice(list('xyz'))}{value[place:]}"
    if not number.is_finite():
        return "1"
    return format(number * Decimal("1.001") + Decimal("0.001"), "f")


def _get(report: Any, path: Path) -> Any:
    for step in path:
        report = report[step]
    return report


def _put(report: Any, path: Path, value: Any) -> None:
    _get(report, path[:-1])[path[-1]] = copy.deepcopy(value)


# --- hostile files --------------------------------------------------------------------------------


def test_other_zip_files_are_refused_unopened() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("report.json", b"\0" * 50_000_000)
    with pytest.raises(UnreadableBundleError):
        ReportBundle.parse(made.getvalue())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "", "a\\b", ".x", "x" * 200])
def test_names_that_leave_the_bundle_are_refused(evidence: Evidence, name: str) -> None:
    with pytest.raises(VerificationError, match="cannot name a file"):
        ReportBundle({name: b""}, evidence.bundle.attestation).to_bytes()


def test_numbers_out_of_proportion_are_refused_before_they_are_written_out(
    evidence: Evidence,
) -> None:
    report = evidence.report
    report["sites"][0]["committed"]["event"]["distance"] = "1E-999999999"
    with pytest.raises(UnreadableBundleError, match="out of all proportion"):
        evidence.verify(evidence.with_report(report))
    export = evidence.bundle.files[EXPORT].replace(b'"distance":"0.', b'"distance":"1E-99999999')
    made = evidence.verify(evidence.resigned({EXPORT: export}))
    assert "out of all proportion" in failures(made)
    report = evidence.report
    report["sites"][0]["committed"]["event"]["distance"] = "0." + "1" * 5000
    with pytest.raises(UnreadableBundleError, match="digits"):
        evidence.verify(evidence.with_report(report))


@pytest.mark.parametrize(
    "number",
    ["1E+9999999", "1e-1001", r"\n1e99999", r"1E+\u0039999999", "١e٩٩٩٩", "1_0e1_000_0", "1e٠٩٩٩٩"],
)
def test_numbers_out_of_proportion_are_seen_in_every_spelling(number: str) -> None:
    for data in (f'{{"a": "{number}"}}', f'["x", "{number}", 1]', f'" {number} "'):
        with pytest.raises(UnreadableBundleError, match="out of all proportion"):
            check_numbers(data.encode(), what="this")


@pytest.mark.parametrize(
    "text",
    [
        "123e4567-e89b-12d3-a456-426614174000",
        "00000000-0000-0000-0000-123e45678901",
        "sha256:123e45678901",
        "1e999 or 1e9999",
        "1E+1000",
        "0." + "1" * 3000,
    ],
)
def test_texts_that_only_look_like_numbers_pass(text: str) -> None:
    data = f'{{"id": "{text}", "n": 1e3, "same": ["{text}"]}}'.encode()
    assert check_numbers(data, what="this") == data


def test_a_name_that_stands_twice_is_refused(evidence: Evidence) -> None:
    text = evidence.bundle.files["report.json"].decode()
    twice = text.replace('"federation"', '"federation": "other",\n  "federation"', 1).encode()
    with pytest.raises(UnreadableBundleError, match="stands twice"):
        evidence.verify(evidence.resigned({"report.json": twice}))


def test_terminal_controls_in_a_report_are_not_printed(
    evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evidence.report
    report["generator"] = "\x1b[2J\x1b]0;owned\x07"
    print_verification(console(), evidence.verify(evidence.with_report(report)))
    shown = capsys.readouterr().out
    assert "CONTRADICTED: " in shown
    assert "\x1b" not in shown
