"""Primes for Paillier keys, drawn from the operating system's CSPRNG.

Both primes are 3 modulo 4 and share no factor of p-1 and q-1 but 2, as Damgård, Jurik and Nielsen
ask for ("A generalization of Paillier's public-key system with applications to electronic voting",
International Journal of Information Security 9, 2010). The squares modulo n then form a cyclic
group of order (p-1)/2 * (q-1)/2. Beyond that, (p-1)/2 and (q-1)/2 have no prime factor below 2^16
here: a random square fails to generate all squares with probability below 192 / 2^16 for 3072-bit
keys (at most 192 such factors), and then misses a factor of the order that nobody can exploit.
"""

from __future__ import annotations

import secrets
from functools import cache

import gmpy2

_SIEVE_BOUND = 1 << 16
_ROUNDS = 32  # GMP: Baillie-PSW, then 8 Miller-Rabin rounds; FIPS 186-5 asks 4 at 1536 bits


@cache
def _sieves() -> tuple[gmpy2.mpz, gmpy2.mpz]:
    """Products of odd primes: a short one that most candidates fail at once, and the full one."""
    return gmpy2.primorial(1 << 9) // 2, gmpy2.primorial(_SIEVE_BOUND) // 2


def blum_prime(bits: int) -> int:
    """A random prime p = 3 (mod 4) of exactly `bits` bits, its two top bits set.

    Candidates are independent draws, not steps from one start: no prime is likelier for the gap
    before it. The time taken depends on how many candidates fail, not on the one that is kept.
    """
    while True:
        candidate = gmpy2.mpz(secrets.randbits(bits) | 0b11 << (bits - 2) | 0b11)
        pair = candidate * (candidate >> 1)
        if any(gmpy2.gcd(pair, sieve) > 1 for sieve in _sieves()):
            continue
        if gmpy2.is_prime(candidate, _ROUNDS):
            return int(candidate)


def prime_pair(modulus_bits: int) -> tuple[int, int]:
    """Two primes for a modulus of exactly `modulus_bits` bits, a multiple of 16.

    Guarantees p = q = 3 (mod 4), gcd(p-1, q-1) = 2, gcd(pq, (p-1)(q-1)) = 1 (equal lengths), and
    |p - q| > 2^(bits/2 - 100) against Fermat's factoring method (FIPS 186-5, A.1.3).
    """
    half = modulus_bits // 2
    while True:
        p, q = blum_prime(half), blum_prime(half)
        if gmpy2.gcd(p - 1, q - 1) == 2 and abs(p - q) >> (half - 100):
            return p, q


def random_below(bound: int) -> int:
    """A uniform integer in [2, bound - 2], from the operating system's CSPRNG."""
    return 2 + secrets.randbelow(bound - 3)
