"""Which records a site sampled in each round, kept for its owner until the run's end.

    <party>/samples/RUN/ROUND-ATTEMPT.sealed

Off unless `party.toml` names a key (`samples_for`) that the owner of the site's ledger signed: else
whoever can write that file would be told who was sampled. Each file holds the slots of the round's
records, the round's model, and the digest of the site's integers before noise; it is sealed so that
only the owner's key opens it. No seed is in it, and nothing from which noise follows: of a
`record-local` round it is the first step alone, since a later one starts from a noised sum. Its
size follows from public numbers.

The digest is private as the integers are: whoever has it can test a guess of the records, and with
integers and upload noise is known. Nothing of this leaves the owner's machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.setup import Setup
from privagg.digest import canonical_json
from privagg.durable import write_whole
from privagg.encoding.planned import RoundId
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError, PrivaggError
from privagg.identity.keys import verify_signature
from privagg.identity.sealing import seal, sealing_key, unseal
from privagg.party.folder import PartyFile, PartyFolder
from privagg.programs.training import RecordLearner

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""

_SUFFIX = ".sealed"


@dataclass(frozen=True)
class Kept:
    """What was kept of one round; private.

    Args:
        round_id: (run, round, attempt).
        plan: digest of the plan.
        digest: of the integers before noise, as computed then.
        computed: engine, machine and libraries, as the round's charge states them.
        parameters: float64 `(d,)`, the round's model.
        records_at: int64 `(slots,)`, the record in each slot, -1 where there was none.
    """

    round_id: RoundId
    plan: str
    digest: str
    computed: Mapping[str, Any]
    parameters: FloatVector
    records_at: npt.NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """A line of JSON, then the two arrays, little-endian."""
        facts = {
            "round_id": self.round_id, "plan": self.plan, "digest": self.digest,
            "computed": dict(self.computed), "dimension": len(self.parameters),
        }  # fmt: skip
        arrays = self.parameters.astype("<f8").tobytes() + self.records_at.astype("<i8").tobytes()
        return canonical_json(facts) + b"\n" + arrays

    @classmethod
    def from_bytes(cls, data: bytes) -> Kept:
        """The inverse of `to_bytes`."""
        line, _, arrays = data.partition(b"\n")
        facts = json.loads(line)
        end = 8 * facts["dimension"]
        run, number, attempt = facts["round_id"]
        return cls(
            (run, number, attempt), facts["plan"], facts["digest"], facts["computed"],
            np.frombuffer(arrays[:end], "<f8").astype(np.float64),
            np.frombuffer(arrays[end:], "<i8").astype(np.int64),
        )  # fmt: skip


class Samples:
    """The samples that a site keeps for its owner.

    Args:
        folder: the site's own.
    """

    def __init__(self, folder: PartyFolder) -> None:
        self.site, self._root = folder.party().name, folder.samples
        self._key, self._signature = folder.party().samples_for, folder.party().samples_signed

    def attend(self, learner: object, plan_digest: str, owner_key: str) -> None:
        """Keep what a learner samples from now on, where the folder says so.

        Args:
            learner: of this site; one that samples no records is left alone.
            plan_digest: of the plan that it computes under.
            owner_key: public key (hex) of the owner that the site's ledger pins.

        Raises:
            ConfigError: the folder says so, and that owner did not sign it.
        """
        if not self._key or not isinstance(learner, RecordLearner):
            return
        self._require_signed(owner_key)
        computed = learner.records_apart.facts()

        def keep(
            round_id: RoundId,
            parameters: FloatVector,
            records_at: npt.NDArray[np.int64],
            total: IntVector,
        ) -> None:
            digest = integers_digest(total, round_id, self.site)
            self._keep(Kept(round_id, plan_digest, digest, computed, parameters, records_at))

        learner.keep = keep

    def _require_signed(self, owner_key: str) -> None:
        try:
            owner, signature = bytes.fromhex(owner_key), bytes.fromhex(self._signature)
            verify_signature(owner, _said(self.site, self._key), signature)
        except (ValueError, InvalidSignature) as error:
            raise ConfigError(
                f"party.toml of {self.site!r} has samples kept for the key {self._key[:16]}..., "
                "which the owner of its ledger did not sign (samples_signed); the owner switches "
                "it on again: privagg recompute --on, or off: --off. Nothing was charged"
            ) from error

    def _keep(self, kept: Kept) -> None:
        """Write one round; what fails is told to the owner and stops no round, which is paid."""
        run = kept.round_id[0]
        try:
            for earlier in self.runs():
                if earlier != run:  # nobody said that it ended
                    self.forget(earlier)
            path = self._path(kept.round_id)
            for place in (self._root, path.parent):
                place.mkdir(mode=0o700, exist_ok=True)
            sealed = seal(kept.to_bytes(), self._key, self._context(kept.round_id))
            write_whole(path, sealed, secret=True)
        except (PrivaggError, OSError) as error:
            _OWNERS_LOG.warning("the round's sample was not kept: %s", error)

    def forget(self, run: str) -> None:
        """Delete what was kept of a run, as at its end."""
        shutil.rmtree(self._root / run, ignore_errors=True)

    def runs(self) -> list[str]:
        """Runs of which something is kept."""
        return sorted(path.name for path in self._root.glob("*") if path.is_dir())

    def rounds(self) -> list[RoundId]:
        """What is kept: (run, round, attempt), the last one last."""
        return [each for each, _ in sorted(self._found(), key=lambda found: found[1])]

    def _found(self) -> list[tuple[RoundId, tuple[float, int, int]]]:
        found: list[tuple[RoundId, tuple[float, int, int]]] = []
        for path in self._root.glob(f"*/*{_SUFFIX}"):
            number, _, attempt = path.name.removesuffix(_SUFFIX).partition("-")
            if number.isdecimal() and attempt.isdecimal():
                place = (path.parent.name, int(number), int(attempt))
                found.append((place, (path.parent.stat().st_mtime, *place[1:])))
        return found

    def read(self, round_id: RoundId, owner: Ed25519PrivateKey) -> Kept:
        """What was kept of a round.

        Raises:
            ConfigError: nothing, or it does not open with this owner's key.
        """
        path = self._path(round_id)
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        try:
            return Kept.from_bytes(unseal(sealed, owner, self._context(round_id)))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _path(self, round_id: RoundId) -> Path:
        run, number, attempt = round_id
        return self._root / run / f"{number}-{attempt}{_SUFFIX}"

    def _context(self, round_id: RoundId) -> bytes:
        return canonical_json({"sample of": self.site, "round": round_id})


def keep_samples_for(folder: PartyFolder, owner: Ed25519PrivateKey | None) -> None:
    """Note in a site's folder for whom samples are kept from its next start on; None for nobody.

    Where it is nobody, what was kept is deleted.
    """
    name, key, signature = folder.party().name, "", ""
    if owner is not None:
        key = sealing_key(owner)
        signature = owner.sign(_said(name, key)).hex()
    said = PartyFile(name=name, samples_for=key, samples_signed=signature)
    PartyFolder.create(folder.root, said)
    if owner is None:
        samples = Samples(folder)
        for run in samples.runs():
            samples.forget(run)


def _said(site: str, key: str) -> bytes:
    """What an owner signs so that a site keeps its samples for a key."""
    return b"privagg/samples-for/1\0" + canonical_json({"site": site, "samples_for": key})


def integers_digest(integers: IntVector, round_id: RoundId, site: str) -> str:
    """SHA-256 (hex) over a site's integers before noise and the place they belong to; private.

    Args:
        integers: int64 `(d,)`.
        round_id: (run, round, attempt).
        site: whose they are.
    """
    place = canonical_json({"round": round_id, "site": site})
    data = b"privagg/integers/1\0" + place + b"\n" + integers.astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()


def recomputed(kept: Kept, setup: Setup, site: str) -> tuple[str, RecordLearner[Any]]:
    """The digest of the integers that a site's records give now, and what computed it.

    Args:
        kept: of one of its rounds.
        setup: the configuration and its plan.
        site: its name.

    Raises:
        ConfigError: the round was another plan's, or its batches had another size.
        DataError, ModelError: the records cannot be read, or the model not be trained here.
    """
    if kept.plan != setup.plan.digest:
        raise ConfigError(
            f"the round was of plan {kept.plan[:16]}..., and this configuration stands for "
            f"{setup.plan.digest[:16]}...; take the one that the run was begun with"
        )
    learner = setup.learner(site)
    if not isinstance(learner, RecordLearner):
        raise ConfigError(f"no records are sampled under mode {setup.plan.mode!r}")
    found = learner.integers(kept.parameters, kept.records_at)
    return integers_digest(found, kept.round_id, site), learner
