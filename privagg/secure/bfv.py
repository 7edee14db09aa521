"""BFV through TenSEAL's SEAL, exact, with several values in every polynomial coefficient.

A ciphertext is (c0, c1) with c0 + c1 s = floor(q M / 2^K) + e modulo q. M holds K bits:
`GUARD_BITS` zeros, then equal bit fields, one a value. SEAL makes the encryption of zero and
decrypts; the message is added to c0 here, because SEAL's own encoder stops at plaintexts of 60
bits, while a coefficient of q has room for hundreds. That is where 57 bytes a value become 6.

The key holder reads M from the bottom: multiplied by 2^(K-59), the ciphertext decrypts under
SEAL's plain modulus 2^59 to the lowest 59 bits of M; those are subtracted, and so on upwards.

Decryption fails only where |e| of a sum exceeds q / 2^(K+1). `coefficient_error` bounds |e| but
for a probability of 2^-64 over a job of up to 2^20 openings.

Source: Brakerski, Crypto 2012; Fan and Vercauteren, "Somewhat practical fully homomorphic
encryption", ePrint 2012/144; SEAL's RNS form is that of Bajard, Eynard, Hasan and Zucca, SAC 2016.
Parameters and their security level (128, 192 or 256 bits, classical, under ring-LWE): `rns`.
Correctness: `proofs/exact-decryption.md`. Caveat: secure against chosen plaintexts only: `lattice`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, ParameterError
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import Words
from privagg.kernels.wide import FieldLayout, Lift, place_digit, scale_residues
from privagg.secure import facts as fact
from privagg.secure.lattice import (
    LatticeDecryptionKey,
    LatticeEncryptionKey,
    LatticeKeyGenerator,
    LatticeParameters,
    LatticeScheme,
    check_smudging,
    ring_degrees,
)
from privagg.secure.rns import (
    FAILURE_BITS_PER_JOB,
    MIN_PRIME_BITS,
    OPENINGS_PER_JOB_BITS,
    find_chain,
    security_level,
    tail_factor,
)
from privagg.secure.scheme import Buffer, Requirement

GUARD_BITS = 2  # honest sums decrypt to zeros here; a sum under another key seldom does
_DIGIT_BITS = 59  # SEAL's plain modulus has at most 60 bits, so 2^59 is its largest power of two
_OPTIONS: Mapping[str, Any] = {"ring_degree": None, "smudging_bits": 0, "packed": True}
_MAX_FIELDS = 512  # more than fit the largest ring at one bit a field
_SIZE_TOLERANCE = 1.05  # a smaller ring is worth this much payload: it is faster to open
_DECRYPTION_SLACK = 2.0**-40  # SEAL's base conversion (BEHZ 2016, section 3.3) loses less


@dataclass(frozen=True)
class BfvParameters(LatticeParameters):
    """BFV parameters with their proof of exactness; construction fails where it does not hold.

    Args:
        requirement: what the parameters were chosen for.
        chain: ring degree and primes.
        smudging_bits: room reserved for an added error 2^smudging_bits times the proven one.
        packed: residues take the bits of their prime in the payload, not 64.
        fields: values in a coefficient.

    Raises:
        ParameterError: the error bound, the fields or the security level do not hold.
    """

    fields: int
    scheme = "bfv"
    compiled_kernels = ("residues", "wide")

    def __post_init__(self) -> None:
        self.check_common()
        if type(self.fields) is not int or not 1 <= self.fields <= _MAX_FIELDS:
            raise ParameterError(f"fields must lie in [1, {_MAX_FIELDS}], not {self.fields!r}")
        if not self.chain.suits(1 << _digit_bits(self.field_layout)):
            raise ParameterError("SEAL would take the last of these primes for its special one")
        needed = needed_modulus_bits(
            self.requirement,
            self.chain.ring_degree,
            self.fields,
            has_special=self.chain.special is not None,
            smudging_bits=self.smudging_bits,
        )
        if needed > self.modulus_bits:
            raise ParameterError(
                f"a modulus of {self.modulus_bits:.1f} bits has no room for {self.fields} fields "
                f"of {self.field_layout.width} bits and the error of {self.requirement.addends} "
                f"contributions: {needed:.1f} are needed"
            )

    @cached_property
    def field_layout(self) -> FieldLayout:
        """How values share a coefficient."""
        return field_layout(self.requirement, self.fields)

    @property
    def plain_modulus(self) -> int:
        """A power of two: what one decryption reads of a coefficient."""
        return 1 << _digit_bits(self.field_layout)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts in a payload, each with the same number of rows."""
        return len(self.used)

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Coefficients in use, for each ciphertext."""
        degree, total = self.chain.ring_degree, -(-self.requirement.length // self.fields)
        return tuple(min(degree, total - start) for start in range(0, total, degree))

    @cached_property
    def sent(self) -> tuple[int, ...]:
        """Coefficients of c0 that are sent, for each ciphertext.

        A coefficient of c0 serves the decryption of that coefficient alone, so those beyond the
        last one in use stay at home.
        """
        return tuple(-(-used // 8) * 8 for used in self.used)

    @cached_property
    def layout(self) -> ResidueLayout:
        """Ciphertext by ciphertext: c0 then c1, prime by prime, coefficients in order."""
        primes = self.chain.primes
        counts: list[int] = []
        for sent in self.sent:
            counts += [sent] * len(primes) + [self.chain.ring_degree] * len(primes)
        return ResidueLayout(primes * (2 * len(self.sent)), tuple(counts), self.packed)

    @property
    def packing(self) -> str:
        """How values sit in the payload."""
        width = "bits" if self.packed else "u64"
        return f"bfv coefficients, {self.fields}x{self.field_layout.width}bit, {width}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {**self.common_facts(), "fields": self.fields}

    def explain(self) -> str:
        """Why these parameters; plain text."""
        layout = self.field_layout
        error = coefficient_error(
            self.requirement,
            self.chain.ring_degree,
            self.fields,
            has_special=self.chain.special is not None,
            smudging_bits=self.smudging_bits,
        )
        room = self.modulus_bits - layout.bits - 1
        return "\n".join(
            (
                *self.explain_common(),
                f"packing: a coefficient holds {layout.bits} bits ({layout.fields} fields of "
                f"{layout.width}, {GUARD_BITS} to detect wrong keys); the error of a sum of "
                f"{self.requirement.addends} stays below 2^{math.log2(error):.1f} where "
                f"2^{room:.1f} would still decrypt, but for a probability of 2^-64 over 2^20 "
                "openings",
            )
        )


class BfvEncryptionKey(LatticeEncryptionKey):
    """A BFV public key."""

    parameters: BfvParameters

    @property
    def units_per_ciphertext(self) -> int:
        """Values in a ciphertext."""
        return self.parameters.chain.ring_degree * self.parameters.fields

    def units(self, values: IntVector) -> IntVector:
        """The values themselves; they are packed one ciphertext at a time."""
        return values

    def encrypt_one(self, number: int, units: IntVector) -> Words:
        """Pack values into coefficients and add them to an encryption of zero."""
        parameters = self.parameters
        sent = parameters.sent[number]
        coefficients = parameters.field_layout.pack(units, sent)
        c0, c1 = self.encryptor.encrypt_zero()
        c0 = np.ascontiguousarray(c0[:, :sent])
        _lift(parameters.chain.primes, parameters.field_layout.bits).add(c0, coefficients)
        return np.concatenate((c0.reshape(-1), c1.reshape(-1)))


class BfvDecryptionKey(LatticeDecryptionKey):
    """A BFV secret key."""

    encryption_key: BfvEncryptionKey

    def open_share(self, payload: Buffer, count: int) -> bytes:
        """The exact sum; see `DecryptionKey.open_share`."""
        parameters = self.encryption_key.parameters
        fact.check_count(parameters.requirement, count)
        words, fields = parameters.read(payload), parameters.field_layout
        primes, degree = len(parameters.chain.primes), parameters.chain.ring_degree
        values = np.empty(parameters.requirement.length, dtype=np.int64)
        at = 0
        for number, sent in enumerate(parameters.sent):
            ciphertext = np.zeros((2, primes, degree), dtype=np.uint64)
            ciphertext[0, :, :sent] = words[at : at + primes * sent].reshape(primes, sent)
            at += primes * sent
            ciphertext[1] = words[at : at + primes * degree].reshape(primes, degree)
            at += primes * degree
            coefficients = self._coefficients(ciphertext)[: parameters.used[number]]
            if (coefficients[:, 0] & np.uint64((1 << GUARD_BITS) - 1)).any():
                raise CiphertextError(
                    "the sum does not decrypt to whole values: a contribution is malformed or "
                    "under another key"
                )
            start = number * degree * fields.fields
            part = values[start : start + degree * fields.fields]
            part[:] = fields.unpack(coefficients, part.size, count)
        return fact.share_from(values, parameters.requirement, count)

    def _coefficients(self, ciphertext: Words) -> Words:
        """M of every coefficient, from the lowest digit up; uint64 (N, words)."""
        parameters = self.encryption_key.parameters
        primes, degree = parameters.chain.primes, parameters.chain.ring_degree
        bits, digit_bits = parameters.field_layout.bits, _digit_bits(parameters.field_layout)
        negative = _lift(primes, bits)
        known = np.zeros((degree, parameters.field_layout.words), dtype=np.uint64)
        for low in range(0, bits, digit_bits):
            rest = ciphertext.copy()
            if low:
                rest[0] = _negated(rest[0], primes)
                negative.add(rest[0], known)
                rest[0] = _negated(rest[0], primes)
            # The last window may reach below `low`: those bits of M are zero by now.
            shift = max(0, bits - low - digit_bits)
            scaled = scale_residues(rest.reshape(-1, degree), primes, 1 << shift)
            digit = self.decryptor.decrypt_coefficients(scaled)
            overlap = low - (bits - shift - digit_bits)
            place_digit(known, digit >> np.uint64(overlap), low)
        return known


class BfvScheme(LatticeScheme):
    """Exact sums in packed coefficients; what configurations call `bfv`.

    Options of `choose_parameters`: `ring_degree` (None lets the payload's size decide),
    `smudging_bits` (0), `packed` (True).
    """

    name = "bfv"
    parameters_type = BfvParameters
    encryption_key_type = BfvEncryptionKey

    def choose_parameters(self, requirement: Requirement, **options: Any) -> BfvParameters:
        """The smallest ring whose payload is within 5 % of the smallest one there is."""
        fact.check_requirement(requirement)
        chosen = fact.require_options(options, _OPTIONS)
        degrees = ring_degrees(chosen["ring_degree"])
        fits = [fit for fit in (_fit(requirement, n, chosen) for n in degrees) if fit is not None]
        if not fits:
            raise ParameterError(
                f"no BFV parameters hold sums of +-{fact.sum_bound(requirement)} over "
                f"{requirement.addends} addends at {requirement.security_bits} bits of security; "
                "lower sum_bound, addends or security_bits"
            )
        limit = _SIZE_TOLERANCE * min(fit.payload_bytes for fit in fits)
        return next(fit for fit in fits if fit.payload_bytes <= limit)

    def load_parameters(self, facts: Mapping[str, Any]) -> BfvParameters:
        """Rebuild parameters from their facts (untrusted input); the proof is checked again."""
        common = self.read_common(facts, {"fields"})
        return BfvParameters(**common, fields=facts["fields"])


class BfvKeyGenerator(LatticeKeyGenerator):
    """Makes and reads BFV secret keys."""

    name = "bfv"
    scheme = BfvScheme()
    decryption_key_type = BfvDecryptionKey


def field_layout(requirement: Requirement, fields: int) -> FieldLayout:
    """Fields wide enough for every sum within the requirement's bound, `fields` a coefficient."""
    width = (2 * fact.sum_bound(requirement)).bit_length()
    return FieldLayout(fields=fields, width=width, shift=GUARD_BITS)


def coefficient_error(
    requirement: Requirement,
    ring_degree: int,
    fields: int,
    *,
    has_special: bool,
    smudging_bits: int,
) -> float:
    """A bound on |e| of a sum's coefficient, but for 2^-64 over 2^20 openings.

    Notation and steps 1 to 3 are those of `ckks_bounds`; here they concern coefficients, where a
    product with s has variance proxy ||s||^2 <= N times that of the other factor. For n addends:
    adding floor(q M / 2^K) leaves less than 1 each, and less than 1 for every digit subtracted on
    opening; r0 at most n/2; r1 s has proxy n N / 12; fresh noise proxies 10.5 n (1 + N) and
    (2/3) n ||e||^2, with ||e||^2 <= 1.5 * 10.5 N but for 2^-139 at N >= 2048 (Chernoff bound for
    squares of sub-Gaussian variables), divided by the special prime where there is one.

    Args:
        requirement: gives n, d and the largest sums.
        ring_degree: N.
        fields: values in a coefficient.
        has_special: whether fresh ciphertexts are divided by a special prime.
        smudging_bits: multiplies the bound by 1 + 2^smudging_bits.
    """
    addends, degree = float(requirement.addends), float(ring_degree)
    coefficients = math.ceil(requirement.length / fields)
    tail = tail_factor(3.0 * coefficients, FAILURE_BITS_PER_JOB + OPENINGS_PER_JOB_BITS + 1)
    fresh = tail * math.sqrt(10.5 * addends * (1 + degree))
    fresh += tail * math.sqrt(2 / 3 * addends * 1.5 * 10.5 * degree)
    error = addends + 16.0  # floors of the additions, and of at most 16 digits
    if has_special:
        error += math.ldexp(fresh, 1 - MIN_PRIME_BITS)
        error += addends / 2 + tail * math.sqrt(addends * degree / 12)
    else:
        error += fresh
    return error * (1 + 2.0**smudging_bits) if smudging_bits else error


def needed_modulus_bits(
    requirement: Requirement,
    ring_degree: int,
    fields: int,
    *,
    has_special: bool,
    smudging_bits: int,
) -> float:
    """log2 of the least q under which every sum decrypts: 2^(K+1) times the error, and slack.

    Args:
        requirement, ring_degree, fields, has_special, smudging_bits: as for `coefficient_error`.
    """
    error = coefficient_error(
        requirement, ring_degree, fields, has_special=has_special, smudging_bits=smudging_bits
    )
    bits = field_layout(requirement, fields).bits
    return bits + 1 + math.log2(error / (1 - _DECRYPTION_SLACK))


def _fit(requirement: Requirement, degree: int, options: Mapping[str, Any]) -> BfvParameters | None:
    """The parameters of one ring degree with the smallest payload, or None."""
    level = security_level(requirement.security_bits)
    smudging = check_smudging(options["smudging_bits"])
    best: BfvParameters | None = None
    for has_special in (True, False):
        for fields in range(1, _MAX_FIELDS + 1):
            needed = needed_modulus_bits(
                requirement, degree, fields, has_special=has_special, smudging_bits=smudging
            )
            chain = find_chain(degree, needed, level, special=has_special)
            if chain is None:
                break
            if not chain.suits(1 << _digit_bits(field_layout(requirement, fields))):
                continue
            made = BfvParameters(
                requirement=requirement,
                chain=chain,
                smudging_bits=smudging,
                packed=options["packed"],
                fields=fields,
            )
            if best is None or made.payload_bytes < best.payload_bytes:
                best = made
    return best


def _digit_bits(layout: FieldLayout) -> int:
    """Bits read in one decryption: all of a small coefficient, or as many as SEAL allows."""
    return min(_DIGIT_BITS, layout.bits)


@lru_cache(maxsize=16)
def _lift(primes: tuple[int, ...], bits: int) -> Lift:
    return Lift(primes, bits)


def _negated(rows: Words, primes: tuple[int, ...]) -> Words:
    """-rows modulo each row's prime."""
    moduli = np.array(primes, dtype=np.uint64)[:, None]
    negative: Words = np.where(rows == 0, rows, moduli - rows)
    return negative
