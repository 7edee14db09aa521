"""A party as a process that stays: what Flower starts for a message only passes the frames on.

Flower starts a process for every message. That process need not read data, keys or models: it
connects to the party's own process through a socket in the party's folder, which only the party's
user can open. So a message costs no start-up, and code that came with a run is not in the process
that holds the secrets. Where a Flower app reads the records, the party asks for a round's training
over the same connection, once everything else that the round needs is settled, and charged.

    request   length u64, a frame
    answer    length u64, a frame                      where the length is below 2^64 - 2
              2^64 - 1, length u64, "ErrorName: text"  where the party refuses to answer
              2^64 - 2, settings, model                has the app train: JSON, float64 (d,), each
                                                       after its length; the answer comes later
    trained   length u64, the change, float64 (d,)     or 2^64 - 1, where the app failed
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from privagg import errors
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError, DataError, PrivaggError, ProtocolError
from privagg.flower.deploy.processes import PARENT, PARTY, RESIDENT_READY, RESIDENT_REFUSED
from privagg.party.folder import PartyFolder
from privagg.protocol.messages import refusal_text
from privagg.protocol.site import Seat
from privagg.protocol.transport import Handler
from privagg.training.progress import every_while, watching

SOCKET_NAME = "party.sock"
MAX_PATH_BYTES = 100
MAX_FRAME_BYTES = 2**33
"""Longest frame, either way; a longer one is refused by its length, before any of it is read."""
MAX_REFUSAL_BYTES = 2**16
_LENGTH, _REFUSED, _TRAIN = struct.Struct("<Q"), 2**64 - 1, 2**64 - 2

Train = Callable[[Mapping[str, JsonValue], FloatVector], FloatVector]
"""See `privagg.flower.bridge.learner`."""


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


def serve(folder: PartyFolder, party: Handler | Seat, ready: Callable[[], None]) -> None:
    """Answer frames until the process ends, one at a time.

    Args:
        folder: the party's.
        party: what answers; or the seat of a site whose app trains in the processes that connect.
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
        threading.Thread(target=_answer, args=(connection, party, lock), daemon=True).start()


def _answer(connection: socket.socket, party: Handler | Seat, lock: threading.Lock) -> None:
    with connection, suppress(OSError):
        try:
            frame = _receive(connection)
            with lock:
                answer = _handler(party, connection)(frame)
        except OSError:
            raise
        except PrivaggError as error:
            _refuse(connection, f"{type(error).__name__}: {refusal_text(error)}")
        except Exception as error:
            print(f"failed: {error!r}", file=sys.stderr, flush=True)
            _refuse(connection, f"ProtocolError: the party failed ({type(error).__name__})")
        else:
            _send(connection, answer)


def _handler(party: Handler | Seat, connection: socket.socket) -> Handler:
    """What answers a connection; at an app's site, its app trains at the connection's other end."""
    if not isinstance(party, Seat):
        return party
    from privagg.flower.bridge.learner import app_handler

    def train(settings: Mapping[str, JsonValue], parameters: FloatVector) -> FloatVector:
        connection.sendall(_LENGTH.pack(_TRAIN))
        _send(connection, json.dumps(settings).encode())
        _send(connection, parameters.astype("<f8").tobytes())
        length = _length(connection)
        if length != parameters.size * np.dtype("<f8").itemsize:
            raise DataError("the app did not train; what it says of it is in the log of the apps")
        return np.frombuffer(bytearray(_exactly(connection, length)), dtype="<f8")

    return app_handler(party, train)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(data)))
    connection.sendall(data)


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


@dataclass(frozen=True)
class Resident:
    """A party's own process, as another process of the party reaches it.

    Args:
        path: of its socket.
    """

    path: Path

    def connect(self) -> socket.socket:
        """A connection, for one frame.

        Raises:
            OSError: none listens.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, frame: bytes, train: Train | None = None) -> bytes:
        """The answer to a frame.

        Args:
            frame: to pass on.
            train: has the app of this process train, where it is an app's that reads the records.

        Raises:
            PrivaggError: as the party raises.
        """
        with self.connect() as connection:
            _send(connection, frame)
            length = _length(connection)
            if length == _TRAIN:
                if train is None:
                    raise ProtocolError("this party's records are an app's, and no app is here")
                _train_for(connection, train)
                length = _length(connection)
            if length != _REFUSED:
                return _up_to(connection, length, MAX_FRAME_BYTES)
            text = _up_to(connection, _length(connection), MAX_REFUSAL_BYTES)
            raise _raised(text.decode(errors="replace"))


def _train_for(connection: socket.socket, train: Train) -> None:
    """Have this process's app train as the party at the other end asks, and send the change."""
    settings = json.loads(_receive(connection))
    parameters = np.frombuffer(_receive(connection), dtype="<f8")
    try:
        update = train(settings, parameters)
    except Exception:
        traceback.print_exc()  # into the log of the apps, for its owner alone
        connection.sendall(_LENGTH.pack(_REFUSED))
    else:
        _send(connection, update.astype("<f8").tobytes())


def resident_of(folder: PartyFolder) -> Resident | None:
    """The party's own process; None where none listens, or can."""
    try:
        found = Resident(socket_of(folder))
        found.connect().close()
    except (ConfigError, OSError):
        return None
    return found


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
    end_with_parent()
    folder = folder_of_this_process()
    _log_everything()
    try:
        socket_of(folder)
        party = open_resident(folder)
    except PrivaggError as error:
        print(RESIDENT_REFUSED + " ".join(str(error).split()), flush=True)
        sys.exit(error.exit_code)
    with watching(every_while(logging.getLogger("privagg").info)):
        serve(folder, party, lambda: print(RESIDENT_READY, flush=True))


def _log_everything() -> None:
    """What privagg tells the owner goes into this process's log, not its warnings alone."""
    log, lines = logging.getLogger("privagg"), logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(lines)
    log.setLevel(logging.INFO)


def open_resident(folder: PartyFolder) -> Handler | Seat:
    """The party; where a Flower app reads the records, all of it but what trains.

    Args:
        folder: the party's own.

    Raises:
        ConfigError, DataError: as `open_party`; or what an app should read is not there.
    """
    from privagg.party.open import open_node, open_party
    from privagg.party.own_data import an_app_trains, own_data

    if not an_app_trains(folder):
        return open_party(folder, stays=True)
    own_data(folder)  # what is not there is said now, and not by the app in the first round
    return open_node(folder, stays=True)


def end_with_parent() -> None:
    """End with the process that started this one, where the environment names it."""
    from privagg.flower.bridge.part import end_with

    if (parent := os.environ.get(PARENT, "")).isdigit():
        end_with(int(parent))


if __name__ == "__main__":
    main()
