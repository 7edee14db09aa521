"""The programs that make up one party, as command lines.

The coordinator has a SuperLink and what starts its app; every other party a SuperNode, what starts
its app, and the process that holds its data, keys and ledger. Flower's isolation mode is `process`
with a secret for each party: in its default mode any process that reaches a part's port may take
the party's task. Nothing is installed at run time, nothing is reported to anybody, and FLWR_HOME
lies in the party's own folder; nothing is written in anybody's home folder.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from privagg.errors import DeploymentError, MissingDependencyError, PortInUseError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.reach import trouble
from privagg.party.cards import split_address
from privagg.party.certificates import days_left, read_certificate, verify_server
from privagg.party.folder import PartyFolder
from privagg.protocol.names import COORDINATOR

MODULE = "privagg.flower.bridge.part"
RESIDENT = "privagg.flower.resident"
RESIDENT_READY = "party ready"
"""What the party's own process prints once it answers."""
RESIDENT_REFUSED = "refused: "
"""How the line begins that it prints instead, where it cannot work as things are."""
PARENT, APPROVED, PARTY = "PRIVAGG_PARENT", "PRIVAGG_APPROVED_APPS", "PRIVAGG_PARTY"
ARCHIVE = "PRIVAGG_ARCHIVE"
NODE_READY = "SuperNode ID:"
"""What a SuperNode prints once the SuperLink has accepted it."""
RELEASES = ("1.41", "1.42")
"""Of Flower, whose interfaces the gate and the guard know."""
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Part:
    """One process of a party.

    Args:
        name: for logs and messages.
        command: the command line.
        environment: the whole environment.
        log: what it prints goes there.
        ready: text in its log that says that it works; empty where only running counts.
        last: stopped after all others, which still sign off there.
        patient: keeps trying, because what it needs may start later on another machine.
        refused: how the line of its log begins that says why it can never work as things are.
        trouble: asked while it is not ready: why, or nothing.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    ready: str = ""
    last: bool = False
    patient: bool = False
    refused: str = ""
    trouble: Callable[[], str] | None = None

    @property
    def title(self) -> str:
        """Whose part it is, and which, for messages."""
        return f"{Path(self.environment.get(PARTY, '')).name} {self.name}".strip()


def parts_of(folder: FlowerFolder) -> tuple[Part, ...]:
    """The parts of a party, in the order in which they start; checked before anything starts.

    Raises:
        MissingDependencyError: Flower is not installed.
        ConfigError: the party has not joined yet, lost a file, or others can read its secrets.
        CertificateError: the SuperLink's certificate is expired or not for its address.
        PortInUseError: another process listens on the party's port.
    """
    require_flower()
    name = folder.party.party().name
    folder.settings()
    folder.party.pins()
    folder.party.identity()
    folder.require_secrets(coordinates=name == COORDINATOR)
    for place in (folder.home, folder.logs):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own_port(folder, name)
    if name == COORDINATOR:
        check_certificate(folder)
        return _coordinator(folder)
    return _node(folder, name)


def _coordinator(folder: FlowerFolder) -> tuple[Part, ...]:
    settings = folder.settings()
    superlink = _part(
        folder, "superlink", "superlink",
        "--host", settings.listen, "--port", str(settings.port),
        "--ssl-ca-certfile", str(folder.authority),
        "--ssl-certfile", str(folder.server_certificate),
        "--ssl-keyfile", str(folder.server_key),
        "--enable-supernode-auth",
        "--isolation", "process",
        "--superexec-auth-secret-file", str(folder.app_secret),
        "--database", str(folder.database),
        "--disable-runtime-dependency-installation",
        last=True,
    )  # fmt: skip
    apps = _part(
        folder, "apps", "superexec", "serverapp",
        "--runtime-api-address", settings.local,
        "--root-certificates", str(folder.authority),
        "--superexec-auth-secret-file", str(folder.app_secret),
    )  # fmt: skip
    return superlink, apps


def _node(folder: FlowerFolder, name: str) -> tuple[Part, ...]:
    settings = folder.settings()
    facts = f'party="{name}"'
    node = _part(
        folder, "node", "supernode",
        "--superlink", settings.superlink,
        "--root-certificates", str(folder.authority),
        "--auth-supernode-private-key", str(folder.node_key),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(folder.app_secret),
        "--host", settings.listen, "--port", str(settings.port),
        "--node-config", facts,
        ready=NODE_READY, patient=True, trouble=partial(trouble, folder),
    )  # fmt: skip
    # It holds data, keys and ledger; what Flower starts for a message only passes frames to it.
    resident = Part(
        name="party",
        command=(sys.executable, "-m", RESIDENT),
        environment=environment_of(folder),
        log=folder.logs / "party.log",
        ready=RESIDENT_READY,
        refused=RESIDENT_REFUSED,
    )
    # Between a SuperNode and its app nothing leaves the machine, hence no TLS there.
    apps = _part(
        folder, "apps", "superexec", "clientapp",
        "--insecure",
        "--runtime-api-address", settings.local,
        "--superexec-auth-secret-file", str(folder.app_secret),
    )  # fmt: skip
    return resident, node, apps


def _part(
    folder: FlowerFolder,
    name: str,
    kind: str,
    *arguments: str,
    ready: str = "",
    last: bool = False,
    patient: bool = False,
    trouble: Callable[[], str] | None = None,
) -> Part:
    return Part(
        name=name,
        command=(sys.executable, "-m", MODULE, kind, *arguments),
        environment=environment_of(folder),
        log=folder.logs / f"{name}.log",
        ready=ready,
        last=last,
        patient=patient,
        trouble=trouble,
    )


def environment_of(folder: FlowerFolder) -> dict[str, str]:
    """The environment of a party's parts: this one's, without what would change Flower's ways.

    Nor may it change the web server's: `FORWARDED_ALLOW_IPS` would have strangers look local.
    """
    foreign = ("FLWR_", "UVICORN_", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY")
    made = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    local = ",".join(filter(None, (made.get("NO_PROXY", ""), "localhost,127.0.0.1,::1")))
    return {
        **made,
        **_QUIET,
        "FLWR_HOME": str(folder.home),
        "NO_PROXY": local,
        "no_proxy": local,
        "PATH": f"/usr/bin{os.pathsep}/bin",
        "PYTHONUNBUFFERED": "1",
        PARENT: str(os.getpid()),
        PARTY: str(folder.party.root.resolve()),
        APPROVED: str(folder.at("approved.txt").resolve()),
    }


def plain_line(text: str) -> str:
    """What a program printed as one line, without the colours of a terminal."""
    return " ".join(_COLOURS.sub("", text).split())


def require_flower() -> None:
    """Refuse to go on without Flower, or with a release that privagg has no gate for.

    Raises:
        MissingDependencyError: it is not installed, or is another release.
    """
    if find_spec("flwr") is None:
        raise MissingDependencyError(
            "a deployment needs Flower, which is not installed; pip install 'privagg[flower]'"
        )
    if not version("flwr").startswith(RELEASES):
        raise MissingDependencyError(
            f"flwr {version('flwr')} is installed, and a deployment needs {' or '.join(RELEASES)}; "
            "pip install 'privagg[flower]'"
        )


def _check_own_port(folder: FlowerFolder, name: str) -> None:
    """Refuse a port that this party's part cannot listen on, with the command that sets another."""
    settings, again = folder.settings(), f"privagg deploy join {folder.party.root} *.card"
    way = f"choose another port: {again} --port PORT"
    if name == COORDINATOR:
        way = (
            f"have it listen elsewhere: {again} --listen ADDRESS --port PORT; nodes reach it at "
            f"{settings.superlink}, and to change that: privagg deploy party coordinator CONFIG "
            "--superlink HOST:PORT, then everybody joins with the new card"
        )
    try:
        check_port(settings.listen, settings.port)
    except DeploymentError as error:
        raise type(error)(f"{name}: {error}, or {way}") from error


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on.

    Raises:
        PortInUseError: another process listens there.
        DeploymentError: the address is not this machine's, or the port needs privileges.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(
                    f"another process listens on port {port} of {host}; stop it"
                ) from error
            if error.errno == errno.EACCES:
                raise DeploymentError(
                    f"port {port} is one of those below 1024, which this user may not listen on; "
                    "have the administrator allow it"
                ) from error
            raise DeploymentError(
                f"cannot listen on {host}:{port} ({error.strerror}); name an address of this "
                "machine"
            ) from error


def check_certificate(folder: FlowerFolder) -> int:
    """Check the SuperLink's certificate for the address that nodes use.

    Returns:
        Whole days until it expires.

    Raises:
        CertificateError: expired, of another authority or for another host.
    """
    host, _ = split_address(folder.settings().superlink)
    certificate = folder.read(folder.server_certificate)
    verify_server(folder.read(folder.authority), certificate, host)
    return days_left(read_certificate(certificate))


def folder_at(path: Path) -> FlowerFolder:
    """The Flower side of the party's folder at `path`.

    Raises:
        ConfigError: it is no party's folder.
    """
    party = PartyFolder(path)
    party.party()
    return FlowerFolder(party)
