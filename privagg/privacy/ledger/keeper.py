"""Keeping other ledgers' checkpoints, so that none of them can be rolled back or forked unnoticed.

Coordinator, key holder and sites keep the signed checkpoint that comes with every receipt. The
next one of the same ledger must extend it; the owner proves that with a consistency proof. Where
rounds of two runs overlap, a ledger shows two checkpoints that both extend an older one, and only a
third that extends both can prove that they are of one history: both are its *heads* until then.

Of each ledger there stay: its heads, which speak for all that they extend; and what each run was
told last that its next uploads must extend, so that they prove it, and after the run's end an
auditor holds its bundle against it. The rest goes as a run is told anew (`tell`); who tells no run,
the coordinator, keeps every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Self

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, text

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import schema
from privagg.privacy.ledger.checkpoint import Checkpoint, Verifier, open_checkpoint, require_extends
from privagg.privacy.ledger.store import Location, Store

MAX_BRANCHES = 8
"""A party keeps at most so many checkpoints of a ledger that no other is proved to extend."""

MAX_RUNS = 64
"""What so many runs were told is remembered: the ones that were told something last."""

_BATCH = 512
"""Rows asked for in one statement: SQLite builds of before 2020 take 999 variables."""

_REMEMBERED_BYTES = 1 << 11
"""Signed notes up to this size are remembered, 4,096 of them."""


@dataclass(frozen=True)
class Shown:
    """A checkpoint as somebody shows it, to be kept once it proves consistent.

    Attributes:
        origin: the ledger it must be of.
        note: the signed checkpoint.
        verifier: the public key pinned for that ledger's owner.
        proofs: size of a kept checkpoint -> consistency proof between it and this one.
        since: sizes of the kept checkpoints that need such a proof; all `heads` by default. Rounds
            of two runs that overlap each prove from what they were told, and what was kept in the
            meantime waits, a head beside this one, for a later checkpoint that extends both.
    """

    origin: str
    note: str
    verifier: Verifier
    proofs: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    since: Collection[int] | None = None


class CheckpointKeeper:
    """Other ledgers' checkpoints, kept durably in a ledger's database or a file of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, location: Location) -> Self:
        """Open (or create) a file that holds kept checkpoints and nothing else.

        For a party that keeps no ledger itself; a ledger keeps them in its own database.
        """
        store = Store(location, read_only=False)
        store.make_file()
        with store.write(lock_tree=False) as connection:
            if not connection.dialect.has_table(connection, schema.kept.name):
                schema.kept.create(connection)
                schema.protect(connection, schema.kept)
            if not connection.dialect.has_table(connection, schema.extended.name):
                schema.create_extended(connection)
            if not connection.dialect.has_table(connection, schema.told.name):
                schema.create_told(connection)
        return cls(store)

    @classmethod
    def read(cls, location: Location) -> Self:
        """Open kept checkpoints for reading: a file of `open`, or a ledger's own database.

        Raises:
            LedgerError: nothing there keeps checkpoints.
        """
        store = Store(location, read_only=True)
        store.require_file()
        with store.read() as connection:
            if not connection.dialect.has_table(connection, schema.kept.name):
                raise LedgerError(f"{store.where} is neither a ledger nor a store of checkpoints")
        return cls(store)

    def keep(
        self,
        origin: str,
        note: str,
        *,
        verifier: Verifier | str,
        proof: Sequence[bytes] | None = None,
        since: int | None = None,
    ) -> Checkpoint:
        """Keep a checkpoint of the ledger `origin`, once it is consistent with those kept before.

        Args:
            origin: the ledger it must be of.
            note: the signed checkpoint.
            verifier: the public key pinned for that ledger's owner.
            proof: consistency proof between this checkpoint and the latest kept one (see
                `latest`); needed unless nothing is kept yet or the size is already kept.
            since: size of the kept checkpoint that the proof starts from; the latest by default.

        Raises:
            LedgerError: a proof is needed and none was given; where the checkpoint is the smaller
                one, its ledger was rolled back unless the proof still comes.
            LedgerTamperedError: not signed by the pinned key, of another ledger, or forked.
        """
        pinned = Verifier.parse(verifier) if isinstance(verifier, str) else verifier
        latest = self.sizes([origin]).get(origin) if since is None else since
        proofs = {} if proof is None or latest is None else {latest: proof}
        needed = None if since is None else (since,)
        problems = self.keep_all([Shown(origin, note, pinned, proofs, needed)])
        if problems:
            raise problems[origin]
        return Checkpoint.parse(note)

    def keep_all(self, shown: Sequence[Shown]) -> dict[str, LedgerError]:
        """Keep what is consistent of several ledgers' checkpoints, in one transaction.

        Returns:
            Origin -> why its checkpoint was not kept, as `keep` would have raised it.
        """
        problems: dict[str, LedgerError] = {}
        opened: list[tuple[Shown, Checkpoint]] = []
        for each in shown:
            try:
                opened.append((each, _open(each)))
            except LedgerError as error:
                problems[each.origin] = error
        with self._writing() as connection:
            known = _Known(connection, opened)
            for each, checkpoint in opened:
                try:
                    known.keep(each, checkpoint)
                except LedgerError as error:
                    problems[each.origin] = error
            known.write(connection)
        return problems

    def sizes(self, origins: Iterable[str]) -> dict[str, int]:
        """Entries under the largest checkpoint kept of each ledger; absent where none is kept."""
        with self._store.read() as connection:
            return _sizes(connection, set(origins))

    def heads(self, origins: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Sizes of each ledger's kept checkpoints that no other is proved to extend, ascending.

        One, but where rounds of two runs overlapped, or a proof is still missing.
        """
        with self._store.read() as connection:
            return _heads(connection, set(origins))

    def tell(self, run: str, origins: Collection[str]) -> dict[str, tuple[int, ...]]:
        """`heads`, noted as what a run's next uploads must extend; what no run needs more goes.

        Of what the run was told before, whatever is no head, and no other run was told last.
        """
        with self._writing() as connection:
            runs = _runs(connection)
            before = runs.pop(run, None)
            found = _heads(connection, {*origins, *(before or ())})
            if found != before:
                oldest = [*runs][: max(0, len(runs) + 1 - MAX_RUNS)]
                _note_told(connection, run, found, oldest)
                _let_go(connection, before or {}, [found, *runs.values()])
        return {origin: found[origin] for origin in origins if origin in found}

    def told(self, run: str) -> dict[str, tuple[int, ...]] | None:
        """What a run was told last; None where it was told nothing, or 64 others since."""
        with self._store.read() as connection:
            return _runs(connection, run).get(run)

    def notes(self, origin: str) -> list[str]:
        """The signed checkpoints at `heads`; a ledger that holds them holds all that are kept."""
        with self._store.read() as connection:
            sizes = _heads(connection, [origin]).get(origin, ())
            return list(_notes(connection, [(origin, size) for size in sizes]).values())

    def latest(self, origin: str) -> str | None:
        """The largest checkpoint kept of the ledger `origin`, None where none is kept."""
        with self._store.read() as connection:
            return next(
                iter(_notes(connection, _sizes(connection, [origin]).items()).values()), None
            )

    def all(self, origin: str | None = None) -> list[str]:
        """Every kept checkpoint (of one ledger), by origin and size."""
        table = schema.kept
        query = select(table.c.note).order_by(table.c.origin, table.c.size)
        if origin is not None:
            query = query.where(table.c.origin == origin)
        with self._store.read() as connection:
            return [row.note for row in connection.execute(query)]

    def close(self) -> None:
        """Give back every connection to the database."""
        self._store.close()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction in which nobody else changes what is kept."""
        with self._store.write(lock_tree=False) as connection:
            if connection.dialect.name != "sqlite":
                connection.execute(text("LOCK TABLE ledger_kept IN SHARE ROW EXCLUSIVE MODE"))
            yield connection


def _open(shown: Shown) -> Checkpoint:
    """The checkpoint that is shown, once its owner's key is found to have signed it."""
    small = len(shown.note) <= _REMEMBERED_BYTES
    checkpoint = (_opened if small else open_checkpoint)(shown.note, shown.verifier)
    if checkpoint.origin != shown.origin:
        raise LedgerTamperedError(
            f"a checkpoint of {checkpoint.origin!r} was given for the ledger {shown.origin!r}"
        )
    if not checkpoint.size:
        # Whatever comes next would extend it.
        raise LedgerTamperedError(
            f"a checkpoint of {checkpoint.origin!r} covers 0 entries; a ledger begins with one"
        )
    return checkpoint


# Each follows from its arguments alone. Where one process is many parties, each of which is shown
# the same checkpoints, that leaves one look at each; nothing is remembered of what is refused.
_opened = lru_cache(maxsize=4096)(open_checkpoint)
_parsed = lru_cache(maxsize=4096)(Checkpoint.parse)
_require_extends = lru_cache(maxsize=4096)(require_extends)


class _Known:
    """What is kept of the ledgers that are shown, and what is to be kept besides.

    Read and written in a few statements, because every site keeps every other's checkpoints: a
    statement for each would make a round's cost at each site grow by a transaction a peer.

    Args:
        connection: inside the write transaction.
        opened: what is shown, signatures verified.
    """

    def __init__(self, connection: Connection, opened: Sequence[tuple[Shown, Checkpoint]]) -> None:
        self._heads = {
            origin: set(sizes)
            for origin, sizes in _heads(connection, {each.origin for each, _ in opened}).items()
        }
        wanted = {(each.origin, checkpoint.size) for each, checkpoint in opened}
        wanted |= {(each.origin, size) for each, _ in opened for size in each.since or ()}
        wanted |= {(origin, size) for origin, sizes in self._heads.items() for size in sizes}
        self._notes = _notes(connection, wanted)
        self._kept: list[dict[str, str | int]] = []
        self._extended: list[dict[str, str | int]] = []

    def keep(self, shown: Shown, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that is consistent with the kept ones; nothing where it is kept."""
        origin, size = shown.origin, checkpoint.size
        same = self._notes.get((origin, size))
        if same is not None:
            require_extends(_parsed(same), checkpoint, ())
            return
        heads = self._heads.setdefault(origin, set())
        needed = set(heads if shown.since is None else shown.since)
        proved = needed | (heads & shown.proofs.keys())
        # Proofs that are there first: a missing one must not hide a contradiction.
        for since in sorted(proved, key=lambda since: (since not in shown.proofs, since)):
            kept = self._notes.get((origin, since))
            if kept is None:
                raise LedgerError(f"no checkpoint of {since} entries of {origin} is kept")
            _require_consistent(_parsed(kept), checkpoint, shown.proofs.get(since))
        ended = {since for since in heads & proved if since < size}
        ended |= {size} if any(since > size for since in proved) else set()
        after = (heads | {size}) - ended
        if len(after) > MAX_BRANCHES:
            raise LedgerError(
                f"{len(after)} checkpoints of {origin} wait for proofs; that is too many"
            )
        self._heads[origin] = after
        self._notes[origin, size] = shown.note
        row = {"verifier": shown.verifier.encode(), "note": shown.note}
        self._kept.append({"origin": origin, "size": size, **row})
        self._extended += [{"origin": origin, "size": each} for each in sorted(ended)]

    def write(self, connection: Connection) -> None:
        """Insert what is to be kept."""
        if self._kept:
            connection.execute(insert(schema.kept), self._kept)
        if self._extended:
            connection.execute(insert(schema.extended), self._extended)


def _require_consistent(
    latest: Checkpoint, checkpoint: Checkpoint, proof: Sequence[bytes] | None
) -> None:
    old, new = sorted((latest, checkpoint), key=lambda each: each.size)
    if proof is None:
        if checkpoint.size < latest.size:
            # No contradiction yet: an upload of a round that overlapped another one looks like it.
            raise LedgerError(
                f"{checkpoint.origin} shows {checkpoint.size} entries, but {latest.size} were "
                "signed before: it was rolled back, unless its owner proves otherwise"
            )
        raise LedgerError(
            f"a consistency proof from {old.size} to {new.size} entries of {checkpoint.origin} is "
            "needed; ask its owner for Ledger.consistency_proof"
        )
    _require_extends(old, new, tuple(proof))


def _runs(connection: Connection, run: str | None = None) -> dict[str, dict[str, tuple[int, ...]]]:
    """What each run (or this one) was told last; whoever was told longest ago stands first."""
    table = schema.told.c
    query = select(table.run, table.sizes).order_by(table.turn)
    rows = connection.execute(query if run is None else query.where(table.run == run))
    try:
        return {
            row.run: {origin: tuple(sizes) for origin, sizes in json.loads(row.sizes).items()}
            for row in rows
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise LedgerTamperedError(f"what a run was told is no list of sizes: {error}") from error


def _note_told(
    connection: Connection, run: str, sizes: Mapping[str, tuple[int, ...]], oldest: Sequence[str]
) -> None:
    table = schema.told
    connection.execute(delete(table).where(table.c.run.in_([run, *oldest])))
    last = connection.execute(select(func.coalesce(func.max(table.c.turn), 0))).scalar_one()
    connection.execute(insert(table).values(run=run, turn=last + 1, sizes=json.dumps(sizes)))


def _let_go(
    connection: Connection,
    before: Mapping[str, tuple[int, ...]],
    needed: Iterable[Mapping[str, tuple[int, ...]]],
) -> None:
    """Delete the checkpoints of these sizes that are needed no more; the database keeps heads."""
    places = {(origin, size) for origin, sizes in before.items() for size in sizes}
    for some in needed:
        places -= {(origin, size) for origin, sizes in some.items() for size in sizes}
    rows = [{"of": origin, "at": size} for origin, size in sorted(places)]
    for table in (schema.kept, schema.extended) if rows else ():
        place = (table.c.origin == bindparam("of")) & (table.c.size == bindparam("at"))
        connection.execute(delete(table).where(place), rows)


def _sizes(connection: Connection, origins: Collection[str]) -> dict[str, int]:
    """The largest kept size of each ledger."""
    found: dict[str, int] = {}
    for query, names in _asked(_largest, origins):
        found |= {row.origin: row.size for row in connection.execute(query, names)}
    return found


def _heads(connection: Connection, origins: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Sizes of the kept checkpoints of each ledger that none is proved to extend, ascending."""
    found: dict[str, tuple[int, ...]] = {}
    for query, names in _asked(_unextended, origins):
        for row in connection.execute(query, names):
            found[row.origin] = (*found.get(row.origin, ()), row.size)
    return found


def _notes(
    connection: Connection, places: Collection[tuple[str, int]]
) -> dict[tuple[str, int], str]:
    """The kept checkpoints of these ledgers and sizes; absent where none is kept.

    One statement for each size, of which there are few: SQLite looks every row up by its key there,
    and would read the whole table for `(origin, size) IN ...`.
    """
    by_size = dict[int, list[str]]()
    for origin, size in places:
        by_size.setdefault(size, []).append(origin)
    found: dict[tuple[str, int], str] = {}
    for size, origins in by_size.items():
        for query, names in _asked(_of_size, origins):
            rows = connection.execute(query, {**names, "size": size})
            found |= {(row.origin, size): str(row.note) for row in rows}
    return found


def _asked(
    query: Callable[[int], Select[Any]], origins: Collection[str]
) -> Iterator[tuple[Select[Any], dict[str, str]]]:
    """A query for some ledgers, as few statements, with what is put in.

    The number of variables is a power of two, so that few statements are ever written down; the
    last name fills up what is left.
    """
    some = list(origins)
    for start in range(0, len(some), _BATCH):
        names = some[start : start + _BATCH]
        count = 1 << (len(names) - 1).bit_length()
        names += names[-1:] * (count - len(names))
        yield query(count), {f"origin{place}": name for place, name in enumerate(names)}


def _variables(count: int) -> list[Any]:
    return [bindparam(f"origin{place}") for place in range(count)]


@cache
def _largest(count: int) -> Select[Any]:
    table = schema.kept.c
    query = select(table.origin, func.max(table.size).label("size"))
    return query.where(table.origin.in_(_variables(count))).group_by(table.origin)


@cache
def _unextended(count: int) -> Select[Any]:
    kept, extended = schema.kept.c, schema.extended.c
    over = select(extended.size).where(extended.origin == kept.origin, extended.size == kept.size)
    query = select(kept.origin, kept.size).where(kept.origin.in_(_variables(count)), ~over.exists())
    return query.order_by(kept.origin, kept.size)


@cache
def _of_size(count: int) -> Select[Any]:
    table = schema.kept.c
    query = select(table.origin, table.note).where(table.size == bindparam("size"))
    return query.where(table.origin.in_(_variables(count)))
