"""Paillier encryption as a scheme: packed integers, exact sums, keys and ciphertexts as in phe.

phe (python-paillier) is imported here and nowhere else, and only to turn keys into phe's objects
and back; adding needs neither phe nor gmpy2. Ciphertexts are the plain integers c modulo n^2 that
phe's `raw_encrypt` and `raw_decrypt` use. phe's `EncryptedNumber.exponent` is never used: it
travels in clear and tells how large a value is.

Source: Paillier, "Public-key cryptosystems based on composite degree residuosity classes",
Eurocrypt 1999; short exponents after Damgård, Jurik and Nielsen 2010 (`paillier_keys`). Parameters
and security level (112 bits at 2048, 128 at 3072): `paillier_parameters`. Correctness: exact, no
failure probability, while slots hold the sum (`paillier_packing`). Caveats: secure against chosen
plaintexts only; not constant-time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from privagg.encoding.vectors import IntVector
from privagg.errors import MissingDependencyError, ParameterError
from privagg.secure import facts as fact
from privagg.secure.paillier_parameters import (
    SECURITY_BITS,
    PaillierParameters,
    parameters_from_dict,
)
from privagg.secure.scheme import Buffer, Parameters, Requirement, Scheme

if TYPE_CHECKING:
    from privagg.secure.paillier_keys import PaillierDecryptionKey, PaillierEncryptionKey


class PaillierScheme(Scheme):
    """Paillier with packed integers: exact, additive without limit of depth, no failure chance."""

    name = "paillier"

    def choose_parameters(self, requirement: Requirement, **options: Any) -> PaillierParameters:
        """Parameters for the requirement; complete once a key is generated.

        Args:
            requirement: what is asked for.
            options: `modulus_bits`, a multiple of 64 from 2048 (112-bit security) to 8192; by
                default the smallest size rated at the required level, 3072 for 128 bits.

        Raises:
            ParameterError: no size reaches the required level, or an unknown option.
        """
        wanted = fact.require_options(options, {"modulus_bits": None})["modulus_bits"]
        if wanted is None:
            level = fact.check_requirement(requirement).security_bits
            wanted = next((bits for bits, s in SECURITY_BITS.items() if s >= level), None)
            if wanted is None:
                raise ParameterError(
                    f"no supported Paillier modulus reaches {level}-bit security; the highest is "
                    f"{max(SECURITY_BITS.values())}"
                )
        return PaillierParameters(requirement, wanted)

    def load_parameters(self, facts: Mapping[str, Any]) -> PaillierParameters:
        """Rebuild parameters from their facts (untrusted input)."""
        return parameters_from_dict(facts)

    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> PaillierEncryptionKey:
        """Read an encryption key (untrusted input)."""
        own = fact.own(parameters, PaillierParameters)
        key: PaillierEncryptionKey = _keys().read_public(own, data)
        return key

    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        """The one share is the opened sum, as little-endian int64."""
        requirement = fact.own(parameters, PaillierParameters).requirement
        return fact.sum_of_one(shares, requirement, count)


def to_phe_public(key: PaillierEncryptionKey) -> Any:
    """The key as a `phe.PaillierPublicKey`."""
    return _phe().PaillierPublicKey(key.modulus)


def to_phe_private(key: PaillierDecryptionKey) -> Any:
    """The key as a `phe.PaillierPrivateKey`."""
    return _phe().PaillierPrivateKey(to_phe_public(key.encryption_key), *key.primes)


def from_phe_public(parameters: PaillierParameters, key: Any) -> PaillierEncryptionKey:
    """An encryption key around a `phe.PaillierPublicKey`; its randomness has full-size exponents.

    Raises:
        ParameterError: a modulus of another size than the parameters', or an unsafe one.
        KeyMismatchError: the parameters already name another modulus.
    """
    made: PaillierEncryptionKey = _keys().PaillierEncryptionKey(parameters, int(key.n), None)
    return made


def from_phe_private(parameters: PaillierParameters, key: Any) -> PaillierDecryptionKey:
    """A decryption key around a `phe.PaillierPrivateKey`, foreign as in `from_phe_public`."""
    public = from_phe_public(parameters, key.public_key)
    made: PaillierDecryptionKey = _keys().PaillierDecryptionKey(public, int(key.p), int(key.q))
    return made


def _keys() -> Any:
    try:
        from privagg.secure import paillier_keys
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"Paillier keys need the package {error.name!r}; "
            "install it with: pip install 'privagg[paillier]'"
        ) from error
    return paillier_keys


def _phe() -> Any:
    try:
        import phe
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "phe's key objects need the package 'phe'; "
            "install it with: pip install 'privagg[paillier]'"
        ) from error
    return phe
