"""A SuperLink and a SuperNode on this machine, with TLS and node keys; strangers stay out."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from privagg.durable import write_new
from privagg.errors import DeploymentError, PortInUseError
from privagg.flower.deploy import superlink as control
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import Agreement, card_of, join, make_party
from privagg.flower.deploy.processes import parts_of
from privagg.flower.deploy.supervisor import Supervisor, only_one, wait_for_superlink
from privagg.flower.deploy.trial import Trial
from privagg.party.cards import split_address
from privagg.party.certificates import make_authority
from privagg.party.folder import PartyFolder
from privagg.party.node_keys import make_node_key
from privagg.protocol.names import COORDINATOR

SECONDS = 120.0
AGREEMENT = Agreement("loopback", "1" * 64, "2" * 64, ("north",), "north")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _make(root: Path) -> Trial:
    config = root / "federation.toml"
    config.touch()
    port = _free_port()
    folders, cards = {}, []
    for name in AGREEMENT.parties:
        superlink = f"127.0.0.1:{port}" if name == COORDINATOR else None
        folders[name] = make_party(root / name, name, AGREEMENT, config, superlink=superlink)
        cards.append(card_of(folders[name], AGREEMENT))
    join(folders[COORDINATOR], AGREEMENT, cards, listen="127.0.0.1")
    join(folders["north"], AGREEMENT, cards, port=_free_port())
    return Trial(root, folders)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trial, Supervisor]]:
    trial, supervisor = _make(tmp_path_factory.mktemp("trial")), Supervisor(print)
    coordinator, north = trial.parties.values()
    try:
        with only_one(coordinator), only_one(north):
            supervisor.start(parts_of(coordinator))
            wait_for_superlink(coordinator, supervisor, SECONDS)
            control.register(coordinator)
            # Flower's own parts; what holds data and keys needs a whole federation.
            supervisor.start([part for part in parts_of(north) if part.name != "party"])
            supervisor.wait_ready(SECONDS)
            processes = [running.process for running in supervisor.running]
            yield trial, supervisor
    finally:
        supervisor.stop()
    assert all(process.poll() is not None for process in processes)
    parts_of(trial.coordinator)  # raises where its port were not free again


def _post(address: str, path: str, context: ssl.SSLContext | None, source: str) -> int:
    """The status of an empty request from a given address of this machine."""
    host, port = split_address(address)
    origin = (source, 0)
    connection = (
        http.client.HTTPSConnection(host, port, context=context, source_address=origin, timeout=20)
        if context is not None
        else http.client.HTTPConnection(host, port, source_address=origin, timeout=20)
    )
    try:
        connection.request("POST", path, b"", {"Content-Type": "application/protobuf"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_registered_node_is_connected(running: tuple[Trial, Supervisor]) -> None:
    trial, supervisor = running
    assert set(control.node_ids(trial.coordinator)) == {"north"}
    state = control.nodes(trial.coordinator)["north"]
    assert state.online
    assert state.since
    assert len(supervisor.running) == 4


def test_only_this_machine_reaches_more_than_the_nodes_interface(
    running: tuple[Trial, Supervisor],
) -> None:
    folder = running[0].coordinator
    context = ssl.create_default_context(cafile=str(folder.authority))
    address = folder.settings().local
    for path in ("/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/acquire-task"):
        assert _post(address, path, context, "127.0.0.2") == 403
        assert _post(address, path, context, "127.0.0.1") != 403
    # The nodes' interface asks for a node's signature itself.
    assert _post(address, "/v1/fleet/pull-messages", context, "127.0.0.2") == 401


def test_nobody_without_the_secret_takes_a_task(running: tuple[Trial, Supervisor]) -> None:
    local = running[0].parties["north"].settings().local
    assert _post(local, "/v1/runtime/acquire-task", None, "127.0.0.1") in (401, 403)


def test_another_authority_does_not_know_this_superlink(
    running: tuple[Trial, Supervisor], tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(make_authority("loopback").certificate_pem)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    address = running[0].coordinator.settings().local
    with pytest.raises(ssl.SSLCertVerificationError):
        _post(address, "/v1/fleet/pull-messages", context, "127.0.0.1")


def test_a_node_with_another_key_is_refused(
    running: tuple[Trial, Supervisor], tmp_path: Path
) -> None:
    shutil.copytree(running[0].parties["north"].party.root, tmp_path / "north")
    stranger = FlowerFolder(PartyFolder(tmp_path / "north"))
    stranger.node_key.unlink()
    write_new(stranger.node_key, make_node_key(), secret=True)
    stranger.set(stranger.settings().model_copy(update={"port": _free_port()}))
    heard: list[str] = []
    supervisor = Supervisor(heard.append)
    try:
        supervisor.start([part for part in parts_of(stranger) if part.name == "node"])
        until = time.monotonic() + 60
        while not heard and time.monotonic() < until:
            supervisor.check()
            assert not supervisor.running[0].ready
            time.sleep(0.1)
    finally:
        supervisor.stop()
    assert "does not accept this node" in heard[0]


def test_parts_that_run_already_are_not_started_twice(running: tuple[Trial, Supervisor]) -> None:
    folder = running[0].parties["north"]
    with pytest.raises(DeploymentError, match="run already"), only_one(folder):
        pass
    with pytest.raises(PortInUseError, match="another process listens"):
        parts_of(folder)
