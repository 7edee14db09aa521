"""How a party gets its folder, and how it comes to believe the others.

Every institution makes its own secrets on its own machine (`make_party`) and hands out one public
card. Once everybody's cards are there, `join` checks that they belong together and writes down what
this party believes from then on. No secret ever travels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from privagg.durable import write_new, write_whole
from privagg.errors import ConfigError, DeploymentError, UnknownPartyError
from privagg.flower.deploy.folder import EVERYWHERE, NODE_PORT, FlowerFile, FlowerFolder
from privagg.identity.owner import make_owner_key
from privagg.identity.secretfile import read_private
from privagg.party.cards import Card, fingerprint, split_address
from privagg.party.certificates import (
    SERVER_DAYS,
    Certified,
    hosts_of,
    issue,
    make_authority,
    read_certificate,
    verify_server,
)
from privagg.party.folder import PartyFile, PartyFolder, PinsFile
from privagg.party.node_keys import make_node_key, public_line
from privagg.protocol.names import COORDINATOR

if TYPE_CHECKING:  # with them comes torch, which what starts the parts must not wait for
    from privagg.config.setup import Setup

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""The coordinator's own processes reach the SuperLink under these."""


@dataclass(frozen=True)
class Agreement:
    """What every party derives by itself from the same configuration.

    Args:
        federation: its name.
        configuration: SHA-256 (hex) of the configuration's bytes.
        plan_digest: SHA-256 (hex) of the plan that follows from it: the training's, or that of
            `[facts]` while no column is declared.
        sites: names, in the plan's order.
        opener: who opens: `key-holder`, or one of the sites; the coordinator where all do together.
    """

    federation: str
    configuration: str
    plan_digest: str
    sites: tuple[str, ...]
    opener: str

    @classmethod
    def of(cls, training: Setup, path: Path) -> Self:
        """The agreement that a configuration file stands for.

        Args:
            training: of the configuration.
            path: the file that it was read from.

        Raises:
            ConfigError: the file cannot be read.
        """
        from privagg.config.jobs import agreed_job

        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        agreed = agreed_job(training)
        name, plan = agreed.config.federation.name, agreed.plan
        return cls(name, digest, plan.digest, plan.names, agreed.opener)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Parties with a SuperNode: everybody but the coordinator, who never holds the key."""
        apart = self.opener not in (*self.sites, COORDINATOR)
        return (*self.sites, self.opener) if apart else self.sites

    @property
    def parties(self) -> tuple[str, ...]:
        """Everybody."""
        return (COORDINATOR, *self.nodes)

    def check(self, name: str) -> None:
        """Refuse a party that the configuration does not know.

        Raises:
            UnknownPartyError: no such party; the message names those that there are.
        """
        if name not in self.parties:
            raise UnknownPartyError(
                f"the configuration knows no party {name!r}; there are {', '.join(self.parties)}"
            )


@dataclass(frozen=True)
class Joined:
    """What `join` wrote down.

    Args:
        fingerprint: of all cards; the same for everybody, or somebody was lied to.
        cards: everybody's, in the agreement's order.
        changed: parties whose keys are others than before.
    """

    fingerprint: str
    cards: tuple[Card, ...]
    changed: tuple[str, ...]


def make_party(
    root: Path,
    name: str,
    agreement: Agreement,
    config: Path,
    *,
    data: str | None = None,
    labels: str | None = None,
    superlink: str | None = None,
    passphrase: str | None = None,
) -> FlowerFolder:
    """Make a party's folder with secrets of its own; made again, it keeps what is not said anew.

    Args:
        root: the folder, made with mode 0700.
        name: a site, `key-holder` or `coordinator`.
        agreement: what follows from the configuration.
        config: the configuration's path.
        data, labels: a site's own files, in place of the configuration's.
        superlink: `host:port` where nodes will reach the SuperLink; coordinator only.
        passphrase: encrypts the owner's key.

    Raises:
        UnknownPartyError: the configuration knows no such party.
        ConfigError: the folder is another party's, or cannot be written.
        DeploymentError: a coordinator without an address, another party with one, or data of a
            party that has none.
    """
    agreement.check(name)
    if name == COORDINATOR and superlink is None:
        superlink = _superlink_held(root)
    if name != COORDINATOR and superlink is not None:
        raise DeploymentError(
            f"--superlink is the coordinator's; {name} learns the address from its card"
        )
    if name not in agreement.sites and (data, labels) != (None, None):
        raise DeploymentError(f"--data and --labels are a site's; {name!r} has no records")
    relative = os.path.relpath(config.resolve(), root.resolve())
    party = PartyFolder.create(
        root, PartyFile(name=name, federation=relative, data=data, labels=labels)
    )
    folder = FlowerFolder(party)
    folder.make_app_secret()
    _make_owner(party, passphrase)
    if superlink is not None:
        _make_server(folder, agreement.federation, superlink)
    elif not folder.node_key.exists():
        write_new(folder.node_key, make_node_key(), secret=True)
    return folder


def _make_owner(party: PartyFolder, passphrase: str | None) -> None:
    """The owner's key, and a ledger that pins it from its first entry, where there are none."""
    from privagg.privacy.ledger import Ledger  # what starts the parts need not wait for it
    from privagg.privacy.ledger.approvals import public_hex

    if party.owner_key.exists() or party.ledger.exists():
        return
    owner, identity = make_owner_key(party.owner_key, passphrase), party.identity()
    Ledger.create(
        party.ledger, identity.name, signing_key=identity.key, owner_key=public_hex(owner)
    ).close()


def _make_server(folder: FlowerFolder, federation: str, superlink: str) -> None:
    """The authority and the SuperLink's certificate, where there are none yet."""
    host = _host_of(superlink)
    folder.party.flower.mkdir(mode=0o700, exist_ok=True)
    if not folder.authority_key.exists() and not folder.authority.exists():
        authority = make_authority(federation)
        write_new(folder.authority_key, authority.key_pem, secret=True)
        write_whole(folder.authority, authority.certificate_pem)
    if not folder.server_key.exists():
        server = issue(_authority(folder), _hosts(host))
        write_new(folder.server_key, server.key_pem, secret=True)
        write_whole(folder.server_certificate, server.certificate_pem)
    elif host not in hosts_of(read_certificate(folder.read(folder.server_certificate))):
        renewed = issue(_authority(folder), _hosts(host), key=_server(folder).key)
        write_whole(folder.server_certificate, renewed.certificate_pem)
    verify_server(folder.read(folder.authority), folder.read(folder.server_certificate), host)
    write_whole(folder.at("superlink.address"), superlink.encode())


def _superlink_held(root: Path) -> str:
    held = root / "flower" / "superlink.address"
    if not held.exists():
        raise DeploymentError(
            "the coordinator needs --superlink host:port, where the nodes will reach it"
        )
    return held.read_text(encoding="utf-8")


def _host_of(superlink: str) -> str:
    """The host of an address that nodes can reach.

    Raises:
        DeploymentError: not of the form, or an address that stands for all of a machine's.
    """
    try:
        host, _ = split_address(superlink)
    except ValueError as error:
        raise DeploymentError(f"--superlink: {error}") from error
    if host in EVERYWHERE:
        raise DeploymentError(
            f"--superlink: no node can reach {host}, which stands for every address of a machine; "
            "give the name or address of the coordinator's machine"
        )
    return host


def renew(folder: FlowerFolder, *, days: int = SERVER_DAYS) -> Certified:
    """A new server certificate for the server's key, under the same authority.

    Nothing changes for the nodes: they trust the authority, which stays.

    Raises:
        DeploymentError: not the coordinator's folder, or the authority's key is not in it.
        CertificateError: the authority itself has expired.
    """
    if not folder.server_key.exists():
        raise DeploymentError(
            f"{folder.party.root} has no server certificate; renew at the coordinator"
        )
    host, _ = split_address(_superlink(folder))
    renewed = issue(_authority(folder), _hosts(host), key=_server(folder).key, days=days)
    write_whole(folder.server_certificate, renewed.certificate_pem)
    return renewed


def _server(folder: FlowerFolder) -> Certified:
    return Certified.load(
        folder.read(folder.server_certificate), read_private(folder.server_key, "the server's key")
    )


def _hosts(host: str) -> list[str]:
    return [host, *(other for other in LOCAL_HOSTS if other != host)]


def _authority(folder: FlowerFolder) -> Certified:
    if not folder.authority_key.exists():
        raise DeploymentError(
            f"{folder.authority_key} is not here; where it is kept off line, bring it back for this"
        )
    return Certified.load(
        folder.read(folder.authority), read_private(folder.authority_key, "the authority's key")
    )


def _superlink(folder: FlowerFolder) -> str:
    return folder.at("superlink.address").read_text(encoding="utf-8")


def card_of(folder: FlowerFolder, agreement: Agreement) -> Card:
    """This party's card.

    Args:
        folder: its folder.
        agreement: what follows from the configuration.
    """
    identity = folder.party.identity()
    coordinates = identity.name == COORDINATOR
    return Card(
        federation=agreement.federation,
        configuration=agreement.configuration,
        plan_digest=agreement.plan_digest,
        privagg=version("privagg"),
        party=identity.name,
        identity=identity.public_hex,
        node_key=None
        if coordinates
        else public_line(read_private(folder.node_key, "the node key")),
        superlink=_superlink(folder) if coordinates else None,
        authority=folder.authority.read_text() if coordinates else None,
    )


def join(
    folder: FlowerFolder,
    agreement: Agreement,
    cards: Sequence[Card],
    *,
    listen: str | None = None,
    port: int | None = None,
    replace: bool = False,
) -> Joined:
    """Write down what this party believes from now on: everybody's keys, the SuperLink's place.

    Args:
        folder: this party's.
        agreement: what follows from the configuration here.
        cards: everybody's, this party's own included.
        listen: address that the SuperLink listens on, everywhere by default; coordinator only.
        port: port on this machine; by default the SuperLink's own, or 9094 for a node.
        replace: accept other keys of a party than those believed so far.

    Raises:
        DeploymentError: cards that do not belong together, or changed keys without `replace`.
        UnknownPartyError: a card of a party that the configuration does not know.
    """
    name = folder.party.party().name
    by_party = _complete(agreement, cards)
    _check_own(folder, name, by_party[name])
    _check_together(agreement, by_party)
    coordinator = by_party[COORDINATOR]
    assert coordinator.superlink is not None  # _check_together has seen to it
    assert coordinator.authority is not None
    pins = PinsFile(
        plan_digest=agreement.plan_digest,
        configuration=agreement.configuration,
        roster={party: card.identity for party, card in by_party.items()},
    )
    coordinates = name == COORDINATOR
    if listen is not None and not coordinates:
        raise DeploymentError("a node's own port never leaves its machine; --listen is not for it")
    if listen is not None and listen not in (*EVERYWHERE, *LOCAL_HOSTS):
        raise DeploymentError(
            f"--listen {listen}: the coordinator reaches its own SuperLink by loopback alone; "
            "listen on 0.0.0.0 (or ::), and let the firewall say who else reaches it"
        )
    changed = _changed(folder, pins, by_party)
    if changed and not replace:
        raise DeploymentError(
            f"the cards differ from what {name} believed so far ({', '.join(changed)}); if that "
            "was agreed, join again with --replace"
        )
    _, superlink_port = split_address(coordinator.superlink)
    settings = FlowerFile(
        superlink=coordinator.superlink,
        listen=listen or ("0.0.0.0" if coordinates else "127.0.0.1"),
        port=port or (superlink_port if coordinates else NODE_PORT),
    )
    if coordinates:
        folder.at("nodes").mkdir(mode=0o700, exist_ok=True)
        for party in agreement.nodes:
            line = f"{by_party[party].node_key}\n"
            write_whole(folder.at("nodes") / f"{party}.pub", line.encode())
    else:
        write_whole(folder.authority, coordinator.authority.encode())
    folder.set(settings)
    folder.party.pin(pins)
    return Joined(fingerprint(by_party.values()), tuple(by_party.values()), changed)


def _complete(agreement: Agreement, cards: Sequence[Card]) -> dict[str, Card]:
    """The cards by party, in the agreement's order: one of each, none of anybody else."""
    found: dict[str, Card] = {}
    for card in cards:
        agreement.check(card.party)
        if card.party in found and found[card.party] != card:
            raise DeploymentError(f"there are two different cards of {card.party!r}")
        found[card.party] = card
    missing = [party for party in agreement.parties if party not in found]
    if missing:
        raise DeploymentError(f"cards are missing: {', '.join(missing)}; ask for their .card files")
    return {party: found[party] for party in agreement.parties}


def _check_own(folder: FlowerFolder, name: str, card: Card) -> None:
    line = (
        public_line(read_private(folder.node_key, "the node key"))
        if folder.node_key.exists()
        else None
    )
    if card.identity != folder.party.identity().public_hex or card.node_key != line:
        raise DeploymentError(
            f"the card of {name!r} is not this folder's; give the one made here (`privagg deploy "
            "party` writes it anew), and ask the others whether they received another"
        )


def _check_together(agreement: Agreement, by_party: dict[str, Card]) -> None:
    """Refuse cards of another configuration, plan or role, and keys that two parties share."""
    for party, card in by_party.items():
        if (card.federation, card.configuration) != (agreement.federation, agreement.configuration):
            raise DeploymentError(
                f"{party} has another configuration (federation {card.federation!r}, SHA-256 "
                f"{card.configuration[:16]}…, here {agreement.configuration[:16]}…); everybody "
                "needs the same file, byte for byte"
            )
        if card.plan_digest != agreement.plan_digest:
            raise DeploymentError(
                f"{party} derives another plan from the same configuration, with privagg "
                f"{card.privagg} (here {version('privagg')}); use the same version everywhere"
            )
        has = (card.authority is not None, card.superlink is not None, card.node_key is None)
        if has != (party == COORDINATOR,) * 3:
            raise DeploymentError(f"the card of {party!r} is not one of that role; ask for it anew")
    for what in ("identity", "node_key"):
        keys = [getattr(card, what) for card in by_party.values() if getattr(card, what)]
        if len(set(keys)) < len(keys):
            raise DeploymentError(f"two cards carry the same {what.replace('_', ' ')}")


def _changed(folder: FlowerFolder, pins: PinsFile, cards: dict[str, Card]) -> tuple[str, ...]:
    """What differs from what was believed, in a reader's words."""
    if not folder.party.pins_file.exists():
        return ()
    held = folder.party.pins()
    parties = {*held.roster, *pins.roster}
    found = sorted(party for party in parties if held.roster.get(party) != pins.roster.get(party))
    for party, card in cards.items():
        line = registered_line(folder, party)
        if line is not None and line != card.node_key and party not in found:
            found.append(f"node key of {party}")
    if folder.authority.exists() and folder.authority.read_text() != cards[COORDINATOR].authority:
        found.append("the authority")
    if held.plan_digest != pins.plan_digest:
        found.append("the plan")
    if held.configuration != pins.configuration:
        found.append("the configuration")
    return tuple(found)


def registered_line(folder: FlowerFolder, party: str) -> str | None:
    """The public node key that the coordinator registers for a party; None where it holds none."""
    path = folder.at("nodes") / f"{party}.pub"
    return path.read_text().strip() if path.exists() else None
