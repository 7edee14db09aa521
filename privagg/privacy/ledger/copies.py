"""Copies of a whole ledger: the bundle for strangers, a backup, and going on from either.

A bundle is what a stranger needs to replay a ledger, in one text file. Line 1 names the format.
Then one line for each entry: its canonical bytes, exactly as hashed. Then one line for each of the
log's own checkpoints, from size 1 to the end. Nothing else.

A backup is rows, not a file image, so that a ledger moves between SQLite and PostgreSQL the same
way as it is backed up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, insert, select, text

from privagg.durable import sync_folder
from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.accountant import Accountant
from privagg.privacy.ledger import canonical, log, merkle, schema
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier
from privagg.privacy.ledger.replay import Replay, replay_database
from privagg.privacy.ledger.store import Location, Store, bring_up_to_date, is_up_to_date

HEADER = canonical.dumps({"format": "privagg-ledger-bundle", "version": 1})
MAX_BUNDLE_BYTES = 1 << 31
MAX_LINES = 10**7


@dataclass(frozen=True)
class Bundle:
    """An exported ledger, read but not yet believed.

    Attributes:
        bodies: each entry's canonical bytes.
        notes: the signed checkpoint of each size from 1 on.
    """

    bodies: tuple[bytes, ...]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a bundle from a file of at most 2 GiB.

        Raises:
            LedgerError: the file cannot be read.
            LedgerTamperedError: it is not a bundle.
        """
        try:
            if path.stat().st_size > MAX_BUNDLE_BYTES:
                raise LedgerError(f"{path} is larger than a bundle may be")
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise LedgerError(f"cannot read the bundle {path}: {error.strerror}") from error

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle from its bytes.

        Raises:
            LedgerTamperedError: not a bundle of a known version, or cut off.
        """
        lines = data.split(b"\n")
        if lines[-1] != b"" or len(lines) > MAX_LINES:
            raise LedgerTamperedError("the bundle is cut off, or has too many lines")
        if lines[0] != HEADER:
            raise LedgerTamperedError(
                f"the first line is not that of a bundle this software reads: {HEADER.decode()}"
            )
        bodies: list[bytes] = []
        notes: list[str] = []
        for number, line in enumerate(lines[1:-1], start=2):
            if line.startswith(b'{"checkpoint":'):
                notes.append(_note(line, number))
            elif notes:
                raise LedgerTamperedError(f"line {number}: an entry after the checkpoints")
            else:
                bodies.append(line)
        if len(bodies) != len(notes) or not bodies:
            raise LedgerTamperedError(
                f"the bundle has {len(bodies)} entries and {len(notes)} checkpoints; "
                "every entry has one"
            )
        return cls(tuple(bodies), tuple(notes))

    def to_bytes(self) -> Iterator[bytes]:
        """The bundle's lines, as `parse` reads them."""
        yield HEADER + b"\n"
        for body in self.bodies:
            yield body + b"\n"
        for note in self.notes:
            yield canonical.dumps({"checkpoint": note}) + b"\n"

    def write(self, path: Path) -> None:
        """Write the bundle to a new file, readable by its owner only.

        Raises:
            LedgerError: there is a file already, or it cannot be written.
        """
        write_new(path, self.to_bytes())

    def replay(self) -> Replay:
        """Replay every entry and check every signature and root.

        Raises:
            LedgerTamperedError: names the first thing that does not fit.
        """
        done = Replay()
        for body in self.bodies:
            done.add(body)
        for size, note in enumerate(self.notes, start=1):
            if Checkpoint.parse(note).size != size:
                raise LedgerTamperedError(f"checkpoint {size} stands in the wrong place")
            done.check_note(note, size)
        return done

    def verify(
        self,
        *,
        verifier: Verifier | None = None,
        checkpoint: str | None = None,
        accountant: Accountant | None = None,
        every_charge: bool = False,
    ) -> list[str]:
        """Replay the bundle and hold it against what the verifier brought along.

        Args:
            verifier: the owner's key, from a source other than this bundle.
            checkpoint: a checkpoint of this ledger kept by another party.
            accountant: computes every budget's epsilon anew.
            every_charge: check epsilon after each charge, not only after the last.

        Returns:
            What could not be verified; empty where everything was.

        Raises:
            LedgerTamperedError: names what does not fit.
        """
        done = self.replay()
        findings = done.check_key(verifier) + done.check_history(checkpoint)
        if accountant is not None:
            findings += done.check_epsilon(accountant, every_charge=every_charge)
        return findings


def write_new(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file (mode 0600) that is complete and durable once it has its name.

    Raises:
        LedgerError: there is a file already, or it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        if path.exists():
            raise LedgerError(f"{path} exists already; name a new file")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
        sync_folder(path.parent)
    except OSError as error:
        raise LedgerError(f"cannot write {path}: {error.strerror}") from error


def _note(line: bytes, number: int) -> str:
    value = canonical.loads(line, what=f"line {number}")
    if not isinstance(value, dict) or set(value) != {"checkpoint"}:
        raise LedgerTamperedError(f"line {number} is not a checkpoint line")
    note = value["checkpoint"]
    if not isinstance(note, str):
        raise LedgerTamperedError(f"line {number} is not a checkpoint line")
    return note


_ROWS_AT_ONCE = 500
_SQLITE_MAGIC = b"SQLite format 3\x00"
_CREATION_LOCK = 20852163  # any number, the same for everybody who creates a ledger on a server


def require_empty(connection: Connection, where: str) -> None:
    """Take the lock for creating a ledger here, and refuse where one is.

    Raises:
        LedgerError: there is a ledger already.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATION_LOCK})
    if connection.dialect.has_table(connection, schema.meta.name):
        raise LedgerError(f"there is a ledger at {where} already; open it instead")


def back_up(store: Store, path: Path) -> None:
    """Copy one snapshot of a ledger into a new SQLite file, but for the stored uploads.

    An upload is the state of one round: brought back later, it would be sent where its round may
    have ended without it. Its digest stays in the log, and its receipt stays used.

    Raises:
        LedgerError: there is a file already, or it cannot be written.
    """
    if path.exists():
        raise LedgerError(f"{path} exists already; name a new file")
    part = path.with_name(path.name + ".part")
    for suffix in ("", "-wal", "-shm"):  # left by a backup that was killed
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    target = Store(part, read_only=False)
    target.make_file()
    with store.read() as source, target.write(lock_tree=False) as copy:
        schema.metadata.create_all(copy)
        _copy_rows(source, copy)
        schema.protect_all(copy)
    target.close()
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(part, path)
    sync_folder(path.parent)


def restore(
    source: Path, location: Location, key: Ed25519PrivateKey, checkpoints: Sequence[str]
) -> None:
    """Fill a new ledger from a backup or an exported bundle, once that has been verified.

    Args:
        source: the copy; a backup of an older schema is brought up to date in a copy of its own.
        location: of the new ledger.
        key: that the copy was last signed with.
        checkpoints: of this ledger, as others keep them; the copy has to hold each.

    Raises:
        LedgerError: the source cannot be read, was signed by another key than `key`, or there is
            a ledger at the location.
        LedgerTamperedError: the source does not verify.
    """
    target = Store(location, read_only=False)
    if _is_sqlite(source):
        with _up_to_date(source) as backup, backup.read() as connection:
            _require_last(replay_database(connection), key, checkpoints)
            with _creating(target) as copy:
                _copy_rows(connection, copy)
    else:
        bundle = Bundle.read(source)
        _require_last(bundle.replay(), key, checkpoints)
        with _creating(target) as copy:
            _rows_of_bundle(bundle, copy)
    target.close()


@contextmanager
def _up_to_date(source: Path) -> Iterator[Store]:
    """A backup for reading; one of an older schema as a copy that was brought up to date.

    The backup itself stays as it is: whoever made it may need it again.

    Raises:
        LedgerError: its schema is none that is known here.
        LedgerTamperedError: it is damaged.
    """
    with closing(Store(source, read_only=True)) as backup:
        if is_up_to_date(backup):
            yield backup
            return
        with (
            tempfile.TemporaryDirectory(prefix="privagg-restore-") as folder,
            closing(Store(Path(folder) / "copy.sqlite", read_only=False)) as copy,
        ):
            copy.make_file()
            backup.copy_to(copy)
            bring_up_to_date(copy)
            yield copy


def _require_last(replayed: Replay, key: Ed25519PrivateKey, checkpoints: Sequence[str]) -> None:
    """Refuse a copy that another key signed, or that lacks what somebody saw of the ledger."""
    own = Verifier.of(replayed.state.origin, key).encode()
    if own != replayed.state.owner_verifier:
        raise LedgerError(
            f"the copy is signed by key {replayed.state.owner_verifier}, not by {own}; "
            "restore it with the key it was last signed with"
        )
    for note in checkpoints:
        replayed.check_history(note)


def _is_sqlite(source: Path) -> bool:
    try:
        with source.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise LedgerError(f"cannot read {source}: {error.strerror}") from error


@contextmanager
def _creating(target: Store) -> Iterator[Connection]:
    """A transaction that leaves a whole ledger at `target` or nothing."""
    target.make_file()
    with target.write(lock_tree=False) as copy:
        require_empty(copy, target.where)
        schema.metadata.create_all(copy)
        yield copy
        schema.protect_all(copy)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in schema.metadata.sorted_tables:
        if table is schema.uploads:
            continue
        found = source.execute(select(table).order_by(*table.primary_key.columns))
        for rows in found.partitions(_ROWS_AT_ONCE):
            target.execute(insert(table), [dict(row._mapping) for row in rows])


def _rows_of_bundle(bundle: Bundle, target: Connection) -> None:
    """Every table's rows from a bundle; uploads and kept checkpoints are not in one."""
    walked, before = Replay(), merkle.Frontier()
    for body, note in zip(bundle.bodies, bundle.notes, strict=True):
        before = walked.frontier
        log.write_entry(target, walked.add(body), body)
        log.write_nodes(target, before.append(merkle.leaf_hash(body))[1])
        target.execute(insert(schema.checkpoints).values(size=walked.size, note=note))
    target.execute(insert(schema.tree).values(id=1, size=walked.size, frontier=before.to_bytes()))
    for account in walked.accounts.values():
        log.write_account(target, account, new=True)
    facts = {
        "schema_version": str(schema.SCHEMA_VERSION),
        "owner": walked.owner,
        "origin": walked.state.origin,
        "verifier": walked.state.owner_verifier,
        **walked.state.owner_rows(),
    }
    for name, value in facts.items():
        schema.write_meta(target, name, value)
