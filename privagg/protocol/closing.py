"""How a round ends at a site: what was opened is proved and recorded, the peers' word is kept."""

from __future__ import annotations

from typing import Any

from privagg.errors import CohortError, LedgerTamperedError, PrivaggError, SignatureError
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, Checkpoint, Ledger
from privagg.privacy.plan import Plan
from privagg.protocol.frames import read_statement
from privagg.protocol.key_statement import KeyTerms
from privagg.protocol.messages import Opening, Release, RoundClose, RoundStart, Upload, list_digest
from privagg.protocol.peers import PeerCheckpoints
from privagg.protocol.pins import Pins

STOPPED_BY_CLAIM = "the coordinator says that the round stopped"
"""What a site's ledger says of it; nothing else is known to the site."""

MAX_CLAIM = 256
"""Characters of the coordinator's reason that a site's ledger quotes."""


class Closing:
    """What a site does once a round is over: records it, and keeps the others' checkpoints.

    Nothing recorded here gives budget back. With a peer whose ledger contradicts what this site
    keeps of it, the site takes part in no further round; with one that left a proof out, in none
    until the proof comes. Checkpoints are kept of rounds that the site took no part in, too.

    Args:
        name: the site's.
        pins: what it believes.
        plan: the plan whose digest it pinned.
        ledger: its own; the peers' checkpoints are kept in its database.
        secure: False where the randomness is a test's; the realised event is then infinite.
        terms: of the runs' keys; how many contributors must have released before a sum counts as
            opened.
    """

    def __init__(
        self,
        *,
        name: str,
        pins: Pins,
        plan: Plan,
        ledger: Ledger,
        secure: bool,
        terms: KeyTerms,
    ) -> None:
        self._name = name
        self._terms = terms
        self._pins = pins
        self._plan = plan
        self._ledger = ledger
        self._secure = secure
        self._peers = PeerCheckpoints(ledger.keeper, pins.roster)

    def report_kept_sizes(self, run: str) -> dict[str, tuple[int, ...]]:
        """Site -> entries under each kept checkpoint of its ledger that the next must extend."""
        return self._peers.report_kept_sizes(run, self._plan.names)

    def require_asked(self, start: RoundStart) -> None:
        """Refuse a round with a site whose history was rewritten, or that is not asked for proofs.

        Raises:
            LedgerTamperedError: a site in the cohort showed a ledger that contradicts what is kept,
                or has not proved that it does not.
            CohortError: the round does not ask a site to extend what is kept of its ledger here.
        """
        distrusted = self._ledger.distrusted()
        for site in start.cohort:
            if site in distrusted:
                raise LedgerTamperedError(
                    f"{self._name!r} takes part in no round with {site!r}: {distrusted[site]}"
                )
        reported = self._peers.reported(start.run, start.cohort)
        for site in start.cohort:
            unasked = set(reported.get(site, ())) - set(start.kept_sizes.get(site, ()))
            if site != self._name and unasked:
                raise CohortError(
                    f"the round does not ask {site!r} to prove that its ledger extends the "
                    f"{min(unasked)} entries that {self._name!r} keeps a checkpoint of"
                )

    def record(self, close: RoundClose) -> None:
        """Append the realised event, or the stop; then keep the survivors' checkpoints.

        That a round stopped is the coordinator's claim, and is recorded as one. The key holder's
        statement that it was opened overrides it, whichever comes first.

        Raises:
            CohortError, SignatureError: the close is not proved by the key holder's statement, or
                lacks a survivor's; without the latter the realised event is recorded all the same.
            LedgerTamperedError: a survivor's ledger was rewritten, or not proved not to be; it is
                not trusted any more, or until it is.
        """
        place = {"run": close.run, "round": close.round, "attempt": close.attempt}
        uploaded = self._ledger.recorded("upload", close.round_id)
        if close.outcome == "stopped":
            if not uploaded or self._ledger.recorded("realised", self._subject(close)):
                raise CohortError("there is no open attempt of this site that could have stopped")
            self._record_stopped(close, place)
            return
        opener = self._check_opening(close)
        again = self._ledger.recorded("realised", self._subject(close))
        if self._ledger.recorded("charge", self._subject(close)):
            self._record_realised(close, opener, place)
        elif self._name in close.survivors:
            raise CohortError("the opened sum names this site, which was charged for none of it")
        self._ledger.forget_uploads(close.run, through=(close.round, close.attempt))
        self._keep_checkpoints(close, took_part=uploaded, again=again)

    def _record_stopped(self, close: RoundClose, place: dict[str, Any]) -> None:
        """Note what the coordinator claims, once; later words of its about the same change nothing.

        Its free text stands as a quotation, not in the entry's own words: the site signs those.
        """
        if self._ledger.entry_about("aborted", close.round_id) is not None:
            return
        facts = {"claimed_by": close.sender, "claim": close.reason[:MAX_CLAIM]}
        self._ledger.record("aborted", {**place, "reason": STOPPED_BY_CLAIM, "facts": facts})

    def _check_opening(self, close: RoundClose) -> str:
        """Who opened, once its statement names exactly the survivors."""
        if close.opening is None:
            raise CohortError("a round cannot have been opened without its key holder's statement")
        opening = read_statement(close.opening, self._pins.roster)
        if not isinstance(opening, Opening) or opening.round_id != close.round_id:
            raise SignatureError("the opening's statement is for another round")
        # Of a run that it took no part in, a site may have no key; then it has no share in the sum.
        taken = self._ledger.run_key(close.run, self._terms.first_under_key(close.round))
        if (
            opening.sender != self._pins.opener
            or opening.plan_digest != self._pins.plan_digest
            or (taken is not None and opening.key_id != taken.key_id)
        ):
            raise SignatureError(
                f"the statement of {opening.sender!r} is not one of {self._pins.opener!r} for "
                "this plan and key"
            )
        in_order = self._plan.in_order(close.survivors)
        if opening.contributors != close.survivors or close.survivors != in_order:
            raise CohortError("the coordinator and the key holder name different contributors")
        if not self._plan.in_round(close.round).is_quorum(in_order):
            raise CohortError(
                f"{', '.join(in_order)} are not contributors of round {close.round} by this plan"
            )
        self._check_releases(close)
        return opening.sender

    def _check_releases(self, close: RoundClose) -> None:
        """Where nobody holds a key, what was opened is what enough contributors released."""
        digest, released = list_digest(close.contributions), set[str]()
        for statement in close.releases:
            said = read_statement(statement, self._pins.roster)
            if (
                not isinstance(said, Release)
                or said.round_id != close.round_id
                or (said.list_digest, said.contributors) != (digest, close.survivors)
            ):
                raise CohortError(f"{said.sender!r} released for another list than the close's")
            released.add(said.sender)
        first = self._terms.first_under_key(close.round)
        least = self._terms.parameters_of(first).least_releases
        if len(released & {*close.survivors}) < least:
            raise CohortError(
                f"{len(released)} contributors signed that they unmasked the sum; "
                f"{least} have to before it opens"
            )

    def _record_realised(self, close: RoundClose, opener: str, place: dict[str, Any]) -> None:
        planned = self._plan.in_round(close.round)
        event = planned.realised_event(self._name, close.survivors)
        if event.terms and not self._secure:
            event = DpEvent.once(Mechanism(kind="non-private"))
        self._ledger.record(
            "realised",
            {
                **place,
                **BudgetKey.of(self._plan, self._name)._asdict(),
                "event": event,
                "attested_by": opener,
                "facts": {
                    "survivors": list(close.survivors),
                    "contributed": self._name in close.survivors,
                    "noise_stddev_grid": planned.noise_stddev_text,
                },
            },
        )

    def _keep_checkpoints(self, close: RoundClose, *, took_part: bool, again: bool) -> None:
        """Keep what the other survivors signed of their ledgers in this very round.

        Of a close that comes again, perhaps replayed long after, later checkpoints may speak by
        now: that it proves nothing about them accuses nobody.
        """
        uploads = []
        for statement in close.contributions:
            upload = read_statement(statement, self._pins.roster)
            if not isinstance(upload, Upload) or upload.round_id != close.round_id:
                raise CohortError("a contribution's statement is not an upload of this round")
            uploads.append(upload)
        if tuple(upload.sender for upload in uploads) != close.survivors:
            raise CohortError("the close does not hold the signed statement of every survivor")
        others = [upload for upload in uploads if upload.sender != self._name]
        reported = self._peers.reported(close.run, close.survivors)
        problems: dict[str, PrivaggError] = {
            site: error
            for site, error in self._peers.keep(others, reported).items()
            if not again or isinstance(error, LedgerTamperedError)
        }
        silent = [
            upload
            for upload in others
            if took_part
            and upload.sender in problems
            and not isinstance(problems[upload.sender], LedgerTamperedError)
        ]
        # This site had asked for the proof. It may be hidden, or the upload be one stored before
        # the question, which a coordinator that resumes has sent again: either way nothing more is
        # contributed beside that ledger until a proof comes, and that has to cover this one too.
        self._peers.keep_unproved(silent)
        unproved = {upload.sender: Checkpoint.parse(upload.checkpoint) for upload in silent}
        for site, error in problems.items():
            if site in unproved or isinstance(error, LedgerTamperedError):
                self._ledger.distrust(site, str(error), unproved=unproved.get(site))
        for site, error in problems.items():
            raise LedgerTamperedError(f"the ledger of {site!r}: {error}")

    def _subject(self, close: RoundClose) -> tuple[str, int, int, str, str]:
        return (*close.round_id, *BudgetKey.of(self._plan, self._name))
