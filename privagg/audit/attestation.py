"""Who vouches for which bytes: an in-toto statement in a DSSE envelope, signed with Ed25519.

Source: in-toto Attestation Framework, Statement v1; DSSE v1.0.2, section "Protocol".
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privagg.digest import canonical_json
from privagg.errors import UnreadableBundleError, VerificationError, validation_faults
from privagg.identity.keys import Identity, verify_signature

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["urn:privagg:report-bundle:1"] = "urn:privagg:report-bundle:1"
MAX_ENVELOPE_BYTES = 8 << 20

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Digest(_Part):
    """A file's digest."""

    sha256: Hex64


class Subject(_Part):
    """One file the statement is about."""

    name: Short
    digest: Digest


class Predicate(_Part):
    """What is said about the files: they are the evidence of this run, put together by `signer`.

    Attributes:
        federation: its name.
        run: the run's name.
        plan_digest: of the run's plan, 64 hex digits.
        signer: the party that put the bundle together.
    """

    federation: Short
    run: Short
    plan_digest: Hex64
    signer: Short


class Statement(BaseModel):
    """The in-toto statement.

    Attributes:
        kind: its field `_type`, a constant of the format.
        subject: the files, each with its digest.
        predicate_type: a constant of the format.
        predicate: what is said about the files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type", default=STATEMENT_TYPE)
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=10_100)]
    predicate_type: Literal["urn:privagg:report-bundle:1"] = Field(
        alias="predicateType", default=PREDICATE_TYPE
    )
    predicate: Predicate


@dataclass(frozen=True)
class InTotoAttestation:
    """A signed statement, read but not yet believed.

    Attributes:
        statement: what it says.
        payload: the bytes that are signed.
        key: the public key that it names, 64 hex digits.
        signature: 64 bytes.
    """

    statement: Statement
    payload: bytes
    key: str
    signature: bytes

    @classmethod
    def sign(cls, identity: Identity, files: Mapping[str, bytes], predicate: Predicate) -> Self:
        """State the digests of `files` and sign as `identity`.

        Args:
            identity: who signs.
            files: name -> content, of everything in the bundle but this statement.
            predicate: what is said about them.
        """
        subjects = tuple(
            Subject(name=name, digest=Digest(sha256=hashlib.sha256(data).hexdigest()))
            for name, data in files.items()
        )
        statement = Statement(subject=subjects, predicate=predicate)
        payload = canonical_json(statement.model_dump(mode="json", by_alias=True))
        return cls(statement, payload, identity.public_hex, identity.sign(_pae(payload)))

    def to_bytes(self) -> bytes:
        """The DSSE envelope as canonical JSON with a final newline."""
        signature = {"keyid": self.key, "sig": base64.b64encode(self.signature).decode("ascii")}
        envelope = {
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [signature],
        }
        return canonical_json(envelope) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an envelope; only the exact bytes that `to_bytes` gives are taken.

        Raises:
            UnreadableBundleError: it is none, or of another kind or version.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise UnreadableBundleError(f"an envelope of {len(data)} bytes is too large")
        try:
            envelope = json.loads(data)
            (signature,) = envelope["signatures"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            statement = Statement.model_validate_json(payload)
            sig = base64.b64decode(signature["sig"], validate=True)
            made = cls(statement, payload, str(signature["keyid"]), sig)
        except ValidationError as error:
            raise UnreadableBundleError(
                f"the attestation holds no statement of type {PREDICATE_TYPE}: "
                f"{validation_faults(error, values=False)}"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnreadableBundleError(f"the attestation is no DSSE envelope: {error}") from error
        # The signature covers the payload alone: what is round it must have one spelling too.
        if (
            made.to_bytes() != data
            or canonical_json(statement.model_dump(mode="json", by_alias=True)) != payload
        ):
            raise UnreadableBundleError("the attestation is not in its canonical spelling")
        return made

    def check(self, public_hex: str) -> None:
        """Check that the key `public_hex` signed the statement.

        Raises:
            VerificationError: it names another key, or the signature is not that key's.
        """
        if self.key != public_hex:
            raise VerificationError(
                f"signed with key {self.key[:16]}..., not with {public_hex[:16]}...: "
                "the key was swapped"
            )
        try:
            verify_signature(bytes.fromhex(public_hex), _pae(self.payload), self.signature)
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(
                f"the signature is not that of key {public_hex[:16]}... over this statement: "
                "it is forged, or the statement was changed"
            ) from error


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what the signature covers."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
