"""Sums that contributors opened together: what each of them signed, held against the record.

A consent or a release is signed over the list's digest, which is over every contributor's signed
upload. So an opened sum is one that enough of its contributors released, and no other of that round
was, unless a site signed two lists; then it is named. The key that all of it is signed for is made
again here, from the keys on the sites' cards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from privagg.audit.claims import Findings
from privagg.digest import is_digest_of
from privagg.errors import PrivaggError, VerificationError
from privagg.privacy.plan import Plan
from privagg.protocol.key_statement import epoch_name
from privagg.protocol.messages import Consent, Release, Statement, list_digest
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import AttemptId
from privagg.report.model import Report, RoundReport
from privagg.secure.registry import scheme
from privagg.secure.scheme import Occasion, Parameters

CARDS = "cards: each contributor's own key in this run, signed"
MADE_OF_CARDS = "key of the run: made from these cards, for this rule, run and roster"
RELEASES = "opened sums: released by enough of their contributors, for one list a round"


@dataclass
class Agreements:
    """Cards, consents and releases of one run, taken one by one.

    Args:
        report: what the run is said to have been.
        plan: its plan.

    Attributes:
        cards: first round -> site -> the statement of its card from there on.
        uploads: ((round, attempt), site) -> the statement of its upload.
        signed: (round, attempt) -> what contributors signed of a list.
    """

    report: Report
    plan: Plan
    cards: dict[int, dict[str, Statement]] = field(default_factory=dict)
    uploads: dict[tuple[AttemptId, str], Statement] = field(default_factory=dict)
    signed: dict[AttemptId, list[Consent | Release]] = field(default_factory=dict)

    def take_card(self, first: int, site: str, card: Statement) -> None:
        """A site's statement of its own key from round `first` on, checked against the run already.

        Args:
            first: the first round under it.
            site: whose card.
            card: its statement.

        Raises:
            VerificationError: it signed another before.
        """
        if self.cards.setdefault(first, {}).setdefault(site, card) != card:
            raise VerificationError(f"{site!r} signed two cards of one run")

    def take(self, said: Consent | Release) -> None:
        """A consent or a release.

        Raises:
            VerificationError: its site signed a list that it cannot have signed.
        """
        key_id = self.report.key_id_of(said.round)
        if said.sender not in said.contributors or said.key_id != key_id:
            raise VerificationError(
                f"round {said.round}: {said.sender!r} signed a list that it is not on, or for "
                "another key"
            )
        self.signed.setdefault((said.round, said.attempt), []).append(said)

    def report_on(
        self,
        findings: Findings,
        started: Callable[[], Mapping[str, Any]],
        recorded: Callable[[], Mapping[int, Mapping[str, str] | None]],
        federation: str,
    ) -> None:
        """Say what contributors' signatures prove of the opened sums.

        Args:
            findings: gets the claims.
            started: facts that the coordinator recorded as the run began: the scheme's parameters,
                for which cards and key are signed.
            recorded: first round -> the keys on the cards from there on, as the coordinator said.
            federation: SHA-256 (hex) of who is who, as cards and key name it.

        Raises:
            VerificationError: a site signed two lists of one round.
        """
        findings.section = "run"
        try:
            facts = started()
            parameters = scheme(self.report.scheme.name).load_parameters(
                facts.get("scheme", {}).get("parameters", {})
            )
        except PrivaggError as error:
            findings.attested(
                RELEASES, self.report.scheme.name, by=COORDINATOR,
                settle=f"the scheme's parameters, which cannot be read: {error}",
            )  # fmt: skip
            return
        self._require_one_list(binds_by_consent=parameters.binds_by_consent)
        made_of = {first: cards or {} for first, cards in recorded().items()}
        for first, cards in sorted(made_of.items()):
            stated = f"key {self.report.key_id_of(first)[:16]}"
            with findings.guarded(MADE_OF_CARDS, stated):
                self._report_on_key(findings, first, parameters, cards, federation)
        opened = [r for r in self.report.rounds if r.outcome == "opened"]
        named = {(self.plan.epoch(r.round).first, site) for r in opened for site in r.survivors}
        shown = {(first, site) for first, cards in self.cards.items() for site in cards}
        _say(findings, CARDS, len(named), len(named & shown), "sites")
        keyed = {first: cards.keys() for first, cards in made_of.items()}
        proved = sum(
            self._is_proved(r, parameters, keyed.get(self.plan.epoch(r.round).first, ()))
            for r in opened
        )
        _say(findings, RELEASES, len(opened), proved, "contributors")

    def _require_one_list(self, *, binds_by_consent: bool) -> None:
        """Refuse two lists in one attempt, and one after the site's round was bound to another.

        Raises:
            VerificationError: a site signed such lists.
        """
        before: dict[tuple[str, int], list[Consent | Release]] = {}
        for attempt in sorted(self.signed):
            for said in self.signed[attempt]:
                place = said.sender, said.round
                for other in before.get(place, []):
                    binds = binds_by_consent or isinstance(other, Release)
                    if other.list_digest != said.list_digest and (
                        binds or other.attempt == said.attempt
                    ):
                        raise VerificationError(
                            f"round {said.round}: {said.sender!r} signed two lists of contributors;"
                            " what it keeps was restored from an older copy, or it breaks the "
                            "protocol"
                        )
                before.setdefault(place, []).append(said)

    def _report_on_key(
        self,
        findings: Findings,
        first: int,
        parameters: Parameters,
        recorded: Mapping[str, str],
        federation: str,
    ) -> None:
        """Make the key again from the recorded cards, each held against its site's signature.

        A run under this scheme has cards, as every upload is signed for its plan: a record without
        them keeps back what its own key would be held against.

        Raises:
            VerificationError: they are kept back, or are not those that sites signed.
        """
        key_id, signed = self.report.key_id_of(first), self.cards.get(first, {})
        stated, names = f"key {key_id[:16]}", self.plan.epoch(first).names
        if not recorded:
            raise VerificationError(
                f"the record keeps back the cards that key {key_id[:16]} of a "
                "masked run was made from"
            )
        if strangers := recorded.keys() - {*names}:
            raise VerificationError(f"a card of {min(strangers)!r}, which is no site of the plan")
        in_order = (site for site in names if site in recorded)
        cards = {site: bytes.fromhex(recorded[site]) for site in in_order}
        for site, statement in signed.items():
            if not is_digest_of(cards.get(site, b""), statement.payload_digest):
                raise VerificationError(f"the card that {site!r} signed is not the one recorded")
        made = scheme(self.report.scheme.name).joint_key(
            parameters.for_roster(self.plan.in_round(first).addends),
            epoch=epoch_name(self.report.run, first),
            roster=federation,
            cards=cards,
        )
        unsigned = [site for site in cards if site not in signed]
        found = f"key {made.key_id[:16]} of {len(cards)} cards"
        if made.key_id == key_id and unsigned:
            findings.attested(
                MADE_OF_CARDS, stated, by=COORDINATOR,
                settle=f"the cards that {', '.join(unsigned)[:160]} signed",
            )  # fmt: skip
            return
        findings.check(
            MADE_OF_CARDS, stated, found, made.key_id == key_id,
            compared=1 + len(cards),
        )  # fmt: skip

    def _is_proved(
        self, ended: RoundReport, parameters: Parameters, keyed: Collection[str]
    ) -> bool:
        """Whether enough of its contributors signed that they released exactly this sum.

        Args:
            ended: how the round is recorded to have ended.
            parameters: the scheme's.
            keyed: sites of whose cards the run's key was made; it says who was asked, whichever
                cards' statements are left in the bundle.
        """
        attempt = (ended.round, ended.attempt)
        uploads = [self.uploads.get((attempt, site)) for site in ended.survivors]
        digest = list_digest(each for each in uploads if each is not None)
        said = [
            each
            for each in self.signed.get(attempt, ())
            if (each.list_digest, each.contributors) == (digest, ended.survivors)
        ]
        planned = self.plan.in_round(ended.round)
        parameters = parameters.for_roster(planned.addends)
        members = tuple(site for site in ended.cohort if site in keyed)
        try:
            recovery = parameters.recovery(Occasion(self.report.run, *attempt, members))
            if recovery is None or None in uploads:
                return False
            recovery.require_list(ended.survivors)
        except PrivaggError:  # too few cards, or contributors that the rule lets nobody open
            return False
        released = {each.sender for each in said if isinstance(each, Release)}
        consented = {each.sender for each in said if isinstance(each, Consent)}
        needed = planned.minimum_survivors if recovery.needs_consent(ended.survivors) else 0
        return len(released) >= parameters.least_releases and len(consented) >= needed


def _say(findings: Findings, subject: str, stated: int, signed: int, who: str) -> None:
    if signed:
        findings.check(
            subject, f"{stated} recorded", f"{signed} signed by {who}", True, compared=8 * signed
        )
    if signed < stated:
        findings.attested(
            subject, f"{stated - signed} of {stated} without enough statements", by=COORDINATOR,
            settle=f"the statements that {who} signed",
        )  # fmt: skip
