"""Sums that contributors opened together: what each of them signed, held against the record.

A consent or a release is signed over the list's digest, which is over every contributor's signed
upload. So an opened sum is one that enough of its contributors released, and no other of that round
was, unless a site signed two lists; then it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from privagg.audit.claims import Findings
from privagg.errors import PrivaggError, VerificationError
from privagg.privacy.plan import Plan
from privagg.protocol.messages import Consent, KeyStatement, Release, Statement, list_digest
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import AttemptId
from privagg.report.model import Report, RoundReport
from privagg.secure.registry import scheme
from privagg.secure.scheme import Occasion, Parameters

CARDS = "cards: each contributor's own key in this run, signed"
RELEASES = "opened sums: released by enough of their contributors, for one list a round"


@dataclass
class Agreements:
    """Cards, consents and releases of one run, taken one by one.

    Args:
        report: what the run is said to have been.
        plan: its plan.

    Attributes:
        cards: site -> its card.
        uploads: ((round, attempt), site) -> the statement of its upload.
        signed: (round, attempt) -> what contributors signed of a list.
    """

    report: Report
    plan: Plan
    cards: dict[str, KeyStatement] = field(default_factory=dict)
    uploads: dict[tuple[AttemptId, str], Statement] = field(default_factory=dict)
    signed: dict[AttemptId, list[Consent | Release]] = field(default_factory=dict)

    def take_card(self, card: KeyStatement) -> None:
        """A site's statement of its own key, checked against the run already.

        Raises:
            VerificationError: it signed another before.
        """
        if self.cards.setdefault(card.sender, card) != card:
            raise VerificationError(f"{card.sender!r} signed two cards of one run")

    def take(self, said: Consent | Release) -> None:
        """A consent or a release.

        Raises:
            VerificationError: its site signed another list in the same round.
        """
        attempt = (said.round, said.attempt)
        for other in (each for key in self.signed if key[0] == said.round
                      for each in self.signed[key]):  # fmt: skip
            if other.sender == said.sender and other.list_digest != said.list_digest:
                raise VerificationError(
                    f"round {said.round}: {said.sender!r} signed two lists of contributors; what "
                    "it keeps was restored from an older copy, or it breaks the protocol"
                )
        if said.sender not in said.contributors or said.key_id != self.report.scheme.key_id:
            raise VerificationError(
                f"round {said.round}: {said.sender!r} signed a list that it is not on, or for "
                "another key"
            )
        self.signed.setdefault(attempt, []).append(said)

    def report_on(self, findings: Findings, facts: Callable[[], Mapping[str, object]]) -> None:
        """Say what contributors' signatures prove of the opened sums.

        Args:
            findings: gets the claims.
            facts: the scheme's parameters as recorded; cards and key are signed for them.
        """
        findings.section = "run"
        try:
            parameters = scheme(self.report.scheme.name).load_parameters(facts())
        except PrivaggError as error:
            findings.attested(
                RELEASES, self.report.scheme.name, by=COORDINATOR,
                settle=f"the scheme's parameters, which cannot be read: {error}",
            )  # fmt: skip
            return
        opened = [r for r in self.report.rounds if r.outcome == "opened"]
        named = {site for r in opened for site in r.survivors}
        _say(findings, CARDS, len(named), len(named & self.cards.keys()), "sites")
        proved = sum(self._is_proved(r, parameters) for r in opened)
        _say(findings, RELEASES, len(opened), proved, "contributors")

    def _is_proved(self, ended: RoundReport, parameters: Parameters) -> bool:
        """Whether enough of its contributors signed that they released exactly this sum."""
        attempt = (ended.round, ended.attempt)
        uploads = [self.uploads.get((attempt, site)) for site in ended.survivors]
        digest = list_digest(each for each in uploads if each is not None)
        said = [each for each in self.signed.get(attempt, ()) if each.list_digest == digest]
        members = tuple(site for site in ended.cohort if site in self.cards)
        try:
            recovery = parameters.recovery(Occasion(self.report.run, *attempt, members))
            if recovery is None or None in uploads:
                return False
            recovery.require_list(ended.survivors)
        except PrivaggError:  # too few cards, or contributors that the rule lets nobody open
            return False
        released = {each.sender for each in said if isinstance(each, Release)}
        consented = {each.sender for each in said if isinstance(each, Consent)}
        needed = self.plan.minimum_survivors if recovery.needs_consent(ended.survivors) else 0
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
