"""What sites and key holder signed in a run, held against record, plan, scheme and ledgers.

The key holder's statements show which key it made for the run, and whose uploads an opened sum
holds. A site's shows which charge in its ledger the upload belongs to, and what it says of its
noise. The payloads are not here: that the encrypted numbers are what a site says is its own word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from privagg.audit.agreed import Agreements
from privagg.audit.claims import Findings
from privagg.audit.planned import SECURE_GENERATORS
from privagg.audit.replayed import ReplayedLedger
from privagg.digest import json_digest
from privagg.errors import VerificationError
from privagg.identity.keys import Roster
from privagg.privacy.ledger import BudgetKey, Checkpoint
from privagg.privacy.ledger.entries import (
    Aborted,
    Charge,
    OfAttempt,
    Realised,
    RosterChanged,
    RunKeyTaken,
    RunStarted,
)
from privagg.privacy.plan import Plan
from privagg.privacy.unit import Custody
from privagg.protocol.frames import read_statement
from privagg.protocol.messages import (
    Consent,
    Header,
    KeyStatement,
    Opening,
    Release,
    Statement,
    Upload,
)
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import AttemptId
from privagg.report.model import Report, RoundReport
from privagg.secure.registry import scheme as find_scheme

KEY = "parameters and key of the scheme"
TAKEN = "one key in this run, taken before its first charge"
OPENINGS = "opened sums: signed by whom the custody names"
_KINDS = {kind.kind for kind in (Upload, Opening, KeyStatement, Consent, Release)}
STOPS = "attempts that this ledger calls stopped"
UPLOADS = "uploads: signed, of this ledger's charges, with the plan's noise"


@dataclass
class SignedRun:
    """The statements of one run, checked one by one.

    Args:
        report: what the run is said to have been.
        plan: its plan.
        ledgers: party -> ledger, of those that hold.
        keys: first round -> the opener's statement of the key from there on, once it was read.
        openings: (round, attempt) -> what the opener signed of the opened sum.
        uploads: ((round, attempt), site) -> what the site signed of its upload.
        sums: (round, attempt) -> tree digest of what the opener signed as the opened sum.
    """

    report: Report
    plan: Plan
    ledgers: Mapping[str, ReplayedLedger]
    keys: dict[int, KeyStatement] = field(default_factory=dict)
    openings: dict[AttemptId, Opening] = field(default_factory=dict)
    uploads: dict[tuple[AttemptId, str], Upload] = field(default_factory=dict)
    sums: dict[AttemptId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._roster = Roster(self.report.parties)
        self._agreements = Agreements(self.report, self.plan)
        self._together = self.plan.custody is Custody.EVERY_SITE
        self._rounds = {(r.round, r.attempt): r for r in self.report.rounds}
        self._first_uploads: dict[AttemptId, Upload] = {}
        self._charges = {
            (name, c.charge.round, c.charge.attempt): (c.index, c.charge)
            for name in self.plan.names
            if name in self.ledgers
            for c in self.ledgers[name].charged
            if c.charge.run == self.report.run and c.charge.key == self._key(name)
        }

    def _key(self, site: str) -> BudgetKey:
        return BudgetKey.of(self.plan, site)

    def read(self, statements: Iterable[Statement]) -> None:
        """Take every statement, each checked by itself.

        Raises:
            VerificationError: one that is not what its place in this run demands.
            MessageError, UnknownPartyError, SignatureError: as `read_statement`.
        """
        for statement in statements:
            if statement.kind not in _KINDS:
                raise VerificationError(
                    f"a statement of kind {statement.kind} does not belong here"
                )
            header = read_statement(statement, self._roster)
            if isinstance(header, KeyStatement):
                self._take_key(header, statement)
                continue
            if isinstance(header, Consent | Release):
                self._check_attempt(header)
                self._agreements.take(header)
                continue
            self._check_attempt(header)
            if isinstance(header, Opening):
                self._take_opening(header)
                self.sums[header.round, header.attempt] = statement.payload_digest
            elif isinstance(header, Upload):
                self._take_upload(header)
                place = (header.round, header.attempt), header.sender
                self._agreements.uploads[place] = statement

    def _take_key(self, stated: KeyStatement, statement: Statement) -> None:
        """The key holder's one statement of the run's key, against record, plan and roster."""
        who, first = stated.sender, stated.round
        card = self._together and who in self.plan.names
        if first > self.plan.rounds or first != self._first(first):
            raise VerificationError(
                f"{who!r} stated a key from round {first} on; none begins there"
            )
        if card and who not in self.plan.epoch(first).names:
            raise VerificationError(f"{who!r} stated a key for rounds that it takes no part in")
        if not card and first in self.keys:
            raise VerificationError(f"{who!r} signed a second statement of the run's key")
        if not card and who != self.report.opener:
            raise VerificationError(f"{who!r} stated the key, the opener is {self.report.opener!r}")
        facts = (
            ("run", stated.run, self.report.run),
            ("plan", stated.plan_digest, self.plan.digest),
            ("federation", stated.federation_digest, self._federation),
            ("parameters", stated.parameters_fingerprint, self._fingerprint(first)),
            ("key", stated.key_id, stated.key_id if card else self.report.key_id_of(first)),
        )
        for name, said, recorded in facts:
            if said != recorded:
                raise VerificationError(
                    f"{who!r} stated a key for {name} {said[:64]}, the record says {recorded[:64]}"
                )
        if card:
            self._agreements.take_card(first, who, statement)
        else:
            self.keys[first] = stated

    def _first(self, number: int) -> int:
        """The first round under the key of a round."""
        return self.plan.epoch(number).first if self._together else 1

    @property
    def _federation(self) -> str:
        return self._roster.federation_digest(
            coordinator=COORDINATOR, opener=str(self.report.opener)
        )

    def _fingerprint(self, first: int) -> str:
        """Of the scheme's parameters from a round on, as they follow from what is recorded."""
        recorded = dict(self._started().get("scheme", {}).get("parameters", {}))
        if len(self.plan.epochs) == 1 or not self._together:
            return fingerprint_of(recorded)
        whole = find_scheme(self.report.scheme.name).load_parameters(recorded)
        return whole.for_roster(self.plan.in_round(first).addends).fingerprint

    def _started(self) -> Mapping[str, Any]:
        """Facts of the run that the coordinator recorded when it began."""
        for entry in self.ledgers[COORDINATOR].entries() if COORDINATOR in self.ledgers else ():
            if isinstance(entry.payload, RunStarted) and entry.payload.run == self.report.run:
                return entry.payload.facts
        raise VerificationError("no record of the run says what the scheme's parameters are")

    def _cards(self) -> Mapping[int, Mapping[str, str] | None]:
        """First round -> the keys on the cards from there on, as the coordinator recorded them."""
        entries = self.ledgers[COORDINATOR].entries() if COORDINATOR in self.ledgers else ()
        changes = (e.payload for e in entries if isinstance(e.payload, RosterChanged))
        later = {c.first_round: c.facts.get("cards") for c in changes if c.run == self.report.run}
        return {1: self._started().get("cards"), **later}

    def _check_attempt(self, header: Header) -> None:
        attempt = (header.round, header.attempt)
        if header.run != self.report.run or attempt not in self._rounds:
            raise VerificationError(
                f"{_where(header)}: {header.sender!r} signed for run {header.run!r}; there is no "
                "such attempt in the record"
            )
        if header.plan_digest != self.plan.digest:
            raise VerificationError(f"{_where(header)}: {header.sender!r} signed for another plan")

    def _take_opening(self, opening: Opening) -> None:
        attempt = (opening.round, opening.attempt)
        ended, where = self._rounds[attempt], _where(opening)
        before = next((other for other in self.openings if other[0] == opening.round), None)
        if before is not None:
            raise VerificationError(
                f"{where}: {opening.sender!r} signed a second opening of this round, after that of "
                f"attempt {before[1]}"
            )
        if opening.sender != self.report.opener:
            raise VerificationError(
                f"{where}: opened by {opening.sender!r}, the opener is {self.report.opener!r}"
            )
        recorded = self.report.key_id_of(opening.round)
        if opening.key_id != recorded:
            raise VerificationError(
                f"{where}: opened under key {opening.key_id[:16]}, the record names {recorded[:16]}"
            )
        if ended.outcome != "opened" or opening.contributors != ended.survivors:
            raise VerificationError(
                f"{where}: {opening.sender!r} signed that it opened the sum of "
                f"{', '.join(opening.contributors)[:200]}; recorded is {ended.outcome} with "
                f"{', '.join(ended.survivors)[:200] or 'nobody'}"
            )
        planned = self.plan.in_round(opening.round)
        if not planned.is_quorum(opening.contributors):
            raise VerificationError(
                f"{where}: a sum of {len(opening.contributors)} was opened; the plan opens "
                f"{planned.minimum_survivors} to {planned.addends} together, of "
                f"{', '.join(planned.names)[:200]}"
            )
        self.openings[attempt] = opening

    def _take_upload(self, upload: Upload) -> None:
        attempt, site, where = (upload.round, upload.attempt), upload.sender, _where(upload)
        if (attempt, site) in self.uploads:
            raise VerificationError(f"{where}: {site!r} signed two uploads of one attempt")
        if site not in self._rounds[attempt].cohort:
            raise VerificationError(f"{where}: {site!r} was not asked and signed an upload")
        recorded = self.report.key_id_of(upload.round)
        if upload.key_id != recorded:
            raise VerificationError(
                f"{where}: {site!r} encrypted under key {upload.key_id[:16]}, the record names "
                f"{recorded[:16]}"
            )
        first = self._first_uploads.setdefault(attempt, upload)
        if first.start != upload.start:
            raise VerificationError(
                f"{where}: {first.sender!r} and {site!r} started from different models or settings"
            )
        if site in self.ledgers:
            self._check_charge(upload)
        self.uploads[attempt, site] = upload

    def _check_charge(self, upload: Upload) -> None:
        site, where = upload.sender, _where(upload)
        if (site, upload.round, upload.attempt) not in self._charges:
            raise VerificationError(f"{where}: {site!r} signed an upload that it never charged")
        index, charge = self._charges[site, upload.round, upload.attempt]
        ledger = self.ledgers[site]
        if upload.receipt_hash != ledger.entries(index, index + 1)[0].hash().hex():
            raise VerificationError(
                f"{where}: the upload of {site!r} names another charge than entry {index}"
            )
        ledger.replay.check_history(upload.checkpoint)
        if Checkpoint.parse(upload.checkpoint).size != index + 1:
            raise VerificationError(
                f"{where}: the checkpoint of {site!r} is not the one after its charge"
            )
        self._check_noise(upload, charge)

    def _check_noise(self, upload: Upload, charge: Charge) -> None:
        site, where = upload.sender, _where(upload)
        planned = self.plan.in_round(upload.round).noise_stddev_text
        if upload.noise_stddev_grid != planned:
            raise VerificationError(
                f"{where}: the upload of {site!r} attests noise of {upload.noise_stddev_grid} grid "
                f"units, the plan asks for {planned}: it is no share of the noise"
            )
        if upload.generator != charge.facts.get("generator", upload.generator):
            raise VerificationError(
                f"{where}: the upload of {site!r} names the generator {upload.generator!r}, its "
                f"charge {charge.facts['generator']!r}"
            )
        if charge.event.is_private and upload.generator not in SECURE_GENERATORS:
            raise VerificationError(
                f"{where}: {site!r} drew its noise from {upload.generator!r}, which protects "
                "nobody, and charged a finite ε"
            )

    def report_on(self, findings: Findings) -> None:
        """Say what the statements prove, and what is left to somebody's word."""
        opened = [r for r in self.report.rounds if r.outcome == "opened"]
        self._report_on_key(findings)
        findings.section = "run"
        signed = sum((r.round, r.attempt) in self.openings for r in opened)
        self._say(findings, OPENINGS, len(opened), signed, f"{self.report.opener}")
        if self._together:
            self._agreements.report_on(findings, self._started, self._cards, self._federation)
        for site in self.plan.names:
            findings.section = site
            shares = [r for r in opened if site in r.survivors]
            found = sum(((r.round, r.attempt), site) in self.uploads for r in shares)
            self._say(findings, UPLOADS, len(shares), found, site)
            if site in self.ledgers:
                self._say_stops(findings, site)

    def _say_stops(self, findings: Findings, site: str) -> None:
        """A signed opening overrides what a ledger says of a stop; whoever said so, it was charged.

        The site may never have been shown the opening: its entry quotes what it was told.
        """
        mine = [e.payload for e in self.ledgers[site].entries() if isinstance(e.payload, OfAttempt)]
        of_run = [payload for payload in mine if payload.run == self.report.run]
        realised = {p.attempt_subject for p in of_run if isinstance(p, Realised)}
        stops = [
            payload for payload in of_run
            if isinstance(payload, Aborted) and payload.attempt_subject not in realised
        ]  # fmt: skip
        opened = {attempt for attempt, ended in self._rounds.items() if ended.outcome == "opened"}
        for stop in stops:
            attempt = (stop.round, stop.attempt)
            where = f"round {stop.round}, attempt {stop.attempt}"
            claimed_by = stop.facts.get("claimed_by")
            said = f"{where}, by the word of {claimed_by}" if claimed_by else where
            if attempt in self.openings:
                signer = self.openings[attempt].sender
                whose = f"{claimed_by}, or {site} which quotes it," if claimed_by else site
                findings.contradicted(
                    STOPS, said,
                    f"{signer} signed its opening: {whose} does not tell the truth; the charge "
                    "stands",
                )  # fmt: skip
            elif attempt in opened:
                findings.undecided(
                    STOPS, f"{said}; the coordinator recorded that it was opened",
                    f"the statement that {self.report.opener} signed; the charge stands",
                )  # fmt: skip

    def _report_on_key(self, findings: Findings) -> None:
        findings.section = "run"
        scheme, opener = self.report.scheme, self.report.opener
        asked = {self._first(ended.round) for ended in self.report.rounds}
        for first in sorted(asked | {1}):
            key, recorded = self.keys.get(first), self.report.key_id_of(first)
            stated = f"{scheme.name}, {scheme.security_bits} bits, key {recorded[:16]}"
            if key is not None:
                findings.check(
                    KEY, stated, f"key {key.key_id[:16]} signed by {opener} for this run", True,
                    f"{opener} opens nothing under it after {key.until}", compared=5,
                )  # fmt: skip
            elif scheme.protects:
                findings.attested(
                    KEY, stated, by=COORDINATOR,
                    settle="the key holder's signed statement of its key and parameters",
                )  # fmt: skip
        for site in self.plan.names:
            findings.section = site
            if site in self.ledgers:
                self._report_on_taken(findings, site)

    def _report_on_taken(self, findings: Findings, site: str) -> None:
        """A site's ledger takes one key a run or epoch, by replay; here, which and when."""
        charged: dict[int, int] = {}
        for (name, number, _), (index, _) in self._charges.items():
            if name == site:
                first = self._first(number)
                charged[first] = min(index, charged.get(first, index))
        taken = {
            e.payload.first_round or 1: (e.index, e.payload)
            for e in self.ledgers[site].entries()
            if isinstance(e.payload, RunKeyTaken) and e.payload.run == self.report.run
        }
        for first in sorted(taken.keys() | charged.keys()):
            self._report_on_one(findings, site, first, taken.get(first), charged.get(first))

    def _report_on_one(
        self,
        findings: Findings,
        site: str,
        first: int,
        taken: tuple[int, RunKeyTaken] | None,
        charged: int | None,
    ) -> None:
        """One key that a site took: the recorded one, before its first charge under it."""
        recorded = self.report.key_id_of(first)
        stated = f"key {recorded[:16]}"
        if taken is None:
            findings.attested(
                TAKEN, stated, by=site, settle="its ledger names no key; newer versions record it"
            )
            return
        index, key = taken
        holds = (key.key_id, key.holder) == (recorded, self.report.opener)
        found = f"key {key.key_id[:16]} of {key.holder} by entry {index}"
        shown = self.keys.get(first)
        if shown is not None and (key.until, key.parameters) != (
            shown.until, shown.parameters_fingerprint,
        ):  # fmt: skip
            holds, stated = False, f"{stated} until {shown.until}"
            found = f"{found}, until {key.until}, as another statement says"
        findings.check(
            TAKEN, stated, found, holds and (charged is None or index < charged), compared=5
        )

    def _say(self, findings: Findings, subject: str, stated: int, signed: int, who: str) -> None:
        if signed:
            findings.check(subject, f"{stated} recorded", f"{signed} signed by {who}", True,
                           compared=8 * signed)  # fmt: skip
        if signed < stated:
            findings.attested(
                subject, f"{stated - signed} of {stated} without a statement", by=COORDINATOR,
                settle=f"the statements that {who} signed",
            )  # fmt: skip


def fingerprint_of(parameters: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a scheme's parameters as recorded: `Parameters.fingerprint` of the same."""
    return json_digest(dict(parameters))


def check_opened_once(findings: Findings, rounds: Iterable[RoundReport]) -> None:
    """A round is opened under one attempt at most, whoever says otherwise."""
    findings.section = "run"
    opened = [r.round for r in rounds if r.outcome == "opened"]
    twice = [number for number, count in Counter(opened).items() if count > 1]
    note = f"round {twice[0]} was opened under two attempts" if twice else ""
    findings.check("each round is opened once", f"{len(opened)} opened sums",
                   f"{len(set(opened))} rounds", not twice, note)  # fmt: skip


def _where(header: Header) -> str:
    return f"round {header.round}, attempt {header.attempt}"
