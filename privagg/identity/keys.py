"""Who is who: Ed25519 identity keys, and the roster of public keys that a party pins.

A party trusts a message because the key that signed it stands in the party's *own* configuration,
never because the message says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privagg.digest import json_digest
from privagg.durable import write_new
from privagg.errors import ConfigError, SignatureError, UnknownPartyError
from privagg.identity.secretfile import read_private

SIGNATURE_BYTES = 64
_FIELD = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8})
"""The y-coordinates of the points of order 1, 2, 4 and 8; either sign of x is one of them."""

_REMEMBERED_BYTES = 1 << 13  # 4,096 of them stay within 40 megabytes, and mostly within 10


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature (RFC 8032).

    A short message whose signature was found good is remembered and not computed again in this
    process: whether it is good follows from the three arguments alone, compared byte for byte.
    Where one process is many sites, each of which checks every other's statements, that leaves n
    verifications of n * n. Nothing is remembered of a signature that does not verify.

    Args:
        public_key: 32 bytes, as the verifier pinned it.
        message: what was signed.
        signature: 64 bytes.

    Raises:
        InvalidSignature: it is not that key's signature of these bytes.
        ValueError: no Ed25519 public key, or one under which anybody can sign.
    """
    verify = _remembered if len(message) <= _REMEMBERED_BYTES else _verified
    verify(bytes(public_key), bytes(message), bytes(signature))


def check_public_key(public_key: bytes) -> bytes:
    """The key itself where a signature under it means something.

    Under one of the eight points of small order a signature can be made without any secret, good
    for a large share of all messages; and a coordinate beyond the field's modulus would give one
    key two spellings. Source: RFC 8032, section 5.1.3; Brendel et al., "The provable security of
    Ed25519", 2021, section 5.

    Raises:
        ValueError: not 32 bytes, a point of small order, or another spelling than the canonical.
    """
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    y = int.from_bytes(public_key, "little") & ((1 << 255) - 1)
    if y >= _FIELD:
        raise ValueError("the key is not in its canonical spelling")
    if y in _SMALL_ORDER:
        raise ValueError("the key is a point of small order: anybody can sign under it")
    return public_key


def check_public_hex(key: str) -> str:
    """The key itself (64 hex digits); see `check_public_key`."""
    check_public_key(bytes.fromhex(key))
    return key


def _verified(public_key: bytes, message: bytes, signature: bytes) -> None:
    _loaded(public_key).verify(signature, message)


@lru_cache(maxsize=4096)
def _loaded(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(check_public_key(public_key))


_remembered = lru_cache(maxsize=4096)(_verified)


def forget_signatures() -> None:
    """Have every signature computed again: for whoever measures what that costs."""
    _remembered.cache_clear()


@dataclass(frozen=True)
class Identity:
    """A party's name and its private signing key.

    Args:
        name: as it stands in every roster.
        key: Ed25519 private key (RFC 8032).
    """

    name: str
    key: Ed25519PrivateKey

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A fresh identity; the key comes from the operating system's CSPRNG."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, name: str, path: Path) -> Identity:
        """The identity stored at `path` (PKCS#8 PEM, mode 0600), created where absent.

        Raises:
            ConfigError: the file is there but holds no Ed25519 key, is another user's, can be read
                by others, or cannot be read or written.
        """
        if not path.exists():
            cls.generate(name)._store(path)
        try:
            data = read_private(path, "the identity key")
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} holds no readable private key: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds a {type(key).__name__}; an Ed25519 key is needed")
        return cls(name, key)

    def _store(self, path: Path) -> None:
        """Write the key whole or not at all; where another process was first, leave its key."""
        try:
            write_new(path, self._pem(), secret=True)
        except ConfigError as error:
            if not path.exists():
                raise ConfigError(
                    f"{error}; choose a folder that can be written to (federation.output)"
                ) from error

    def _pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def public_hex(self) -> str:
        """The public key, 32 bytes as hex."""
        raw = self.key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return raw.hex()

    def sign(self, message: bytes) -> bytes:
        """A 64-byte Ed25519 signature of `message`."""
        return self.key.sign(message)


@dataclass(frozen=True)
class Roster:
    """The public identity keys a party pins.

    Args:
        keys: party name -> Ed25519 public key, 64 hex digits.
    """

    keys: Mapping[str, str]

    @classmethod
    def of(cls, *identities: Identity) -> Roster:
        """A roster of these identities' public keys."""
        return cls({identity.name: identity.public_hex for identity in identities})

    def federation_digest(self, *, coordinator: str, opener: str) -> str:
        """SHA-256 (hex) over who is who: every identity key, who coordinates and who opens."""
        facts = {"keys": dict(self.keys), "coordinator": coordinator, "opener": opener}
        return json_digest(facts, domain=b"privagg/federation/1\0")

    def verify(self, name: str, message: bytes, signature: bytes) -> None:
        """Check that `name`'s pinned key signed `message`.

        Args:
            name: the party.
            message: what was signed.
            signature: 64 bytes.

        Raises:
            UnknownPartyError: nobody of that name is on the roster.
            SignatureError: the signature is not that key's over these bytes.
        """
        if name not in self.keys:
            raise UnknownPartyError(
                f"nobody called {name!r} is on the roster ({', '.join(sorted(self.keys))})"
            )
        try:
            verify_signature(bytes.fromhex(self.keys[name]), message, signature)
        except InvalidSignature as error:
            raise SignatureError(
                f"the signature on a message from {name!r} does not verify against the key "
                f"pinned for it ({self.keys[name][:16]}...); the message was forged or altered, "
                "or the pinned key is out of date"
            ) from error
        except ValueError as error:
            raise ConfigError(f"the key pinned for {name!r} is no Ed25519 key: {error}") from error
