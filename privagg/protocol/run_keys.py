"""The keys that a site encrypts under: one a run, taken once, by its holder's signed statement."""

from __future__ import annotations

import hashlib

from privagg.errors import KeyErasedError, KeyMismatchError
from privagg.privacy.ledger import Ledger, RunKeyTaken
from privagg.protocol.frames import Message
from privagg.protocol.key_statement import KeyTerms, RunKey


class RunKeys:
    """The keys of runs in a site's ledger.

    Args:
        ledger: the site's own; a key is in it before anything is encrypted under it.
        terms: what a statement of a key is held against.
    """

    def __init__(self, ledger: Ledger, terms: KeyTerms) -> None:
        self._ledger = ledger
        self._terms = terms
        self._last: tuple[str, RunKey] | None = None

    def take(self, message: Message) -> None:
        """Take the key of a run for good; the same statement again changes nothing.

        Raises:
            KeyMismatchError: the run has another key, or the statement contradicts itself.
            UnknownPartyError, WrongRoundError: as `KeyTerms.take`.
        """
        run = message.header.run
        stated = self._terms.take(message, run)
        taken = RunKeyTaken(
            run=run,
            holder=self._terms.opener,
            key_id=stated.key_id,
            parameters=stated.parameters.fingerprint,
            until=stated.until,
            sha256=hashlib.sha256(stated.frame).hexdigest(),
            length_bytes=len(stated.frame),
        )
        self._ledger.take_run_key(taken, stated.frame)

    def of(self, run: str) -> RunKey:
        """The key of a run.

        Raises:
            KeyMismatchError: none was taken, or its statement has to be sent again.
        """
        if self._last is None or self._last[0] != run:
            frame = self._ledger.stored_run_key(run)
            if frame is None:
                raise KeyMismatchError(
                    f"no statement of the key of run {run!r} is kept here; it comes from "
                    f"{self._terms.opener!r} by way of the coordinator"
                )
            self._last = run, self._terms.read(frame, run)
        return self._last[1]

    def require(self, run: str, key_id: str) -> RunKey:
        """The key of a run, if a round names this one and anything will be opened under it.

        Raises:
            KeyMismatchError: the round names another key, or none was taken.
            KeyErasedError: its holder opens nothing under it any more.
        """
        key = self.of(run)
        if key.key_id != key_id:
            raise KeyMismatchError(
                f"the round uses key {key_id[:16]}..., this site took {key.key_id[:16]}... for "
                f"run {run!r}"
            )
        if key.until < self._ledger.today():
            raise KeyErasedError(
                f"{self._terms.opener!r} opens nothing of run {run!r} after {key.until}; start a "
                "new run"
            )
        return key
