"""What every party that holds a key of a run does alike: makes, states, erases it; binds rounds.

The key of a run is made when it is first asked for, stated under this party's signature, and erased
with the last planned round's answer, or when the owner's approval ends or is withdrawn. A round is
bound to one request durably *before* anything of it is answered, so that nobody is an oracle that
can be asked twice; the answer is stored before it is sent. The same request gets the stored bytes
again, another one for the same round is refused, also after a restart, whatever became of the
first. With the answer of a later round of the run the bytes of earlier answers go: whoever asks for
that one has them. The round stays bound, and nothing of it is answered any more.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privagg.encoding.vectors import IntVector
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
from privagg.protocol.key_statement import FIRST, RunKey, epoch_name
from privagg.protocol.key_store import KeyStore
from privagg.protocol.messages import (
    Header,
    KeyRequest,
    KeyStatement,
    OpenRequest,
    Refusal,
    RefusalReason,
    ReleaseRequest,
    Upload,
    refusal_text,
)
from privagg.secure.opening import KeyGenerator, SecretKey
from privagg.secure.scheme import Occasion, Parameters

_SCHEMA = f"""{keystore.SCHEMA}
CREATE TABLE IF NOT EXISTS opening (
    run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    request_sha256 TEXT NOT NULL, answer BLOB, PRIMARY KEY (run, round)
) WITHOUT ROWID;
DROP TRIGGER IF EXISTS opening_is_kept;
CREATE TRIGGER IF NOT EXISTS opening_is_kept_or_forgotten BEFORE UPDATE ON opening
    WHEN OLD.answer IS NOT NULL AND NEW.answer IS NOT x''
        OR NEW.request_sha256 <> OLD.request_sha256
        OR NEW.run <> OLD.run OR NEW.round <> OLD.round OR NEW.attempt <> OLD.attempt
    BEGIN SELECT RAISE(ABORT, 'openings are never changed, only forgotten'); END;
CREATE TRIGGER IF NOT EXISTS opening_stays BEFORE DELETE ON opening
    BEGIN SELECT RAISE(ABORT, 'openings are never deleted'); END;
"""


class _Group(threading.local):
    """Of the thread at hand: the connection in whose transaction it writes."""

    database: sqlite3.Connection | None = None


class Holder(ABC):
    """Makes and states keys of runs, and answers one request a round. State in a file of its own.

    Args:
        plan: the agreed plan.
        identity: signs the answers.
        key_generator: makes and reads the scheme's secret keys.
        parameters: the scheme's, chosen for the plan before any key exists.
        until: last day, UTC (`YYYY-MM-DD`), on which this party's owner lets it open for the plan;
            raises `ApprovalError` where the owner does not. No key outlives the day that it gave
            when the key was made.
        roster: pinned identity keys of the sites and of the aggregator.
        aggregator: the only party whose requests are considered.
        opener: whose statement counts on the key of a run, as everybody pins it.
        store: SQLite file of keys and of what was answered; created with mode 0600 where absent.
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
        opener: str,
        store: Path,
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
        self._opener = opener
        self._store, self._group = store, _Group()
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(store, os.O_RDWR | os.O_CREAT, 0o600))
        require_private(store, "the store of keys and openings")
        with self._database() as database:
            database.executescript(_SCHEMA)
        self._keys = KeyStore(self._database)
        self._loaded: tuple[str, SecretKey] | None = None
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
        """Erase the keys of a run that nobody will resume, or that this party has left."""
        with self._database() as database:
            keystore.erase(database, run, "when the run ended")
            for epoch in self._plan.epochs:
                keystore.erase(database, epoch_name(run, epoch.first), "when the run ended")
        self._loaded = None

    def handle(self, data: bytes) -> bytes:
        """Answer a request, or say in a `Refusal` why not.

        Raises:
            MessageError, SignatureError, UnknownPartyError: the bytes are no message of a pinned
                party; there is nobody to answer.
        """
        message = read_message(data, self._roster)
        try:
            self.erase_ended()
            if isinstance(message.header, KeyRequest):
                return self._state_key(message.header)
            return self._answer(message, data)
        except PrivaggError as error:
            return self._refusal(message, error)

    def protect(self, key: RunKey, values: IntVector, occasion: Occasion) -> tuple[bytes, bytes]:
        """One contribution of this party's as a payload, and what is attached to it.

        Args:
            key: the run's.
            values: int64 (d,).
            occasion: what it is for.
        """
        return key.key.encrypt(values), b""

    @abstractmethod
    def _answer(self, message: Message, data: bytes) -> bytes:
        """Answer what is not about a key."""

    def problem(self, run: str) -> str:
        """Why a new run would get no key; empty where it would, or where it has had one."""
        try:
            if not self._keys.known(run):
                self._until()
                self._keys.require_room()
        except (ApprovalError, OpeningRefusedError) as error:
            return str(error)
        return ""

    def _require_aggregator(self, header: Header) -> None:
        if header.sender != self._aggregator:
            raise OpeningRefusedError(f"{header.sender!r} is not the aggregator pinned here")
        if header.plan_digest != self._plan.digest:
            raise other_plan(header.plan_digest, self._plan)

    def _state_key(self, header: KeyRequest) -> bytes:
        """State the key of a run, made now if this is the first time that it is asked for.

        What leaves is what was stored: whoever is killed on the way, and several processes at once,
        state one and the same key.
        """
        self._require_aggregator(header)
        federation = self._roster.federation_digest(
            coordinator=self._aggregator, opener=self._opener
        )
        if header.federation_digest != federation:
            raise WrongRoundError(
                f"the request is for federation {header.federation_digest[:16]}..., pinned here is "
                f"{federation[:16]}...: other identity keys, or other roles"
            )
        name = epoch_name(header.run, self.first_under_key(header))
        stored, until = self._keys.statement(name), self._until()
        if stored is None:
            self._keys.require_room()
            self._make_key(name, header, federation, until)
            stored = self._keys.statement(name)
        if stored is None:
            raise OpeningRefusedError(f"{self._store} did not keep the key; nothing is stated")
        return stored

    def first_under_key(self, header: Header) -> int:
        """The first round under the key of a message's round; where a key begins, that one.

        Raises:
            WrongRoundError: a request for a key from a round on in which none begins.
        """
        if isinstance(header, KeyRequest) and header.round != FIRST:
            raise WrongRoundError(f"no key of run {header.run} begins in round {header.round}")
        return FIRST

    def last_under_key(self, number: int) -> int:
        """The last round under the key of round `number`."""
        return self._plan.rounds

    def parameters_of(self, first: int) -> Parameters:
        """The scheme's parameters under the key whose first round this is."""
        return self._parameters

    def _make_key(self, name: str, header: KeyRequest, federation: str, until: str) -> None:
        secret = self._key_generator.generate_key(self.parameters_of(header.round))
        public = secret.encryption_key
        statement = KeyStatement(
            run=header.run,
            round=header.round,
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
            name,
            plan=header.plan_digest,
            statement=frame,
            secret=secret.to_bytes(),
            until=until,
        )

    def _key_of(self, run: str, first: int = FIRST) -> SecretKey:
        """The key of a run, or of its rounds from `first` on.

        Raises:
            KeyErasedError, KeyMismatchError: as `KeyStore.secret`.
        """
        name = epoch_name(run, first)
        data, loaded = self._keys.secret(name, self._today()), self._loaded
        if loaded is None or loaded[0] != name:
            parameters = self.parameters_of(first)
            loaded = name, self._key_generator.load_decryption_key(parameters, data)
            self._loaded = loaded
        return loaded[1]

    def reply_to(self, header: Header) -> dict[str, Any]:
        """How an answer of this party begins."""
        return {
            "run": header.run,
            "round": header.round,
            "attempt": header.attempt,
            "sender": self.identity.name,
            "plan_digest": header.plan_digest,
        }

    def _refusal(self, message: Message, error: PrivaggError) -> bytes:
        refusal = Refusal(
            **self.reply_to(message.header), reason=_reason(error), message=refusal_text(error)
        )
        return Message.sign(self.identity, refusal).to_bytes()

    def check_plan(self, header: Header) -> None:
        """Refuse what is for another plan, or for a round that it does not have."""
        plan = self._plan
        if header.plan_digest != plan.digest:
            raise other_plan(header.plan_digest, plan)
        if header.round > plan.rounds:
            raise WrongRoundError(f"round {header.round} is beyond the plan's {plan.rounds}")

    def check_contributions(
        self, header: OpenRequest | ReleaseRequest, key_id: str
    ) -> list[Upload]:
        """What was contributed, every signature verified; order and number as the plan says."""
        plan = self._plan
        if header.key_id != key_id:
            raise KeyMismatchError(
                f"the request is for key {header.key_id[:16]}..., that of run {header.run} is "
                f"{key_id[:16]}..."
            )
        uploads: list[Upload] = []
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
            if uploads and upload.start != uploads[0].start:
                raise OpeningRefusedError(
                    f"{uploads[0].sender!r} and {upload.sender!r} started from different models or "
                    "settings; their sum may be that of one of them"
                )
            uploads.append(upload)
        names, planned = [upload.sender for upload in uploads], plan.in_round(header.round)
        expected = [name for name in planned.names if name in set(names)]
        if names != expected:
            raise OpeningRefusedError(
                "contributions must name different sites of the plan in roster order, got "
                f"{', '.join(names) or 'none'}"
            )
        if not planned.minimum_survivors <= len(names) <= planned.addends:
            raise OpeningRefusedError(
                f"{len(names)} contributions; the plan opens {planned.minimum_survivors} to "
                f"{planned.addends} together"
            )
        return uploads

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._store, timeout=30, isolation_level=None)
        # FULL alone leaves the last commit to the next sync of the folder: after a power loss the
        # rollback journal would be back, and with it the round unbound.
        database.execute("PRAGMA synchronous=EXTRA")
        # An erased key leaves zeros in the file, not bytes that the file merely forgot.
        database.execute("PRAGMA secure_delete=ON")
        return database

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The store; inside `_whole` the connection of its transaction."""
        if self._group.database is not None:
            yield self._group.database
            return
        with closing(self._connect()) as database:
            yield database

    @contextmanager
    def _whole(self) -> Iterator[sqlite3.Connection]:
        """One transaction of all that this thread writes inside, durable when it ends.

        It has the write lock from its beginning: what is read inside is as it stays. What was
        written before an error of privagg's own is kept, as it binds; a kill leaves nothing.
        """
        if self._group.database is not None:
            yield self._group.database
            return
        with closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")
            self._group.database = database
            try:
                yield database
            except PrivaggError:
                database.execute("COMMIT")
                raise
            finally:
                self._group.database = None
            database.execute("COMMIT")

    def _stored(self, header: Header, request_sha256: str) -> bytes | None:
        with self._database() as database:
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
        if row[1] == b"":
            raise OpeningRefusedError(
                f"round {header.round} of run {header.run} was answered, and a later one after it: "
                "the answer is kept no more, and no other is given"
            )
        return None if row[1] is None else bytes(row[1])

    def _bind(self, header: Header, request_sha256: str) -> bytes | None:
        """Bind the round to this request for good; the stored answer where there is one."""
        with self._database() as database:
            database.execute(
                "INSERT OR IGNORE INTO opening VALUES (?, ?, ?, ?, NULL)",
                (header.run, header.round, header.attempt, request_sha256),
            )
        return self._stored(header, request_sha256)

    def _remember(self, header: Header, request_sha256: str, answer: bytes) -> bytes:
        """Store the answer of a bound round; where another process was first, its answer.

        The run's earlier answers go, and with the last planned round's its key, in one transaction.
        """
        with self._whole() as database:
            database.execute(
                "UPDATE opening SET answer = ? WHERE run = ? AND round = ? AND answer IS NULL",
                (answer, header.run, header.round),
            )
            database.execute(
                "UPDATE opening SET answer = x'' WHERE run = ? AND round < ? AND answer <> x''",
                (header.run, header.round),
            )
            if header.round == self.last_under_key(header.round):
                name = epoch_name(header.run, self.first_under_key(header))
                keystore.erase(database, name, "with the result of its last round")
                self._loaded = None
        stored = self._stored(header, request_sha256)
        if stored is None:
            raise OpeningRefusedError(f"{self._store} did not keep the opening; nothing is sent")
        return stored


def other_plan(digest: str, plan: Plan) -> WrongRoundError:
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
