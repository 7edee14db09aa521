"""CKKS through TenSEAL's SEAL, made exact: integers in complex slots, rounded when opened.

Every word of the packing is the real or imaginary part of a slot. The scale is chosen so that all
error together (encoding, encryption, rounding, floating-point transforms) stays below a quarter of
a grid step, so rounding returns the exact sum; `ckks_bounds` derives the bound. Raw decryptions
exist only inside `open_share`: showing them would leak the key (Li & Micciancio, Eurocrypt 2021).

Source: Cheon, Kim, Kim and Song, "Homomorphic encryption for arithmetic of approximate numbers",
Asiacrypt 2017, in SEAL's RNS form. Parameters and their security level (128, 192 or 256 bits,
classical, under ring-LWE): `rns`. Correctness: `proofs/exact-decryption.md`, but for 2^-64 a job.
Caveats: secure against chosen plaintexts only (`lattice`); that rounding hides the error is an
argument, not a reduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from privagg.encoding.packing import Packing
from privagg.encoding.vectors import IntVector
from privagg.errors import CapacityError, CiphertextError, ParameterError
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import Words
from privagg.secure import facts as fact
from privagg.secure.ckks_bounds import ErrorBound, error_bound, modulus_bits, scale_bits_for
from privagg.secure.lattice import (
    LatticeDecryptionKey,
    LatticeEncryptionKey,
    LatticeKeyGenerator,
    LatticeParameters,
    LatticeScheme,
    check_smudging,
    ring_degrees,
)
from privagg.secure.rns import RnsChain, find_chain, security_level
from privagg.secure.scheme import Buffer, Requirement

_OPTIONS: Mapping[str, Any] = {"ring_degree": None, "smudging_bits": 0, "packed": True}
_PACKING = {"per_word", "limbs", "limb_bits"}
_RESIDUAL = 0.375  # honest results lie within 1/4 of an integer; beyond this nothing honest lies


@dataclass(frozen=True)
class CkksParameters(LatticeParameters):
    """CKKS parameters with their proof of exactness; construction fails where it does not hold.

    Args:
        requirement: what the parameters were chosen for.
        chain: ring degree and primes.
        smudging_bits: room reserved for an added error 2^smudging_bits times the proven one.
        packed: residues take the bits of their prime in the payload, not 64.
        packing_rule: how values become words.
        scale_bits: log2 of the scale.

    Raises:
        ParameterError: the error bound, the modulus or the security level does not hold.
    """

    packing_rule: Packing
    scale_bits: int
    scheme = "ckks"
    compiled_kernels = ("residues",)

    def __post_init__(self) -> None:
        self.check_common()
        rule = self.packing_rule
        if (rule.length, rule.upload_bound, rule.sum_bound, rule.addends) != _promise(
            self.requirement
        ):
            raise ParameterError("the packing was made for another requirement")
        if not self.chain.suits(0):
            raise ParameterError("SEAL would take the last of these primes for its special one")
        if type(self.scale_bits) is not int or not 1 <= self.scale_bits <= 120:
            raise ParameterError(f"scale_bits must lie in [1, 120], not {self.scale_bits!r}")
        if self.error.relative(self.scale_bits) > 0.25:
            raise ParameterError(
                f"a scale of 2^{self.scale_bits} leaves an error of up to "
                f"{self.error.relative(self.scale_bits):.3f} grid steps; at most 1/4 is exact"
            )
        if modulus_bits(self.packing_rule, self.scale_bits) > self.modulus_bits:
            raise ParameterError(
                f"a modulus of {self.modulus_bits:.1f} bits has no room for sums of "
                f"+-{self.packing_rule.word_sum_bound} at a scale of 2^{self.scale_bits}"
            )

    @cached_property
    def error(self) -> ErrorBound:
        """The proven bound on the error of a slot."""
        return error_bound(
            self.chain.ring_degree,
            self.packing_rule,
            has_special=self.chain.special is not None,
            smudging_bits=self.smudging_bits,
        )

    @cached_property
    def ciphertexts(self) -> int:
        """Ciphertexts in a payload, each with the same number of rows."""
        return -(-self.packing_rule.words // self.chain.ring_degree)

    @cached_property
    def layout(self) -> ResidueLayout:
        """Ciphertext by ciphertext, polynomial by polynomial, prime by prime, in NTT form."""
        rows = self.ciphertexts * 2
        return ResidueLayout(
            moduli=self.chain.primes * rows,
            counts=(self.chain.ring_degree,) * (rows * len(self.chain.primes)),
            packed=self.packed,
        )

    @property
    def packing(self) -> str:
        """How values sit in the payload."""
        width = "bits" if self.packed else "u64"
        return f"ckks complex slots, {self.packing_rule.label}, scale 2^{self.scale_bits}, {width}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        rule = self.packing_rule
        packing = {"per_word": rule.per_word, "limbs": rule.limbs, "limb_bits": rule.limb_bits}
        return {**self.common_facts(), "packing": packing, "scale_bits": self.scale_bits}

    def explain(self) -> str:
        """Why these parameters; plain text."""
        relative = self.error.relative(self.scale_bits)
        rule = self.packing_rule
        held = (
            f"a value takes {rule.limbs} words of {rule.limb_bits} bits"
            if rule.limbs > 1
            else f"a word holds {rule.per_word} value{'s' if rule.per_word > 1 else ''}"
        )
        return "\n".join(
            (
                *self.explain_common(),
                f"packing: {held}; a slot holds two words, summed within +-{rule.word_sum_bound}",
                f"scale 2^{self.scale_bits}: the error of a sum of {self.requirement.addends} is "
                f"at most {relative:.3f} grid steps (1/2 would still round to the right integer), "
                f"but for a probability of 2^-64 over 2^20 openings",
            )
        )


class CkksEncryptionKey(LatticeEncryptionKey):
    """A CKKS public key."""

    parameters: CkksParameters

    @property
    def units_per_ciphertext(self) -> int:
        """Words in a ciphertext: two a slot."""
        return self.parameters.chain.ring_degree

    def units(self, values: IntVector) -> IntVector:
        """The packed words."""
        return self.parameters.packing_rule.pack(values)

    def encrypt_one(self, number: int, units: IntVector) -> Words:
        """Encode words as slots and encrypt them."""
        slots = _slots(units, self.parameters.chain.ring_degree)
        return self.encryptor.encrypt_slots(slots, 2.0**self.parameters.scale_bits).reshape(-1)


class CkksDecryptionKey(LatticeDecryptionKey):
    """A CKKS secret key."""

    encryption_key: CkksEncryptionKey

    def open_share(self, payload: Buffer, count: int) -> bytes:
        """The exact sum; see `DecryptionKey.open_share`. Raw decryptions do not leave this call."""
        parameters = self.encryption_key.parameters
        fact.check_count(parameters.requirement, count)
        residues = parameters.read(payload).reshape(
            parameters.ciphertexts, 2, len(parameters.chain.primes), parameters.chain.ring_degree
        )
        decryptor = self.decryptor
        scale = 2.0**parameters.scale_bits
        words = np.concatenate(
            [_rounded(decryptor.decrypt_slots(ciphertext, scale)) for ciphertext in residues]
        )
        rule = parameters.packing_rule
        if int(np.abs(words).max()) > rule.word_sum_bound or words[rule.words :].any():
            raise CiphertextError(
                "the sum decrypts to words that no honest contributions add up to: "
                "a contribution is malformed or under another key"
            )
        return fact.share_from(rule.unpack(words[: rule.words]), parameters.requirement, count)


class CkksScheme(LatticeScheme):
    """CKKS with exact integer sums; what configurations call `ckks`.

    Options of `choose_parameters`: `ring_degree` (None lets the payload's size decide),
    `smudging_bits` (0), `packed` (True).
    """

    name = "ckks"
    parameters_type = CkksParameters
    encryption_key_type = CkksEncryptionKey

    def choose_parameters(self, requirement: Requirement, **options: Any) -> CkksParameters:
        """The parameters with the smallest payload whose exactness is proved."""
        fact.check_requirement(requirement)
        chosen = fact.require_options(options, _OPTIONS)
        best: CkksParameters | None = None
        degrees = ring_degrees(chosen["ring_degree"])
        for degree in degrees:
            for rule in _packings(requirement):
                found = _fit(requirement, rule, degree, chosen)
                if found and (best is None or found.payload_bytes < best.payload_bytes):
                    best = found
        if best is None:
            raise ParameterError(
                f"no CKKS parameters hold sums of +-{fact.sum_bound(requirement)} over "
                f"{requirement.addends} addends at {requirement.security_bits} bits of security; "
                "lower sum_bound, addends or security_bits"
            )
        return best

    def load_parameters(self, facts: Mapping[str, Any]) -> CkksParameters:
        """Rebuild parameters from their facts (untrusted input); the proof is checked again."""
        common = self.read_common(facts, {"packing", "scale_bits"})
        rule = _read_packing(common["requirement"], facts["packing"])
        return CkksParameters(**common, packing_rule=rule, scale_bits=facts["scale_bits"])


class CkksKeyGenerator(LatticeKeyGenerator):
    """Makes and reads CKKS secret keys."""

    name = "ckks"
    scheme = CkksScheme()
    decryption_key_type = CkksDecryptionKey


def _promise(requirement: Requirement) -> tuple[int, int, int, int]:
    """The arguments of a packing that a requirement fixes."""
    return (
        requirement.length,
        requirement.upload_bound,
        fact.sum_bound(requirement),
        requirement.addends,
    )


def _read_packing(requirement: Requirement, numbers: Any) -> Packing:
    """The packing from its facts (untrusted input)."""
    fact.require_keys(numbers, _PACKING, "packing")
    if any(type(n) is not int or not 0 <= n <= 64 for n in numbers.values()):
        raise ParameterError(f"packing must be whole numbers up to 64, not {dict(numbers)!r}")
    try:
        return Packing(*_promise(requirement), **numbers)
    except CapacityError as error:
        raise ParameterError(f"packing does not hold the requirement: {error}") from error


def _packings(requirement: Requirement) -> list[Packing]:
    """Every way to pack that a slot might hold: several values a word, then several limbs."""
    bounds = _promise(requirement)
    rules: list[Packing] = []
    for per_word in range(1, 9):
        try:
            rules.append(Packing(*bounds, per_word=per_word))
        except CapacityError:
            break
    width = requirement.upload_bound.bit_length() + 1
    for limbs in range(2, 9):
        try:
            rules.append(Packing(*bounds, limbs=limbs, limb_bits=-(-width // limbs)))
        except CapacityError:
            continue
    return rules


def _fit(
    requirement: Requirement, rule: Packing, degree: int, options: Mapping[str, Any]
) -> CkksParameters | None:
    """Parameters for one packing and one ring degree, or None where nothing fits."""
    level = security_level(requirement.security_bits)
    check_smudging(options["smudging_bits"])
    for has_special in (True, False):
        bound = error_bound(
            degree, rule, has_special=has_special, smudging_bits=options["smudging_bits"]
        )
        scale_bits = scale_bits_for(bound)
        if scale_bits is None:
            continue
        chain: RnsChain | None = find_chain(
            degree, modulus_bits(rule, scale_bits), level, special=has_special
        )
        if chain is not None and chain.suits(0):
            return CkksParameters(
                requirement=requirement,
                chain=chain,
                packing_rule=rule,
                scale_bits=scale_bits,
                smudging_bits=options["smudging_bits"],
                packed=options["packed"],
            )
    return None


def _slots(words: IntVector, degree: int) -> np.ndarray[Any, np.dtype[np.complex128]]:
    """Words as complex slots: the first N/2 are real parts, the rest imaginary parts."""
    half = degree // 2
    slots = np.zeros(min(half, words.size), dtype=np.complex128)
    slots.real = words[:half]
    slots.imag[: max(0, words.size - half)] = words[half:]
    return slots


def _rounded(slots: np.ndarray[Any, np.dtype[np.complex128]]) -> IntVector:
    """Slots as words, rounded to the grid; refuses what lies far from every integer."""
    parts = np.concatenate((slots.real, slots.imag))
    nearest = np.rint(parts)
    if not np.isfinite(parts).all() or float(np.abs(parts - nearest).max()) > _RESIDUAL:
        raise CiphertextError(
            "the sum does not decrypt to whole numbers: a contribution is malformed or under "
            "another key"
        )
    if float(np.abs(nearest).max()) >= 2.0**62:
        raise CiphertextError("the sum decrypts to numbers far outside the proven range")
    return nearest.astype(np.int64)
