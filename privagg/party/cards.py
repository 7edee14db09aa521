"""Cards: what a party makes public about itself, in one small signed file for everybody else.

A card carries public keys only, so it may travel by any channel. Whether it really comes from that
institution is settled by people: everybody computes one fingerprint over all cards and reads it
out in a call. The same fingerprint everywhere means that everybody holds the same cards, so whoever
swapped one on its way is found out. The signature only shows that a card's maker holds the identity
key in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator

from privagg.digest import canonical_json
from privagg.durable import write_whole
from privagg.errors import ConfigError, DeploymentError, SignatureError, validation_faults
from privagg.identity.keys import Identity, Roster
from privagg.party.certificates import read_certificate
from privagg.party.folder import Hex64, IdentityKey, PartyFileModel, PartyName
from privagg.party.node_keys import check_public_line

MAX_CARD_BYTES = 1 << 16
_DOMAIN = b"privagg party card v2\x00"
_ALL_DOMAIN = b"privagg party cards v1\x00"
_FINGERPRINT_BYTES = 20


class Card(PartyFileModel):
    """What one party makes public about itself.

    Args:
        version: of this format.
        federation: the federation's name.
        configuration: SHA-256 (hex) of the configuration's bytes.
        plan_digest: SHA-256 (hex) of the plan that follows from it there.
        privagg: version of the software.
        party: name, as in the configuration; or `coordinator`, `key-holder`.
        identity: Ed25519 public key (hex) of its messages and its ledger.
        node_key: OpenSSH line of its SuperNode's key; none for the coordinator.
        superlink: coordinator only: `host:port` where nodes reach it.
        authority: coordinator only: PEM certificate of the federation's authority.
    """

    version: Literal[2] = 2
    federation: PartyName
    configuration: Hex64
    plan_digest: Hex64
    privagg: str = Field(max_length=64)
    party: PartyName
    identity: IdentityKey
    node_key: str | None = Field(default=None, max_length=1024)
    superlink: str | None = Field(default=None, max_length=300)
    authority: str | None = Field(default=None, max_length=8192)

    @field_validator("node_key")
    @classmethod
    def _a_node_key(cls, line: str | None) -> str | None:
        try:
            return line if line is None else check_public_line(line)
        except DeploymentError as error:
            raise ValueError(str(error)) from error

    @field_validator("authority")
    @classmethod
    def _a_certificate(cls, pem: str | None) -> str | None:
        try:
            if pem is not None:
                read_certificate(pem.encode())
        except DeploymentError as error:
            raise ValueError(str(error)) from error
        return pem

    @field_validator("superlink")
    @classmethod
    def _an_address(cls, address: str | None) -> str | None:
        if address is not None:
            split_address(address)
        return address

    @property
    def message(self) -> bytes:
        """What the identity key signs: one and the same bytes for the same card."""
        return _DOMAIN + canonical_json(self.model_dump(mode="json"))

    def write(self, path: Path, identity: Identity) -> None:
        """Sign the card and write it (public).

        Raises:
            ConfigError: the identity is not the card's, or the file cannot be written.
        """
        if identity.name != self.party or identity.public_hex != self.identity:
            raise ConfigError(f"a card of {self.party!r} is signed with its own identity key")
        signed = {
            "card": self.model_dump(mode="json"),
            "signature": identity.sign(self.message).hex(),
        }
        write_whole(path, (json.dumps(signed, indent=2) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """A card from its file, its signature checked.

        Raises:
            ConfigError: unreadable, or no card.
            SignatureError: the card was altered after its party signed it.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CARD_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read the card {path}: {error.strerror}") from error
        if len(data) > MAX_CARD_BYTES:
            raise ConfigError(
                f"{path} is larger than any card; give the `.card` files of the parties"
            )
        try:
            values: Any = json.loads(data)
            _refuse_old(path, values["card"]["version"])
            card, signature = cls.model_validate(values["card"]), bytes.fromhex(values["signature"])
        except ValidationError as error:
            raise ConfigError(f"{path}: {validation_faults(error, whole='the card')}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{path} is no party's card") from error
        try:
            Roster({card.party: card.identity}).verify(card.party, card.message, signature)
        except SignatureError as error:
            raise SignatureError(
                f"{path}: the card of {card.party!r} was altered after it was signed"
            ) from error
        return card


def _refuse_old(path: Path, version: object) -> None:
    if version == 1:
        raise ConfigError(
            f"{path} is a card of version 1, on which a federation's one encryption key stood; now "
            "every run has a key of its own. Have that party install this version and make its "
            "card anew: privagg deploy party NAME CONFIG keeps its secrets"
        )


def fingerprint(cards: Iterable[Card]) -> str:
    """One code over all cards of a federation, for reading out: ten groups of four hex digits.

    160 bits of SHA-256, so that nobody finds two sets of cards with one code (2^80 work).
    """
    digest = hashlib.sha256(_ALL_DOMAIN)
    for card in sorted(cards, key=lambda card: card.party):
        digest.update(hashlib.sha256(card.message).digest())
    code = digest.digest()[:_FINGERPRINT_BYTES].hex()
    return " ".join(code[start : start + 4] for start in range(0, len(code), 4))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two codes are one, however they were spaced or cased when written down."""
    return _digits(one) == _digits(other)


def _digits(code: str) -> str:
    return "".join(sign for sign in code.lower() if sign.isalnum())


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` (`[::1]:9092` for IPv6).

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port, such as superlink.example.org:9092")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port} lies outside 1 ... 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
