"""Ways into a party's machine that went round the guard, the gate and the pins."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.superlink.grid import http_grid
from flwr.supernode.runtime import run_clientapp

from privagg.errors import AppRefusedError, ConfigError, ProtocolError
from privagg.flower.bridge import gate, guard
from privagg.flower.bridge.transport import bound_pulls
from privagg.flower.deploy.processes import environment_of
from privagg.flower.resident import MAX_FRAME_BYTES, resident_of, serve
from privagg.identity.keys import Identity
from privagg.party.folder import PartyFolder
from privagg.party.open import open_federation
from privagg.protocol.names import KEY_HOLDER
from tests.flower.deploy.conftest import Parties, parties  # noqa: F401
from tests.flower.heart import make_deployment, write_federation

OWN = "privagg.flower.apps:client_app"
MANIFEST = """
[project]
name = "{name}"
version = "{version}"
description = "x"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "someone"
[tool.flwr.app.components]
serverapp = "x:y"
clientapp = "{client}"
"""


def _archive(client: str = OWN, name: str = "app", version: str = "1.0.0", **files: str) -> bytes:
    manifest = MANIFEST.format(name=name, version=version, client=client)
    files = {"pyproject.toml": manifest, **files}
    lines = [f"{n},{hashlib.sha256(t.encode()).hexdigest()},{8 * len(t)}" for n, t in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for file, text in {**files, ".info/CONTENT": "\n".join(lines)}.items():
            bundle.writestr(file, text)
    return buffer.getvalue()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A node behind the guard; returns the list of apps that its owner approved."""
    approved = tmp_path / "approved.txt"
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(guard.APPROVED, str(approved))
    for hook in guard._HOOKS:
        monkeypatch.setattr(run_clientapp, hook, getattr(run_clientapp, hook))
    guard.install()
    return approved


def _run(archive: bytes, fab_id: str, version: str, digest: str) -> Any:
    """What Flower does for a message: unpack the archive, load the app that the run names."""
    run_clientapp.install_from_fab(archive, skip_prompt=True)
    load = run_clientapp.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
    return load(fab_id, version, digest)


def test_a_harmless_archive_does_not_open_the_door_to_code_elsewhere(
    node: Path, tmp_path: Path
) -> None:
    """The guard checked one thing and Flower loaded another: the folder that strings point to."""
    planted = tmp_path / "home" / "apps" / "someone.app.1.0.0."
    planted.mkdir(parents=True)
    (planted / "pyproject.toml").write_text(MANIFEST.format(name="a", version="1", client="evil:c"))
    (planted / "evil.py").write_text("raise SystemExit('foreign code ran')")
    with pytest.raises(Exception, match=r"someone/app|mismatch") as caught:
        _run(_archive(name="other"), "someone/app", "1.0.0", "")
    assert not isinstance(caught.value, SystemExit)
    loaded = _run(_archive(), "someone/app", "1.0.0", "../../..")  # the hash no longer matters
    assert type(loaded).__name__ == "ClientApp"
    assert run_clientapp.get_project_dir("../..", "..", "..") != planted


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a..b", "/etc"])
def test_names_in_a_harmless_manifest_are_no_paths(node: Path, name: str) -> None:
    for archive in (_archive(name=name), _archive(version=f"1/{name}")):
        with pytest.raises(AppRefusedError, match="has the name"):
            run_clientapp.install_from_fab(archive, skip_prompt=True)


def test_a_withdrawn_approval_stops_code_that_was_unpacked_already(node: Path) -> None:
    code = "from flwr.clientapp import ClientApp\nclient = ClientApp()\n"
    archive = _archive("approved_once:client", **{"approved_once.py": code})
    digest = hashlib.sha256(archive).hexdigest()
    node.write_text(f"{digest}  read by the owner\n")
    assert type(_run(archive, "someone/app", "1.0.0", digest)).__name__ == "ClientApp"
    node.write_text("")
    with pytest.raises(AppRefusedError, match="files of its own"):
        _run(archive, "someone/app", "1.0.0", digest)
    with pytest.raises(AppRefusedError, match="no app was checked"):
        run_clientapp.get_project_dir("someone/app", "1.0.0", digest)


def test_a_forwarded_address_does_not_make_a_stranger_local(
    monkeypatch: pytest.MonkeyPatch,
    parties: Parties,  # noqa: F811
) -> None:
    """With FORWARDED_ALLOW_IPS=* whoever wrote 127.0.0.1 into a header submitted runs."""
    from flwr.superlink import extensions
    from uvicorn import Config

    monkeypatch.setenv(gate.FORWARDED, "*")
    assert gate.FORWARDED not in environment_of(parties.folders["north"])
    monkeypatch.setattr(extensions, "get_middleware", extensions.get_middleware)
    gate.install()

    async def superlink(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a stranger got through")

    found: list[int] = []

    async def send(event: Any) -> None:
        found.append(event.get("status", 0))

    async def receive() -> Any:
        raise AssertionError("a refused request is not read")

    config = Config(gate.Gate(superlink), log_config=None)
    config.load()
    scope = {
        "type": "http", "path": "/v1/control/start-run", "client": ("203.0.113.9", 5),
        "scheme": "https", "headers": [(b"x-forwarded-for", b"127.0.0.1")],
    }  # fmt: skip
    asyncio.run(config.loaded_app(scope, receive, send))  # type: ignore[arg-type]
    assert found[0] == 403


def test_a_configuration_altered_after_joining_is_not_opened(tmp_path: Path) -> None:
    """Its plan is the pinned one; its budget had no end."""
    config = write_federation(tmp_path)
    config.write_text(config.read_text().replace("budget_epsilon = inf", "budget_epsilon = 99"))
    folder = make_deployment(config, tmp_path / "trial").parties[KEY_HOLDER].party
    agreed = open_federation(folder).plan.digest
    text = config.read_text()
    config.write_text(text.replace("budget_epsilon = 99", "budget_epsilon = inf"))
    with pytest.raises(ConfigError, match=r"heart\.toml is another file.*put the agreed file back"):
        open_federation(folder)
    config.write_text(text)
    assert open_federation(folder).plan.digest == agreed


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_an_identity_key_that_others_can_read_signs_nothing(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.pem"
    made = Identity.load_or_create("north", path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        Identity.load_or_create("north", path)
    path.chmod(0o600)
    assert Identity.load_or_create("north", path).public_hex == made.public_hex


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_identity_key_of_another_user_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    Identity.load_or_create("north", path)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        Identity.load_or_create("north", path)


def test_a_length_is_refused_before_a_byte_of_it_is_read(tmp_path: Path) -> None:
    """Of the party's own process and of whoever asks it: the answer's length had no limit."""
    folder, ready = PartyFolder(tmp_path), threading.Event()
    threading.Thread(target=serve, args=(folder, bytes, ready.set), daemon=True).start()
    assert ready.wait(10)
    path = str(folder.flower / "party.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall((MAX_FRAME_BYTES + 1).to_bytes(8, "little"))
        assert b"ProtocolError" in client.recv(4096)[16:]

    os.unlink(path)
    liar = socket.socket(socket.AF_UNIX)
    liar.bind(path)
    liar.listen()
    for head in ((MAX_FRAME_BYTES + 1,), (2**64 - 1, 2**40)):
        replies = b"".join(number.to_bytes(8, "little") for number in head)
        threading.Thread(target=_lie, args=(liar, replies), daemon=True).start()
        found = resident_of(folder)
        assert found is not None
        with pytest.raises(ProtocolError, match="were announced"):
            found.ask(b"frame")


def _lie(listener: socket.socket, reply: bytes) -> None:
    listener.accept()[0].close()
    connection, _ = listener.accept()
    with connection:
        connection.sendall(reply)
        connection.recv(1 << 16)
        connection.recv(1 << 16)


def test_an_answer_without_end_is_cut_off_while_it_comes_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_grid, "pull_objects", http_grid.pull_objects)
    bound_pulls(1000)
    fetched: list[str] = []

    def fetch(name: str) -> bytes:
        fetched.append(name)
        return bytes(100)

    assert len(http_grid.pull_objects([str(n) for n in range(10)], fetch)) == 10
    fetched.clear()
    with pytest.raises(ObjectPullError, match="longer than 1000 bytes"):
        http_grid.pull_objects([str(n) for n in range(10_000)], fetch)
    assert len(fetched) < 200
