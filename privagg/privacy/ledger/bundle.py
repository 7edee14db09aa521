"""The exported bundle: what a stranger needs to replay a ledger, in one text file.

Line 1 names the format. Then one line for each entry: its canonical bytes, exactly as hashed. Then
one line for each of the log's own checkpoints, from size 1 to the end. Nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from privagg.durable import sync_folder
from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.accountant import Accountant
from privagg.privacy.ledger import canonical
from privagg.privacy.ledger.checkpoint import Checkpoint
from privagg.privacy.ledger.notes import Verifier
from privagg.privacy.ledger.replay import Replay

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
