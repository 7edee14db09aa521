"""The owner's key: decides about data, and is never held by a process that serves a federation.

It is apart from the party's identity key, which signs messages and the ledger on every round. The
file may be encrypted with a passphrase, and may be kept on another medium: only `privagg approve`
and `privagg recompute` read it.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.durable import write_new
from privagg.errors import ConfigError
from privagg.identity.secretfile import read_private


def make_owner_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """A fresh owner's key in a new file (PKCS#8 PEM, mode 0600), encrypted where a passphrase is.

    Raises:
        ConfigError: there is a file already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    sealed = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    write_new(path, data, secret=True)
    return key


def read_owner_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """The owner's key in a file.

    Raises:
        ConfigError: it cannot be read, others can read it, it holds no Ed25519 key, or the
            passphrase is missing or wrong.
    """
    data = read_private(path, "the owner's key")
    try:
        key = serialization.load_pem_private_key(data, (passphrase or "").encode() or None)
    except TypeError as error:
        raise ConfigError(
            f"{path}: {'no passphrase was set' if passphrase else 'a passphrase is needed'}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{path} holds no key that opens with this passphrase; type it again"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a {type(key).__name__}; an Ed25519 key is needed")
    return key


def needs_passphrase(path: Path) -> bool:
    """Whether an owner's key is encrypted; False where the file cannot be read."""
    try:
        return b"ENCRYPTED PRIVATE KEY" in path.read_bytes()[:64]
    except OSError:
        return False
