import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import CertificateError
from privagg.party import certificates
from privagg.party.certificates import Certified, issue, make_authority, verify_server

AUTHORITY = make_authority("trial")
SERVER = issue(AUTHORITY, ["superlink.example.org", "127.0.0.1", "::1"])


@pytest.mark.parametrize("host", ["superlink.example.org", "127.0.0.1", "::1"])
def test_a_certificate_verifies_for_every_name_it_was_made_for(host):
    verify_server(AUTHORITY.certificate_pem, SERVER.certificate_pem, host)


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.2", "example.org"])
def test_and_for_no_other(host):
    with pytest.raises(CertificateError, match="does not verify"):
        verify_server(AUTHORITY.certificate_pem, SERVER.certificate_pem, host)


def test_another_authority_of_the_same_name_is_refused():
    with pytest.raises(CertificateError, match="does not verify"):
        verify_server(make_authority("trial").certificate_pem, SERVER.certificate_pem, "127.0.0.1")


def test_an_authority_signs_servers_only():
    constraints = AUTHORITY.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    below = issue(SERVER, ["127.0.0.1"])  # a server is no authority
    with pytest.raises(CertificateError, match="does not verify"):
        verify_server(SERVER.certificate_pem, below.certificate_pem, "127.0.0.1")


def test_an_expired_certificate_is_named(monkeypatch):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=91)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    with pytest.raises(CertificateError, match=r"the server's certificate expired.*renew"):
        verify_server(AUTHORITY.certificate_pem, SERVER.certificate_pem, "127.0.0.1")
    monkeypatch.setattr(certificates, "_now", lambda: later + datetime.timedelta(days=700))
    with pytest.raises(CertificateError, match="authority expired"):
        issue(AUTHORITY, ["127.0.0.1"])


def test_a_clock_that_is_behind_is_named(monkeypatch):
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    monkeypatch.setattr(certificates, "_now", lambda: before)
    with pytest.raises(CertificateError, match="clock"):
        verify_server(AUTHORITY.certificate_pem, SERVER.certificate_pem, "127.0.0.1")


def test_renewal_keeps_the_server_key():
    renewed = issue(AUTHORITY, ["127.0.0.1"], key=SERVER.key)
    assert renewed.certificate.public_key() == SERVER.certificate.public_key()
    assert renewed.certificate.serial_number != SERVER.certificate.serial_number
    verify_server(AUTHORITY.certificate_pem, renewed.certificate_pem, "127.0.0.1")


@pytest.mark.parametrize("host", ["", "two words", "-dash", "a/b", "host:8000", "ünïcode.org"])
def test_a_host_is_a_name_or_an_address(host):
    with pytest.raises(CertificateError, match="neither a host name nor an IP address"):
        issue(AUTHORITY, [host])


def test_a_certificate_names_at_least_one_host_and_lasts_a_day():
    with pytest.raises(CertificateError, match="at least one host"):
        issue(AUTHORITY, [])
    with pytest.raises(CertificateError, match="at least one day"):
        issue(AUTHORITY, ["localhost"], days=0)


def test_a_pair_is_read_back_and_a_wrong_pair_refused():
    again = Certified.load(SERVER.certificate_pem, SERVER.key_pem)
    assert again.certificate == SERVER.certificate
    with pytest.raises(CertificateError, match="another certificate"):
        Certified.load(SERVER.certificate_pem, AUTHORITY.key_pem)


@given(st.binary(max_size=200))
@settings(max_examples=30, deadline=None)
def test_junk_is_no_certificate(junk):
    with pytest.raises(CertificateError, match="PEM"):
        certificates.read_certificate(junk)


def _handshake(folder: Path, trusted: bytes, host: str) -> str | None:
    """Connect to a TLS server with our certificate; None, or what the client's library says."""
    for name, data in (("pem", SERVER.certificate_pem), ("key", SERVER.key_pem), ("ca", trusted)):
        (folder / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem", folder / "key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(1)
        except (ssl.SSLError, OSError):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    client = ssl.create_default_context(cafile=folder / "ca")
    problem = None
    try:
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname=host) as secure,
        ):
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
    except ssl.SSLCertVerificationError as error:
        problem = error.verify_message
    finally:
        thread.join(timeout=10)
        listener.close()
    return problem


def test_a_real_handshake_succeeds_with_our_authority(tmp_path):
    assert _handshake(tmp_path, AUTHORITY.certificate_pem, "127.0.0.1") is None
    assert _handshake(tmp_path, AUTHORITY.certificate_pem, "superlink.example.org") is None


def test_and_fails_with_another_authority_or_for_another_name(tmp_path):
    other = make_authority("trial").certificate_pem
    assert _handshake(tmp_path, other, "127.0.0.1") is not None
    assert "mismatch" in (_handshake(tmp_path, AUTHORITY.certificate_pem, "elsewhere.org") or "")
