"""A site: a message handler that owns its data, its ledger and its secrets. Bytes in, bytes out.

Nothing is believed because a message says it: everybody's identity keys and the plan's digest are
pinned here, and the key of a run counts by its holder's signature. The order is fixed: check
everything that can be checked, charge the ledger, and only with the receipt in hand train, add
noise, encrypt. What was sent is stored first, so that a resend is the same bytes and free.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from privagg.digest import tree_digest
from privagg.encoding.contribution import Learner
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import (
    ApprovalError,
    BudgetExceededError,
    CohortError,
    DataError,
    KeyErasedError,
    KeyMismatchError,
    LedgerTamperedError,
    MessageError,
    PrivaggError,
    ReceiptError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Identity
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import (
    Approval,
    BudgetKey,
    ChargeRequest,
    Ledger,
    Receipt,
)
from privagg.privacy.plan import Plan
from privagg.privacy.randomness import Randomness
from privagg.protocol.closing import Closing
from privagg.protocol.cohorts import require_drawn
from privagg.protocol.frames import Message, read_message, require_readable
from privagg.protocol.holder import Holder
from privagg.protocol.key_statement import KeyTerms, RunKey, require_custody
from privagg.protocol.mask_holder import MaskHolder
from privagg.protocol.messages import (
    Acknowledgement,
    Challenge,
    ConsistencyProof,
    Header,
    KeyRequest,
    KeyStatement,
    LedgerExport,
    LedgerRequest,
    OpenRequest,
    Presence,
    Refusal,
    RefusalReason,
    ReleaseRequest,
    RoundClose,
    RoundStart,
    Upload,
    refusal_text,
    start_digest,
)
from privagg.protocol.pins import Pins, require_agreed
from privagg.protocol.readiness import budget_problem
from privagg.protocol.run_keys import RunKeys
from privagg.secure.contributors import bitmap_of
from privagg.secure.scheme import Parameters, Scheme
from privagg.secure.wire import EncryptedTensor


@dataclass(frozen=True)
class Seat:
    """A site's place in a federation: all that makes a `Site` but what trains.

    Args:
        identity, pins, plan, scheme, parameters, ledger, randomness, key_holder: as for `Site`.
    """

    identity: Identity
    pins: Pins
    plan: Plan
    scheme: Scheme
    parameters: Parameters
    ledger: Ledger
    randomness: Randomness
    key_holder: Holder | None = None

    @cached_property
    def run_keys(self) -> RunKeys:
        """The runs' keys, each of them read once however many sites are made of this seat."""
        return _run_keys(self.pins, self.plan, self.scheme, self.parameters, self.ledger)

    def site(
        self,
        learner: Learner,
        *,
        records_apart: Mapping[str, Any] | None = None,
        recognise: Callable[[Approval], None] | None = None,
        require_state: Callable[[int, FloatVector], None] | None = None,
        at_end: Callable[[str], None] | None = None,
    ) -> Site:
        """The site, with what trains.

        Args:
            learner, records_apart, recognise, require_state, at_end: as for `Site`.
        """
        return Site(
            **{each.name: getattr(self, each.name) for each in fields(self)},
            run_keys=self.run_keys,
            learner=learner,
            records_apart=records_apart,
            recognise=recognise,
            require_state=require_state,
            at_end=at_end,
        )


class Site:
    """One institution in a federation.

    What it answers, by what its ledger holds; everything else gets a signed `Refusal`:

    1. `KeyStatement`, whoever brought it: the pinned holder signed it, the owner's approval covers
       the plan, and the run has no other key. One key a run, for good.
    2. All else only from the pinned coordinator, for the pinned plan; under custody `sites` its
       `KeyRequest` and `OpenRequest` go to the key holder in this process, by that one's rules.
    3. `Challenge`, at any time: who this is, and before round 1 whether the budget has room.
    4. `RoundStart`, for an attempt without an upload: every refusal that public facts allow comes
       first; then charge, train, encrypt, store, answer.
    5. `RoundStart`, for an attempt whose upload is stored: the same checks, then the same bytes,
       free. One whose receipt was used and that has none stored: where this process was killed
       meanwhile, training begins anew under that charge, as nothing of it has left; else (it
       failed, the upload is forgotten, the ledger is a restored copy) it is spent, and refused. An
       upload is forgotten with the next one that is stored, and as under 6.
    6. `RoundClose` that says opened: with the key holder's statement of exactly these survivors and
       what each of them signed, also where the site took no part; its upload is forgotten. One that
       says stopped: only for an attempt that this site uploaded in, recorded once, as the
       coordinator's claim; the upload stays. Neither gives budget back.
    7. `LedgerRequest`: the whole ledger; the run's stored uploads are forgotten.

    Args:
        identity: signs its uploads.
        pins: what it believes.
        plan: the plan whose digest it pinned.
        learner: trains on its records.
        scheme, parameters: of the plan, before any key exists; keys come run by run.
        ledger: its own, with a budget for its data set.
        randomness: the operating system's; a deterministic source charges epsilon = infinity.
        key_holder: under custody `sites`, the handler for requests to the key holder.
        run_keys: the runs' keys in its ledger, where a seat has them already.
        records_apart: how this site knows that its model keeps records apart; public facts that
            every charge states. None where whole clients are protected.
        recognise: refuses an approval that was given for other records than this site trains on;
            None where that was looked at before, or privagg does not see the records.
        require_state: refuses the public state that a round (its number) would start from, where
            the plan rules it out; None where the plan rules out none.
        at_end: called with a run's name once its ledgers are fetched; None where nothing is kept.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        pins: Pins,
        plan: Plan,
        learner: Learner,
        scheme: Scheme,
        parameters: Parameters,
        ledger: Ledger,
        randomness: Randomness,
        key_holder: Holder | None = None,
        run_keys: RunKeys | None = None,
        records_apart: Mapping[str, Any] | None = None,
        recognise: Callable[[Approval], None] | None = None,
        require_state: Callable[[int, FloatVector], None] | None = None,
        at_end: Callable[[str], None] | None = None,
    ) -> None:
        require_agreed(identity.name, pins, plan, parameters)
        require_custody(scheme, plan)
        self.identity = identity
        self.ledger = ledger
        self._pins = pins
        self._plan = plan
        self._budget_key = BudgetKey.of(plan, identity.name)
        self._learner = learner
        self._keys = run_keys or _run_keys(pins, plan, scheme, parameters, ledger)
        self._randomness = randomness
        self._key_holder = key_holder
        self._records_apart = records_apart
        self._recognise = recognise
        self._recognised: set[str] = set()
        self._require_state = require_state
        self._at_end = at_end
        self._closing = Closing(
            name=identity.name,
            pins=pins,
            plan=plan,
            ledger=ledger,
            secure=randomness.secure,
            terms=self._keys.terms,
        )
        self.encrypt_seconds = 0.0
        """Wall-clock seconds of the last encryption; shown to the owner, in no message."""

    def handle(self, data: bytes) -> bytes:
        """Answer one message; a refusal for public reasons is an answer too.

        Raises:
            MessageError, SignatureError, UnknownPartyError: no message of a pinned party.
        """
        return self.answer(read_message(data, self._pins.roster), data)

    def answer(self, message: Message, data: bytes) -> bytes:
        """`handle` for whoever has verified this frame against the site's roster already.

        Args:
            message: what `read_message` made of `data`.
            data: the frame.
        """
        try:
            return self._answer(message, data)
        except PrivaggError as error:
            facts = Refusal(
                **self._reply_to(message.header),
                reason=_reason(error),
                message=refusal_text(error),
            )
            return Message.sign(self.identity, facts).to_bytes()

    def _answer(self, message: Message, data: bytes) -> bytes:
        header = message.header
        if isinstance(header, OpenRequest | KeyRequest) and self._key_holder is not None:
            return self._key_holder.handle(data)
        if isinstance(header, KeyStatement):
            return self._take_key(message)
        if header.sender != self._pins.coordinator:
            raise UnknownPartyError(f"{header.sender!r} does not coordinate this federation")
        if header.plan_digest != self._pins.plan_digest:
            raise WrongRoundError(
                f"plan {header.plan_digest[:16]}... is not the one this site pinned "
                f"({self._pins.plan_digest[:16]}...)"
            )
        if isinstance(header, RoundStart):
            return self._take_part(header, message)
        if isinstance(header, RoundClose):
            with self.ledger.together():
                self._closing.record(header)
                return self._acknowledge(header)
        if isinstance(header, Challenge):
            return self._introduce(header)
        if isinstance(header, LedgerRequest):
            return self._export(header)
        if isinstance(header, ReleaseRequest) and isinstance(self._key_holder, MaskHolder):
            key = self._keys.require(header.run, header.round, header.key_id)
            return self._key_holder.release(message, key)
        raise MessageError(f"a site does not answer a {type(header).__name__}")

    # --- before and after the rounds --------------------------------------------------------------

    def _introduce(self, header: Challenge) -> bytes:
        """Prove who this is; before round 1, look whether the budget has room for the whole job."""
        presence = Presence(
            **self._reply_to(header),
            nonce=header.nonce,
            problem=self._problem(header),
            kept_sizes=self._closing.report_kept_sizes(header.run),
        )
        return Message.sign(self.identity, presence).to_bytes()

    def _problem(self, header: Challenge) -> str:
        # A job that is resumed, or asks for ledgers alone, is in the budget already.
        if header.round > 1 or not self._randomness.secure or self.ledger.was_charged(header.run):
            return ""
        return budget_problem(self.ledger, self._plan, self.identity.name, header.run)

    def _export(self, header: LedgerRequest) -> bytes:
        """The whole ledger, public facts only; the run's stored uploads are needed no more."""
        self.ledger.forget_uploads(header.run)
        if self._at_end is not None:
            self._at_end(header.run)
        if isinstance(self._key_holder, MaskHolder):
            self._key_holder.forget(header.run)
        export = b"".join(self.ledger.bundle().to_bytes())
        facts = LedgerExport(**self._reply_to(header))
        return Message.sign(self.identity, facts, export).to_bytes()

    def _acknowledge(self, header: Header) -> bytes:
        facts = self._reply_to(header) | {"kept_sizes": self._closing.report_kept_sizes(header.run)}
        return Message.sign(self.identity, Acknowledgement(**facts)).to_bytes()

    def _take_key(self, message: Message) -> bytes:
        """Take the key of a run that the owner approves; whoever brought it, its holder signed."""
        run = message.header.run
        self.ledger.require_approval(self._budget_key, self._plan.digest, run)
        self._keys.take(message)
        # Without what is kept of the others' ledgers: it may be lost, and was then never told.
        facts = Acknowledgement(**self._reply_to(message.header))
        return Message.sign(self.identity, facts).to_bytes()

    # --- taking part ---------------------------------------------------------------------------

    def _take_part(self, header: RoundStart, message: Message) -> bytes:
        key, start = self._check_start(header), start_digest(header, message.payload_digest)
        parameters = self._read_model(message)
        if self._require_state is not None:
            self._require_state(header.round, parameters)
        stored = self.ledger.stored_upload(*header.round_id)
        if stored is not None:
            require_readable(stored)
            return stored
        if isinstance(self._key_holder, MaskHolder):
            subject = (*header.round_id, *self._budget_key)
            self._key_holder.require_own(
                key,
                header.round,
                header.attempt,
                charged=lambda: self.ledger.recorded("charge", subject),
            )
        with self.ledger.together():  # both before training, and so before anything leaves
            receipt = self.ledger.charge(self._charge_request(header, key))
            if not self.ledger.cut_off(receipt):
                self.ledger.consume(receipt)
        try:
            values = self._train(parameters, header)
            upload = self._encrypt(header, start, key, receipt, values)
        except Exception:
            self.ledger.fail_training(receipt)
            raise
        self.ledger.store_upload(receipt, upload)
        return upload

    def _train(self, parameters: FloatVector, header: RoundStart) -> IntVector:
        """Whatever goes wrong in training may depend on records, so none of it leaves the site."""
        try:
            return self._learner.contribution(parameters, self._randomness, header.round_id)
        except PrivaggError:
            raise
        except Exception as error:
            raise DataError(f"training failed on this site's own data: {error}") from error

    def _check_start(self, header: RoundStart) -> RunKey:
        """Every refusal that public facts allow comes before the charge; the run's key."""
        if header.round > self._plan.rounds:
            raise WrongRoundError(
                f"round {header.round} is beyond the plan's {self._plan.rounds} rounds"
            )
        cohort, planned = header.cohort, self._plan.in_round(header.round)
        if not planned.is_cohort(cohort):
            raise CohortError(
                f"round {header.round} of this plan asks {planned.addends} different sites of "
                f"{', '.join(planned.names)} in this order; this one asks {', '.join(cohort)}"
            )
        if self.identity.name not in cohort:
            raise CohortError(f"{self.identity.name!r} is not in this round's cohort")
        self._closing.require_asked(header)
        self._require_recognised(
            self.ledger.require_approval(self._budget_key, self._plan.digest, header.run),
            header.run,
        )
        key = self._keys.require(header.run, header.round, header.key_id)
        require_drawn(self._plan, header.run, header.round, cohort)
        return key

    def require_approved_records(self) -> None:
        """Refuse to serve on other records than an approval in force was given for.

        Without one there is nothing to refuse yet: no round begins before it is there.

        Raises:
            DataError: for the owner's eyes; a coordinator is told its kind alone.
        """
        with suppress(ApprovalError):
            self._require_recognised(
                self.ledger.require_approval(self._budget_key, self._plan.digest)
            )

    def _require_recognised(self, approval: Approval, run: str | None = None) -> None:
        """Before a run's first charge; once it has begun, no stop depends on records."""
        if self._recognise is None or approval.name in self._recognised:
            return
        if run is None or not self.ledger.was_charged(run):
            self._recognise(approval)
            self._recognised.add(approval.name)

    def _read_model(self, message: Message) -> FloatVector:
        dimension = self._plan.in_round(message.header.round).dimension
        expected = 8 * dimension
        if len(message.payload) != expected:
            raise MessageError(
                f"the model has {len(message.payload)} bytes; {expected} were expected "
                f"({dimension} float64)"
            )
        parameters = np.frombuffer(message.payload, dtype="<f8").astype(np.float64)
        if not np.isfinite(parameters).all():
            raise MessageError("the round's model holds values that are not finite")
        return parameters

    def _charge_request(self, header: RoundStart, key: RunKey) -> ChargeRequest:
        plan = self._plan
        event = plan.in_round(header.round).committed_event(self.identity.name)
        if not self._randomness.secure:
            event = DpEvent.once(Mechanism(kind="non-private"))
        return ChargeRequest(
            run=header.run,
            round=header.round,
            attempt=header.attempt,
            **self._budget_key._asdict(),
            event=event,
            plan_digest=plan.digest,
            facts=self._facts(header, key),
        )

    def _facts(self, header: RoundStart, key: RunKey) -> dict[str, Any]:
        """What is about to be done, for whoever reads the ledger later; public facts only."""
        return {
            **self._plan.in_round(header.round).charge_facts,
            "cohort": list(header.cohort),
            "key_id": key.key_id,
            "security_bits": key.parameters.security_bits,
            "generator": self._randomness.name,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **({"records_apart": dict(self._records_apart)} if self._records_apart else {}),
        }

    def _encrypt(
        self, header: RoundStart, start: str, key: RunKey, receipt: Receipt, values: IntVector
    ) -> bytes:
        began, planned = time.perf_counter(), self._plan.in_round(header.round)
        occasion = key.occasion(header.round, header.attempt, header.cohort)
        if self._key_holder is None:
            payload, attachments = key.key.encrypt(values), b""
        else:
            payload, attachments = self._key_holder.protect(key, values, occasion)
        tensor = EncryptedTensor(
            scheme=key.parameters.scheme,
            parameters_fingerprint=key.parameters.fingerprint,
            length=self._plan.upload_dimension,
            packing=key.parameters.packing,
            contributors=bitmap_of((self.identity.name,), self._plan.names),
            roster_size=len(self._plan.names),
            payload=memoryview(payload),
        )
        upload = Upload(
            **self._reply_to(header),
            key_id=key.key_id,
            key_part_digest=tree_digest(key.parameters.key_part(payload) + attachments),
            receipt_hash=receipt.entry_hash,
            checkpoint=receipt.checkpoint,
            consistency=self._consistency(header, receipt),
            generator=self._randomness.name,
            noise_stddev_grid=planned.noise_stddev_text,
            start=start,
        )
        body = b"".join((tensor.to_bytes(), attachments))
        frame = Message.sign(self.identity, upload, body).to_bytes()
        self.encrypt_seconds = time.perf_counter() - began
        return frame

    def _consistency(self, header: RoundStart, receipt: Receipt) -> tuple[ConsistencyProof, ...]:
        """Proofs that the receipt's checkpoint extends each one that somebody keeps."""
        asked = header.kept_sizes.get(self.identity.name, ())
        size = receipt.index + 1
        return tuple(
            ConsistencyProof(
                since=kept,
                path=tuple(step.hex() for step in self.ledger.consistency_proof(kept, size)),
            )
            for kept in sorted(set(asked))
            if 0 < kept < size
        )

    def _reply_to(self, header: Header) -> dict[str, Any]:
        return {
            "run": header.run,
            "round": header.round,
            "attempt": header.attempt,
            "sender": self.identity.name,
            "plan_digest": self._pins.plan_digest,
        }


def _run_keys(
    pins: Pins, plan: Plan, scheme: Scheme, parameters: Parameters, ledger: Ledger
) -> RunKeys:
    terms = KeyTerms(
        roster=pins.roster,
        coordinator=pins.coordinator,
        opener=pins.opener,
        plan=plan,
        scheme=scheme,
        parameters=parameters,
    )
    return RunKeys(ledger, terms)


def _reason(error: PrivaggError) -> RefusalReason:
    reasons: tuple[tuple[type[PrivaggError], RefusalReason], ...] = (
        (BudgetExceededError, "budget"),
        (ReceiptError, "spent-attempt"),
        (KeyMismatchError, "key"),
        (KeyErasedError, "key-erased"),
        (WrongRoundError, "plan"),
        (ApprovalError, "plan"),
        (CohortError, "cohort"),
        (LedgerTamperedError, "ledger"),
    )
    return next((reason for kind, reason in reasons if isinstance(error, kind)), "unavailable")
