"""A site's half of an opening that the contributors make together; it masks the site's uploads too.

Each site makes a key for the run and states it (its card). For an upload it draws a seed of its own
and keeps a piece of what it dealt to the others. Later it is shown a list of whose uploads are in
the sum. Before anything leaves, the attempt is bound to that list for good: another list is
refused, also after a restart. Then the site consents to the list, or releases what takes the masks
off this sum and no other. Before it releases, the round is bound too: no further attempt of it is
masked, so that no second sum of one round is ever unmasked (proofs/masking.md).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from privagg.digest import tree_digest
from privagg.encoding.vectors import IntVector
from privagg.errors import (
    CohortError,
    KeyMismatchError,
    LedgerTamperedError,
    MessageError,
    OpeningRefusedError,
    WrongRoundError,
)
from privagg.privacy.plan import Plan
from privagg.protocol.frames import Message, read_statement
from privagg.protocol.holder import Holder
from privagg.protocol.key_statement import RunKey
from privagg.protocol.messages import (
    Consent,
    Header,
    KeyRequest,
    Release,
    ReleaseRequest,
    list_digest,
)
from privagg.secure.opening import MaskingKey
from privagg.secure.scheme import Occasion, Parameters, Recovery

_SCHEMA = """
CREATE TABLE IF NOT EXISTS piece (
    run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    members TEXT NOT NULL, attachments TEXT NOT NULL, kept BLOB NOT NULL,
    PRIMARY KEY (run, round, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS agreed (
    run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL, list_digest TEXT NOT NULL,
    PRIMARY KEY (run, round, attempt)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS agreed_is_kept BEFORE UPDATE ON agreed
    BEGIN SELECT RAISE(ABORT, 'agreements are never changed'); END;
CREATE TRIGGER IF NOT EXISTS agreed_stays BEFORE DELETE ON agreed
    BEGIN SELECT RAISE(ABORT, 'agreements are never deleted'); END;
"""


class _Piece(NamedTuple):
    """What is kept of an upload: of which round, its attachments' digest, the site's own shares."""

    occasion: Occasion
    attachments: str
    kept: bytes


class MaskHolder(Holder):
    """Masks a site's contributions, and releases with the others. State in a file of its own.

    What it answers; everything else gets a signed `Refusal`:

    1. `KeyRequest`: as `Holder`.
    2. `ReleaseRequest` from the pinned aggregator, for this plan, an attempt in which this site
       uploaded, a list with its own upload on it that holds every rule, no other list in this
       attempt before and no release in another. The attempt is bound to the list first. Where
       consents are needed and none come along: `Consent`. Else, with enough of them to this very
       list: `Release`, before which the round is bound; stored before it leaves; asked again, the
       same bytes.

    Args:
        plan, holding: as for `Holder`.
    """

    def __init__(self, plan: Plan, **holding: Any) -> None:
        super().__init__(plan, **holding)
        with self._database() as database:
            database.executescript(_SCHEMA)

    def require_own(
        self, key: RunKey, number: int, attempt: int, *, charged: Callable[[], bool]
    ) -> None:
        """Refuse cards among which this site's own is missing or another, and a bound round.

        An attempt that was masked is masked again only where the site was killed before its upload
        was stored. Its charge was stored by then: a ledger without it is an older copy, and the
        upload may have left.

        A site that released masks for no further attempt of the round, and attempts are masked in
        rising order alone: two lists of two attempts could both be opened, each by other sites
        (proofs/masking.md). Where few shares open a seed, neither does one that consented.

        Args:
            key: the run's.
            number, attempt: of the round that this site is asked to contribute to.
            charged: whether the ledger holds a charge of this attempt.

        Raises:
            KeyMismatchError, OpeningRefusedError: it is; nothing was charged.
            LedgerTamperedError: the attempt was masked, and the ledger knows of no charge.
            KeyErasedError: its secret is gone.
        """
        with self._database() as database:
            _require_maskable(database, key.run, number, attempt)
            again = database.execute(
                "SELECT 1 FROM piece WHERE run = ? AND round = ? AND attempt = ?",
                (key.run, number, attempt),
            ).fetchone()
        if again is not None and not charged():
            raise LedgerTamperedError(
                f"round {number}, attempt {attempt}, of run {key.run!r} was masked here, and the "
                "ledger has no charge of it: it was set back to an older copy. Nothing was spent"
            )
        own = self._secret(key.run, key.first).encryption_key.to_bytes()
        if key.members.get(self.identity.name) != own:
            raise KeyMismatchError(
                f"the cards of run {key.run!r} do not hold the one that {self.identity.name!r} "
                "made; nothing was spent"
            )

    def protect(self, key: RunKey, values: IntVector, occasion: Occasion) -> tuple[bytes, bytes]:
        """See `Holder.protect`: masked under a fresh seed, a piece of which is stored first.

        What was kept of earlier attempts goes: nothing of them is released any more.
        """
        secret, name = self._secret(key.run, key.first), self.identity.name
        masked = secret.mask(values, name, key.key, occasion)
        with self._whole() as database:  # another process may release meanwhile
            _require_maskable(database, key.run, occasion.round, occasion.attempt)
            database.execute(
                "DELETE FROM piece WHERE run = ? AND (round < ? OR round = ? AND attempt < ?)",
                (key.run, occasion.round, occasion.round, occasion.attempt),
            )
            database.execute(
                "INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?, ?, ?)",
                (
                    key.run,
                    occasion.round,
                    occasion.attempt,
                    json.dumps(occasion.members),
                    tree_digest(masked.attachments),
                    masked.kept,
                ),
            )
        return masked.payload, masked.attachments

    def release(self, message: Message, key: RunKey) -> bytes:
        """Answer a `ReleaseRequest` with a `Consent` or a `Release`.

        All that binds is one transaction, durable before the answer is returned.

        Raises:
            CohortError, OpeningRefusedError: the list is not one that this site opens.
            As `Holder.handle` refuses.
        """
        header = message.header
        if not isinstance(header, ReleaseRequest):
            raise MessageError(f"a {type(header).__name__} asks for no release")
        self._require_aggregator(header)
        self.check_plan(header)
        self._until()
        with self._whole():
            return self._released(header, message, key)

    def _released(self, header: ReleaseRequest, message: Message, key: RunKey) -> bytes:
        """See `release`: inside its transaction, in which nothing else is masked or bound."""
        piece = self._piece(header)
        listed, recovery = self._check_list(header, key, piece)
        digest = list_digest(header.contributions)
        needed, binds = recovery.needs_consent(listed), key.parameters.binds_by_consent
        self._agree(header, digest)
        if needed and header.consents:
            self._check_consents(header, digest, listed)
        consents = needed and not header.consents
        stored = self._bind(header, digest) if binds or not consents else None
        self._piece(header)  # no later attempt was masked before the round was bound
        said = {
            **self.reply_to(header),
            "key_id": header.key_id,
            "list_digest": digest,
            "contributors": listed,
        }
        if consents:
            return Message.sign(self.identity, Consent(**said)).to_bytes()
        if stored is not None:
            return stored
        shares = self._secret(key.run, key.first).release(
            self.identity.name, key.key, piece.occasion, listed, message.payload, piece.kept
        )
        answer = Message.sign(self.identity, Release(**said), shares).to_bytes()
        return self._remember(header, digest, answer)

    def _agree(self, header: ReleaseRequest, digest: str) -> None:
        """Bind the attempt to this list for good.

        Raises:
            OpeningRefusedError: it is bound to another.
        """
        with self._database() as database:
            database.execute(
                "INSERT OR IGNORE INTO agreed VALUES (?, ?, ?, ?)", (*header.round_id, digest)
            )
            row = database.execute(
                "SELECT list_digest FROM agreed WHERE run = ? AND round = ? AND attempt = ?",
                header.round_id,
            ).fetchone()
        if row != (digest,):
            raise OpeningRefusedError(
                f"round {header.round}, attempt {header.attempt}, of run {header.run} is bound to "
                "another list; a second cohort of one round is never opened"
            )

    def forget(self, run: str) -> None:
        """Erase the run's key and what is kept of its uploads; the run is over."""
        self.erase(run)
        with self._database() as database:
            database.execute("DELETE FROM piece WHERE run = ?", (run,))

    def first_under_key(self, header: Header) -> int:
        """See `Holder.first_under_key`: of its roster epoch, in which this site takes part."""
        if header.round > self._plan.rounds:
            raise WrongRoundError(f"round {header.round} is beyond the plan's {self._plan.rounds}")
        epoch, name = self._plan.epoch(header.round), self.identity.name
        if isinstance(header, KeyRequest):
            if header.round != epoch.first:
                raise WrongRoundError(
                    f"no key of run {header.run} begins in round {header.round}; the roster is the "
                    f"same in {epoch.rounds_text}"
                )
            if name not in epoch.names:
                raise WrongRoundError(f"{name!r} takes no part in {epoch.rounds_text}")
        return epoch.first

    def last_under_key(self, number: int) -> int:
        """See `Holder.last_under_key`."""
        return self._plan.epoch(number).last

    def parameters_of(self, first: int) -> Parameters:
        """See `Holder.parameters_of`: of that epoch's number of sites."""
        return self._parameters.for_roster(self._plan.in_round(first).addends)

    def _secret(self, run: str, first: int) -> MaskingKey:
        key = self._key_of(run, first)
        if not isinstance(key, MaskingKey):
            raise KeyMismatchError(f"what is held of run {run!r} masks nothing")
        return key

    def _piece(self, header: ReleaseRequest) -> _Piece:
        with self._database() as database:
            row = database.execute(
                "SELECT members, attachments, kept FROM piece "
                "WHERE run = ? AND round = ? AND attempt = ?",
                header.round_id,
            ).fetchone()
        if row is None:
            raise CohortError(
                f"{self.identity.name!r} keeps no upload of round {header.round}, attempt "
                f"{header.attempt}; it opens no sum that it is not in"
            )
        members = tuple(json.loads(row[0]))
        return _Piece(Occasion(*header.round_id, members), row[1], bytes(row[2]))

    def _check_list(
        self, header: ReleaseRequest, key: RunKey, piece: _Piece
    ) -> tuple[tuple[str, ...], Recovery]:
        """The contributors, and the rules of their round; every statement's signature verified."""
        name, uploads = self.identity.name, self.check_contributions(header, key.key_id)
        listed = tuple(upload.sender for upload in uploads)
        own = next((upload for upload in uploads if upload.sender == name), None)
        if own is None or own.key_part_digest != piece.attachments:
            raise CohortError(f"the upload that {name!r} made in this round is not on the list")
        if not set(listed) <= set(piece.occasion.members):
            raise CohortError("the list names a site that was not asked in this round")
        recovery = key.parameters.recovery(piece.occasion)
        if recovery is None:
            raise KeyMismatchError(f"a sum of scheme {key.parameters.scheme!r} needs no release")
        recovery.require_list(listed)
        return listed, recovery

    def _check_consents(self, header: ReleaseRequest, digest: str, listed: Sequence[str]) -> None:
        """Enough of the listed sites consent to this very list, and this site to no other."""
        consenting = set[str]()
        for statement in header.consents:
            said = read_statement(statement, self._roster)
            if not isinstance(said, Consent) or said.sender not in listed:
                raise OpeningRefusedError(f"{said.sender!r} is no contributor that consents")
            if (said.round_id, said.list_digest) != (header.round_id, digest):
                own = (said.sender, said.round_id) == (self.identity.name, header.round_id)
                raise OpeningRefusedError(
                    "this site's own signature stands under another list of this attempt: its "
                    "store was restored from an older copy. It releases nothing"
                    if own
                    else f"{said.sender!r} consented to another list than the one shown here"
                )
            consenting.add(said.sender)
        needed = self._plan.in_round(header.round).minimum_survivors
        if len(consenting) < needed:
            raise OpeningRefusedError(
                f"{len(consenting)} contributors consent to the list; "
                f"{needed} have to before anything is released"
            )

    def _answer(self, message: Message, data: bytes) -> bytes:
        raise MessageError(f"a site's masks do not answer a {type(message.header).__name__}")


def _require_maskable(database: sqlite3.Connection, run: str, number: int, attempt: int) -> None:
    """Refuse a round of which another attempt is bound to a list, and what an attempt has passed.

    Of the last attempt that was masked a row of `piece` is always there.
    """
    bound = database.execute(
        "SELECT attempt FROM opening WHERE run = ? AND round = ? AND attempt <> ?",
        (run, number, attempt),
    ).fetchone()
    if bound is not None:
        raise OpeningRefusedError(
            f"round {number} of run {run!r} is bound to a list of attempt {bound[0]}, which may "
            "be opened yet; no other attempt of it is masked. Nothing was spent"
        )
    later = database.execute(
        "SELECT round, attempt FROM piece WHERE run = ? AND (round, attempt) > (?, ?)",
        (run, number, attempt),
    ).fetchone()
    if later is not None:
        raise OpeningRefusedError(
            f"round {later[0]}, attempt {later[1]}, of run {run!r} was masked before; round "
            f"{number}, attempt {attempt}, comes too late. Nothing was spent"
        )
