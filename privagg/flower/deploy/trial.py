"""A whole federation on one machine, for trying out: every party in a folder of its own.

    FOLDER/<party>/      one folder for each party, as it would lie on that party's machine
    FOLDER/<party>.card  what that party would hand out

The parts are the very same, with TLS, registered node keys and separate secrets; only the machine
is one, so that nothing here protects one party from another.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from privagg.errors import ConfigError, DeploymentError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import Agreement, card_of, join, make_party
from privagg.flower.deploy.processes import check_certificate, folder_at, parts_of
from privagg.flower.deploy.superlink import register
from privagg.flower.deploy.supervisor import Supervisor, only_one, wait_for_superlink
from privagg.party.cards import Card
from privagg.protocol.names import COORDINATOR

START_SECONDS = 90.0
RENEWAL_DAYS = 21


@dataclass(frozen=True)
class Trial:
    """The parties' folders of a trial.

    Args:
        root: the folder that they lie in.
        parties: party -> its folder, the coordinator's first.
    """

    root: Path
    parties: Mapping[str, FlowerFolder]

    @property
    def coordinator(self) -> FlowerFolder:
        """The coordinator's folder."""
        return self.parties[COORDINATOR]

    @classmethod
    def at(cls, root: Path) -> Trial:
        """The trial that lies in a folder.

        Raises:
            ConfigError: there is none.
        """
        if (root / "party.toml").is_file():
            raise ConfigError(
                f"{root} is one party's folder and no trial; its parts: privagg deploy start {root}"
            )
        if not (root / COORDINATOR / "party.toml").is_file():
            raise ConfigError(
                f"{root} holds no trial; `privagg deploy trial my.toml {root}` makes one"
            )
        files = sorted(root.glob("*/party.toml"), key=lambda f: (f.parent.name != COORDINATOR, f))
        folders = [folder_at(file.parent) for file in files]
        return cls(root, {folder.party.party().name: folder for folder in folders})


def nodes_beside(folder: FlowerFolder) -> dict[str, FlowerFolder]:
    """Party -> its folder, of the nodes whose folders lie beside the coordinator's, as in a trial.

    Args:
        folder: the coordinator's.
    """
    root = folder.party.root.resolve().parent
    names = [name for name in folder.party.pins().roster if name != COORDINATOR]
    return {name: folder_at(root / name) for name in names if (root / name / "party.toml").exists()}


def make_trial(root: Path, config: Path, agreement: Agreement, *, replace: bool = False) -> Trial:
    """Make every party's folder, exchange the cards, join; what is there already is kept.

    Args:
        root: the folder for all of it.
        config: the configuration, which stays where it is, as do the data that it names.
        agreement: what follows from the configuration.
        replace: join again where the configuration is another than before, as after `[facts]`.

    Raises:
        DeploymentError, ConfigError: a folder belongs to another federation, or cannot be written.
    """
    ports = _free_ports(len(agreement.parties))
    parties: dict[str, FlowerFolder] = {}
    cards: list[Card] = []
    for name in agreement.parties:
        made = (root / name / "flower" / "superlink.address").exists()
        superlink = f"127.0.0.1:{ports[0]}" if name == COORDINATOR and not made else None
        folder = make_party(root / name, name, agreement, config, superlink=superlink)
        cards.append(card_of(folder, agreement))
        cards[-1].write(root / f"{name}.card", folder.party.identity())
        parties[name] = folder
    for (name, folder), port in zip(parties.items(), ports, strict=True):
        listen = "127.0.0.1" if name == COORDINATOR else None
        own_port = None if name == COORDINATOR else port
        join(folder, agreement, cards, listen=listen, port=own_port, replace=replace)
    return Trial(root, parties)


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now; one taken meanwhile is an error later."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def up(
    trial: Trial, report: Callable[[str], None], *, seconds: float = START_SECONDS
) -> Iterator[Supervisor]:
    """Start a trial's parts, wait until all work, and stop them at the end.

    Args:
        trial: whose.
        report: called with one line for each thing that happens.
        seconds: how long each stage may take.

    Raises:
        DeploymentError: a part cannot be started, or runs already.
    """
    supervisor = Supervisor(report)
    _require_own_ports(trial)
    with ExitStack() as stack:
        for folder in trial.parties.values():
            stack.enter_context(only_one(folder))
        stack.callback(supervisor.stop)
        parts = {name: parts_of(folder) for name, folder in trial.parties.items()}
        supervisor.start(parts[COORDINATOR])
        wait_for_superlink(trial.coordinator, supervisor, seconds)
        nodes = register(trial.coordinator)
        if set(nodes) != set(parts) - {COORDINATOR}:
            raise DeploymentError(f"registered {', '.join(nodes)}, which are not all the nodes")
        for name in nodes:
            supervisor.start(parts[name])
        supervisor.wait_ready(seconds)
        report(f"ready: the SuperLink and {len(nodes)} nodes ({', '.join(nodes)})")
        yield supervisor


def _require_own_ports(trial: Trial) -> None:
    """Refuse a port that two parties of this machine were given.

    Raises:
        DeploymentError: the message names both, and how another is chosen.
    """
    taken: dict[int, str] = {}
    for name, folder in trial.parties.items():
        port = folder.settings().port
        if port in taken:
            raise DeploymentError(
                f"{taken[port]} and {name} were both given port {port} of this machine; choose "
                f"another for one of them: privagg deploy join {folder.party.root} "
                f"{trial.root}/*.card --port PORT"
            )
        taken[port] = name


def start_party(
    folder: FlowerFolder, report: Callable[[str], None], *, seconds: float = START_SECONDS
) -> None:
    """Start one party's parts on its machine and watch them until asked to stop.

    The coordinator registers the nodes' keys once its SuperLink answers. A node keeps trying until
    the SuperLink accepts it.

    Args:
        folder: the party's.
        report: called with one line for each thing that happens.
        seconds: how long to wait for the SuperLink.

    Raises:
        DeploymentError: the parts run already, or one that others depend on does not stay up.
        KeyboardInterrupt: asked to stop; the parts are stopped.
    """
    name = folder.party.party().name
    with only_one(folder), ExitStack() as stack:
        supervisor = Supervisor(report)
        stack.callback(supervisor.stop)
        supervisor.start(parts_of(folder))
        if name == COORDINATOR:
            wait_for_superlink(folder, supervisor, seconds)
            if (left := check_certificate(folder)) < RENEWAL_DAYS:
                root = folder.party.root
                report(f"the certificate expires in {left} days: privagg deploy renew {root}")
            nodes = register(folder)
            report(f"the SuperLink answers; registered: {', '.join(nodes)}")
        else:
            report(f"{name} connects to {folder.settings().superlink}")
        supervisor.run()
