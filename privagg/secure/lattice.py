"""What CKKS and BFV share: chains, payload layouts, key bytes, encryption, how facts are read.

Both are secure against chosen plaintexts, not against chosen ciphertexts: whoever may have a
ciphertext of its own making opened, and sees the result, learns the secret key (a ciphertext
(0, D) opens to D times the secret; Chenal and Tang, Latincrypt 2014). So only sums of honestly made
uploads may be opened. The key holder's rules (pinned contributors, one opening a round, no c1 but
the sum of the signed ones) keep an aggregator from choosing; they cannot tell a contributor who
makes up residues.
`proofs/exact-decryption.md` has the argument for exactness and its limits.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, KeyMismatchError, ParameterError
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import ResidueSum, Words, pack_residues, unpack_residues
from privagg.kernels.running_sum import Fault
from privagg.secure import facts as fact
from privagg.secure.folding import KernelFold, describe
from privagg.secure.opening import DecryptionKey, KeyGenerator
from privagg.secure.rns import RING_DEGREES, RnsChain, security_level
from privagg.secure.scheme import Buffer, Parameters, Requirement, Scheme
from privagg.secure.workers import RangedKey, encryption_processes, over_processes

if TYPE_CHECKING:
    from privagg.secure.seal import SealContext, SealDecryptor, SealEncryptor

_COMMON = {"scheme", "requirement", "chain", "smudging_bits", "packed"}
_MAX_SMUDGING_BITS = 256


@dataclass(frozen=True)
class LatticeParameters(Parameters):
    """Parameters of a scheme over an RNS ring; see the subclasses.

    Args:
        requirement: what the parameters were chosen for.
        chain: ring degree and primes.
        smudging_bits: room reserved for an added error 2^smudging_bits times the proven one.
        packed: residues take the bits of their prime in the payload, not 64.
    """

    requirement: Requirement
    chain: RnsChain
    smudging_bits: int
    packed: bool

    @property
    @abstractmethod
    def layout(self) -> ResidueLayout:
        """Where each residue lies in a payload."""

    @property
    @abstractmethod
    def ciphertexts(self) -> int:
        """Ciphertexts in a payload, each with the same number of rows."""

    @property
    def plain_modulus(self) -> int:
        """SEAL's modulus of plaintexts; 0 under CKKS, which has none."""
        return 0

    @property
    def security_bits(self) -> int:  # type: ignore[override]
        """Classical security level by the table of `rns.MAX_MODULUS_BITS_BY_SECURITY`."""
        return self.chain.security_bits

    @property
    def payload_bytes(self) -> int:
        """Exact size of a payload in bytes."""
        return self.layout.payload_bytes

    @cached_property
    def modulus_bits(self) -> float:
        """log2 of the ciphertexts' modulus."""
        return math.log2(self.chain.modulus)

    def fold(self) -> KernelFold:
        """An empty running sum."""
        return KernelFold(ResidueSum(self.layout), self.requirement.addends)

    @cached_property
    def _key_layout(self) -> ResidueLayout:
        """Where the residues of c1 lie in a key part: ciphertext by ciphertext, prime by prime."""
        primes, degree = self.chain.primes, self.chain.ring_degree
        rows = len(primes) * self.ciphertexts
        return ResidueLayout(primes * self.ciphertexts, (degree,) * rows, self.packed)

    @property
    def key_part_bytes(self) -> int:
        """Exact size of every c1 of a payload in bytes."""
        return self._key_layout.payload_bytes

    def key_part(self, payload: Buffer) -> bytes:
        """c1 of every ciphertext; see `Parameters.key_part`.

        Rows start on whole bytes, and those of one c1 lie side by side, behind those of its c0.
        """
        view, starts = memoryview(payload).cast("B"), self.layout.rows.source
        primes, size = len(self.chain.primes), self.key_part_bytes // self.ciphertexts
        firsts = starts[primes :: 2 * primes]
        return b"".join(view[int(first) : int(first) + size] for first in firsts)

    def key_part_fold(self) -> KernelFold:
        """An empty running sum of key parts."""
        return KernelFold(ResidueSum(self._key_layout), self.requirement.addends)

    def read(self, payload: Buffer) -> Words:
        """The residues of a payload, size- and range-checked; uint64 (residues,).

        Raises:
            CiphertextError: names the first thing that is wrong.
        """
        try:
            words = unpack_residues(self.layout, payload)
        except ValueError as error:
            raise CiphertextError(str(error)) from error
        if isinstance(words, Fault):
            raise CiphertextError(describe(words))
        return words

    def check_common(self) -> None:
        """Raise ParameterError where requirement, chain and options contradict each other."""
        requirement = fact.check_requirement(self.requirement)
        if self.chain.security_bits < security_level(requirement.security_bits):
            raise ParameterError(
                f"a chain of {self.chain.security_bits} bits of security does not reach the "
                f"{requirement.security_bits} asked for"
            )
        if type(self.packed) is not bool:
            raise ParameterError(f"packed must be true or false, not {self.packed!r}")
        check_smudging(self.smudging_bits)

    def common_facts(self) -> dict[str, Any]:
        """The facts every lattice scheme writes."""
        return {
            "scheme": self.scheme,
            "requirement": fact.requirement_to_dict(self.requirement),
            "chain": self.chain.to_dict(),
            "smudging_bits": self.smudging_bits,
            "packed": self.packed,
        }

    def explain_common(self) -> tuple[str, ...]:
        """The part of an explanation that every lattice scheme gives."""
        requirement = self.requirement
        whole = math.prod(self.chain.key_primes).bit_length()
        return (
            f"{self.scheme}: ring degree {self.chain.ring_degree}, {len(self.chain.primes)} "
            f"prime{'s' if len(self.chain.primes) > 1 else ''} of together "
            f"{self.modulus_bits:.1f} bits",
            f"security: {whole} bits of modulus with keys, within the bound for "
            f"{self.security_bits} bits of Bossuat et al.'s security guidelines (2025)",
            f"sums within +-{fact.sum_bound(requirement)} of {requirement.addends} contributions",
            f"payload: {self.payload_bytes} bytes for {requirement.length} coordinates, "
            f"{self.payload_bytes / requirement.length:.2f} bytes each",
        )


class LatticeEncryptionKey(RangedKey):
    """A public key: residues modulo the key primes, in the payload's packing.

    Args:
        parameters: the scheme's parameters.
        public: uint64 (2, key primes, N), range-checked.
    """

    parameters: LatticeParameters

    def __init__(self, parameters: LatticeParameters, public: Words) -> None:
        self.parameters = parameters
        self._public = public

    def to_bytes(self) -> bytes:
        """The key's residues."""
        return pack_residues(public_layout(self.parameters.chain), self._public.reshape(-1))

    def encrypt(self, values: IntVector) -> bytes:
        """Encrypt one contribution; see `EncryptionKey.encrypt`.

        Large ones are shared out over processes, as `workers.encryption_processes` decides.
        """
        units = self.units(fact.check_contribution(values, self.parameters.requirement))
        layout, parts = self.parameters.layout, self.parameters.ciphertexts
        processes = encryption_processes(layout.residues, parts)
        size = self.units_per_ciphertext
        pieces = over_processes(
            self, parts, processes, lambda first, last: units[first * size : last * size].data
        )
        return b"".join(pieces)

    def encrypt_range(self, first: int, last: int, units: Buffer) -> bytes:
        """The payload's piece that holds ciphertexts first ... last-1.

        Args:
            first, last: which ciphertexts.
            units: their plaintext units, int64 in this machine's order.
        """
        layout, size = self.parameters.layout, self.units_per_ciphertext
        values = np.frombuffer(units, dtype=np.int64)
        rows = len(layout.moduli) // self.parameters.ciphertexts
        piece = ResidueLayout(
            layout.moduli[first * rows : last * rows],
            layout.counts[first * rows : last * rows],
            layout.packed,
        )
        residues = np.empty(piece.residues, dtype=np.uint64)
        at = 0
        for number in range(first, last):
            start = (number - first) * size
            made = self.encrypt_one(number, values[start : start + size])
            residues[at : at + made.size] = made
            at += made.size
        return pack_residues(piece, residues)

    @property
    @abstractmethod
    def units_per_ciphertext(self) -> int:
        """Plaintext units that one ciphertext takes."""

    @abstractmethod
    def units(self, values: IntVector) -> IntVector:
        """Checked values as plaintext units: what ciphertexts are filled with, in order."""

    @abstractmethod
    def encrypt_one(self, number: int, units: IntVector) -> Words:
        """The residues of ciphertext `number` for its units (fewer in the last one); flat."""

    @cached_property
    def encryptor(self) -> SealEncryptor:
        """SEAL's encryptor under this key."""
        return _seal(self.parameters).encryptor(self._public)


class LatticeDecryptionKey(DecryptionKey):
    """A secret key with its public half."""

    encryption_key: LatticeEncryptionKey

    def __init__(self, encryption_key: LatticeEncryptionKey, secret: Words) -> None:
        self.encryption_key = encryption_key
        self._secret = secret

    def to_bytes(self) -> bytes:
        """The public key's bytes, then the secret's residues."""
        chain = self.encryption_key.parameters.chain
        secret = pack_residues(secret_layout(chain), self._secret.reshape(-1))
        return self.encryption_key.to_bytes() + secret

    @cached_property
    def decryptor(self) -> SealDecryptor:
        """SEAL's decryptor under this key."""
        return _seal(self.encryption_key.parameters).decryptor(self._secret)


class LatticeScheme(Scheme):
    """Public keys and facts of a scheme over an RNS ring."""

    parameters_type: ClassVar[type[LatticeParameters]]
    encryption_key_type: ClassVar[type[LatticeEncryptionKey]]

    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> LatticeEncryptionKey:
        """Read a public key (untrusted input)."""
        own = fact.own(parameters, self.parameters_type)
        return self.encryption_key_type(own, _key_words(public_layout(own.chain), data))

    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        """One party holds the key, so the one share is the sum."""
        requirement = fact.own(parameters, self.parameters_type).requirement
        return fact.sum_of_one(shares, requirement, count)

    def read_common(self, facts: Mapping[str, Any], more: set[str]) -> dict[str, Any]:
        """Read the facts every lattice scheme writes (untrusted input).

        Args:
            facts: what `to_dict` wrote.
            more: names of the scheme's own facts.

        Raises:
            ParameterError: a fact is missing, unknown or contradicts another.
        """
        fact.require_keys(facts, _COMMON | more, f"{self.name} parameters")
        if facts["scheme"] != self.name:
            raise ParameterError(f"parameters are of scheme {facts['scheme']!r}, not {self.name!r}")
        return {
            "requirement": fact.requirement_from_dict(facts["requirement"]),
            "chain": RnsChain.from_dict(facts["chain"]),
            "smudging_bits": facts["smudging_bits"],
            "packed": facts["packed"],
        }


class LatticeKeyGenerator(KeyGenerator):
    """Secret keys of a scheme over an RNS ring.

    Attributes:
        scheme: the public half.
    """

    scheme: ClassVar[LatticeScheme]
    decryption_key_type: ClassVar[type[LatticeDecryptionKey]]

    def generate_key(self, parameters: Parameters) -> LatticeDecryptionKey:
        """A fresh key pair, drawn by SEAL from the operating system's CSPRNG."""
        own = fact.own(parameters, self.scheme.parameters_type)
        public, secret = _seal(own).generate_keys()
        return self.decryption_key_type(self.scheme.encryption_key_type(own, public), secret)

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> LatticeDecryptionKey:
        """Read a secret key from its owner's own storage."""
        chain = fact.own(parameters, self.scheme.parameters_type).chain
        split = public_layout(chain).payload_bytes
        view = memoryview(data)
        public = self.scheme.load_encryption_key(parameters, view[:split])
        return self.decryption_key_type(public, _key_words(secret_layout(chain), view[split:]))


def public_layout(chain: RnsChain) -> ResidueLayout:
    """Where a public key's residues lie in its bytes."""
    primes = chain.key_primes
    return ResidueLayout(primes * 2, (chain.ring_degree,) * (2 * len(primes)))


def secret_layout(chain: RnsChain) -> ResidueLayout:
    """Where a secret key's residues lie in its bytes."""
    return ResidueLayout(chain.key_primes, (chain.ring_degree,) * len(chain.key_primes))


def ring_degrees(wanted: Any) -> tuple[int, ...]:
    """The ring degrees to choose from: all, or the one that is wanted."""
    if wanted is None:
        return RING_DEGREES
    if type(wanted) is not int or wanted not in RING_DEGREES:
        raise ParameterError(f"ring degree {wanted!r} is not one of {RING_DEGREES}")
    return (wanted,)


def check_smudging(bits: Any) -> int:
    """Return the smudging bits if they are a whole number a modulus could ever have room for."""
    if type(bits) is not int or not 0 <= bits <= _MAX_SMUDGING_BITS:
        raise ParameterError(
            f"smudging_bits must be a whole number in [0, {_MAX_SMUDGING_BITS}], not {bits!r}"
        )
    return bits


def _seal(parameters: LatticeParameters) -> SealContext:
    """SEAL set up for the parameters; imported where a key is used, as adding needs none of it."""
    from privagg.secure.seal import seal_context

    return seal_context(parameters.scheme, parameters.chain, parameters.plain_modulus)


def _key_words(layout: ResidueLayout, data: Buffer) -> Words:
    size = memoryview(data).nbytes
    if size != layout.payload_bytes:
        raise KeyMismatchError(
            f"a key for these parameters has {layout.payload_bytes} bytes, not {size}"
        )
    words = unpack_residues(layout, data)
    if isinstance(words, Fault):
        raise CiphertextError(f"key is malformed: {describe(words)}")
    return np.ascontiguousarray(words)
