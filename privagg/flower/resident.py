"""A party as a process that stays: what Flower starts for a message only passes the frames on.

Flower starts a process for every message. That process need not read data, keys or models: it
connects to the party's own process through a socket in the party's folder, which only the party's
user can open. So a message costs no start-up, and code that came with a run is not in the process
that holds the secrets.

    request   length u64, a frame
    answer    length u64, a frame                          where the length is not 2^64 - 1
              2^64 - 1, length u64, "ErrorName: text"      where the party refuses to answer
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from privagg import errors
from privagg.errors import ConfigError, PrivaggError, ProtocolError
from privagg.flower.deploy.processes import PARENT, PARTY, RESIDENT_READY
from privagg.party.folder import PartyFolder
from privagg.protocol.messages import refusal_text
from privagg.protocol.transport import Handler

SOCKET_NAME = "party.sock"
MAX_PATH_BYTES = 100
MAX_FRAME_BYTES = 2**33
"""Longest frame, either way; a longer one is refused by its length, before any of it is read."""
MAX_REFUSAL_BYTES = 2**16
_LENGTH, _REFUSED = struct.Struct("<Q"), 2**64 - 1


def socket_of(folder: PartyFolder) -> Path:
    """Where a party's own process listens.

    Raises:
        ConfigError: the path is longer than a socket's may be.
    """
    path = folder.flower.resolve() / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"the path {path} is too long for a socket; move the party's folder to one of at most "
            f"{MAX_PATH_BYTES} bytes"
        )
    return path


def serve(folder: PartyFolder, handler: Handler, ready: Callable[[], None]) -> None:
    """Answer frames until the process ends, one at a time.

    Args:
        folder: the party's.
        handler: the party.
        ready: called once the socket is there.
    """
    path, lock = socket_of(folder), threading.Lock()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    before = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen()
    ready()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, handler, lock), daemon=True).start()


def _answer(connection: socket.socket, handler: Handler, lock: threading.Lock) -> None:
    with connection, suppress(OSError):
        try:
            frame = _receive(connection)
            with lock:
                answer = handler(frame)
        except OSError:
            raise
        except PrivaggError as error:
            _refuse(connection, f"{type(error).__name__}: {refusal_text(error)}")
        except Exception as error:
            print(f"failed: {error!r}", file=sys.stderr, flush=True)
            _refuse(connection, f"ProtocolError: the party failed ({type(error).__name__})")
        else:
            connection.sendall(_LENGTH.pack(len(answer)))
            connection.sendall(answer)


def _refuse(connection: socket.socket, text: str) -> None:
    raw = text.encode()[:MAX_REFUSAL_BYTES]
    connection.sendall(_LENGTH.pack(_REFUSED) + _LENGTH.pack(len(raw)) + raw)


def _receive(connection: socket.socket) -> bytes:
    return _up_to(connection, _length(connection), MAX_FRAME_BYTES)


def _up_to(connection: socket.socket, length: int, limit: int) -> bytes:
    if length > limit:
        raise ProtocolError(f"{length} bytes were announced; at most {limit} are read here")
    return _exactly(connection, length)


def _length(connection: socket.socket) -> int:
    return int(_LENGTH.unpack(_exactly(connection, _LENGTH.size))[0])


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = connection.recv(min(size - len(found), 2**20))
        if not part:
            raise ConnectionError("the other end hung up")
        found += part
    return bytes(found)


def resident_handler(folder: PartyFolder) -> Handler | None:
    """A handler that passes frames to the party's own process; None where none listens.

    The handler raises what the party raises.
    """
    path = socket_of(folder)

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return connection

    try:
        connect().close()
    except OSError:
        return None

    def ask(frame: bytes) -> bytes:
        with connect() as connection:
            connection.sendall(_LENGTH.pack(len(frame)))
            connection.sendall(frame)
            length = _length(connection)
            if length != _REFUSED:
                return _up_to(connection, length, MAX_FRAME_BYTES)
            text = _up_to(connection, _length(connection), MAX_REFUSAL_BYTES)
            raise _raised(text.decode(errors="replace"))

    return ask


def _raised(text: str) -> PrivaggError:
    """The party's own error, by its name in our tree."""
    name, _, message = text.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PrivaggError) and kind.public:
        return kind(message)
    return ProtocolError(f"the party refuses: {text}")


def folder_of_this_process() -> PartyFolder:
    """The folder of the party that this process runs for.

    Raises:
        ConfigError: the environment names none.
    """
    path = os.environ.get(PARTY)
    if not path:
        raise ConfigError(
            f"{PARTY} names no party's folder; start the party with `privagg deploy start FOLDER`"
        )
    return PartyFolder(Path(path))


def main() -> None:
    """The party of this process's folder, until the process that started it is gone."""
    from privagg.party.open import open_party

    end_with_parent()
    folder = folder_of_this_process()
    serve(folder, open_party(folder, stays=True), lambda: print(RESIDENT_READY, flush=True))


def end_with_parent() -> None:
    """End with the process that started this one, where the environment names it."""
    from privagg.flower.bridge.part import end_with

    if (parent := os.environ.get(PARENT, "")).isdigit():
        end_with(int(parent))


if __name__ == "__main__":
    main()
