"""The aggregator of one round: checks uploads as they come, folds them in place, names the bad.

It holds public parameters and ciphertext, nothing else. An upload that fails any check leaves the
running sum exactly as it was; the error names the sender and the reason. Uploads that are handed in
together are added in one pass over the sum's memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from privagg.errors import (
    CiphertextError,
    CohortError,
    KeyMismatchError,
    MessageError,
    PrivaggError,
    ReplayError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Identity, Roster
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.frames import Message, read_message, read_statement
from privagg.protocol.key_parts import (
    require_key_parts,
    signed_key_part,
    split_attachments,
    split_key_parts,
)
from privagg.protocol.messages import Header, OpenRequest, PartialSum, Refusal, Statement, Upload
from privagg.secure.contributors import bitmap_of, contributors_of
from privagg.secure.scheme import Buffer, Parameters, Recovery
from privagg.secure.wire import EncryptedTensor

FRAME_OVERHEAD_BYTES = 64 * 2**10
"""Room for a frame's header, the tensor's header and the signature; or for one statement."""

TOGETHER = 4
"""Frames worth handing in together: the kernels read four inputs for each word of the sum. Whoever
collects frames holds that many at once, whatever the number of sites."""


@dataclass(frozen=True)
class RoundTerms:
    """What one round is about; an upload that says otherwise is refused.

    Args:
        run, round, attempt: where in the job.
        plan_digest: SHA-256 (hex) of the plan.
        key_id: SHA-256 (hex) of the encryption key.
        dimension: d.
        names: committed roster, in bitmap order.
        cohort: sites asked in this round.
        minimum_survivors: fewer contributions are not opened.
        strict: keep the upload frames, for the key holder to add again.
        start: what each upload has to have started from (`start_digest`); empty where this
            aggregator was not told, as whoever opens holds all of them against each other.
        aggregators: parties whose partial sums are accepted (a tree of aggregators).
    """

    run: str
    round: int
    attempt: int
    plan_digest: str
    key_id: str
    dimension: int
    names: tuple[str, ...]
    cohort: tuple[str, ...]
    minimum_survivors: int
    strict: bool
    start: str = ""
    aggregators: tuple[str, ...] = ()

    @property
    def round_id(self) -> tuple[str, int, int]:
        """(run, round, attempt)."""
        return self.run, self.round, self.attempt


@dataclass(frozen=True)
class _Checked:
    """An upload that passed every check but the one that adding makes, of its residues.

    Args:
        number: its place among the frames that were handed in.
        frame: the whole message.
        key_part: the one that the sender signed.
    """

    number: int
    frame: Buffer
    statement: Statement
    tensor: EncryptedTensor
    key_part: bytes


class Aggregator:
    """Folds one round's uploads in place.

    What it takes, in any order; what it refuses changes nothing of the sum:

    1. A frame that a party of the roster signed, of the sender that the transport names (where it
       names one), no longer than a frame of this round can be.
    2. `Upload`, of a site in the cohort, for this run, round, attempt, plan and key, one a site;
       its ledger extends what is kept of it, and its key part is the one that it signed.
    3. `PartialSum`, of a named aggregator, never in strict mode: every upload in it by rule 2, and
       none that is in the sum already.
    4. `Refusal`, of a site in the cohort, for this round: raised with its reason, nothing added.
    5. `open_request` names whoever is in the sum by then.

    Beside the sum it keeps each upload's key part (half of a CKKS payload, more of a BFV one), or
    in strict mode its frame, because the key holder asks for them.

    Args:
        terms: what the round is about.
        parameters: public parameters of the scheme, with the key's public facts.
        roster: pinned identity keys of the sites.
        watch: keeps the sites' ledger checkpoints, from what it keeps as the round starts.
        recovery: takes what is attached to uploads; None where the scheme attaches nothing.
    """

    def __init__(
        self,
        terms: RoundTerms,
        parameters: Parameters,
        roster: Roster,
        watch: CheckpointWatch | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self.terms = terms
        self._recovery = recovery
        self._watch = watch
        self._kept_sizes = watch.kept_sizes(terms.cohort) if watch is not None else {}
        self._parameters = parameters
        self._roster = roster
        self._fold = parameters.fold()
        self._statements: dict[str, Statement] = {}
        self._uploads: dict[str, bytes] = {}
        self._key_parts: dict[str, Buffer] = {}

    @property
    def contributions(self) -> tuple[Statement, ...]:
        """The signed statements of every upload in the sum, in roster order."""
        return tuple(self._statements[name] for name in self.contributors)

    @property
    def contributors(self) -> tuple[str, ...]:
        """Sites whose uploads are in the sum, in roster order."""
        return tuple(name for name in self.terms.names if name in self._statements)

    def leave_out(self, failures: Mapping[str, int]) -> dict[str, str]:
        """Whom to leave out, and why, where the sum is made again; see `Recovery.leave_out`."""
        if self._recovery is None:
            return {}
        return self._recovery.leave_out(self.contributors, failures)

    def receive(self, data: Buffer, *, sender: str | None = None) -> str:
        """Check one frame and fold it in; see `receive_many`.

        Returns:
            Name of the party whose contribution was added.

        Raises:
            ProtocolError, CiphertextError, KeyMismatchError: what was wrong; nothing was added.
            LedgerTamperedError: the sender's ledger does not extend the checkpoint kept of it.
        """
        (answer,) = self.receive_many([(sender, data)])
        if isinstance(answer, PrivaggError):
            raise answer
        return answer

    def receive_many(self, frames: Sequence[tuple[str | None, Buffer]]) -> list[str | PrivaggError]:
        """Check frames and fold in those that are good, as if they came one after the other.

        Args:
            frames: who the transport says sent it, where it knows (the frame must agree), and an
                `Upload`, `PartialSum` or `Refusal` frame, whose payload is read in place.
                `TOGETHER` of them are worth handing in at once.

        Returns:
            For each the name of the party whose contribution was added, or what was wrong with it,
            as `receive` raises it; then nothing of it was added.
        """
        answers: list[str | PrivaggError] = []
        waiting: dict[str, _Checked] = {}
        for number, (sender, data) in enumerate(frames):
            try:
                message = self._read(data, sender)
                header = message.header
                if isinstance(header, PartialSum) or header.sender in waiting:
                    self._fold_uploads(waiting, answers)  # what it may overlap with is in by then
                if isinstance(header, PartialSum):
                    self._merge(header, message.payload)
                else:
                    waiting[header.sender] = self._check_upload(number, message, data)
                answers.append(header.sender)
            except PrivaggError as error:
                answers.append(error)
        self._fold_uploads(waiting, answers)
        return answers

    def _read(self, data: Buffer, sender: str | None) -> Message:
        """The message in a frame, its signature verified."""
        part = self._parameters.key_part_bytes + self._parameters.attachment_bytes
        limit = self._parameters.payload_bytes + FRAME_OVERHEAD_BYTES
        limit += self._parameters.attachment_bytes
        limit += self._may_combine * (FRAME_OVERHEAD_BYTES + part)
        message = read_message(data, self._roster, max_bytes=limit)
        header = message.header
        if sender is not None and header.sender != sender:
            raise UnknownPartyError(f"{sender!r} delivered a message signed by {header.sender!r}")
        return message

    def _check_upload(self, number: int, message: Message, frame: Buffer) -> _Checked:
        """Check all of a site's upload but its residues; its key part is the one that it signed."""
        header = message.header
        self._check_place(header)
        if isinstance(header, Refusal):
            raise CohortError(f"{header.sender!r} refuses this round: {header.message}")
        if not isinstance(header, Upload):
            raise MessageError(f"{header.sender!r} sent a {type(header).__name__}, not an upload")
        self._check_key(header.sender, header.key_id)
        self._check_start(header)
        self._keep_checkpoints([header])
        self._require_new((header.sender,))
        try:
            inner, attachments = split_attachments(self._parameters, message.payload)
        except PrivaggError as error:
            raise _named(error, header.sender) from error
        tensor = self._check_tensor(header.sender, (header.sender,), inner)
        part = signed_key_part(self._parameters, header, tensor.payload, attachments)
        self._take_attachments(header.sender, attachments)
        return _Checked(number, frame, message.statement, tensor, part)

    def _take_attachments(self, sender: str, attachments: Buffer) -> None:
        """Take what a site attached, where it contradicts nobody else's."""
        if self._recovery is not None:
            try:
                self._recovery.add(sender, attachments)
            except PrivaggError as error:
                raise _named(error, sender) from error

    def _fold_uploads(
        self, waiting: dict[str, _Checked], answers: list[str | PrivaggError]
    ) -> None:
        """Add what waits, in one pass; a bad one's error takes the place of its answer."""
        errors = self._fold.add_many([upload.tensor.payload for upload in waiting.values()])
        for (sender, upload), error in zip(waiting.items(), errors, strict=True):
            if error is not None:
                answers[upload.number] = _named(error, sender)
                continue
            self._statements[sender] = upload.statement
            if self.terms.strict:
                self._uploads[sender] = bytes(upload.frame)
            else:
                self._key_parts[sender] = upload.key_part
        waiting.clear()

    @property
    def _may_combine(self) -> int:
        """How many statements may come along in one frame, beyond its own header."""
        return len(self.terms.cohort) if self.terms.aggregators else 0

    def _merge(self, header: PartialSum, payload: Buffer) -> None:
        """Fold another aggregator's partial sum, once every statement in it is verified."""
        if header.sender not in self.terms.aggregators:
            raise UnknownPartyError(f"{header.sender!r} is not an aggregator of this round")
        if self.terms.strict:
            raise MessageError("strict mode adds the uploads themselves; partial sums are refused")
        self._require_place(header, header.sender)
        self._check_key(header.sender, header.key_id)
        statements: dict[str, Statement] = {}
        uploads = []
        for statement in header.contributions:
            upload = read_statement(statement, self._roster)
            if not isinstance(upload, Upload) or upload.sender in statements:
                raise MessageError(f"the partial sum of {header.sender!r} names no set of uploads")
            self._check_place(upload)
            self._check_key(upload.sender, upload.key_id)
            self._check_start(upload)
            statements[upload.sender] = statement
            uploads.append(upload)
        self._require_new(statements)
        self._keep_checkpoints(uploads)
        summed, parts = split_key_parts(
            self._parameters, len(uploads), memoryview(payload).cast("B")
        )
        tensor = self._check_tensor(header.sender, tuple(statements), summed)
        require_key_parts(self._parameters, uploads, parts, tensor.payload, header.sender)
        for upload, part in zip(uploads, parts, strict=True):
            self._take_attachments(upload.sender, part[self._parameters.key_part_bytes :])
        try:
            self._fold.add(tensor.payload, addends=len(statements))
        except PrivaggError as error:
            raise _named(error, header.sender) from error
        self._statements.update(statements)
        self._key_parts.update(
            (upload.sender, bytes(part)) for upload, part in zip(uploads, parts, strict=True)
        )

    def _require_new(self, names: Iterable[str]) -> None:
        again = [name for name in names if name in self._statements]
        if again:
            raise ReplayError(f"an upload of {again[0]!r} is already in this round's sum")

    def _keep_checkpoints(self, uploads: Sequence[Upload]) -> None:
        if self._watch is not None:
            self._watch.keep(uploads, since=self._kept_sizes)

    def _check_key(self, sender: str, key_id: str) -> None:
        if key_id != self.terms.key_id:
            raise KeyMismatchError(
                f"{sender!r} encrypted under key {key_id[:16]}..., this round uses "
                f"{self.terms.key_id[:16]}..."
            )

    def _check_start(self, upload: Upload) -> None:
        if self.terms.start and upload.start != self.terms.start:
            raise WrongRoundError(
                f"{upload.sender!r} started from another model or other settings than the round's"
            )

    def _check_place(self, header: Header) -> None:
        if header.sender not in self.terms.cohort:
            raise UnknownPartyError(f"{header.sender!r} is not in this round's cohort")
        self._require_place(header, header.sender)

    def _require_place(self, header: Header, sender: str) -> None:
        terms = self.terms
        if header.round_id != terms.round_id or header.plan_digest != terms.plan_digest:
            raise WrongRoundError(
                f"{sender!r} answered for run {header.run}, round {header.round}, attempt "
                f"{header.attempt}, plan {header.plan_digest[:16]}...; this is run {terms.run}, "
                f"round {terms.round}, attempt {terms.attempt}, plan {terms.plan_digest[:16]}..."
            )

    def _check_tensor(
        self, sender: str, contributors: tuple[str, ...], payload: Buffer
    ) -> EncryptedTensor:
        try:
            tensor = EncryptedTensor.from_bytes(
                payload, max_bytes=self._parameters.payload_bytes + FRAME_OVERHEAD_BYTES
            )
            named = set(contributors_of(tensor, self.terms.names))
        except PrivaggError as error:
            raise _named(error, sender) from error
        found = (tensor.scheme, tensor.parameters_fingerprint, tensor.length, tensor.packing)
        expected = (
            self._parameters.scheme,
            self._parameters.fingerprint,
            self.terms.dimension,
            self._parameters.packing,
        )
        if found != expected:
            raise CiphertextError(
                f"upload of {sender!r}: the tensor says {found}, this round uses {expected}"
            )
        if named != set(contributors):
            raise CiphertextError(f"upload of {sender!r}: its contributor set names other sites")
        if tensor.payload.nbytes != self._parameters.payload_bytes:
            raise CiphertextError(
                f"upload of {sender!r}: payload has {tensor.payload.nbytes} bytes instead of "
                f"{self._parameters.payload_bytes}"
            )
        return tensor

    def _sum_tensor(self) -> bytes:
        """The sum so far, labelled with its contributors."""
        return EncryptedTensor(
            scheme=self._parameters.scheme,
            parameters_fingerprint=self._parameters.fingerprint,
            length=self.terms.dimension,
            packing=self._parameters.packing,
            contributors=bitmap_of(self.contributors, self.terms.names),
            roster_size=len(self.terms.names),
            payload=memoryview(self._fold.payload()),
        ).to_bytes()

    def partial_sum(self, identity: Identity) -> Message:
        """What was folded so far, for an aggregator further up a tree.

        Raises:
            CohortError: nothing was folded yet.
            MessageError: strict mode, in which nobody takes a partial sum.
        """
        if not self._statements:
            raise CohortError("no contribution was folded; there is no partial sum to pass on")
        if self.terms.strict:
            raise MessageError("strict mode adds the uploads themselves; pass those on")
        header = PartialSum(
            **self._reply_as(identity),
            key_id=self.terms.key_id,
            contributions=self.contributions,
        )
        return Message.sign(identity, header, b"".join((self._sum_tensor(), *self._parts())))

    def _parts(self) -> list[Buffer]:
        """The key parts of the uploads in the sum, in roster order."""
        return [self._key_parts[name] for name in self.contributors]

    def _reply_as(self, identity: Identity) -> dict[str, Any]:
        return {
            "run": self.terms.run,
            "round": self.terms.round,
            "attempt": self.terms.attempt,
            "sender": identity.name,
            "plan_digest": self.terms.plan_digest,
        }

    def open_request(self, identity: Identity) -> Message:
        """The request to open what was folded.

        Raises:
            CohortError: fewer contributions than the plan's rule; nothing may be opened.
        """
        contributors = self.contributors
        if len(contributors) < self.terms.minimum_survivors:
            raise CohortError(
                f"{len(contributors)} of {len(self.terms.cohort)} sites contributed; the plan "
                f"opens {self.terms.minimum_survivors} or more (raise `dropouts` to allow fewer)"
            )
        tensor = self._sum_tensor()
        uploads = [self._uploads[name] for name in contributors] if self.terms.strict else []
        parts = [] if self.terms.strict else self._parts()
        header = OpenRequest(
            **self._reply_as(identity),
            key_id=self.terms.key_id,
            contributions=self.contributions,
            tensor_bytes=len(tensor),
            upload_bytes=tuple(len(upload) for upload in uploads),
        )
        return Message.sign(identity, header, b"".join((tensor, *parts, *uploads)))


def _named(error: PrivaggError, sender: str) -> PrivaggError:
    """The same error with whose upload it was."""
    return type(error)(f"upload of {sender!r}: {error}")
