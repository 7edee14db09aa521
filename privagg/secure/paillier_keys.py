"""Paillier keys: encryption with short exponents and tables, decryption by the key holder.

Encryption of m is (1 + n*m) * rho mod n^2 with rho a random n-th residue (Paillier, Eurocrypt
1999). How rho is drawn depends on where the key comes from:

* a key made here carries h = -x^2 mod n, and rho = (h^n)^a with a of half as many bits as n
  (Damgård, Jurik & Nielsen 2010). *Short-exponent assumption*: h^a mod n for such a cannot be told
  from h^a with a of full size. Goldreich & Rosen ("On the security of modular exponentiation with
  application to the construction of pseudorandom generators", J. Cryptology 16, 2003) derive
  pseudorandomness under half-size exponents from the hardness of factoring; raising to the n-th
  power maps residues modulo n one-to-one to n-th residues modulo n^2, and so changes nothing;
* of a foreign key nothing of the kind is known, and rho = r^n with r uniform: Paillier's own
  scheme, some ten times slower, secure under decisional composite residuosity alone.

Not constant time: table look-ups follow the random exponent, and gmpy2's arithmetic follows its
operands, at the key holder the secret primes. Whoever shares a processor with a site or with a key
holder, or can time single operations, is outside what this file protects against.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import gmpy2
import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, KeyMismatchError
from privagg.kernels.fixed_base import FixedBase, best_window_bits
from privagg.secure import facts as fact
from privagg.secure.opening import DecryptionKey, KeyGenerator
from privagg.secure.paillier_parameters import PaillierParameters
from privagg.secure.paillier_primes import prime_pair, random_below
from privagg.secure.scheme import Buffer, EncryptionKey, Parameters
from privagg.threads import available_cpus, run_split

_PUBLIC_MAGIC = b"PPK1"
_SECRET_MAGIC = b"PSK1"
_EXPECTED_UPLOADS = 8  # a table is sized for this many; more only make it pay off better
_BATCH = 4096  # ciphertexts worked on at once, so that memory beyond the payload stays small


class PaillierEncryptionKey(EncryptionKey):
    """What a site encrypts under: the modulus n and, for keys made here, the base h.

    Args:
        parameters: complete, or to be completed with n.
        modulus: n.
        base: h with Jacobi symbol +1 modulo n, or None for a foreign key. It comes from the key's
            maker, who could read every upload anyway.
    """

    parameters: PaillierParameters

    def __init__(self, parameters: PaillierParameters, modulus: int, base: int | None) -> None:
        self.parameters = parameters.completed(modulus)
        if base is not None and not _usable_base(base, modulus):
            raise CiphertextError("the key's base is not a random residue modulo its modulus")
        self._modulus = gmpy2.mpz(modulus)
        self._square = self._modulus**2
        self._base = base
        self._table: FixedBase | None = None
        self._lock = threading.Lock()

    @property
    def modulus(self) -> int:
        """n."""
        return int(self._modulus)

    @property
    def base(self) -> int | None:
        """h, or None for a foreign key, whose randomness has full-size exponents."""
        return self._base

    def to_bytes(self) -> bytes:
        """Magic, then n and h (0 for none) in fixed size, little-endian."""
        size = self.parameters.modulus_bits // 8
        base = self._base or 0
        return _PUBLIC_MAGIC + _fixed(self.modulus, size) + _fixed(base, size)

    def encrypt(self, values: IntVector) -> bytes:
        """Encrypt one contribution.

        Args:
            values: int64 (d,), every coordinate within +-upload_bound.

        Returns:
            Fresh ciphertexts, little-endian, `ciphertext_bytes` bytes each.

        Raises:
            CapacityError: wrong length or type, or a coordinate beyond the bound.
        """
        checked = fact.check_contribution(values, self.parameters.requirement)
        plaintexts = self.parameters.slots.pack(checked)
        randomise = self._short if self._base is not None else self._full
        parts = [
            randomise(plaintexts[at : at + _BATCH]) for at in range(0, len(plaintexts), _BATCH)
        ]
        return b"".join(parts)

    def _short(self, plaintexts: Sequence[int]) -> bytes:
        """(1 + n*m) times the table's power for a random short exponent."""
        table = self._fixed_base()
        size = self.parameters.ciphertext_bytes
        n = self._modulus
        starts = b"".join(int(1 + n * (m % n)).to_bytes(size, "little") for m in plaintexts)
        random = secrets.token_bytes(2 * len(plaintexts) * table.windows)
        digits = np.frombuffer(random, dtype="<u2").reshape(len(plaintexts), table.windows)
        exponents = (digits & np.uint16((1 << table.window_bits) - 1)).astype(np.uint16)
        return table.multiply_powers(starts, exponents)

    def _full(self, plaintexts: Sequence[int]) -> bytes:
        """(1 + n*m) times r^n for a uniform r."""
        n, square = self._modulus, self._square
        roots = [gmpy2.mpz(random_below(self.modulus)) for _ in plaintexts]
        residues = _powers(roots, n, square)
        size = self.parameters.ciphertext_bytes
        return b"".join(
            int((1 + n * (m % n)) * residue % square).to_bytes(size, "little")
            for m, residue in zip(plaintexts, residues, strict=True)
        )

    def _fixed_base(self) -> FixedBase:
        """The table of powers of h^n, made at the first encryption."""
        with self._lock:
            if self._table is None:
                bits = -(-self.parameters.modulus_bits // 2)
                square_bits = 2 * self.parameters.modulus_bits
                at_once = self.parameters.slots.plaintexts
                self._table = FixedBase(
                    int(gmpy2.powmod(self._base, self._modulus, self._square)),
                    int(self._square),
                    self.parameters.ciphertext_bytes,
                    exponent_bits=bits,
                    window_bits=best_window_bits(bits, _EXPECTED_UPLOADS * at_once, square_bits),
                    at_once=at_once,
                )
            return self._table


class PaillierDecryptionKey(DecryptionKey):
    """The primes. Decryption by the Chinese remainder theorem (Paillier 1999, section 7).

    Args:
        encryption_key: the public half.
        p, q: its primes; checked to multiply to n.
    """

    encryption_key: PaillierEncryptionKey

    def __init__(self, encryption_key: PaillierEncryptionKey, p: int, q: int) -> None:
        if p * q != encryption_key.modulus or p == q or min(p, q) < 3:
            raise KeyMismatchError("the secret primes do not multiply to the key's modulus")
        self.encryption_key = encryption_key
        self._primes = (gmpy2.mpz(p), gmpy2.mpz(q))
        self._inverse = gmpy2.invert(self._primes[0], self._primes[1])

    @property
    def primes(self) -> tuple[int, int]:
        """p and q."""
        return int(self._primes[0]), int(self._primes[1])

    def to_bytes(self) -> bytes:
        """Magic, p and q in fixed size, then the public half. For the owner's storage only."""
        size = self.encryption_key.parameters.modulus_bits // 8
        p, q = self.primes
        public = self.encryption_key.to_bytes()
        return _SECRET_MAGIC + _fixed(p, size) + _fixed(q, size) + public

    def open_share(self, payload: Buffer, count: int) -> bytes:
        """Decrypt a sum of `count` contributions: little-endian int64, d of them.

        Raises:
            CiphertextError: malformed, out of range, or a sum no honest contributions give.
        """
        parameters = self.encryption_key.parameters
        fact.check_count(parameters.requirement, count)
        parameters.fold().add(payload)  # which checks it
        size = parameters.ciphertext_bytes
        data = bytes(payload)
        ciphertexts = [
            gmpy2.mpz(int.from_bytes(data[at : at + size], "little"))
            for at in range(0, len(data), size)
        ]
        values = parameters.slots.unpack(self.decrypt(ciphertexts))
        return fact.share_from(values, parameters.requirement, count)

    def decrypt(self, ciphertexts: Sequence[Any]) -> list[int]:
        """Signed plaintexts in (-n/2, n/2) of ciphertexts in [1, n^2)."""
        p, q = self._primes
        n = p * q
        at_p, at_q = (self._residues(ciphertexts, prime) for prime in (p, q))
        signed = []
        for low, high in zip(at_p, at_q, strict=True):
            plaintext = low + p * ((high - low) * self._inverse % q)
            signed.append(int(plaintext - n if plaintext > n // 2 else plaintext))
        return signed

    def _residues(self, ciphertexts: Sequence[Any], prime: Any) -> list[Any]:
        """Plaintexts modulo one prime: L(c^(p-1) mod p^2) / L((1+n)^(p-1) mod p^2)."""
        square = prime * prime
        n = self._primes[0] * self._primes[1]
        scale = gmpy2.invert((gmpy2.powmod(1 + n, prime - 1, square) - 1) // prime, prime)
        powers = _powers([c % square for c in ciphertexts], prime - 1, square)
        return [(power - 1) // prime * scale % prime for power in powers]


class PaillierKeyGenerator(KeyGenerator):
    """Makes and reads Paillier's secret keys."""

    name = "paillier"

    def generate_key(self, parameters: Parameters) -> PaillierDecryptionKey:
        """A fresh key with a base for short exponents.

        Its `.encryption_key.parameters` are the parameters with its modulus in them.
        """
        own = fact.own(parameters, PaillierParameters)
        p, q = prime_pair(own.modulus_bits)
        n = p * q
        while True:
            root = random_below(n)
            base = -root * root % n
            if _usable_base(base, n):
                break
        fresh = PaillierParameters(own.requirement, own.modulus_bits)
        return PaillierDecryptionKey(PaillierEncryptionKey(fresh, n, base), p, q)

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> PaillierDecryptionKey:
        """Read a decryption key from its owner's own storage."""
        own = fact.own(parameters, PaillierParameters)
        size = own.modulus_bits // 8
        raw = bytes(data)
        split = len(_SECRET_MAGIC) + 2 * size
        p, q = _read(raw[:split], _SECRET_MAGIC, size, 2)
        return PaillierDecryptionKey(read_public(own, raw[split:]), p, q)


def read_public(parameters: PaillierParameters, data: Buffer) -> PaillierEncryptionKey:
    """Read an encryption key (untrusted input).

    Raises:
        CiphertextError: not the bytes of a key of this size.
        KeyMismatchError: a key of another modulus.
        ParameterError: a modulus that cannot protect anything.
    """
    modulus, base = _read(data, _PUBLIC_MAGIC, parameters.modulus_bits // 8, 2)
    return PaillierEncryptionKey(parameters, modulus, base or None)


def _read(data: Buffer, magic: bytes, size: int, numbers: int) -> list[int]:
    layout = struct.Struct(f"<{len(magic)}s" + f"{size}s" * numbers)
    raw = bytes(data)
    if len(raw) != layout.size or not raw.startswith(magic):
        raise CiphertextError(
            f"these {len(raw)} bytes are not a Paillier key of {8 * size} bits "
            f"(version {magic.decode()})"
        )
    return [int.from_bytes(part, "little") for part in layout.unpack(raw)[1:]]


def _fixed(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def _usable_base(base: int, modulus: int) -> bool:
    """Whether h can be minus a square with an order that nobody knows to be small.

    Jacobi symbol +1 includes that h is a unit; h, h^2 = 1 are refused.
    """
    return (
        1 < base < modulus - 1 and gmpy2.jacobi(base, modulus) == 1 and base * base % modulus != 1
    )


def _powers(bases: list[Any], exponent: Any, modulus: Any) -> list[Any]:
    """base^exponent mod modulus for each base, in threads: this gmpy2 call releases the GIL."""
    parts = max(1, min(available_cpus(), len(bases)))
    found: list[list[Any]] = [[] for _ in range(parts)]

    def work(part: int, first: int, last: int) -> None:
        found[part] = gmpy2.powmod_base_list(bases[first:last], exponent, modulus)

    run: Callable[..., None] = run_split
    run(work, len(bases), parts)
    return [power for part in found for power in part]
