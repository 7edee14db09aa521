"""The key holder: a message handler that opens one cohort a round, and remembers that it did.

It trusts its own configuration only: the pinned identity keys, the plan's digest and the opening
rule. An opening request names its contributors with their signed statements. A round is bound to
one request durably *before* anything is decrypted, so that it is no oracle that can be asked twice;
the answer is stored before it is sent. The same request gets the stored bytes again, any other
request for the same round is refused, also after a restart, whatever became of the first.

The request carries the key part of every upload (`keyparts`), and a sum with another is refused: an
aggregator can shift what is opened by numbers that it knows, and no more. In strict mode the
request carries the uploads, and the key holder adds them again whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from privagg.errors import (
    KeyMismatchError,
    LedgerError,
    OpeningRefusedError,
    PrivaggError,
    WrongRoundError,
)
from privagg.identity import Identity, Roster
from privagg.messages import (
    Challenge,
    Message,
    Opening,
    OpenRequest,
    Presence,
    Refusal,
    RefusalReason,
    Upload,
    read_message,
    read_statement,
    refusal_text,
)
from privagg.secure.contributors import contributors_of
from privagg.secure.keyparts import require_key_parts, split_key_parts
from privagg.secure.opening import DecryptionKey
from privagg.secure.scheme import Fold
from privagg.secure.wire import EncryptedTensor

_SCHEMA = """
CREATE TABLE IF NOT EXISTS opening (
    run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    request_sha256 TEXT NOT NULL, answer BLOB, PRIMARY KEY (run, round)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS opening_is_kept BEFORE UPDATE ON opening
    WHEN OLD.answer IS NOT NULL OR NEW.request_sha256 <> OLD.request_sha256
        OR NEW.run <> OLD.run OR NEW.round <> OLD.round OR NEW.attempt <> OLD.attempt
    BEGIN SELECT RAISE(ABORT, 'openings are never changed'); END;
CREATE TRIGGER IF NOT EXISTS opening_stays BEFORE DELETE ON opening
    BEGIN SELECT RAISE(ABORT, 'openings are never deleted'); END;
"""


DOES_NOT_OPEN = (
    "the sum does not open to a value in the proven range: a contributor made up its upload, or "
    "the sum was altered where it was added. Nobody can tell who, as no part of a sum is ever "
    "opened to find out. Nothing was opened, the round is not asked again, and every contributor "
    "stays charged. Rehearse the plan on made-up data before a new run; there sites can be left out"
)


@dataclass(frozen=True)
class OpeningRule:
    """What the plan asks of an opening, in the key holder's own configuration.

    Args:
        plan_digest: SHA-256 (hex) of the plan.
        names: committed roster, in the order of the contributor bitmap.
        minimum_survivors: fewer contributions are never opened.
        addends: more contributions are never opened.
        rounds: rounds of the plan; a higher round number is refused.
        strict: whether the uploads must come along to be added again.
    """

    plan_digest: str
    names: tuple[str, ...]
    minimum_survivors: int
    addends: int
    rounds: int
    strict: bool


class CheckpointMemory(Protocol):
    """What the key holder remembers of the sites' ledgers; this room knows no ledger itself."""

    def tell(self, run: str, sites: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Site -> entries under each kept checkpoint that its next upload must extend."""
        ...

    def require(self, uploads: Sequence[Upload]) -> None:
        """Keep the checkpoints of verified uploads.

        Raises:
            LedgerError: one does not extend what is kept; the message names the site.
        """
        ...


class KeyHolder:
    """Opens sums under one key and one rule. Bytes in, bytes out; durable state in one file.

    Args:
        identity: signs the answers.
        key: the decryption key.
        rule: what may be opened.
        roster: pinned identity keys of the sites and of the aggregator.
        aggregator: the only party whose opening requests are considered.
        store: SQLite file of what was opened; created with mode 0600 where absent.
        checkpoints: its memory of the sites' ledgers; nothing is opened for one that was rewritten.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        key: DecryptionKey,
        rule: OpeningRule,
        roster: Roster,
        aggregator: str,
        store: Path,
        checkpoints: CheckpointMemory,
    ) -> None:
        self.identity = identity
        self._key = key
        self._rule = rule
        self._roster = roster
        self._aggregator = aggregator
        self._store = store
        self._checkpoints = checkpoints
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(store, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(self._connect()) as database:
            database.executescript(_SCHEMA)

    def handle(self, data: bytes) -> bytes:
        """Answer one opening request with an `Opening`, or with a `Refusal` that says why.

        Raises:
            MessageError, SignatureError, UnknownPartyError: the bytes are no message of a pinned
                party; there is nobody to answer.
        """
        message = read_message(data, self._roster)
        try:
            if isinstance(message.header, Challenge):
                return self._introduce(message.header)
            return self._open(message, hashlib.sha256(data).hexdigest())
        except PrivaggError as error:
            return self._refusal(message, error)

    def _introduce(self, header: Challenge) -> bytes:
        """Prove who this is, to the aggregator of this plan."""
        if header.sender != self._aggregator:
            raise OpeningRefusedError(f"{header.sender!r} is not the aggregator pinned here")
        if header.plan_digest != self._rule.plan_digest:
            raise _other_plan(header.plan_digest, self._rule)
        presence = Presence(
            run=header.run,
            round=header.round,
            attempt=header.attempt,
            sender=self.identity.name,
            plan_digest=header.plan_digest,
            nonce=header.nonce,
            problem="",
            kept_sizes=self._checkpoints.tell(header.run, self._rule.names),
        )
        return Message.sign(self.identity, presence).to_bytes()

    def _refusal(self, message: Message, error: PrivaggError) -> bytes:
        refusal = Refusal(
            run=message.header.run,
            round=message.header.round,
            attempt=message.header.attempt,
            sender=self.identity.name,
            plan_digest=message.header.plan_digest,
            reason=_reason(error),
            message=refusal_text(error),
        )
        return Message.sign(self.identity, refusal).to_bytes()

    def _open(self, message: Message, request_sha256: str) -> bytes:
        header = message.header
        if not isinstance(header, OpenRequest) or header.sender != self._aggregator:
            raise OpeningRefusedError(
                f"only {self._aggregator!r} may ask for an opening; this is a "
                f"{type(header).__name__} from {header.sender!r}"
            )
        stored = self._stored(header, request_sha256)
        if stored is not None:
            return stored
        uploads = self._check_contributions(header)
        contributors = tuple(upload.sender for upload in uploads)
        tensor, rest = self._check_tensor(header, message.payload, contributors)
        if self._rule.strict:
            self._add_again(header, rest, tensor)
        else:
            self._check_key_parts(uploads, rest, tensor)
        self._checkpoints.require(uploads)
        stored = self._bind(header, request_sha256)
        if stored is not None:
            return stored
        try:
            share = self._key.open_share(tensor.payload, len(contributors))
        except PrivaggError:
            # What is wrong with a decryption depends on the secret: one text for every case.
            error = OpeningRefusedError(DOES_NOT_OPEN)
            return self._remember(header, request_sha256, self._refusal(message, error))
        opening = Opening(
            run=header.run,
            round=header.round,
            attempt=header.attempt,
            sender=self.identity.name,
            plan_digest=header.plan_digest,
            key_id=header.key_id,
            request_sha256=request_sha256,
            contributors=contributors,
            kept_sizes=self._checkpoints.tell(header.run, self._rule.names),
        )
        answer = Message.sign(self.identity, opening, share).to_bytes()
        return self._remember(header, request_sha256, answer)

    def _check_contributions(self, header: OpenRequest) -> list[Upload]:
        """What was contributed, every signature verified; order and number as the rule says."""
        rule = self._rule
        if header.plan_digest != rule.plan_digest:
            raise _other_plan(header.plan_digest, rule)
        if header.round > rule.rounds:
            raise WrongRoundError(f"round {header.round} is beyond the plan's {rule.rounds}")
        if header.key_id != self._key.encryption_key.key_id:
            raise KeyMismatchError(
                f"the request is for key {header.key_id[:16]}..., held is "
                f"{self._key.encryption_key.key_id[:16]}..."
            )
        uploads = []
        for statement in header.contributions:
            upload = read_statement(statement, self._roster)
            if not isinstance(upload, Upload):
                raise OpeningRefusedError(f"a {type(upload).__name__} is not a contribution")
            if upload.place != header.place or upload.plan_digest != header.plan_digest:
                raise WrongRoundError(
                    f"the contribution of {upload.sender!r} is signed for run {upload.run}, round "
                    f"{upload.round}, attempt {upload.attempt}; the request is for run "
                    f"{header.run}, round {header.round}, attempt {header.attempt}"
                )
            if upload.key_id != header.key_id:
                raise KeyMismatchError(f"{upload.sender!r} encrypted under another key")
            uploads.append(upload)
        names = [upload.sender for upload in uploads]
        expected = [name for name in rule.names if name in set(names)]
        if names != expected:
            raise OpeningRefusedError(
                "contributions must name different sites of the plan in roster order, got "
                f"{', '.join(names) or 'none'}"
            )
        if not rule.minimum_survivors <= len(names) <= rule.addends:
            raise OpeningRefusedError(
                f"{len(names)} contributions; the plan opens {rule.minimum_survivors} to "
                f"{rule.addends} together"
            )
        return uploads

    def _check_tensor(
        self, header: OpenRequest, payload: bytes | memoryview, contributors: tuple[str, ...]
    ) -> tuple[EncryptedTensor, memoryview]:
        """The sum, and what follows it in the payload."""
        view = memoryview(payload)
        parameters = self._key.encryption_key.parameters
        parts = 0 if self._rule.strict else len(contributors) * parameters.key_part_bytes
        if header.tensor_bytes + parts + sum(header.upload_bytes) != len(view):
            raise OpeningRefusedError(
                f"the request's sizes do not add up to its payload of {len(view)} bytes: a sum of "
                f"{header.tensor_bytes}, {parts} of key parts, uploads of "
                f"{sum(header.upload_bytes)}"
            )
        tensor = EncryptedTensor.from_bytes(view[: header.tensor_bytes], max_bytes=len(view))
        if (tensor.run, tensor.round, tensor.attempt) != header.place:
            raise WrongRoundError("the sum is labelled with another run, round or attempt")
        if tensor.key_id != header.key_id:
            raise KeyMismatchError(f"the sum is labelled with key {tensor.key_id[:16]}...")
        if tensor.parameters_fingerprint != parameters.fingerprint:
            raise KeyMismatchError("the sum is labelled with other parameters")
        if contributors_of(tensor, self._rule.names) != contributors:
            raise OpeningRefusedError(
                "the sum's contributor set differs from the signed contributions"
            )
        if tensor.payload.nbytes != parameters.payload_bytes:
            raise OpeningRefusedError(
                f"the sum has {tensor.payload.nbytes} bytes, not {parameters.payload_bytes}"
            )
        return tensor, view[header.tensor_bytes :]

    def _check_key_parts(
        self, uploads: Sequence[Upload], rest: memoryview, tensor: EncryptedTensor
    ) -> None:
        """The sum must be multiplied with the secret as its contributors signed it."""
        parameters = self._key.encryption_key.parameters
        more, parts = split_key_parts(parameters, len(uploads), rest)
        if more:
            raise OpeningRefusedError("uploads came along, and the plan does not ask for them")
        require_key_parts(parameters, uploads, parts, tensor.payload, self._aggregator)

    def _add_again(
        self, header: OpenRequest, uploads: memoryview, claimed: EncryptedTensor
    ) -> None:
        """Strict mode: the sum must be that of the signed uploads, residue for residue."""
        if len(header.upload_bytes) != len(header.contributions):
            raise OpeningRefusedError(
                f"strict mode needs all {len(header.contributions)} uploads, got "
                f"{len(header.upload_bytes)}"
            )
        fold = self._key.encryption_key.parameters.fold()
        self._fold_uploads(fold, header, uploads)
        if memoryview(fold.payload()) != memoryview(claimed.payload).cast("B"):
            raise OpeningRefusedError("the sum is not the sum of the uploads that it names")

    def _fold_uploads(self, fold: Fold, header: OpenRequest, frames: memoryview) -> None:
        start = 0
        for size, statement in zip(header.upload_bytes, header.contributions, strict=True):
            upload = read_message(frames[start : start + size], self._roster)
            start += size
            if upload.statement != statement:
                raise OpeningRefusedError(
                    f"the upload of {upload.header.sender!r} is not the one its statement names"
                )
            fold.add(EncryptedTensor.from_bytes(upload.payload, max_bytes=size).payload)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._store, timeout=30, isolation_level=None)
        # FULL alone leaves the last commit to the next sync of the folder: after a power loss the
        # rollback journal would be back, and with it the round unbound.
        database.execute("PRAGMA synchronous=EXTRA")
        return database

    def _stored(self, header: OpenRequest, request_sha256: str) -> bytes | None:
        with closing(self._connect()) as database:
            row = database.execute(
                "SELECT request_sha256, answer FROM opening WHERE run = ? AND round = ?",
                (header.run, header.round),
            ).fetchone()
        if row is None:
            return None
        if row[0] != request_sha256:
            raise OpeningRefusedError(
                f"round {header.round} of run {header.run} was opened already, for another "
                "request; a second cohort of one round is never opened"
            )
        return None if row[1] is None else bytes(row[1])

    def _bind(self, header: OpenRequest, request_sha256: str) -> bytes | None:
        """Bind the round to this request for good; the stored answer where there is one."""
        with closing(self._connect()) as database:
            database.execute(
                "INSERT OR IGNORE INTO opening VALUES (?, ?, ?, ?, NULL)",
                (header.run, header.round, header.attempt, request_sha256),
            )
        return self._stored(header, request_sha256)

    def _remember(self, header: OpenRequest, request_sha256: str, answer: bytes) -> bytes:
        """Store the answer of a bound round; where another process was first, its answer."""
        with closing(self._connect()) as database:
            database.execute(
                "UPDATE opening SET answer = ? WHERE run = ? AND round = ? AND answer IS NULL",
                (answer, header.run, header.round),
            )
        stored = self._stored(header, request_sha256)
        if stored is None:
            raise OpeningRefusedError(f"{self._store} did not keep the opening; nothing is sent")
        return stored


def _other_plan(digest: str, rule: OpeningRule) -> WrongRoundError:
    return WrongRoundError(
        f"the request is for plan {digest[:16]}..., this key holder opens under "
        f"{rule.plan_digest[:16]}... only"
    )


def _reason(error: PrivaggError) -> RefusalReason:
    if isinstance(error, KeyMismatchError):
        return "key"
    if isinstance(error, WrongRoundError):
        return "plan"
    if isinstance(error, LedgerError):
        return "ledger"
    return "cohort"


def opened_rounds(store: Path) -> Sequence[tuple[str, int, int]]:
    """(run, round, attempt) of everything a key holder's store says was opened."""
    with closing(sqlite3.connect(store)) as database:
        return database.execute(
            "SELECT run, round, attempt FROM opening WHERE answer IS NOT NULL ORDER BY 1, 2"
        ).fetchall()
