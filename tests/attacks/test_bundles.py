"""Bundles that lie and are signed throughout: the lie is found, or stands under its maker's name.

Every liar here is an owner: it signs its own ledger, uploads or openings with its own key, and the
coordinator signs the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from privagg.audit import Brought, Methods, ReportBundle, Verdict, Verification, verify_file
from privagg.audit.statements import MAX_BYTES, pack_statements, unpack_statements
from privagg.errors import LedgerError, UnreadableBundleError
from privagg.identity.keys import Identity, check_public_key
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import ChargeRequest, Verifier
from privagg.protocol.frames import Message
from privagg.protocol.messages import KeyStatement, Statement, Upload
from tests.audit.conftest import Evidence, bundle_of, failures
from tests.report.worlds import World, distributed

OLD = Path("tests/vectors/bundle-649ed6a.privagg.zip")
OF_VERSION_2 = Path("tests/vectors/bundle-10b6322.privagg.zip")
LOOKS_AWAY = ("require_charged", "require_one_ending", "require_said_once")


@dataclass
class Lying(World):
    """A world whose parties say something else than what is so.

    Attributes:
        started: changes the facts with which the run begins.
        charged: changes what leuven states in its charges.
        uploaded: changes what leuven attests in its uploads.
    """

    started: Callable[[dict[str, Any]], None] = lambda facts: None
    charged: dict[str, Any] = field(default_factory=dict)
    uploaded: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        record = self.coordinator.record

        def lie(kind: str, values: dict[str, Any]) -> Any:
            self.started(values["facts"])
            return record(kind, values)

        with patch.object(self.coordinator, "record", lie):
            super().start()

    def facts(self, name: str, number: int) -> dict[str, Any]:
        return super().facts(name, number) | (self.charged if name == "leuven" else {})

    def attested(self, name: str, number: int) -> dict[str, str]:
        return super().attested(name, number) | (self.uploaded if name == "leuven" else {})


def _verify(world: World, methods: Methods) -> Verification:
    with ExitStack() as stack:  # the liar's software looks away
        for name in LOOKS_AWAY:
            stack.enter_context(patch(f"privagg.report.build.{name}", lambda *_: None))
        bundle = bundle_of(world)
    return Evidence(world, bundle, methods).verify()


def _attested(made: Verification) -> str:
    """Everything that rests on somebody's word, or on nothing, in one text."""
    return "; ".join(
        f"{c.subject}: {c.claimed} / attested by {c.by or 'nobody'}; {c.settle}"
        for c in (*made.of(Verdict.ATTESTED), *made.of(Verdict.UNDECIDED))
    )


# --- what the coordinator's record says -----------------------------------------------------------


def _scheme(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts["scheme"].update(changes)


def _put(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts.update(changes)


def _one_key(facts: dict[str, Any]) -> None:
    facts["parties"]["key-holder"] = facts["parties"]["coordinator"]


def _no_key_holder(facts: dict[str, Any]) -> None:
    del facts["parties"]["key-holder"]


def _small_order(facts: dict[str, Any]) -> None:
    facts["parties"]["key-holder"] = "01" + "00" * 31


RECORDED = {
    "one key for coordinator and key holder": (_one_key, "one party acts for both"),
    "no key holder": (_no_key_holder, "'key-holder' is not in the roster"),
    "a key of small order": (_small_order, "point of small order"),
    "256 bits of security": (_scheme(security_bits=256), "states security_bits 128"),
    "99 bits of security": (_scheme(security_bits=99), "the scheme's levels are 128, 192, 256"),
    "another key": (_scheme(key_id="ab" * 32), "states key_id 6d6d"),
    "an invented generator": (_put(generator="quantum dice"), "states generator"),
    "the coordinator opens": (_put(opener="coordinator"), "the coordinator itself opened"),
    "a stranger opens": (_put(opener="auditor"), "'auditor' is not in the roster"),
    "a site opens under an authority": (_put(opener="leuven"), "'leuven' is a site"),
}


@pytest.mark.parametrize("lie", RECORDED)
def test_a_record_that_lies_about_parties_or_scheme_is_contradicted(
    tmp_path: Path, methods: Methods, lie: str
) -> None:
    change, words = RECORDED[lie]
    made = _verify(Lying(tmp_path, distributed(rounds=2), started=change).play(), methods)
    assert not made.holds
    assert words in failures(made)


def test_parameters_that_do_not_reach_the_level_are_contradicted(
    tmp_path: Path, methods: Methods
) -> None:
    chain = {"ring_degree": 2048, "primes": [str(2**53 - 111)], "special": None}
    lie = _scheme(parameters={"chain": {**chain, "security_bits": 192}}, security_bits=192)
    world = Lying(tmp_path, distributed(rounds=2), started=lie)
    world.charged = {"security_bits": 192}
    assert "at most 128 bits" in failures(_verify(world.play(), methods))


def test_everything_that_only_the_coordinator_says_stands_under_its_name(
    tmp_path: Path, methods: Methods
) -> None:
    def invented(facts: dict[str, Any]) -> None:
        facts["versions"] = {"privagg": "99.0"}
        facts["public_table"] = {"name": "imagined", "rows": 10**6}

    world = Lying(tmp_path, distributed(rounds=2), started=invented, dropped={2: ("leuven",)})
    told = _attested(_verify(world.play(), methods))
    for claim in (
        "versions of the software: privagg 99.0 / attested by coordinator",
        "table declared public: imagined, 1000000 rows / attested by coordinator",
        "metrics: of 2 rounds / attested by coordinator",
        "refusals and absences: 1 recorded / attested by coordinator",
        "the model file itself",
    ):
        assert claim in told


# --- what a site says -----------------------------------------------------------------------------

CHARGED: dict[str, tuple[dict[str, Any], str]] = {
    "no noise": ({"noise_stddev_grid": "0"}, "states noise_stddev_grid 0"),
    "a seeded generator": ({"generator": "deterministic (tests only)"}, "states generator"),
    "17 bits of security": ({"security_bits": 17}, "states security_bits 17"),
    "another cohort": ({"cohort": ["st-anna", "leuven"]}, "states cohort"),
    "a cohort without itself": ({"cohort": ["st-anna", "charite"]}, "states cohort"),
    "a larger clip": ({"clip_norm_l2": "10"}, "charges what the plan does not say"),
    "another key": ({"key_id": "ab" * 32}, "states key_id"),
    "another custody": ({"custody": "sites"}, "charges what the plan does not say"),
}


@pytest.mark.parametrize("lie", CHARGED)
def test_a_charge_that_states_something_else_than_the_plan_is_contradicted(
    tmp_path: Path, methods: Methods, lie: str
) -> None:
    changes, words = CHARGED[lie]
    made = _verify(Lying(tmp_path, distributed(rounds=2), charged=changes).play(), methods)
    assert words in failures(made)


UPLOADED = {
    "no noise": ({"noise_stddev_grid": "0"}, "it is no share of the noise"),
    "another generator": ({"generator": "dice"}, "names the generator 'dice'"),
}


@pytest.mark.parametrize("lie", UPLOADED)
def test_an_upload_that_attests_no_noise_is_no_share(
    tmp_path: Path, methods: Methods, lie: str
) -> None:
    changes, words = UPLOADED[lie]
    made = _verify(Lying(tmp_path, distributed(rounds=2), uploaded=changes).play(), methods)
    assert words in failures(made)


class Unused(World):
    """Leuven's ledger does not say that it trained on its charges."""

    def upload(self, name: str, number: int) -> None:
        if name == "leuven":
            self.sites[name] = _Forgetful(self.sites[name])
        super().upload(name, number)


class _Forgetful:
    """A ledger that leaves `consumed` and `upload` entries out."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def __len__(self) -> int:
        return len(self._ledger)

    def consume(self, receipt: Any) -> None: ...

    def store_upload(self, receipt: Any, upload: bytes) -> None: ...


def test_a_share_without_consumed_and_upload_entries_is_contradicted(
    tmp_path: Path, methods: Methods
) -> None:
    made = _verify(Unused(tmp_path, distributed(rounds=2)).play(), methods)
    assert "the ledger holds no `consumed` entry" in failures(made)


class FreeBefore(World):
    """Leuven records an earlier run as if it had cost nothing."""

    def play(self) -> World:
        terms = self.plan.site("leuven")
        place = {"run": "earlier", "round": 1, "attempt": 1, "dataset": terms.dataset}
        self.sites["leuven"].charge(
            ChargeRequest(**place, unit="record", event=DpEvent(), plan_digest=self.plan.digest)
        )
        return super().play()


def test_an_earlier_run_that_was_free_is_contradicted(tmp_path: Path, methods: Methods) -> None:
    made = _verify(FreeBefore(tmp_path, distributed(rounds=2)).play(), methods)
    assert "charges nothing at all" in failures(made)


def test_an_earlier_run_stands_under_the_name_of_its_owner(
    tmp_path: Path, methods: Methods
) -> None:
    made = _verify(World(tmp_path, distributed(rounds=2), earlier_charges=1).play(), methods)
    assert made.holds
    assert "events of other runs: 1 runs / attested by leuven" in _attested(made)


# --- who opened what ------------------------------------------------------------------------------


class TwoAttempts(World):
    """The key holder opens round 2 under a second attempt, too, and signs it."""

    def _round(self, number: int, rng: Any) -> None:
        super()._round(number, rng)
        if number == 2:
            place = {"run": self.run, "round": 2, "attempt": 2, "outcome": "opened", "reason": ""}
            facts = {"cohort": list(self.plan.names), "survivors": list(self.plan.names)}
            self.coordinator.record("round", {**place, "facts": facts})
            self.open(2, list(self.plan.names), attempt=2)


class SaidToHaveStopped(World):
    """The key holder opened round 2; the coordinator says that it stopped."""

    def _round(self, number: int, rng: Any) -> None:
        super()._round(number, rng)
        if number == 2:
            self.open(2, list(self.plan.names))


class OpenedOthers(World):
    """The key holder signs that it opened the sum of two; three are recorded."""

    def open(self, number: int, survivors: list[str], attempt: int = 1) -> None:
        super().open(number, survivors[:2] if number == 2 else survivors, attempt)


class OpenedByAnother(World):
    """Leuven signs the opening in the key holder's place."""

    def open(self, number: int, survivors: list[str], attempt: int = 1) -> None:
        self.opener = "leuven"
        super().open(number, survivors, attempt)
        self.opener = "key-holder"


class OthersCharge(World):
    """Leuven's upload of round 2 names its charge of round 1: one charge, two releases."""

    def upload(self, name: str, number: int) -> None:
        if (name, number) == ("leuven", 2):
            here = self.receipts[name, 2]
            self.receipts[name, 2] = self.receipts[name, 1]
            with (
                patch.object(self.sites[name], "consume"),
                patch.object(self.sites[name], "store_upload"),
            ):
                super().upload(name, number)
            self.receipts[name, 2] = here
            self.sites[name].consume(here)
            self.sites[name].store_upload(here, b"leuven 2")
        else:
            super().upload(name, number)


class OtherModels(World):
    """In round 2 Leuven was started from another model than the others."""

    def attested(self, name: str, number: int) -> dict[str, str]:
        start = "ab" * 32 if (name, number) == ("leuven", 2) else "00" * 32
        return {**super().attested(name, number), "start": start}


@pytest.mark.parametrize(
    ("story", "options", "words"),
    [
        (OtherModels, {}, "'leuven' started from different models or settings"),
        (TwoAttempts, {}, "round 2 was opened under two attempts"),
        (TwoAttempts, {}, "signed a second opening of this round"),
        (SaidToHaveStopped, {"stopped": frozenset({2})}, "recorded is stopped with nobody"),
        (OpenedOthers, {}, "signed that it opened the sum of st-anna, charite; recorded"),
        (OpenedByAnother, {}, "opened by 'leuven', the opener is 'key-holder'"),
        (OthersCharge, {}, "names another charge than entry"),
    ],
)
def test_openings_and_uploads_that_contradict_the_record_are_found(
    tmp_path: Path, methods: Methods, story: type[World], options: dict[str, Any], words: str
) -> None:
    made = _verify(story(tmp_path, distributed(rounds=2), **options).play(), methods)
    assert words in failures(made)


def test_statements_that_are_left_out_leave_the_word_of_the_coordinator(
    evidence: Evidence,
) -> None:
    for left in ([], evidence.world.statements[:-1]):
        made = evidence.verify(evidence.resigned({"statements.jsonl.gz": pack_statements(left)}))
        assert made.holds
        assert "opened sums" in _attested(made)


def test_a_forged_statement_is_contradicted(evidence: Evidence) -> None:
    key, first, *rest = evidence.world.statements
    others = [
        (first.model_copy(update={"payload_digest": "ab" * 32}), "does not verify"),
        (_by_a_stranger(first), "does not verify"),
        (rest[0], "signed two uploads of one attempt"),
        (key, "signed a second statement of the run's key"),
    ]
    for statement, words in others:
        statements = [key, statement, *rest]
        made = evidence.verify(_with(evidence, statements))
        assert words in failures(made)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "another-run"}, "stated a key for run another-run"),
        ({"plan_digest": "ab" * 32}, "stated a key for plan abab"),
        ({"federation_digest": "ab" * 32}, "stated a key for federation abab"),
        ({"parameters_fingerprint": "ab" * 32}, "stated a key for parameters abab"),
        ({"key_id": "ab" * 32}, "stated a key for key abab"),
        ({"sender": "coordinator"}, "'coordinator' stated the key, the opener is 'key-holder'"),
    ],
)
def test_a_statement_of_another_key_is_contradicted(
    evidence: Evidence, changes: dict[str, str], words: str
) -> None:
    """The coordinator shows a key that the key holder did not make, or not for this run."""
    stated, *rest = evidence.world.statements
    header = KeyStatement.model_validate({**json.loads(stated.header), **changes})
    other = Message.sign(evidence.world.identities[header.sender], header).statement
    assert words in failures(evidence.verify(_with(evidence, [other, *rest])))


def test_one_last_day_for_the_sites_and_another_for_the_auditor_is_contradicted(
    evidence: Evidence,
) -> None:
    """The key holder signs twice: the auditor would read that the key is gone long before it is."""
    stated, *rest = evidence.world.statements
    header = KeyStatement.model_validate({**json.loads(stated.header), "until": "2027-01-31"})
    other = Message.sign(evidence.world.identities["key-holder"], header).statement
    assert "as another statement says" in failures(evidence.verify(_with(evidence, [other, *rest])))


def test_without_the_key_holders_statement_the_key_is_the_coordinators_word(
    evidence: Evidence,
) -> None:
    subject = "parameters and key of the scheme"
    assert subject not in _attested(evidence.verify())
    made = evidence.verify(_with(evidence, evidence.world.statements[1:]))
    assert made.holds
    assert subject in _attested(made)


def _by_a_stranger(statement: Statement) -> Statement:
    header = Upload.model_validate_json(statement.header)
    return Message.sign(Identity.generate(header.sender), header).statement


def _with(evidence: Evidence, statements: Sequence[Statement]) -> ReportBundle:
    return evidence.resigned({"statements.jsonl.gz": pack_statements(statements)})


def test_statements_that_unpack_without_end_are_not_unpacked() -> None:
    import gzip

    bomb = gzip.compress(b"\n" * (MAX_BYTES // 64) + b"x" * (1 << 22))
    with pytest.raises(UnreadableBundleError, match="no statement"):
        list(unpack_statements(bomb))
    with pytest.raises(UnreadableBundleError, match="a line of more than"):
        list(unpack_statements(gzip.compress(b"x" * (1 << 22))))
    honest = pack_statements([])
    for data in (honest[:-1], honest + honest, b"", b"hello"):
        with pytest.raises(UnreadableBundleError):
            list(unpack_statements(data))


# --- dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("year", "words"), [(1970, "before there was any such ledger"), (2099, "after the report")]
)
def test_dates_out_of_reason_are_contradicted(
    tmp_path: Path, methods: Methods, year: int, words: str
) -> None:
    now = datetime(year, 1, 1, tzinfo=UTC)
    made = _verify(World(tmp_path, distributed(rounds=2), now=now).play(), methods)
    assert words in failures(made)


def test_a_ledger_whose_clock_runs_backwards_is_contradicted(
    tmp_path: Path, methods: Methods
) -> None:
    world = World(tmp_path, distributed(rounds=2))
    world.start()
    world.now = world.now.replace(year=2025)
    with patch.object(world, "start"):
        made = _verify(world.play(), methods)
    assert "the entry before it of 2026-03-14" in failures(made)


def test_a_report_from_the_future_is_contradicted(evidence: Evidence) -> None:
    for year in ("1970", "2099"):
        report = evidence.report
        report["generated"] = report["generated"].replace("2026", year)
        assert "when the report was made" in failures(evidence.verify(evidence.with_report(report)))


# --- keys under which anybody signs ---------------------------------------------------------------

_P = 2**255 - 19
_Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL = [y | sign << 255 for y in (0, 1, _P - 1, _Y8, _P - _Y8) for sign in (0, 1)]
NOT_CANONICAL = [y | sign << 255 for y in range(_P, 2**255) for sign in (0, 1)]


@pytest.mark.parametrize("value", [*SMALL, *NOT_CANONICAL])
def test_keys_of_small_order_and_in_other_spellings_are_refused(value: int) -> None:
    raw = value.to_bytes(32, "little")
    with pytest.raises(ValueError, match="small order|canonical"):
        check_public_key(raw)
    with pytest.raises(LedgerError, match="cannot be used"):
        Verifier("privagg.ledger/x", raw)


# --- an old bundle --------------------------------------------------------------------------------


def test_a_bundle_of_an_earlier_form_is_read_and_what_it_lacks_is_attested() -> None:
    made = verify_file(OLD, Brought())
    assert made.holds
    assert "opened sums: signed by whom the custody names: 40 of 40" in _attested(made)


def test_statements_of_frames_of_version_2_are_verified_as_they_were() -> None:
    made = verify_file(OF_VERSION_2, Brought())
    assert made.holds
    found = {verdict: len(made.of(verdict)) for verdict in Verdict}
    assert found == {
        Verdict.PROVED: 94,
        Verdict.ATTESTED: 15,
        Verdict.UNDECIDED: 6,
        Verdict.CONTRADICTED: 0,
    }
    proved = {(c.section, c.recomputed) for c in made.of(Verdict.PROVED)}
    signers = [("run", "key-holder"), *((n, n) for n in ("riverside", "hillcrest", "lakeview"))]
    assert proved >= {(section, f"4 signed by {signer}") for section, signer in signers}


def test_an_honest_bundle_proves_every_opening_and_upload(evidence: Evidence) -> None:
    made = evidence.verify()
    assert made.holds
    proved = {(c.section, c.subject, c.recomputed) for c in made.of(Verdict.PROVED)}
    assert ("run", "opened sums: signed by whom the custody names", "3 signed by key-holder") in (
        proved
    )
    uploads = "uploads: signed, of this ledger's charges, with the plan's noise"
    assert ("leuven", uploads, "2 signed by leuven") in proved
