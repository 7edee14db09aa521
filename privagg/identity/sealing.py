"""What only an owner can read: sealed to a key that follows from the owner's key.

Sealing needs the public half alone, so that a process that serves can seal and never read. Source:
RFC 9180 (HPKE) with X25519, HKDF-SHA256 and AES-256-GCM; every sealing has a key of its own.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privagg.errors import ConfigError

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def sealing_key(owner: Ed25519PrivateKey) -> str:
    """The public key (64 hex digits) that is sealed to for this owner."""
    return _secret(owner).public_key().public_bytes_raw().hex()


def seal(data: bytes, key: str, context: bytes) -> bytes:
    """Data that the owner of a key alone can read, 48 bytes longer.

    Args:
        data: what is sealed.
        key: of `sealing_key`.
        context: what the data belong to; they open with no other.

    Raises:
        ConfigError: the key is none.
    """
    try:
        return _SUITE.encrypt(data, X25519PublicKey.from_public_bytes(bytes.fromhex(key)), context)
    except ValueError as error:
        raise ConfigError(f"{key!r} is no X25519 public key: {error}") from error


def unseal(sealed: bytes, owner: Ed25519PrivateKey, context: bytes) -> bytes:
    """What was sealed.

    Args:
        sealed: of `seal`.
        owner: whose key it was sealed for.
        context: that it was sealed with.

    Raises:
        ConfigError: sealed for another owner or context, or altered.
    """
    try:
        return _SUITE.decrypt(sealed, _secret(owner), context)
    except (InvalidTag, ValueError) as error:
        raise ConfigError(
            "what was sealed does not open with this owner's key: it was sealed for another key, "
            "belongs elsewhere, or was altered"
        ) from error


def _secret(owner: Ed25519PrivateKey) -> X25519PrivateKey:
    info = b"privagg/sealed-for-the-owner/1"
    derived = HKDF(SHA256(), 32, salt=None, info=info).derive(owner.private_bytes_raw())
    return X25519PrivateKey.from_private_bytes(derived)
