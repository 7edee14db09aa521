"""Node keys: how a SuperNode proves to the SuperLink which registered party it is.

Flower wants an EC key on a NIST curve, private in OpenSSH's format, public as one OpenSSH line, and
registers the public key before the node may connect. Fingerprints are those of `ssh-keygen -l`.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from privagg.errors import DeploymentError

CURVES = ("secp256r1", "secp384r1", "secp521r1")


def make_node_key() -> bytes:
    """A fresh P-384 private key in OpenSSH's format, unencrypted, for a file of mode 0600."""
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def public_line(private: bytes) -> str:
    """The public key of a private one, as one OpenSSH line without a comment.

    Raises:
        DeploymentError: not an unencrypted OpenSSH private key on a NIST curve.
    """
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(
            f"the node key is no readable OpenSSH private key: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise DeploymentError(
            f"the node key is a {type(key).__name__}; Flower needs one on {', '.join(CURVES)}"
        )
    return _line(key.public_key())


def check_public_line(line: str) -> str:
    """A public key's line as it is registered: checked, without comment.

    Raises:
        DeploymentError: not an OpenSSH public key on a NIST curve.
    """
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DeploymentError(f"not an OpenSSH public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise DeploymentError(
            f"a node's public key is on one of {', '.join(CURVES)}, not a {type(key).__name__}"
        )
    return _line(key)


def fingerprint(line: str) -> str:
    """SHA256:... of a public key's line, as `ssh-keygen -l` prints it."""
    blob = base64.b64decode(line.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _line(key: ec.EllipticCurvePublicKey) -> str:
    encoded = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return " ".join(encoded.decode().split()[:2])
