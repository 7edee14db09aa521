"""A PostgreSQL server of one's own for the length of a test session.

It needs the server's programs (Debian's package `postgresql`), a socket in a private folder, and no
network. PostgreSQL refuses to run as root; then it runs as an unprivileged user.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

USER = "privagg"


def programs() -> Path | None:
    """The folder of the newest installed server's programs, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    somewhere = shutil.which("initdb")
    return Path(somewhere).parent if somewhere else None


def _die_with_parent() -> None:
    """Ask Linux to end this process when the test session is killed and cannot do so itself."""
    parent_death_signal = 1  # PR_SET_PDEATHSIG, linux/prctl.h
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGQUIT)


@dataclass
class Server:
    """A running server."""

    folder: Path
    programs: Path
    account: str | None
    _process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs as the server's user."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            user=self.account,
            group=pwd.getpwnam(self.account).pw_gid if self.account else None,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments}: {done.stderr}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {
            "listen_addresses": "", "unix_socket_directories": self.folder,
            "fsync": "off", "log_min_messages": "fatal",
        }  # fmt: skip
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", *self._data(), *settings],
                user=self.account,
                group=pwd.getpwnam(self.account).pw_gid if self.account else None,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server as a crash would: no shutdown, no checkpoint."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=str(self.folder), user=USER, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def database(self) -> str:
        """The URL of a new, empty schema: room for one ledger."""
        name = f"ledger{next(self._numbers)}"
        with psycopg.connect(host=str(self.folder), user=USER, dbname="postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        options = f"host={self.folder}&options=-csearch_path%3D{name}"
        return f"postgresql+psycopg://{USER}@/postgres?{options}"

    def _data(self) -> Sequence[str]:
        return ("-D", f"{self.folder}/data")


@contextmanager
def running() -> Iterator[Server]:
    """A server in a folder of its own, gone afterwards."""
    found = programs()
    if found is None:
        raise FileNotFoundError("no PostgreSQL server is installed")
    account = _unprivileged() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="privagg-pg-"))
    try:
        if account:
            shutil.chown(folder, account)
        server = Server(folder, found, account)
        server.run("initdb", *server._data(), "-U", USER, "-A", "trust", "-N", "-E", "UTF8")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise FileNotFoundError("no unprivileged user to run PostgreSQL as")
