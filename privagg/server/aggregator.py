"""The aggregator of one round: checks uploads as they come, folds them in place, names the bad.

It holds public parameters and ciphertext, nothing else. An upload that fails any check leaves the
running sum exactly as it was; the error names the sender and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from privagg.identity import Identity, Roster
from privagg.messages import Message, OpenRequest, Refusal, Statement, Upload, read_message
from privagg.secure.contributors import bitmap_of, contributors_of
from privagg.secure.scheme import Buffer, Parameters
from privagg.secure.wire import EncryptedTensor

FRAME_OVERHEAD_BYTES = 64 * 2**10
"""Room for a frame's header, the tensor's header and the signature."""


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

    @property
    def place(self) -> tuple[str, int, int]:
        """(run, round, attempt)."""
        return self.run, self.round, self.attempt


class Aggregator:
    """Folds one round's uploads; memory is O(model), whatever the number of sites.

    (In strict mode it also keeps the upload frames, because the key holder asks for them.)

    Args:
        terms: what the round is about.
        parameters: public parameters of the scheme, with the key's public facts.
        roster: pinned identity keys of the sites.
    """

    def __init__(self, terms: RoundTerms, parameters: Parameters, roster: Roster) -> None:
        self.terms = terms
        self._parameters = parameters
        self._roster = roster
        self._fold = parameters.fold()
        self._statements: dict[str, Statement] = {}
        self._uploads: dict[str, bytes] = {}
        self.refused: dict[str, PrivaggError] = {}

    @property
    def contributors(self) -> tuple[str, ...]:
        """Sites whose uploads are in the sum, in roster order."""
        return tuple(name for name in self.terms.names if name in self._statements)

    def receive(self, data: Buffer, *, sender: str | None = None) -> str:
        """Check one frame and fold it in.

        Args:
            data: an `Upload` (or `Refusal`) frame; the payload is read in place.
            sender: who the transport says sent it, where it knows; the frame must agree.

        Returns:
            Name of the site whose upload was added.

        Raises:
            ProtocolError, CiphertextError, KeyMismatchError: what was wrong; nothing was added.
        """
        limit = self._parameters.payload_bytes + FRAME_OVERHEAD_BYTES
        message = read_message(data, self._roster, max_bytes=limit)
        header = message.header
        if sender is not None and header.sender != sender:
            raise UnknownPartyError(f"{sender!r} delivered a message signed by {header.sender!r}")
        self._check_place(message)
        if isinstance(header, Refusal):
            raise CohortError(f"{header.sender!r} refuses this round: {header.message}")
        if not isinstance(header, Upload):
            raise MessageError(f"{header.sender!r} sent a {type(header).__name__}, not an upload")
        if header.sender in self._statements:
            raise ReplayError(f"an upload of {header.sender!r} is already in this round's sum")
        if header.key_id != self.terms.key_id:
            raise KeyMismatchError(
                f"{header.sender!r} encrypted under key {header.key_id[:16]}..., this round "
                f"uses {self.terms.key_id[:16]}..."
            )
        tensor = self._check_tensor(header, message.payload)
        try:
            self._fold.add(tensor.payload)
        except CiphertextError as error:
            raise CiphertextError(f"upload of {header.sender!r}: {error}") from error
        self._statements[header.sender] = message.statement
        if self.terms.strict:
            self._uploads[header.sender] = bytes(data)
        return header.sender

    def _check_place(self, message: Message) -> None:
        header, terms = message.header, self.terms
        if header.sender not in terms.cohort:
            raise UnknownPartyError(f"{header.sender!r} is not in this round's cohort")
        if header.place != terms.place or header.plan_digest != terms.plan_digest:
            raise WrongRoundError(
                f"{header.sender!r} answered for run {header.run}, round {header.round}, attempt "
                f"{header.attempt}, plan {header.plan_digest[:16]}...; this is run {terms.run}, "
                f"round {terms.round}, attempt {terms.attempt}, plan {terms.plan_digest[:16]}..."
            )

    def _check_tensor(self, header: Upload, payload: Buffer) -> EncryptedTensor:
        try:
            tensor = EncryptedTensor.from_bytes(
                payload, max_bytes=self._parameters.payload_bytes + FRAME_OVERHEAD_BYTES
            )
            contributors = contributors_of(tensor, self.terms.names)
        except PrivaggError as error:
            raise type(error)(f"upload of {header.sender!r}: {error}") from error
        facts = (tensor.run, tensor.round, tensor.attempt, tensor.key_id)
        expected_tensor = (
            self._parameters.scheme,
            self._parameters.fingerprint,
            self.terms.dimension,
            self._parameters.packing,
        )
        if facts != (*self.terms.place, self.terms.key_id):
            raise WrongRoundError(
                f"the tensor inside the upload of {header.sender!r} is labelled with another "
                "round or key than the upload that carries it"
            )
        found = (tensor.scheme, tensor.parameters_fingerprint, tensor.length, tensor.packing)
        if found != expected_tensor:
            raise CiphertextError(
                f"upload of {header.sender!r}: the tensor says {found}, this round uses "
                f"{expected_tensor}"
            )
        if contributors != (header.sender,):
            raise CiphertextError(
                f"upload of {header.sender!r}: its contributor set names other sites"
            )
        return tensor

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
        tensor = EncryptedTensor(
            scheme=self._parameters.scheme,
            parameters_fingerprint=self._parameters.fingerprint,
            key_id=self.terms.key_id,
            length=self.terms.dimension,
            packing=self._parameters.packing,
            run=self.terms.run,
            round=self.terms.round,
            attempt=self.terms.attempt,
            contributors=bitmap_of(contributors, self.terms.names),
            roster_size=len(self.terms.names),
            payload=memoryview(self._fold.payload()),
        ).to_bytes()
        uploads = [self._uploads[name] for name in contributors] if self.terms.strict else []
        header = OpenRequest(
            run=self.terms.run,
            round=self.terms.round,
            attempt=self.terms.attempt,
            sender=identity.name,
            plan_digest=self.terms.plan_digest,
            key_id=self.terms.key_id,
            contributions=tuple(self._statements[name] for name in contributors),
            tensor_bytes=len(tensor),
            upload_bytes=tuple(len(upload) for upload in uploads),
        )
        return Message.sign(identity, header, b"".join((tensor, *uploads)))
