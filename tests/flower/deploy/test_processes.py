"""Parts: command lines say what was agreed; what cannot work is refused before it starts."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from pathlib import Path

import pytest

from privagg.errors import (
    CertificateError,
    ConfigError,
    DeploymentError,
    MissingDependencyError,
    PortInUseError,
)
from privagg.flower.deploy import processes as parts
from privagg.flower.deploy.join import join
from privagg.flower.deploy.processes import check_port, folder_at, parts_of
from privagg.flower.deploy.trial import Trial, up
from privagg.party import certificates
from privagg.protocol.names import COORDINATOR
from tests.flower.deploy.conftest import AGREEMENT, SUPERLINK, Parties


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def joined(parties: Parties) -> Parties:
    for name, folder in parties.folders.items():
        listen = "127.0.0.1" if name == COORDINATOR else None
        join(folder, AGREEMENT, list(parties.cards.values()), listen=listen, port=_free_port())
    return parties


def _value(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


def test_the_coordinators_parts(joined: Parties) -> None:
    folder = joined.folders[COORDINATOR]
    superlink, apps = parts_of(folder)
    assert superlink.command[3] == "superlink"
    assert "--enable-supernode-auth" in superlink.command
    assert "--disable-runtime-dependency-installation" in superlink.command
    assert _value(superlink.command, "--isolation") == "process"
    assert _value(superlink.command, "--ssl-certfile") == str(folder.server_certificate)
    assert superlink.last
    assert not apps.last
    assert "--insecure" not in superlink.command + apps.command
    for part in (superlink, apps):
        assert _value(part.command, "--superexec-auth-secret-file") == str(folder.app_secret)


def test_a_nodes_parts(joined: Parties) -> None:
    folder = joined.folders["north"]
    resident, node, apps = parts_of(folder)
    assert resident.command[-1] == "privagg.flower.resident"
    assert _value(node.command, "--superlink") == "superlink.example.org:9443"
    assert _value(node.command, "--root-certificates") == str(folder.authority)
    assert _value(node.command, "--auth-supernode-private-key") == str(folder.node_key)
    assert _value(node.command, "--isolation") == "process"
    assert _value(node.command, "--host") == "127.0.0.1"
    assert "--insecure" not in node.command
    assert _value(apps.command, "--runtime-api-address").startswith("127.0.0.1:")


def test_no_two_parties_share_a_secret(joined: Parties) -> None:
    secrets = {folder.app_secret.read_bytes() for folder in joined.folders.values()}
    assert len(secrets) == len(joined.folders)
    assert min(map(len, secrets)) == 64


def test_nothing_is_reported_fetched_or_inherited(
    joined: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("FLWR_OIDC_ENABLED", "1")
    for folder in joined.folders.values():
        for part in parts_of(folder):
            flower = {k: v for k, v in part.environment.items() if k.startswith("FLWR_")}
            assert flower == {
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
                "FLWR_HOME": str(folder.home),
            }


def test_each_party_starts_one_kind_of_app_and_finds_no_program_of_flowers(joined: Parties) -> None:
    for name, folder in joined.folders.items():
        *_, apps = parts_of(folder)
        app = "serverapp" if name == COORDINATOR else "clientapp"
        assert apps.command[3:5] == ("superexec", app)
        assert apps.environment["PATH"] == os.pathsep.join(("/usr/bin", "/bin"))


def test_what_has_not_joined_does_not_start(parties: Parties, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="privagg deploy join"):
        parts_of(parties.folders["north"])
    with pytest.raises(ConfigError, match=r"party\.toml is missing"):
        folder_at(tmp_path / "nobody")


def test_a_port_in_use_is_named(joined: Parties) -> None:
    folder = joined.folders["north"]
    port = folder.settings().port
    said = rf"north: .* port {port} .*; stop it, or .*: privagg deploy join .*north \*\.card --port"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUseError, match=said):
        parts_of(folder)
    parts_of(folder)  # and free again


def test_the_coordinators_port_is_changed_in_two_places(joined: Parties) -> None:
    folder = joined.folders[COORDINATOR]
    port = folder.settings().port
    said = rf"{port} .*--listen ADDRESS --port PORT; .*{SUPERLINK}.*--superlink HOST:PORT"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUseError, match=said):
        parts_of(folder)


def test_a_port_of_the_system_is_named(joined: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(DeploymentError, match="below 1024, which this user may not .*--port PORT"):
        parts_of(joined.folders["north"])


@pytest.mark.parametrize(
    ("party", "lost", "back"),
    [
        ("north", "flower/node.key", "privagg deploy party.*--replace"),
        ("north", "flower/app.secret", "privagg deploy party"),
        ("north", "flower/ca.pem", "every party that joined has the same file"),
        ("north", "identity.pem", "bring it back from a backup, or begin a new folder"),
        ("north", "pins.toml", "has not joined yet.*privagg deploy join"),
        (COORDINATOR, "flower/server.key", "remove server.key and server.pem.*deploy party"),
        (COORDINATOR, "flower/server.pem", "remove server.key and server.pem.*deploy party"),
    ],
)
def test_a_lost_file_is_named_with_what_brings_it_back(
    joined: Parties, party: str, lost: str, back: str
) -> None:
    folder = joined.folders[party]
    (folder.party.root / lost).unlink()
    with pytest.raises(ConfigError, match=rf"{lost} is missing.*{back}"):
        parts_of(folder)
    assert not (folder.party.root / lost).exists()


def test_another_release_of_flower_is_named(
    joined: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "version", lambda name: "1.30.0")
    with pytest.raises(MissingDependencyError, match=r"flwr 1\.30\.0 .* needs 1\.41 or 1\.42"):
        parts_of(joined.folders["north"])


def test_two_parties_of_one_machine_have_ports_of_their_own(joined: Parties) -> None:
    north, south = (joined.folders[name] for name in ("north", "south"))
    south.set(south.settings().model_copy(update={"port": north.settings().port}))
    trial = Trial(north.party.root.parent, joined.folders)
    said = rf"north and south were both given port {north.settings().port}.*--port PORT"
    with pytest.raises(DeploymentError, match=said), up(trial, print):
        pass


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(DeploymentError, match="cannot listen on 192.0.2.1"):
        check_port("192.0.2.1", 9092)


def test_an_expired_certificate_starts_nothing(
    joined: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=certificates.SERVER_DAYS)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    with pytest.raises(CertificateError, match=r"expired.*privagg deploy renew"):
        parts_of(joined.folders[COORDINATOR])


def test_without_flower_nothing_starts(joined: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"privagg\[flower\]"):
        parts_of(joined.folders["north"])
