"""The key holder: a message handler that opens one cohort a round, and remembers that it did.

It trusts its own configuration only: the pinned identity keys and the plan. An opening request
names its contributors with their signed statements. A round is bound to one request durably
*before* anything is decrypted, so that it is no oracle that can be asked twice; the answer is
stored before it is sent. The same request gets the stored bytes again, any other request for the
same round is refused, also after a restart, whatever became of the first.

The key of a run is made here when it is first asked for, stated under this party's signature, and
erased with the last planned round's result, or when the owner's approval ends or is withdrawn.

The request carries the key part of every upload (`key_parts`), and a sum with another is refused:
an aggregator can shift what is opened by numbers that it knows, and no more. In strict mode the
request carries the uploads, and the key holder adds them again whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from privagg.errors import (
    ApprovalError,
    KeyErasedError,
    KeyMismatchError,
    LedgerError,
    OpeningRefusedError,
    PrivaggError,
    WrongRoundError,
)
from privagg.identity.keys import Identity, Roster
from privagg.identity.secretfile import require_private
from privagg.privacy.plan import Plan
from privagg.protocol import key_store as keystore
from privagg.protocol.frames import Message, read_message, read_statement
from privagg.protocol.key_parts import require_key_parts, split_key_parts
from privagg.protocol.key_statement import FIRST
from privagg.protocol.key_store import KeyStore
from privagg.protocol.messages import (
    Challenge,
    KeyRequest,
    KeyStatement,
    Opening,
    OpenRequest,
    Presence,
    Refusal,
    RefusalReason,
    Upload,
    refusal_text,
)
from privagg.protocol.peers import PeerCheckpoints
from privagg.secure.contributors import contributors_of
from privagg.secure.opening import DecryptionKey, KeyGenerator
from privagg.secure.scheme import Buffer, Parameters
from privagg.secure.wire import EncryptedTensor

_SCHEMA = f"""{keystore.SCHEMA}
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


class KeyHolder:
    """Makes a key a run, and opens sums under it by one plan. Bytes in, bytes out; state in a file.

    What it answers; everything else gets a signed `Refusal`. First of all, keys whose day is over,
    and this plan's where no approval is in force, are erased:

    1. All only from the pinned aggregator, for this plan.
    2. `Challenge`, at any time: who this is, and whether a new run would get a key.
    3. `KeyRequest`, for a run without a key: while an approval is in force, a key is made, stored
       and stated. For a run with one: the same statement again, while an approval is in force.
    4. `OpenRequest`, for a round that is bound to a request: the stored answer to that very
       request or, where none was stored yet, as in 5; any other is refused, other attempts too.
    5. `OpenRequest`, for a round that is not: signed uploads of the plan's sites under the run's
       key, as many as the plan opens; the sum is theirs; no contributor's ledger was rewritten.
       Then bind the round to it for good, open, store, answer.

    Args:
        plan: the agreed plan; what may be opened follows from it.
        identity: signs the answers.
        key_generator: makes and reads the scheme's secret keys.
        parameters: the scheme's, chosen for the plan before any key exists.
        until: last day, UTC (`YYYY-MM-DD`), on which this party's owner lets it open for the plan;
            raises `ApprovalError` where the owner does not. No key outlives the day that it gave
            when the key was made.
        roster: pinned identity keys of the sites and of the aggregator.
        aggregator: the only party whose requests are considered.
        store: SQLite file of keys and of what was opened; created with mode 0600 where absent.
        checkpoints: its memory of the sites' ledgers; nothing is opened for one that was rewritten.
        today: the day, UTC, as `until` writes it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        identity: Identity,
        key_generator: KeyGenerator,
        parameters: Parameters,
        until: Callable[[], str],
        roster: Roster,
        aggregator: str,
        store: Path,
        checkpoints: PeerCheckpoints,
        today: Callable[[], str] = lambda: datetime.now(UTC).strftime("%Y-%m-%d"),
    ) -> None:
        self.identity = identity
        self._key_generator = key_generator
        self._parameters = parameters
        self._until = until
        self._today = today
        self._plan = plan
        self._roster = roster
        self._aggregator = aggregator
        self._store = store
        self._checkpoints = checkpoints
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(store, os.O_RDWR | os.O_CREAT, 0o600))
        require_private(store, "the store of keys and openings")
        with closing(self._connect()) as database:
            database.executescript(_SCHEMA)
        self._keys = KeyStore(self._connect)
        self._loaded: tuple[str, DecryptionKey] | None = None
        self.erase_ended()

    def erase_ended(self) -> None:
        """Erase the keys whose last day is over, and this plan's where no approval is in force.

        Every message does, and so does a start.
        """
        ended = self._keys.erase_ended(self._today())
        try:
            self._until()
        except ApprovalError:
            ended += self._keys.erase_unapproved(self._plan.digest)
        # Another job's holder, or another process, may have erased the key that is loaded here.
        if ended or (self._loaded is not None and not self._keys.living(self._loaded[0])):
            self._loaded = None

    def erase(self, run: str) -> None:
        """Erase the key of a run that nobody will resume."""
        with closing(self._connect()) as database:
            keystore.erase(database, run, "when the run ended")
        self._loaded = None

    def handle(self, data: bytes) -> bytes:
        """Answer a request with a `KeyStatement` or an `Opening`, or a `Refusal` that says why.

        Raises:
            MessageError, SignatureError, UnknownPartyError: the bytes are no message of a pinned
                party; there is nobody to answer.
        """
        message = read_message(data, self._roster)
        try:
            self.erase_ended()
            if isinstance(message.header, Challenge):
                return self._introduce(message.header)
            if isinstance(message.header, KeyRequest):
                return self._state_key(message.header)
            return self._open(message, hashlib.sha256(data).hexdigest())
        except PrivaggError as error:
            return self._refusal(message, error)

    def _introduce(self, header: Challenge) -> bytes:
        """Prove who this is, to the aggregator of this plan."""
        self._require_aggregator(header)
        presence = Presence(
            run=header.run,
            round=header.round,
            attempt=header.attempt,
            sender=self.identity.name,
            plan_digest=header.plan_digest,
            nonce=header.nonce,
            problem=self._problem(header.run),
            kept_sizes=self._checkpoints.report_kept_sizes(header.run, self._plan.names),
        )
        return Message.sign(self.identity, presence).to_bytes()

    def _problem(self, run: str) -> str:
        """Why a new run would get no key; empty where it would, or where it has had one."""
        try:
            if not self._keys.known(run):
                self._until()
                self._keys.require_room()
        except (ApprovalError, OpeningRefusedError) as error:
            return str(error)
        return ""

    def _require_aggregator(self, header: Challenge | KeyRequest) -> None:
        if header.sender != self._aggregator:
            raise OpeningRefusedError(f"{header.sender!r} is not the aggregator pinned here")
        if header.plan_digest != self._plan.digest:
            raise _other_plan(header.plan_digest, self._plan)

    def _state_key(self, header: KeyRequest) -> bytes:
        """State the key of a run, made now if this is the first time that it is asked for.

        What leaves is what was stored: whoever is killed on the way, and several processes at once,
        state one and the same key.
        """
        self._require_aggregator(header)
        federation = self._roster.federation_digest(
            coordinator=self._aggregator, opener=self.identity.name
        )
        if header.federation_digest != federation:
            raise WrongRoundError(
                f"the request is for federation {header.federation_digest[:16]}..., pinned here is "
                f"{federation[:16]}...: other identity keys, or other roles"
            )
        stored, until = self._keys.statement(header.run), self._until()
        if stored is None:
            self._keys.require_room()
            self._make_key(header, federation, until)
            stored = self._keys.statement(header.run)
        if stored is None:
            raise OpeningRefusedError(f"{self._store} did not keep the key; nothing is stated")
        return stored

    def _make_key(self, header: KeyRequest, federation: str, until: str) -> None:
        secret = self._key_generator.generate_key(self._parameters)
        public = secret.encryption_key
        statement = KeyStatement(
            run=header.run,
            round=FIRST,
            attempt=FIRST,
            sender=self.identity.name,
            plan_digest=header.plan_digest,
            federation_digest=federation,
            parameters_fingerprint=public.parameters.fingerprint,
            key_id=public.key_id,
            until=until,
        )
        frame = Message.sign(self.identity, statement, public.to_bytes()).to_bytes()
        self._keys.keep(
            header.run,
            plan=header.plan_digest,
            statement=frame,
            secret=secret.to_bytes(),
            until=until,
        )

    def _key_of(self, run: str) -> DecryptionKey:
        """The key of a run.

        Raises:
            KeyErasedError, KeyMismatchError: as `KeyStore.secret`.
        """
        data, loaded = self._keys.secret(run), self._loaded
        if loaded is None or loaded[0] != run:
            loaded = run, self._key_generator.load_decryption_key(self._parameters, data)
            self._loaded = loaded
        return loaded[1]

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
        self._check_plan(header)
        key = self._key_of(header.run)
        self._until()
        uploads = self._check_contributions(header, key)
        contributors = tuple(upload.sender for upload in uploads)
        tensor, rest = self._check_tensor(header, message.payload, contributors, key)
        if self._plan.strict:
            self._add_again(header, rest, tensor, key)
        else:
            self._check_key_parts(uploads, rest, tensor, key)
        self._checkpoints.require(uploads)
        stored = self._bind(header, request_sha256)
        if stored is not None:
            return stored
        try:
            share = key.open_share(tensor.payload, len(contributors))
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
            kept_sizes=self._checkpoints.report_kept_sizes(header.run, self._plan.names),
        )
        answer = Message.sign(self.identity, opening, share).to_bytes()
        return self._remember(header, request_sha256, answer)

    def _check_plan(self, header: OpenRequest) -> None:
        plan = self._plan
        if header.plan_digest != plan.digest:
            raise _other_plan(header.plan_digest, plan)
        if header.round > plan.rounds:
            raise WrongRoundError(f"round {header.round} is beyond the plan's {plan.rounds}")

    def _check_contributions(self, header: OpenRequest, key: DecryptionKey) -> list[Upload]:
        """What was contributed, every signature verified; order and number as the plan says."""
        plan, held = self._plan, key.encryption_key.key_id
        if header.key_id != held:
            raise KeyMismatchError(
                f"the request is for key {header.key_id[:16]}..., that of run {header.run} is "
                f"{held[:16]}..."
            )
        uploads = []
        for statement in header.contributions:
            upload = read_statement(statement, self._roster)
            if not isinstance(upload, Upload):
                raise OpeningRefusedError(f"a {type(upload).__name__} is not a contribution")
            if upload.round_id != header.round_id or upload.plan_digest != header.plan_digest:
                raise WrongRoundError(
                    f"the contribution of {upload.sender!r} is signed for run {upload.run}, round "
                    f"{upload.round}, attempt {upload.attempt}; the request is for run "
                    f"{header.run}, round {header.round}, attempt {header.attempt}"
                )
            if upload.key_id != header.key_id:
                raise KeyMismatchError(f"{upload.sender!r} encrypted under another key")
            uploads.append(upload)
        names = [upload.sender for upload in uploads]
        expected = [name for name in plan.names if name in set(names)]
        if names != expected:
            raise OpeningRefusedError(
                "contributions must name different sites of the plan in roster order, got "
                f"{', '.join(names) or 'none'}"
            )
        if not plan.minimum_survivors <= len(names) <= plan.addends:
            raise OpeningRefusedError(
                f"{len(names)} contributions; the plan opens {plan.minimum_survivors} to "
                f"{plan.addends} together"
            )
        return uploads

    def _check_tensor(
        self,
        header: OpenRequest,
        payload: bytes | memoryview,
        contributors: tuple[str, ...],
        key: DecryptionKey,
    ) -> tuple[EncryptedTensor, memoryview]:
        """The sum, and what follows it in the payload."""
        view = memoryview(payload)
        parameters = key.encryption_key.parameters
        parts = 0 if self._plan.strict else len(contributors) * parameters.key_part_bytes
        if header.tensor_bytes + parts + sum(header.upload_bytes) != len(view):
            raise OpeningRefusedError(
                f"the request's sizes do not add up to its payload of {len(view)} bytes: a sum of "
                f"{header.tensor_bytes}, {parts} of key parts, uploads of "
                f"{sum(header.upload_bytes)}"
            )
        tensor = EncryptedTensor.from_bytes(view[: header.tensor_bytes], max_bytes=len(view))
        if tensor.parameters_fingerprint != parameters.fingerprint:
            raise KeyMismatchError("the sum is labelled with other parameters")
        if contributors_of(tensor, self._plan.names) != contributors:
            raise OpeningRefusedError(
                "the sum's contributor set differs from the signed contributions"
            )
        if tensor.payload.nbytes != parameters.payload_bytes:
            raise OpeningRefusedError(
                f"the sum has {tensor.payload.nbytes} bytes, not {parameters.payload_bytes}"
            )
        return tensor, view[header.tensor_bytes :]

    def _check_key_parts(
        self,
        uploads: Sequence[Upload],
        rest: memoryview,
        tensor: EncryptedTensor,
        key: DecryptionKey,
    ) -> None:
        """The sum must be multiplied with the secret as its contributors signed it."""
        parameters = key.encryption_key.parameters
        more, parts = split_key_parts(parameters, len(uploads), rest)
        if more:
            raise OpeningRefusedError("uploads came along, and the plan does not ask for them")
        require_key_parts(parameters, uploads, parts, tensor.payload, self._aggregator)

    def _add_again(
        self,
        header: OpenRequest,
        uploads: memoryview,
        claimed: EncryptedTensor,
        key: DecryptionKey,
    ) -> None:
        """Strict mode: the sum must be that of the signed uploads, residue for residue."""
        if len(header.upload_bytes) != len(header.contributions):
            raise OpeningRefusedError(
                f"strict mode needs all {len(header.contributions)} uploads, got "
                f"{len(header.upload_bytes)}"
            )
        fold = key.encryption_key.parameters.fold()
        payloads = self._read_uploads(header, uploads)
        for sender, error in zip(payloads, fold.add_many(list(payloads.values())), strict=True):
            if error is not None:
                raise OpeningRefusedError(f"the upload of {sender!r}: {error}")
        if memoryview(fold.payload()) != memoryview(claimed.payload).cast("B"):
            raise OpeningRefusedError("the sum is not the sum of the uploads that it names")

    def _read_uploads(self, header: OpenRequest, frames: memoryview) -> dict[str, Buffer]:
        """Sender -> the payload of its upload, each being the one that its statement names."""
        start, payloads = 0, dict[str, Buffer]()
        for size, statement in zip(header.upload_bytes, header.contributions, strict=True):
            upload = read_message(frames[start : start + size], self._roster)
            start += size
            if upload.statement != statement:
                raise OpeningRefusedError(
                    f"the upload of {upload.header.sender!r} is not the one its statement names"
                )
            tensor = EncryptedTensor.from_bytes(upload.payload, max_bytes=size)
            payloads[upload.header.sender] = tensor.payload
        return payloads

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._store, timeout=30, isolation_level=None)
        # FULL alone leaves the last commit to the next sync of the folder: after a power loss the
        # rollback journal would be back, and with it the round unbound.
        database.execute("PRAGMA synchronous=EXTRA")
        # An erased key leaves zeros in the file, not bytes that the file merely forgot.
        database.execute("PRAGMA secure_delete=ON")
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
        """Store the answer of a bound round; where another process was first, its answer.

        With the last planned round's answer the run's key goes, in one transaction.
        """
        with closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "UPDATE opening SET answer = ? WHERE run = ? AND round = ? AND answer IS NULL",
                (answer, header.run, header.round),
            )
            if header.round == self._plan.rounds:
                keystore.erase(database, header.run, "with the result of its last round")
                self._loaded = None
            database.execute("COMMIT")
        stored = self._stored(header, request_sha256)
        if stored is None:
            raise OpeningRefusedError(f"{self._store} did not keep the opening; nothing is sent")
        return stored


def _other_plan(digest: str, plan: Plan) -> WrongRoundError:
    return WrongRoundError(
        f"the request is for plan {digest[:16]}..., this key holder opens under "
        f"{plan.digest[:16]}... only"
    )


def _reason(error: PrivaggError) -> RefusalReason:
    if isinstance(error, KeyMismatchError):
        return "key"
    if isinstance(error, KeyErasedError):
        return "key-erased"
    if isinstance(error, WrongRoundError | ApprovalError):
        return "plan"
    if isinstance(error, LedgerError):
        return "ledger"
    return "cohort"
