"""The keys that a site encrypts under: one a run, taken once, by its holder's signed statement."""

from __future__ import annotations

import hashlib

from privagg.errors import KeyErasedError, KeyMismatchError
from privagg.privacy.ledger import Ledger, RunKeyTaken
from privagg.protocol.frames import Message
from privagg.protocol.key_statement import FIRST, KeyTerms, RunKey


class RunKeys:
    """The keys of runs in a site's ledger.

    Args:
        ledger: the site's own; a key is in it before anything is encrypted under it.
        terms: what a statement of a key is held against.
    """

    def __init__(self, ledger: Ledger, terms: KeyTerms) -> None:
        self._ledger = ledger
        self.terms = terms
        self._last: RunKey | None = None

    def take(self, message: Message) -> None:
        """Take the key of a run for good; the same statement again changes nothing.

        Raises:
            KeyMismatchError: the run has another key, or the statement contradicts itself.
            UnknownPartyError, WrongRoundError: as `KeyTerms.take`.
        """
        run = message.header.run
        stated = self.terms.take(message, run)
        taken = RunKeyTaken(
            run=run,
            holder=self.terms.opener,
            key_id=stated.key_id,
            parameters=stated.parameters.fingerprint,
            until=stated.until,
            sha256=hashlib.sha256(stated.frame).hexdigest(),
            length_bytes=len(stated.frame),
            first_round=None if stated.first == FIRST else stated.first,
        )
        self._ledger.take_run_key(taken, stated.frame)

    def of(self, run: str, number: int = FIRST) -> RunKey:
        """The key of a run's round.

        Args:
            run: its identifier.
            number: of the round.

        Raises:
            KeyMismatchError: none was taken, or its statement has to be sent again.
        """
        first, last = self.terms.first_under_key(number), self._last
        if last is None or (last.run, last.first) != (run, first):
            frame = self._ledger.stored_run_key(run, first)
            if frame is None:
                raise KeyMismatchError(
                    f"no statement of the key of run {run!r} is kept here; it comes from "
                    f"{self.terms.opener!r} by way of the coordinator"
                )
            self._last = last = self.terms.read(frame, run)
        return last

    def require(self, run: str, number: int, key_id: str) -> RunKey:
        """The key of a round, if the round names this one and anything will be opened under it.

        Args:
            run: the run's identifier.
            number: of the round.
            key_id: that the round names.

        Raises:
            KeyMismatchError: the round names another key, or none was taken.
            KeyErasedError: its holder opens nothing under it any more.
        """
        key = self.of(run, number)
        if key.key_id != key_id:
            raise KeyMismatchError(
                f"the round uses key {key_id[:16]}..., this site took {key.key_id[:16]}... for "
                f"run {run!r}"
            )
        if key.until < self._ledger.today():
            raise KeyErasedError(
                f"{self.terms.opener!r} opens nothing of run {run!r} after {key.until}; start a "
                "new run"
            )
        return key
