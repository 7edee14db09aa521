"""Shares under seal: what one site sends another through whoever adds."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privagg.errors import CiphertextError

NONCE_BYTES = 12
OVERHEAD_BYTES = NONCE_BYTES + 16
"""A nonce before, and GCM's own tag after, what is sealed."""


def seal(key: bytes, shares: bytes, tags: bytes) -> bytes:
    """Shares under AES-256-GCM (NIST SP 800-38D) with a random nonce, which stands before them.

    A key seals one packet; the nonce is random all the same, so that a site set back to an earlier
    state does not reuse one.

    Args:
        key: of `sealing_key`.
        shares: what is sealed.
        tags: of these shares, in the clear elsewhere; nothing opens with others.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, shares, tags)


def unseal(key: bytes, sealed: bytes, tags: bytes) -> bytes:
    """The shares.

    Args:
        key: under which they were sealed.
        sealed: nonce, shares and GCM's tag.
        tags: that they were sealed with.

    Raises:
        CiphertextError: altered, of another occasion or direction, or under another key.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], tags)
    except InvalidTag as error:
        raise CiphertextError("sealed shares do not open: they are not of this occasion") from error
