"""Plaintext sums: the oracle every other scheme is compared with. It hides nothing."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, ParameterError
from privagg.kernels.counters import CounterSum
from privagg.kernels.running_sum import Fault
from privagg.secure import facts as fact
from privagg.secure.folding import KernelFold
from privagg.secure.opening import DecryptionKey, KeyGenerator
from privagg.secure.scheme import Buffer, EncryptionKey, Parameters, Requirement, Scheme

_KEY_BYTES = 16


@dataclass(frozen=True)
class PlaintextParameters(Parameters):
    """Little-endian int64 counters, added modulo 2^64; exact while |sum| <= 2^62 - 1.

    Args:
        requirement: what the parameters were chosen for.
    """

    requirement: Requirement
    scheme = "plaintext"
    security_bits = 0

    def __post_init__(self) -> None:
        fact.check_requirement(self.requirement)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "scheme": self.scheme,
            "requirement": fact.requirement_to_dict(self.requirement),
        }

    @property
    def payload_bytes(self) -> int:
        """Eight bytes a coordinate."""
        return 8 * self.requirement.length

    @property
    def packing(self) -> str:
        """One little-endian int64 a coordinate."""
        return "int64"

    def explain(self) -> str:
        """Why these parameters; plain text."""
        return (
            "plaintext: no encryption at all, anyone who sees an upload reads it. "
            f"{self.payload_bytes} bytes for {self.requirement.length} coordinates; "
            f"sums within +-{fact.sum_bound(self.requirement)} are exact in 64-bit counters."
        )

    def fold(self) -> PlaintextFold:
        """An empty running sum."""
        kernel = CounterSum(self.requirement.length, self.requirement.upload_bound)
        return PlaintextFold(kernel, self.requirement.addends)


class PlaintextFold(KernelFold):
    """A fold of counters; a partial sum of k contributions may reach k times the upload bound."""

    _kernel: CounterSum

    def _kernel_add(self, payloads: Sequence[Buffer], addends: int) -> list[Fault | None]:
        return self._kernel.add(payloads, addends)


class PlaintextEncryptionKey(EncryptionKey):
    """A random label in place of a key, so that key pinning works the same way."""

    def __init__(self, parameters: PlaintextParameters, label: bytes) -> None:
        if len(label) != _KEY_BYTES:
            raise CiphertextError(f"plaintext key has {len(label)} bytes instead of {_KEY_BYTES}")
        self.parameters = parameters
        self._label = label

    def to_bytes(self) -> bytes:
        """The label."""
        return self._label

    def encrypt(self, values: IntVector) -> bytes:
        """The values themselves, range-checked."""
        checked = fact.check_contribution(values, self.parameters.requirement)
        return checked.astype("<i8", copy=False).tobytes()


class PlaintextDecryptionKey(DecryptionKey):
    """The same label; there is nothing to decrypt."""

    def __init__(self, encryption_key: PlaintextEncryptionKey) -> None:
        self.encryption_key = encryption_key

    def to_bytes(self) -> bytes:
        """The label."""
        return self.encryption_key.to_bytes()

    def open_share(self, payload: Buffer, count: int) -> bytes:
        """The sum itself, checked against the range that `count` contributions can reach."""
        requirement = self.encryption_key.parameters.requirement
        return fact.share_from(fact.sum_from(payload, requirement, count), requirement, count)


class PlaintextScheme(Scheme):
    """No protection: for tests, as the oracle, and to see what encryption costs."""

    name = "plaintext"
    protects = False

    def choose_parameters(self, requirement: Requirement, **options: Any) -> PlaintextParameters:
        """Parameters for the requirement; its security level cannot be met and is not claimed."""
        fact.require_options(options, {})
        return PlaintextParameters(requirement)

    def load_parameters(self, facts: Mapping[str, Any]) -> PlaintextParameters:
        """Rebuild parameters from their facts (untrusted input)."""
        fact.require_keys(facts, {"scheme", "requirement"}, "plaintext parameters")
        if facts["scheme"] != self.name:
            raise ParameterError(f"parameters are of scheme {facts['scheme']!r}, not {self.name!r}")
        return PlaintextParameters(fact.requirement_from_dict(facts["requirement"]))

    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> PlaintextEncryptionKey:
        """Read a label."""
        return PlaintextEncryptionKey(fact.own(parameters, PlaintextParameters), bytes(data))

    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        """The one share is the sum."""
        requirement = fact.own(parameters, PlaintextParameters).requirement
        return fact.sum_of_one(shares, requirement, count)


class PlaintextKeyGenerator(KeyGenerator):
    """Makes and reads labels."""

    name = "plaintext"

    def generate_key(self, parameters: Parameters) -> PlaintextDecryptionKey:
        """A fresh label."""
        return self.load_decryption_key(parameters, secrets.token_bytes(_KEY_BYTES))

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> PlaintextDecryptionKey:
        """Read a label."""
        public = PlaintextEncryptionKey(fact.own(parameters, PlaintextParameters), bytes(data))
        return PlaintextDecryptionKey(public)
