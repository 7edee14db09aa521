"""A party's own process: frames in and out through a socket that only its user opens."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from privagg.errors import BudgetExceededError, ConfigError, DataError, ProtocolError
from privagg.flower.resident import (
    folder_of_this_process,
    resident_of,
    serve,
    socket_of,
)
from privagg.party.folder import PartyFolder
from privagg.protocol.transport import Handler


def party(frame: bytes) -> bytes:
    if frame == b"budget":
        raise BudgetExceededError("too much")
    if frame == b"data":
        raise DataError("patient 4711")
    if frame == b"bug":
        raise KeyError("patient 4711")
    return b"to " + frame


@pytest.fixture
def handler(tmp_path: Path) -> Handler:
    folder, ready = PartyFolder(tmp_path), threading.Event()
    assert resident_of(folder) is None
    threading.Thread(target=serve, args=(folder, party, ready.set), daemon=True).start()
    assert ready.wait(120)
    assert stat.S_IMODE(socket_of(folder).stat().st_mode) == 0o600
    found = resident_of(folder)
    assert found is not None
    return found.ask


def test_frames_pass_and_the_partys_own_errors_come_back(handler: Handler) -> None:
    large = bytes(3 * 2**20)
    assert handler(b"north") == b"to north"
    assert handler(large) == b"to " + large
    with pytest.raises(BudgetExceededError, match="too much"):
        handler(b"budget")


@pytest.mark.parametrize("frame", [b"data", b"bug"])
def test_what_depends_on_records_stays_there(handler: Handler, frame: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        handler(frame)
    assert "4711" not in str(caught.value)


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a socket"):
        socket_of(PartyFolder(tmp_path / ("x" * 100)))
    assert resident_of(PartyFolder(tmp_path / ("x" * 100))) is None  # none can listen there


def test_a_process_without_a_party_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVAGG_PARTY", raising=False)
    with pytest.raises(ConfigError, match="privagg deploy start"):
        folder_of_this_process()
