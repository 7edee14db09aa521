"""Ring parameters of RLWE schemes: degree, RNS primes, and the security level they reach.

Nothing here needs SEAL: an aggregator checks and uses these numbers with numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from privagg.errors import ParameterError
from privagg.kernels.layout import MAX_MODULUS_BITS
from privagg.secure.facts import require_keys

# Bossuat et al., "Security Guidelines for Implementing Homomorphic Encryption" (IACR Communications
# in Cryptology 1(4), 2025; ePrint 2024/463), table 5.2: greatest bits of the whole modulus (special
# prime included) for a uniform ternary secret, error with standard deviation 3.19, classical
# attacks. It updates the Homomorphic Encryption Standard of 2018, whose bounds are 1 to 14 bits
# higher; SEAL checks those again.
MAX_MODULUS_BITS_BY_SECURITY: Mapping[int, Mapping[int, int]] = {
    128: {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868},
    192: {2048: 36, 4096: 73, 8192: 147, 16384: 297, 32768: 597},
    256: {2048: 27, 4096: 56, 8192: 114, 16384: 230, 32768: 462},
}
RING_DEGREES = tuple(MAX_MODULUS_BITS_BY_SECURITY[128])
MIN_PRIME_BITS = 20  # enough primes of 1 modulo 2N exist for every degree above
SPECIAL_PRIME_BITS = 36

# A job is taken to open at most this many sums; failure bounds are over all of them together.
OPENINGS_PER_JOB_BITS = 20
FAILURE_BITS_PER_JOB = 64


@dataclass(frozen=True)
class RnsChain:
    """A ring Z_q[X]/(X^N + 1) with q a product of primes, and what encryption adds to q.

    Args:
        ring_degree: N, a power of two.
        primes: the primes of q, each 1 modulo 2N.
        special: the key-level prime that fresh ciphertexts are divided by, or None. It lies in
            public keys, never in ciphertexts, and counts for security.
        security_bits: 128, 192 or 256; the product of all primes keeps to that level's bound.

    Raises:
        ParameterError: any of this does not hold.
    """

    ring_degree: int
    primes: tuple[int, ...]
    special: int | None
    security_bits: int

    def __post_init__(self) -> None:
        if self.security_bits not in MAX_MODULUS_BITS_BY_SECURITY:
            raise ParameterError(f"security level {self.security_bits} is not 128, 192 or 256 bits")
        if self.ring_degree not in RING_DEGREES:
            raise ParameterError(f"ring degree {self.ring_degree} is not one of {RING_DEGREES}")
        if not self.primes or len(set(self.key_primes)) != len(self.key_primes):
            raise ParameterError("RNS primes must be distinct, and at least one")
        for prime in self.key_primes:
            if not is_ntt_prime(prime, self.ring_degree):
                raise ParameterError(
                    f"{prime} is not a prime of {MIN_PRIME_BITS} to {MAX_MODULUS_BITS} bits that "
                    f"is 1 modulo {2 * self.ring_degree}"
                )
        bits = math.prod(self.key_primes).bit_length()
        limit = MAX_MODULUS_BITS_BY_SECURITY[self.security_bits][self.ring_degree]
        if bits > limit:
            raise ParameterError(
                f"a modulus of {bits} bits at ring degree {self.ring_degree} is weaker than "
                f"{self.security_bits} bits of security, which allow {limit}"
            )

    @property
    def key_primes(self) -> tuple[int, ...]:
        """The primes of keys: those of ciphertexts, then the special one."""
        return self.primes if self.special is None else (*self.primes, self.special)

    @property
    def modulus(self) -> int:
        """q, the modulus of ciphertexts."""
        return math.prod(self.primes)

    def suits(self, plain_modulus: int) -> bool:
        """Whether SEAL takes all of `primes` for those of ciphertexts.

        It sets the last of several key primes apart as the special one, unless what is left would
        be too small for the plain modulus.

        Args:
            plain_modulus: BFV's t; 0 under CKKS.
        """
        alone = self.special is None and len(self.primes) > 1
        return not alone or plain_modulus >= math.prod(self.primes[:-1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts; numbers beyond 2^53 go as decimal strings."""
        return {
            "ring_degree": self.ring_degree,
            "primes": [str(prime) for prime in self.primes],
            "special": None if self.special is None else str(self.special),
            "security_bits": self.security_bits,
        }

    @classmethod
    def from_dict(cls, facts: Any) -> RnsChain:
        """Rebuild and check a chain (untrusted input)."""
        require_keys(facts, {"ring_degree", "primes", "special", "security_bits"}, "RNS chain")
        primes, special = facts["primes"], facts["special"]
        if not isinstance(primes, list) or not 1 <= len(primes) <= 64:
            raise ParameterError("RNS primes must be a list of 1 to 64 decimal strings")
        for name in ("ring_degree", "security_bits"):
            if type(facts[name]) is not int:
                raise ParameterError(f"{name} must be a whole number, not {facts[name]!r}")
        return cls(
            ring_degree=facts["ring_degree"],
            primes=tuple(_decimal(prime) for prime in primes),
            special=None if special is None else _decimal(special),
            security_bits=facts["security_bits"],
        )


def security_level(wanted_bits: int) -> int:
    """The least level of the guidelines' table that reaches `wanted_bits`.

    Raises:
        ParameterError: above 256 bits, which the table does not cover.
    """
    for level in sorted(MAX_MODULUS_BITS_BY_SECURITY):
        if wanted_bits <= level:
            return level
    raise ParameterError(f"no RLWE parameters are tabled for {wanted_bits} bits of security")


def find_chain(
    ring_degree: int, modulus_bits: float, security_bits: int, *, special: bool
) -> RnsChain | None:
    """The chain with the fewest primes whose modulus is at least 2^modulus_bits, or None.

    Args:
        ring_degree: N.
        modulus_bits: log2 of the least q that will do.
        security_bits: 128, 192 or 256.
        special: whether keys carry a special prime (less noise in fresh ciphertexts).

    Raises:
        ParameterError: no such ring degree.
    """
    if ring_degree not in RING_DEGREES:
        raise ParameterError(f"ring degree {ring_degree!r} is not one of {RING_DEGREES}")
    limit = MAX_MODULUS_BITS_BY_SECURITY[security_bits][ring_degree]
    extra = SPECIAL_PRIME_BITS if special else 0
    modulus_bits = max(modulus_bits, MIN_PRIME_BITS - 1)
    if modulus_bits + extra > limit:
        return None
    for count in range(max(1, math.ceil(modulus_bits / MAX_MODULUS_BITS)), 64):
        total = max(math.ceil(modulus_bits), MIN_PRIME_BITS * count)
        while total <= modulus_bits + count + 1:
            sizes = [total // count + (i < total % count) for i in range(count)]
            chain = _chain(ring_degree, sizes, security_bits, special)
            if chain is not None and math.log2(chain.modulus) >= modulus_bits:
                return chain
            total += 1
    return None


def _chain(
    ring_degree: int, sizes: list[int], security_bits: int, special: bool
) -> RnsChain | None:
    """The chain of the largest primes of the given bit sizes, or None where there is none."""
    if max(sizes) > MAX_MODULUS_BITS:
        return None
    wanted = [*sizes, SPECIAL_PRIME_BITS] if special else sizes
    primes: list[int] = []
    for size in wanted:
        found = ntt_prime(ring_degree, size, wanted[: len(primes)].count(size))
        if found is None:
            return None
        primes.append(found)
    try:
        return RnsChain(
            ring_degree=ring_degree,
            primes=tuple(primes[: len(sizes)]),
            special=primes[-1] if special else None,
            security_bits=security_bits,
        )
    except ParameterError:  # above the security bound
        return None


@cache
def ntt_prime(ring_degree: int, bits: int, place: int) -> int | None:
    """The prime number `place` (from 0) of those of exactly `bits` bits that are 1 modulo 2N.

    They are counted from the largest down; None where there are not so many.

    Args:
        ring_degree: N.
        bits: of the prime.
        place: from 0.
    """
    step = 2 * ring_degree
    if place == 0:
        candidate = ((1 << bits) - 2) // step * step + 1
    else:
        before = ntt_prime(ring_degree, bits, place - 1)
        if before is None:
            return None
        candidate = before - step
    while candidate >> (bits - 1):
        if is_prime(candidate):
            return candidate
        candidate -= step
    return None


@cache
def is_ntt_prime(value: int, ring_degree: int) -> bool:
    """Whether `value` can be an RNS prime for degree N: size, residue class and primality."""
    return (
        MIN_PRIME_BITS <= value.bit_length() <= MAX_MODULUS_BITS
        and value % (2 * ring_degree) == 1
        and is_prime(value)
    )


def is_prime(value: int) -> bool:
    """Miller-Rabin with the first twelve primes as bases, a proof below 3.3 * 10^24.

    Source: Sorenson & Webster, "Strong pseudoprimes to twelve prime bases", 2017.
    """
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if value < 2 or value >= 3_317_044_064_679_887_385_961_981:
        return False
    if value in bases:
        return True
    if any(value % base == 0 for base in bases):
        return False
    twos = ((value - 1) & -(value - 1)).bit_length() - 1
    odd = (value - 1) >> twos
    for base in bases:
        x = pow(base, odd, value)
        if x in (1, value - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % value
            if x == value - 1:
                break
        else:
            return False
    return True


def tail_factor(events: float, failure_bits: float) -> float:
    """x such that `events` sub-Gaussian variables all lie within x deviations.

    Union bound: events * 2 * exp(-x^2 / 2) <= 2^-failure_bits.

    Source: Boucheron, Lugosi & Massart, "Concentration Inequalities", 2013, section 2.3.

    Args:
        events: how many variables, of variance proxy 1 each.
        failure_bits: -log2 of the probability that one lies further out.
    """
    return math.sqrt(2 * ((failure_bits + 1) * math.log(2) + math.log(events)))


def _decimal(text: Any) -> int:
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise ParameterError(f"an RNS prime must be a decimal string, not {text!r}")
    value = int(text)
    if str(value) != text:
        raise ParameterError(f"an RNS prime must be written without leading zeros: {text!r}")
    return value
