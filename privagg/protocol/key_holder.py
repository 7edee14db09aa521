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
from collections.abc import Sequence
from typing import Any

from privagg.errors import (
    KeyMismatchError,
    OpeningRefusedError,
    PrivaggError,
)
from privagg.privacy.plan import Plan
from privagg.protocol.frames import Message, read_message
from privagg.protocol.holder import Holder
from privagg.protocol.key_parts import require_key_parts, split_key_parts
from privagg.protocol.messages import Challenge, Opening, OpenRequest, Presence, Upload
from privagg.protocol.peers import PeerCheckpoints
from privagg.secure.contributors import contributors_of
from privagg.secure.opening import DecryptionKey
from privagg.secure.scheme import Buffer
from privagg.secure.wire import EncryptedTensor

DOES_NOT_OPEN = (
    "the sum does not open to a value in the proven range: a contributor made up its upload, or "
    "the sum was altered where it was added. Nobody can tell who, as no part of a sum is ever "
    "opened to find out. Nothing was opened, the round is not asked again, and every contributor "
    "stays charged. Rehearse the plan on made-up data before a new run; there sites can be left out"
)


class KeyHolder(Holder):
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
        plan, holding: as for `Holder`; what may be opened follows from the plan.
        checkpoints: its memory of the sites' ledgers; nothing is opened for one that was rewritten.
    """

    def __init__(self, plan: Plan, *, checkpoints: PeerCheckpoints, **holding: Any) -> None:
        super().__init__(plan, opener=holding["identity"].name, **holding)
        self._checkpoints = checkpoints

    def _answer(self, message: Message, data: bytes) -> bytes:
        if isinstance(message.header, Challenge):
            return self._introduce(message.header)
        return self._open(message, hashlib.sha256(data).hexdigest())

    def _introduce(self, header: Challenge) -> bytes:
        """Prove who this is, to the aggregator of this plan."""
        self._require_aggregator(header)
        presence = Presence(
            **self.reply_to(header),
            nonce=header.nonce,
            problem=self.problem(header.run),
            kept_sizes=self._checkpoints.report_kept_sizes(header.run, self._plan.names),
        )
        return Message.sign(self.identity, presence).to_bytes()

    def _opening_key(self, run: str) -> DecryptionKey:
        """The key of a run.

        Raises:
            KeyErasedError, KeyMismatchError: as `KeyStore.secret`; or it opens no sums.
        """
        key = self._key_of(run)
        if not isinstance(key, DecryptionKey):
            raise KeyMismatchError(f"what is held of run {run!r} opens no sum by itself")
        return key

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
        self.check_plan(header)
        key = self._opening_key(header.run)
        self._until()
        uploads = self.check_contributions(header, key.encryption_key.key_id)
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
            **self.reply_to(header),
            key_id=header.key_id,
            request_sha256=request_sha256,
            contributors=contributors,
            kept_sizes=self._checkpoints.report_kept_sizes(header.run, self._plan.names),
        )
        answer = Message.sign(self.identity, opening, share).to_bytes()
        return self._remember(header, request_sha256, answer)

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
