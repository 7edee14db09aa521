"""Why a SuperLink does not answer is tried out, against servers that really are so."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from privagg.flower.deploy import reach
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import join
from privagg.flower.deploy.reach import trouble
from privagg.party import certificates
from privagg.party.certificates import Certified, issue, make_authority
from privagg.protocol.names import COORDINATOR
from tests.flower.deploy.conftest import AGREEMENT, Parties

Serve = Callable[[Certified, float], FlowerFolder]


@pytest.fixture
def north(parties: Parties) -> FlowerFolder:
    for folder in parties.folders.values():
        join(folder, AGREEMENT, list(parties.cards.values()))
    return parties.folders["north"]


def _authority(parties: Parties) -> Certified:
    folder = parties.folders[COORDINATOR]
    return Certified.load(folder.authority.read_bytes(), folder.authority_key.read_bytes())


@pytest.fixture
def serve(north: FlowerFolder, tmp_path: Path) -> Iterator[Serve]:
    """A server with a certificate, whose clock differs by so many seconds; north asks it."""
    servers: list[HTTPServer] = []

    def start(server: Certified, clock: float) -> FlowerFolder:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(404)
                self.end_headers()

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=clock)
                return format_datetime(now, usegmt=True)

            def log_message(self, format: str, *args: object) -> None:
                pass

        (tmp_path / "server.pem").write_bytes(server.certificate_pem)
        (tmp_path / "server.key").write_bytes(server.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
        made = HTTPServer(("127.0.0.1", 0), Handler)
        made.socket = context.wrap_socket(made.socket, server_side=True)
        servers.append(made)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return _asks(north, f"127.0.0.1:{made.server_port}")

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def _asks(folder: FlowerFolder, address: str) -> FlowerFolder:
    folder.set(folder.settings().model_copy(update={"superlink": address}))
    return folder


def test_one_that_answers_is_no_trouble(serve: Serve, parties: Parties) -> None:
    assert trouble(serve(issue(_authority(parties), ["127.0.0.1"]), 0)) == ""


@pytest.mark.parametrize(
    ("clock", "said"),
    [(-60, "seconds ahead of"), (600, "seconds behind"), (-3, ""), (200, "")],
)
def test_a_clock_that_flower_refuses_is_named(
    serve: Serve, parties: Parties, clock: float, said: str
) -> None:
    found = trouble(serve(issue(_authority(parties), ["127.0.0.1"]), clock))
    assert said in found
    assert bool(said) == bool(found)


def test_a_certificate_is_blamed_for_what_is_wrong_with_it(
    serve: Serve, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = _authority(parties)
    assert "is not for '127.0.0.1'" in trouble(serve(issue(authority, ["other.example"]), 0))
    assert "is not of the authority" in trouble(
        serve(issue(make_authority("trial"), ["127.0.0.1"]), 0)
    )
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=10)
    monkeypatch.setattr(certificates, "_now", lambda: past)
    expired = issue(authority, ["127.0.0.1"], days=1)
    monkeypatch.setattr(certificates, "_now", lambda: past + datetime.timedelta(days=20))
    early = issue(authority, ["127.0.0.1"])
    assert "has expired" in trouble(serve(expired, 0))
    assert "is not valid yet" in trouble(serve(early, 0))


def test_a_port_without_a_superlink_is_told_as_what_it_is(
    north: FlowerFolder, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(reach, "SECONDS", 0.3)
        assert "nothing answers" in trouble(_asks(north, f"127.0.0.1:{port}"))
    assert f"no SuperLink answers at 127.0.0.1:{port}" in trouble(north)
    monkeypatch.setattr(reach, "SECONDS", 20)
    assert "no machine is known here" in trouble(_asks(north, "no-such-host.invalid:9092"))
    coordinator = parties.folders[COORDINATOR]
    settings = coordinator.settings().model_copy(update={"port": port, "listen": "127.0.0.1"})
    coordinator.set(settings)
    assert f"privagg deploy start {coordinator.party.root}" in trouble(coordinator)


def test_a_program_that_speaks_no_tls_is_no_superlink(north: FlowerFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert "is no SuperLink" in trouble(_asks(north, f"127.0.0.1:{plain.getsockname()[1]}"))
        thread.join()
