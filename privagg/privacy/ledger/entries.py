"""One entry of the log, and its one canonical byte string.

Entries written during a round carry only the day, since the time at which training ended depends
on private data and is itself a release; entries about budgets and keys carry the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal, Self

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import canonical, merkle
from privagg.privacy.ledger.payloads import Payload, payload_of

ENTRY_VERSION: Literal[1] = 1


@dataclass(frozen=True)
class Entry:
    """One entry of the log.

    Attributes:
        index: position, from 0.
        time: UTC, to the second or (for entries of a round) to the day.
        payload: what it says.
        state: digest of all budgets and running totals once this entry is applied.
    """

    index: int
    time: str
    payload: Payload
    state: str

    @property
    def kind(self) -> str:
        """The payload's kind."""
        return self.payload.kind

    def body(self) -> bytes:
        """The canonical bytes: the Merkle leaf's data."""
        return canonical.dumps(
            {
                "version": ENTRY_VERSION,
                "index": self.index,
                "time": self.time,
                "kind": self.kind,
                "payload": self.payload.to_json(),
                "state": self.state,
            }
        )

    def hash(self) -> bytes:
        """The Merkle leaf hash of the body."""
        return merkle.leaf_hash(self.body())

    @classmethod
    def parse(cls, body: bytes, *, what: str = "entry") -> Self:
        """Read an entry back; only the exact bytes that `body` gives are taken.

        Raises:
            LedgerTamperedError: not the canonical bytes of an entry of a known version and kind.
        """
        value = canonical.loads(body, what=what)
        names = {"version", "index", "time", "kind", "payload", "state"}
        if not isinstance(value, dict) or set(value) != names:
            raise LedgerTamperedError(f"{what} does not have the fields {sorted(names)}")
        if value["version"] != ENTRY_VERSION:
            raise LedgerTamperedError(
                f"{what} has version {value['version']!r}; this software reads {ENTRY_VERSION}"
            )
        types = {"index": int, "time": str, "kind": str, "payload": dict, "state": str}
        if any(type(value[name]) is not wanted for name, wanted in types.items()):
            raise LedgerTamperedError(f"{what} has a field of a wrong type")
        try:
            entry = cls(
                value["index"], value["time"], payload_of(value["kind"], value["payload"]),
                value["state"],
            )  # fmt: skip
            again = entry.body()
        except (LedgerError, TypeError) as error:
            raise LedgerTamperedError(f"{what}: {error}") from error
        if again != body:
            raise LedgerTamperedError(f"{what} is not spelled as this software would spell it")
        _check_time(entry, what)
        return entry


def timestamp(now: datetime, payload: Payload) -> str:
    """The time that an entry with this payload may carry."""
    utc = now.astimezone(UTC)
    return utc.strftime("%Y-%m-%d" if payload.of_round else "%Y-%m-%dT%H:%M:%SZ")


def _check_time(entry: Entry, what: str) -> None:
    try:
        if entry.payload.of_round:
            date.fromisoformat(entry.time)
        else:
            datetime.strptime(entry.time, "%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError) as error:
        raise LedgerTamperedError(f"{what} has no valid time: {entry.time!r}") from error
