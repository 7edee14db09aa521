"""Public parameters of the Paillier scheme, and the aggregator's fold. No key, no phe, no gmpy2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from privagg.errors import KeyMismatchError, ParameterError, SchemeError
from privagg.kernels.modular import ModularProduct, whole_number
from privagg.kernels.running_sum import Fault
from privagg.secure import facts as fact
from privagg.secure.folding import KernelFold
from privagg.secure.paillier_packing import SlotPacking, slot_bits_for
from privagg.secure.scheme import Parameters, Requirement

# Bits of an RSA-type modulus and the security they are rated at: NIST SP 800-57 part 1 revision 5,
# table 2. A size between two rows has the security of the lower row.
SECURITY_BITS = {2048: 112, 3072: 128, 7680: 192}
MAX_MODULUS_BITS = 8192
_SIZE_STEP = 64
_SMALL_PRIMES = math.prod((3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47))


def rated_security(modulus_bits: int) -> int:
    """Classical security level of a modulus of that size."""
    return max((s for bits, s in SECURITY_BITS.items() if bits <= modulus_bits), default=0)


@dataclass(frozen=True)
class PaillierParameters(Parameters):
    """Packing and key size for one requirement; complete once the key's modulus is in it.

    `choose_parameters` gives incomplete parameters, because no key exists yet. The ones to hand to
    everybody are the key's own, `key.encryption_key.parameters`: they name the public modulus n,
    which the aggregator needs to add.

    Args:
        requirement: what the parameters were chosen for.
        modulus_bits: exact bits of n.
        public_modulus: n, or None before a key exists.
    """

    requirement: Requirement
    modulus_bits: int
    public_modulus: int | None = None
    scheme = "paillier"
    compiled_kernels = ("modular",)

    def __post_init__(self) -> None:
        fact.check_requirement(self.requirement)
        bits = self.modulus_bits
        if type(bits) is not int or bits % _SIZE_STEP or not 2048 <= bits <= MAX_MODULUS_BITS:
            raise ParameterError(
                f"modulus_bits must be a multiple of {_SIZE_STEP} from 2048 to {MAX_MODULUS_BITS}, "
                f"not {bits!r}"
            )
        if self.security_bits < self.requirement.security_bits:
            raise ParameterError(
                f"a {bits}-bit Paillier modulus gives {self.security_bits}-bit security, and "
                f"{self.requirement.security_bits} are required: take a larger modulus_bits or "
                "lower the required security level"
            )
        if self.public_modulus is not None:
            if type(self.public_modulus) is not int:
                found = type(self.public_modulus).__name__
                raise ParameterError(f"the public modulus must be a whole number, not {found}")
            _check_modulus(self.public_modulus, bits)

    @property
    def security_bits(self) -> int:  # type: ignore[override]
        """Classical security level of the modulus: 112 for 2048 bits, 128 for 3072."""
        return rated_security(self.modulus_bits)

    @cached_property
    def slots(self) -> SlotPacking:
        """How values sit in plaintexts.

        Every slot holds any sum within the bound and two guard bits, and all slots together stay
        below n/2: 2^(slot_bits * slots) <= 2^(modulus_bits - 1) < n.
        """
        bound = max(fact.sum_bound(self.requirement), self.requirement.upload_bound)
        bits = slot_bits_for(bound)
        return SlotPacking(self.requirement.length, bits, (self.modulus_bits - 1) // bits)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext, a residue modulo n^2."""
        return self.modulus_bits // 4

    def modulus(self) -> int:
        """n.

        Raises:
            SchemeError: these parameters were chosen, but no key was made for them.
        """
        if self.public_modulus is None:
            raise SchemeError(
                "these Paillier parameters lack the public modulus: use the key's own, "
                "key.encryption_key.parameters"
            )
        return self.public_modulus

    def completed(self, modulus: int) -> PaillierParameters:
        """These parameters with the modulus of a key in them.

        Raises:
            KeyMismatchError: they already name another modulus.
        """
        if self.public_modulus is not None and self.public_modulus != modulus:
            raise KeyMismatchError(
                "the key's modulus is not the one that these Paillier parameters name"
            )
        return replace(self, public_modulus=modulus)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts; the modulus in hexadecimal."""
        modulus = None if self.public_modulus is None else f"{self.public_modulus:x}"
        return {
            "scheme": self.scheme,
            "requirement": fact.requirement_to_dict(self.requirement),
            "modulus_bits": self.modulus_bits,
            "slot_bits": self.slots.slot_bits,
            "public_modulus": modulus,
        }

    @property
    def payload_bytes(self) -> int:
        """Ciphertexts of fixed size, one after another."""
        return self.slots.plaintexts * self.ciphertext_bytes

    @property
    def packing(self) -> str:
        """Slots of a plaintext and their size."""
        return f"{self.slots.slots} slots of {self.slots.slot_bits} bits, balanced"

    def explain(self) -> str:
        """Why these parameters; plain text."""
        slots = self.slots
        bound = fact.sum_bound(self.requirement)
        headroom = ((1 << (slots.slot_bits - 1)) - 1) / bound
        return (
            f"paillier: modulus of {self.modulus_bits} bits, rated {self.security_bits}-bit "
            f"security (NIST SP 800-57 part 1). {slots.slots} values of {slots.slot_bits} bits in "
            f"a plaintext; sums within +-{bound} of up to {self.requirement.addends} contributions "
            f"are exact, and sums up to {headroom:.2f} times that are recognised and refused. "
            f"{slots.plaintexts} ciphertexts, {self.payload_bytes} bytes "
            f"({self.payload_bytes / self.requirement.length:.2f} a value). "
            "Decryption never fails: all steps are exact. Keys made here encrypt with exponents of "
            f"{self.modulus_bits // 2} bits (short-exponent assumption); foreign keys with full "
            "ones."
        )

    def fold(self) -> PaillierFold:
        """An empty running product modulo n^2.

        Raises:
            SchemeError: the parameters lack the public modulus.
        """
        n = self.modulus()
        kernel = ModularProduct(n * n, self.slots.plaintexts, self.ciphertext_bytes, divisor=n)
        return PaillierFold(kernel, self.requirement.addends)


class PaillierFold(KernelFold):
    """A fold of ciphertexts: every one in [1, n^2) and no multiple of n, then multiplied."""

    def _describe(self, fault: Fault) -> str:
        if fault.value == 0:
            problem = "zero"
        elif fault.value >= fault.limit:
            problem = "not below n^2"
        else:
            problem = "a multiple of n"
        return f"ciphertext {fault.index} of the payload is {problem}, so it encrypts nothing"


def parameters_from_dict(facts: Mapping[str, Any]) -> PaillierParameters:
    """Rebuild parameters from their facts (untrusted input).

    Raises:
        ParameterError: a field is missing, unknown, of the wrong type or contradicts the others.
    """
    known = {"scheme", "requirement", "modulus_bits", "slot_bits", "public_modulus"}
    fact.require_keys(facts, known, "paillier parameters")
    if facts["scheme"] != PaillierParameters.scheme:
        raise ParameterError(f"parameters are of scheme {facts['scheme']!r}, not 'paillier'")
    modulus = facts["public_modulus"]
    if modulus is not None:
        modulus = _modulus_from_hex(modulus)
    requirement = fact.requirement_from_dict(facts["requirement"])
    parameters = PaillierParameters(requirement, facts["modulus_bits"], modulus)
    if facts["slot_bits"] != parameters.slots.slot_bits:
        raise ParameterError(
            f"slot_bits is {facts['slot_bits']!r}, but this requirement needs "
            f"{parameters.slots.slot_bits}"
        )
    return parameters


def _modulus_from_hex(text: Any) -> int:
    digits = set("0123456789abcdef")
    if not isinstance(text, str) or not 0 < len(text) <= MAX_MODULUS_BITS // 4:
        raise ParameterError(
            f"public_modulus must be a hexadecimal string of at most {MAX_MODULUS_BITS // 4} digits"
        )
    if not set(text) <= digits:
        raise ParameterError("public_modulus must be written in lower-case hexadecimal digits")
    return int(text, 16)


@lru_cache(maxsize=64)
def _check_modulus(modulus: int, bits: int) -> None:
    """What anybody can check of a modulus; that it is a product of two primes only its owner can.

    A prime or a square would let everybody decrypt, small factors would leak plaintexts bit by bit.
    """
    if modulus.bit_length() != bits:
        raise ParameterError(
            f"the public modulus must have exactly {bits} bits, not {modulus.bit_length()}"
        )
    if modulus % 2 == 0 or math.gcd(modulus, _SMALL_PRIMES) > 1:
        raise ParameterError("the public modulus has a small factor: it protects nothing")
    if math.isqrt(modulus) ** 2 == modulus:
        raise ParameterError("the public modulus is a square: it protects nothing")
    if pow(whole_number(2), modulus - 1, modulus) == 1:
        raise ParameterError("the public modulus looks like a prime: it protects nothing")
