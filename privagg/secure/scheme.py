"""The contract of a secure aggregation scheme, public side.

A scheme adds integer vectors that the adder cannot read. Whatever it does inside, every scheme
returns *the same integers*: for contributions v_1 ... v_m in Z^d whose sum lies within the stated
bound, opening the fold of their encryptions gives exactly v_1 + ... + v_m. One contract test suite
(`tests/secure/contract.py`) holds all schemes to that.

Three roles, three objects, and no object gives a role more than it needs:

* `Parameters`: public numbers. The aggregator holds nothing else; it gets a `Fold` from them.
* `EncryptionKey`: what a site needs to turn integers into a payload.
* `DecryptionKey`: what a key holder needs to answer an opening request with a share. It is in the
  secret half of the contract, `privagg.secure.opening`, with what makes and reads such keys.
  Nothing here leads there, and import rules keep aggregator, round and coordinator out of it.

Opening is a protocol even where one party holds the key: a request, one or more shares, a
combination; so keys held jointly by t of n institutions, or one-time mask keys, fit the same calls.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar

from privagg.digest import json_digest
from privagg.encoding.vectors import IntVector
from privagg.errors import PrivaggError, SchemeError

Buffer = bytes | bytearray | memoryview


class Phase(str, Enum):
    """The steps a scheme takes part in; the round drives the ones a scheme declares, in order.

    `open`: whoever holds the key opens the sum. Where nobody does: `consent`, the contributors
    agree on whose uploads are in the sum where one is missing; `release`, they give what unmasks
    it. A scheme that declares another order is refused before a site is asked for anything.
    """

    UPLOAD = "upload"
    OPEN = "open"
    CONSENT = "consent"
    RELEASE = "release"


@dataclass(frozen=True)
class Requirement:
    """What a round asks of a scheme; all of it public, all of it from the plan.

    Args:
        length: d, coordinates of a contribution.
        upload_bound: no contribution has a coordinate beyond +-upload_bound (weight and noise in).
        sum_bound: no sum of a full cohort has a coordinate beyond +-sum_bound.
        addends: most contributions that are ever folded into one sum.
        security_bits: lowest classical security level accepted.
    """

    length: int
    upload_bound: int
    sum_bound: int
    addends: int
    security_bits: int = 128


class Parameters(ABC):
    """Public parameters of a scheme for one requirement. Immutable; equal means same fingerprint.

    Attributes:
        scheme: registered name of the scheme.
        requirement: what these parameters were chosen for.
        security_bits: classical security level they reach (0 for a scheme that hides nothing).
        compiled_kernels: kernels for `privagg.kernels.loading`, which a first run has to compile.
    """

    scheme: str
    requirement: Requirement
    security_bits: int
    compiled_kernels: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts from which `Scheme.load_parameters` rebuilds an equal object."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the canonical JSON of `to_dict`; every message is held against it."""
        return json_digest(self.to_dict())

    @property
    @abstractmethod
    def payload_bytes(self) -> int:
        """Exact size of one payload in bytes; a payload of any other size is refused."""

    @property
    @abstractmethod
    def packing(self) -> str:
        """How values sit in the payload, in a few words; goes into the tensor's header."""

    @abstractmethod
    def explain(self) -> str:
        """Why these parameters: modulus, headroom, security, failure bound, size; plain text."""

    @abstractmethod
    def fold(self) -> Fold:
        """An empty running sum for the aggregator."""

    @property
    def key_part_bytes(self) -> int:
        """Exact size of a payload's key part in bytes; 0 where the scheme has none."""
        return 0

    def key_part(self, payload: Buffer) -> bytes:
        """The part of a payload that opening multiplies with the secret key.

        Whoever may choose it reads the key from what is opened, so that the key holder opens a
        sum only where this part is the sum of those that the contributors signed.

        Args:
            payload: `payload_bytes` bytes, of one contribution or of a sum.

        Returns:
            `key_part_bytes` bytes.
        """
        return b""

    def key_part_fold(self) -> Fold | None:
        """An empty running sum of key parts; None where the scheme has none."""
        return None

    @property
    def attachment_bytes(self) -> int:
        """Exact size in bytes of what comes with each payload, to open the sum by; 0 for none."""
        return 0

    @property
    def least_releases(self) -> int:
        """Sites that have to release together before a sum opens; 0 where a key opens it."""
        return 0

    def for_roster(self, asked: int) -> Parameters:
        """The parameters of rounds that ask so many sites, of a job whose roster changes.

        Args:
            asked: at most as many as these are for; sites that may fail or collude are as many.

        Raises:
            ParameterError: the scheme opens no sum of so few.
        """
        return self

    @property
    def binds_by_consent(self) -> bool:
        """Whether a site that consented to a list is bound to it, whatever becomes of the attempt.

        Else it is bound once it released, and may contribute to a further attempt before.
        """
        return True

    def recovery(self, occasion: Occasion) -> Recovery | None:
        """What unmasks a round's sum by the sites' releases; None where a key opens sums."""
        return None


@dataclass(frozen=True)
class Occasion:
    """Which round a contribution is masked for; what is drawn for it serves no other.

    Args:
        run, round, attempt: where in the job.
        members: sites that are asked and have a key of their own in this run, in roster order.
    """

    run: str
    round: int
    attempt: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Unmasked:
    """What releases gave.

    Args:
        total: int64 (d,), the sum; None where the releases do not suffice.
        problem: why not; empty where they do.
        wrong: site -> what of it contradicts its own signed commitments or its other words.
        doubted: a site whose shares others say that they cannot open, and these, where that keeps
            the sum closed; one of them lies at least.
    """

    total: IntVector | None
    problem: str
    wrong: Mapping[str, str]
    doubted: Collection[str] = ()


class Recovery(ABC):
    """One round's attachments at whoever adds, and the unmasking by what sites release."""

    @abstractmethod
    def add(self, site: str, attachments: Buffer) -> None:
        """Take what came with a site's payload.

        Args:
            site: a member.
            attachments: `attachment_bytes` bytes.

        Raises:
            CiphertextError: malformed, other than before, or contradicted by another site's; names
                that one.
        """

    @abstractmethod
    def leave_out(self, summed: Collection[str], failures: Mapping[str, int]) -> dict[str, str]:
        """Whom to leave out, and why, where the sum is made again as fewer are missing from it.

        Sites whose attachments two others contradict, and more than may collude: they lie. Sites
        whose upload failed after its attachments had come. And of the rest those without whom
        nobody contradicts anybody, as few as can be, and of as few those that failed most often
        before. Where anybody is named all uploads have to be added again; what contradicted what is
        kept.

        Args:
            summed: sites whose uploads are in the sum.
            failures: site -> how often it was listed and then did not help to open the sum.
        """

    @abstractmethod
    def require_list(self, listed: Sequence[str]) -> None:
        """Refuse a list of contributors that must not be opened together.

        Args:
            listed: members, in roster order.

        Raises:
            CohortError: too few, or as many as may collude could cut the others apart.
        """

    @abstractmethod
    def needs_consent(self, listed: Sequence[str]) -> bool:
        """Whether the listed sites have to agree on the list before any of them releases."""

    @abstractmethod
    def packets(self, site: str, listed: Sequence[str]) -> bytes:
        """What the listed sites attached for one of them, sealed; goes with the request to it."""

    @abstractmethod
    def unmask(
        self, total: Buffer, listed: Sequence[str], releases: Mapping[str, Buffer]
    ) -> Unmasked:
        """Take the masks off a sum.

        Args:
            total: the sum, `payload_bytes` bytes.
            listed: whose payloads are in it, in roster order.
            releases: site -> what it released for exactly this list.
        """


class Fold(ABC):
    """A running sum of payloads, in place; memory does not grow with the number of addends."""

    count: int
    """Contributions folded in so far."""

    @abstractmethod
    def add(self, payload: Buffer, addends: int = 1) -> None:
        """Check size, structure and the range of every residue of `payload`, and add it.

        On any error the running sum is as it was before.

        Args:
            payload: `payload_bytes` bytes; read without copying where possible.
            addends: contributions already inside `payload` (more than 1 for a partial sum).

        Raises:
            CiphertextError: malformed or out of range.
            CapacityError: more addends than the parameters were chosen for.
        """

    def add_many(self, payloads: Sequence[Buffer]) -> list[PrivaggError | None]:
        """Check single contributions and add those that are good.

        The sum is then exactly that of the good ones. A fold whose kernel takes several in one pass
        over memory overrides this.

        Args:
            payloads: `payload_bytes` bytes each.

        Returns:
            For each its error as `add` raises it, or None if it was added.
        """
        errors: list[PrivaggError | None] = []
        for payload in payloads:
            try:
                self.add(payload)
                errors.append(None)
            except PrivaggError as error:
                errors.append(error)
        return errors

    @abstractmethod
    def payload(self) -> bytes:
        """The sum so far, as a payload of `payload_bytes` bytes."""


class EncryptionKey(ABC):
    """What a site holds. For a symmetric or masking scheme this may itself be secret.

    Attributes:
        parameters: the public parameters it belongs to.
    """

    parameters: Parameters

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The key as bytes, for `Scheme.load_encryption_key`."""

    @cached_property
    def key_id(self) -> str:
        """SHA-256 (hex) over the parameters' fingerprint and the key's bytes; parties pin this."""
        digest = hashlib.sha256(b"privagg/key/1\0" + self.parameters.fingerprint.encode())
        digest.update(self.to_bytes())
        return digest.hexdigest()

    @abstractmethod
    def encrypt(self, values: IntVector) -> bytes:
        """Encrypt one contribution.

        Args:
            values: int64 (d,), every coordinate within +-upload_bound.

        Returns:
            A fresh payload of `parameters.payload_bytes` bytes.

        Raises:
            CapacityError: wrong length, or a coordinate beyond the bound.
        """


class Scheme(ABC):
    """The public half of a scheme. Stateless; found by name through `registry.scheme`.

    A sum, from its requirement to the integers::

        bfv = scheme("bfv")
        wanted = Requirement(length=3, upload_bound=100, sum_bound=200, addends=2)
        parameters = bfv.choose_parameters(wanted)
        secret = key_generator("bfv").generate_key(parameters)  # the key holder; from `opening`
        stated = secret.encryption_key.to_bytes()
        key = bfv.load_encryption_key(parameters, stated)  # every site
        fold = key.parameters.fold()  # the aggregator
        fold.add(key.encrypt(np.array([1, 2, 3])))
        fold.add(key.encrypt(np.array([10, 20, -30])))
        share = secret.open_share(fold.payload(), fold.count)  # the key holder
        total = bfv.combine(key.parameters, [share], fold.count)  # array([11, 22, -27])

    Attributes:
        name: what a configuration calls it.
        protects: False for the plaintext oracle, which hides nothing and is marked unsafe.
        phases: the phases of a round the scheme takes part in, in order.
        by_tail: whether a value whose sum leaves the range is wrong, and its neighbour, and nothing
            else: such a range may be what the job's sums keep to but for 2^-64.
    """

    name: ClassVar[str]
    protects: ClassVar[bool] = True
    phases: ClassVar[tuple[Phase, ...]] = (Phase.UPLOAD, Phase.OPEN)
    by_tail: ClassVar[bool] = False

    @property
    def every_site(self) -> bool:
        """Whether nobody holds a key that opens sums, and every site states one of its own."""
        return Phase.RELEASE in self.phases

    @abstractmethod
    def choose_parameters(self, requirement: Requirement, **options: Any) -> Parameters:
        """Smallest parameters that hold the requirement with proven headroom.

        Raises:
            ParameterError: nothing fits; the message says which demand to lower.
        """

    @abstractmethod
    def load_parameters(self, facts: Mapping[str, Any]) -> Parameters:
        """Rebuild parameters from `Parameters.to_dict`, checking every value (untrusted input)."""

    @abstractmethod
    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> EncryptionKey:
        """Read an encryption key (untrusted input).

        Raises:
            KeyMismatchError, CiphertextError: the bytes are not a key for these parameters.
        """

    def joint_key(
        self, parameters: Parameters, *, epoch: str, roster: str, cards: Mapping[str, bytes]
    ) -> EncryptionKey:
        """What several sites stated of their own keys, together; its `key_id` covers all of it.

        Args:
            parameters: those of every card.
            epoch: names the run, or the rounds of one between two changes of the roster.
            roster: digest of who is who.
            cards: site -> the key that it stated (`EncryptionKey.to_bytes`), in roster order.

        Raises:
            SchemeError: one party states the key of this scheme.
            KeyMismatchError, CiphertextError: too few cards, or one that is no key.
        """
        raise SchemeError(f"the key of scheme {self.name!r} is stated by the party that holds it")

    @abstractmethod
    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        """Combine opening shares into the opened sum.

        Args:
            parameters: those of the fold.
            shares: what key holders answered; one where a single party holds the key.
            count: contributions in the opened sum.

        Returns:
            int64 (d,), exactly the sum of the contributions.

        Raises:
            CiphertextError: a share is malformed or lies outside the proven range.
        """
