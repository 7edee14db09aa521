"""Seeds that two sites have in common, and the keys under which they seal shares for each other.

Two sites agree on a secret by X25519 (RFC 7748), once an epoch. HKDF-SHA256 (RFC 5869) makes a root
of it that is bound to the joint key, and with it to parameters, rule, epoch, roster and all cards.
From the root HMAC-SHA256 makes, for one occasion (run, round, attempt and who is asked), the
common seed and one sealing key for either direction. So an epoch's secret is never shared out nor
rebuilt, only seeds of one occasion; and two sites that were shown different members of one attempt
have different seeds, which their commitments show.

Whoever may use a site's X25519 key holds all of this: import contracts keep it out of aggregator,
round and coordinator.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privagg.digest import canonical_json
from privagg.secure.scheme import Occasion

ROOT_BYTES = 32


def occasion_digest(occasion: Occasion) -> bytes:
    """32 bytes that stand for run, round, attempt and members."""
    facts = [occasion.run, occasion.round, occasion.attempt, list(occasion.members)]
    return hashlib.sha256(b"privagg/masked/occasion/1\0" + canonical_json(facts)).digest()


def pair_root(secret: X25519PrivateKey, names: tuple[str, str], card: bytes, key_id: str) -> bytes:
    """What a site has in common with another for an epoch, 32 bytes; the same at both.

    Args:
        secret: the site's key of the epoch.
        names: of the two, in either order.
        card: the other's public key.
        key_id: of the joint key.
    """
    agreed = secret.exchange(X25519PublicKey.from_public_bytes(card))
    info = b"privagg/masked/pair/1\0" + canonical_json(sorted(names))
    return HKDF(SHA256(), ROOT_BYTES, bytes.fromhex(key_id), info).derive(agreed)


def pair_seed(root: bytes, occasion: bytes) -> bytes:
    """The seed of the mask that two sites have in common on an occasion; the same at both."""
    return hmac.digest(root, b"privagg/masked/seed/1\0" + occasion, "sha256")


def sealing_key(root: bytes, occasion: bytes, sender: str, receiver: str) -> bytes:
    """The key under which one site seals shares for another; either derives it.

    Args:
        root: what the two have in common.
        occasion: `occasion_digest`.
        sender, receiver: names; either direction has a key of its own.
    """
    names = canonical_json([sender, receiver])
    return hmac.digest(root, b"privagg/masked/seal/1\0" + occasion + names, "sha256")
