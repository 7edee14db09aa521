import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from privagg.errors import DeploymentError
from privagg.party.node_keys import (
    check_public_line,
    fingerprint,
    make_node_key,
    public_line,
)


def _openssh(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def test_a_node_key_is_what_flower_reads():
    private = make_node_key()
    loaded = serialization.load_ssh_private_key(private, password=None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    assert loaded.curve.name == "secp384r1"
    assert public_line(private).startswith("ecdsa-sha2-nistp384 ")
    assert check_public_line(public_line(private) + " comment") == public_line(private)


def test_keys_of_another_kind_are_refused():
    with pytest.raises(DeploymentError, match="Ed25519PrivateKey"):
        public_line(_openssh(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(DeploymentError, match="no readable"):
        public_line(b"-----BEGIN OPENSSH PRIVATE KEY-----\n!\n-----END OPENSSH PRIVATE KEY-----")
    with pytest.raises(DeploymentError, match="not an OpenSSH public key"):
        check_public_line("ecdsa-sha2-nistp384 AAAA")
    line = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    with pytest.raises(DeploymentError, match="is on one of"):
        check_public_line(line.decode())


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen to compare with")
def test_the_fingerprint_is_ssh_keygens(tmp_path):
    line = public_line(make_node_key())
    (tmp_path / "node.pub").write_text(line + "\n")
    printed = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "node.pub"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert fingerprint(line) in printed.split()
