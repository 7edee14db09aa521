"""The bundle: a run's report and the evidence for every figure in it, in one ZIP file.

README.txt                 what this is and how to check it
attestation.intoto.json    digests of all other files, signed by the coordinator
report.json                the report
schema.json                its JSON Schema
statements.jsonl.gz        what sites signed of their uploads, the key holder of key and openings
ledgers/<party>.jsonl      each party's ledger: entries as hashed, and signed checkpoints
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

from privagg.audit.attestation import InTotoAttestation, Predicate
from privagg.audit.container import MAX_BYTES, pack, unpack
from privagg.audit.statements import STATEMENTS, pack_statements
from privagg.digest import json_digest
from privagg.durable import write_whole
from privagg.errors import UnreadableBundleError, VerificationError
from privagg.identity.keys import Identity
from privagg.privacy.ledger import Bundle
from privagg.protocol.messages import Statement
from privagg.protocol.names import COORDINATOR
from privagg.report.model import Report, json_schema

NAME = "bundle.privagg.zip"
README, ATTESTATION, REPORT, SCHEMA = (
    "README.txt", "attestation.intoto.json", "report.json", "schema.json",
)  # fmt: skip
_LEDGER = re.compile(r"ledgers/([A-Za-z0-9][A-Za-z0-9_.-]{0,63})\.jsonl")

TEXT = """\
The evidence of one federated training run with privagg.

  report.json               what was trained, what it cost, and against whom that holds
  schema.json               the report's JSON Schema
  statements.jsonl.gz       what each site signed of its uploads, and the key holder of its key and
                            its openings, without the encrypted numbers themselves
  ledgers/*.jsonl           every party's privacy ledger: a line for each entry, exactly the bytes
                            that were hashed, then a signed checkpoint for each size of the log
  attestation.intoto.json   SHA-256 of each file (in-toto statement, DSSE envelope, Ed25519)

Check all of it, recomputing every figure from the ledgers:

  pip install privagg
  privagg verify bundle.privagg.zip
"""


PUBLISHED_BEFORE: Mapping[str, frozenset[str]] = {
    README: frozenset({"f0c5a93197094cfa3c445f4272affcef8ebdce5fec8b7b1aa87887cbb7656797"}),
    SCHEMA: frozenset({"c00a73afac0ae11fba1f9da9683ee81d60d05aa118739afdcd417f57a488d9d7"}),
}
"""SHA-256 of the fixed files of earlier forms of bundle, which held no statements."""

DEMANDED_BEFORE = frozenset(
    {
        "0a3ceedddb476c41f279e74b2a8038698ccecc5206d540707d10256ac918599d",  # no answers
        "4074d16612f107c5befe2eca4b90503095b2240879379da96ca5eeceda00312c",  # no rosters
    }
)
"""Digests of what earlier schemas demand, of bundles that held statements."""


def fixed_files() -> dict[str, bytes]:
    """The files that are the same in every bundle of this format."""
    return {README: TEXT.encode(), SCHEMA: _schema()}


@cache
def _schema() -> bytes:
    return json.dumps(json_schema(), indent=2).encode() + b"\n"


def is_published(name: str, data: bytes) -> bool:
    """Whether a file is one of `fixed_files`; a schema may describe in other words what it demands.

    Args:
        name: the file's.
        data: its bytes, of a bundle (untrusted).
    """
    if name != SCHEMA:
        return data == fixed_files()[name]
    try:
        demands = _demands(json.loads(data))
        known = json_digest(demands) in DEMANDED_BEFORE
        return known or bool(demands == _demands(json.loads(_schema())))
    except (ValueError, RecursionError):
        return False


def _demands(schema: Any) -> Any:
    """A JSON schema without its descriptions."""
    if isinstance(schema, list):
        return [_demands(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _demands(value)
        for key, value in schema.items()
        if key != "description" or not isinstance(value, str)
    }


class Exporting(Protocol):
    """A ledger that can be exported."""

    def bundle(self) -> Bundle:
        """Its entries and checkpoints."""
        ...


@dataclass(frozen=True)
class ReportBundle:
    """A bundle's files, read but not yet believed.

    Attributes:
        files: name -> bytes, in the bundle's order.
        attestation: who vouches for them.
    """

    files: Mapping[str, bytes]
    attestation: InTotoAttestation

    @classmethod
    def make(
        cls,
        report_json: bytes,
        ledgers: Mapping[str, Exporting],
        identity: Identity,
        statements: Iterable[Statement] | None = None,
    ) -> Self:
        """Put together a report and the ledgers it was read from.

        Args:
            report_json: as written beside it.
            ledgers: party -> ledger; the coordinator's and every site's. Entries appended since
                the report was made are left out.
            identity: the coordinator's; signs.
            statements: what the parties signed in the run, by round, attempt, kind and sender;
                None where they were not kept, which a verifier is told.

        Raises:
            VerificationError: the report is not one, or names a ledger that was not given.
        """
        report = Report.from_json(report_json)
        sizes = {COORDINATOR: report.coordinator.entries}
        sizes |= {site.name: site.ledger.entries for site in report.sites}
        missing = sorted(set(sizes) - set(ledgers))
        if missing:
            raise VerificationError(f"the ledgers of {', '.join(missing)} were not given")
        fixed = fixed_files()
        files = {README: fixed[README], REPORT: report_json, SCHEMA: fixed[SCHEMA]}
        if statements is not None:
            files[STATEMENTS] = pack_statements(statements)
        for party, size in sizes.items():
            whole = ledgers[party].bundle()
            cut = Bundle(whole.bodies[:size], whole.notes[:size])
            files[f"ledgers/{party}.jsonl"] = b"".join(cut.to_bytes())
        said = Predicate(
            federation=report.federation, run=report.run, plan_digest=report.plan_digest,
            signer=identity.name,
        )  # fmt: skip
        return cls(files, InTotoAttestation.sign(identity, files, said))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle from untrusted bytes; only the exact bytes that `to_bytes` gives are taken.

        Raises:
            UnreadableBundleError: it is none.
        """
        files = unpack(data)
        envelope = files.pop(ATTESTATION, None)
        if envelope is None or REPORT not in files:
            raise UnreadableBundleError(f"this ZIP file is no bundle: {ATTESTATION} is missing")
        made = cls(files, InTotoAttestation.parse(envelope))
        if made.to_bytes() != data:
            raise UnreadableBundleError("the bundle's files do not stand in their order")
        return made

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a bundle from a file; see `parse`."""
        return cls.parse(read_bounded(path))

    @property
    def ledgers(self) -> dict[str, bytes]:
        """Party -> its ledger's export."""
        named = {name: _LEDGER.fullmatch(name) for name in self.files}
        return {found[1]: self.files[name] for name, found in named.items() if found}

    def to_bytes(self) -> bytes:
        """The ZIP file; the same bytes for the same contents."""
        first = {README: self.files[README]} if README in self.files else {}
        return pack({**first, ATTESTATION: self.attestation.to_bytes(), **self.files})

    def write(self, path: Path) -> None:
        """Write the bundle, whole or not at all, in place of what was there.

        Raises:
            ConfigError: `path` cannot be written.
        """
        write_whole(path, self.to_bytes())


def read_bounded(path: Path, most: int = MAX_BYTES) -> bytes:
    """A file's bytes.

    Raises:
        UnreadableBundleError: it cannot be read, or is larger than `most`.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, most) + 1)
    except OSError as error:
        raise UnreadableBundleError(
            f"cannot read {path}: {error.strerror}; correct the path"
        ) from error
    if len(data) > most:
        raise UnreadableBundleError(f"{path} is larger than the {most} bytes that are read")
    return data
