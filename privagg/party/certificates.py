"""TLS certificates of a federation: one authority of its own, one server certificate under it.

Only the SuperLink has a certificate; nodes prove who they are with their node keys. The authority
signs nothing else and no public authority is trusted, so that whoever holds `ca.pem` reaches this
federation's SuperLink or nobody. Profile: RFC 5280, P-256 with SHA-256, a path length of 0.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privagg.errors import CertificateError

AUTHORITY_DAYS = 730
SERVER_DAYS = (
    90  # short, because nobody publishes revocations; `privagg deploy renew` makes the next
)
# Clocks of different institutions differ by minutes; a certificate must not lie in their future.
CLOCK_SKEW = datetime.timedelta(hours=1)

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*$")


@dataclass(frozen=True)
class Certified:
    """A private key and the certificate that goes with it.

    Args:
        certificate: public.
        key: P-256, secret.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM, for a file that only its owner reads."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Certified:
        """A pair from its two PEM files.

        Raises:
            CertificateError: unreadable, or the key is not the certificate's.
        """
        loaded = read_certificate(certificate)
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(
                f"the certificate's private key is unreadable: {error}"
            ) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise CertificateError(f"a P-256 key is needed, not a {type(private).__name__}")
        if private.public_key() != loaded.public_key():
            raise CertificateError("the private key belongs to another certificate")
        return cls(loaded, private)


def make_authority(federation: str, *, days: int = AUTHORITY_DAYS) -> Certified:
    """A fresh certificate authority of one federation.

    Args:
        federation: its name, for whoever looks at the certificate.
        days: how long it is valid, at least 1.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"privagg {federation} authority")
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Certified(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Certified,
    hosts: Sequence[str],
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    days: int = SERVER_DAYS,
) -> Certified:
    """A server certificate for every name and address under which nodes reach the SuperLink.

    Args:
        authority: who signs.
        hosts: DNS names and IP addresses, the first one as common name.
        key: the server's key where it has one already (renewal); a fresh one by default.
        days: how long it is valid, at least 1; never beyond the authority.

    Raises:
        CertificateError: a host that is neither a DNS name nor an address, or an expired authority.
    """
    if not hosts:
        raise CertificateError("a server certificate needs at least one host name or address")
    now = _now()
    if authority.certificate.not_valid_after_utc <= now:
        raise CertificateError(
            f"the authority expired on {_date(authority.certificate)}; make a new one with "
            "`privagg deploy party coordinator` in a new folder and exchange the cards again"
        )
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [_general_name(host) for host in hosts]
    issuer = authority.certificate
    builder = (
        _builder(_name(hosts[0][:64]), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    return Certified(builder.sign(authority.key, hashes.SHA256()), key)


def verify_server(authority_pem: bytes, certificate_pem: bytes, host: str) -> x509.Certificate:
    """Check that a server certificate is this authority's, in force now, and for `host`.

    Args:
        authority_pem: the federation's own certificate authority.
        certificate_pem: what the server shows.
        host: name or address that it is reached under.

    Returns:
        The server's certificate.

    Raises:
        CertificateError: it is not; the message says which of the three.
    """
    authority, certificate = read_certificate(authority_pem), read_certificate(certificate_pem)
    for what, one in (("the authority's", authority), ("the server's", certificate)):
        if one.not_valid_after_utc <= _now():
            raise CertificateError(
                f"{what} certificate expired on {_date(one)}; `privagg deploy renew` makes a new "
                "server certificate"
            )
        if one.not_valid_before_utc > _now():
            raise CertificateError(
                f"{what} certificate is valid from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC "
                "on, which lies in the future; check this machine's clock"
            )
    subject = _general_name(host)
    # What the verifier calls a subject is a general name of the kinds that servers have.
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    builder = verification.PolicyBuilder().store(verification.Store([authority]))
    try:
        builder.build_server_verifier(subject).verify(certificate, [])
    except verification.VerificationError as error:
        raise CertificateError(
            f"the server's certificate does not verify for {host!r} under this authority "
            f"({error}); it names {', '.join(hosts_of(certificate))}"
        ) from error
    return certificate


def read_certificate(pem: bytes) -> x509.Certificate:
    """One certificate from PEM.

    Raises:
        CertificateError: it is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"not a PEM certificate: {error}") from error


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = [*names.get_values_for_type(x509.DNSName)]
    return found + [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def days_left(certificate: x509.Certificate) -> int:
    """Whole days until a certificate expires; negative where it has."""
    return (certificate.not_valid_after_utc - _now()).days


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    if days < 1:
        raise CertificateError(f"a certificate is valid for at least one day, not {days}")
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.match(host):
        raise CertificateError(
            f"{host!r} is neither a host name nor an IP address; name the SuperLink as its nodes "
            "reach it, such as superlink.example.org or 10.1.2.3"
        )
    return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _date(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
