"""Encryption over processes: SEAL holds Python's global lock, so threads would gain nothing.

One place decides how many processes encrypt, and keeps the helpers alive between rounds. A helper
is a plain child process (`privagg.secure.encryption_worker`) spoken to over a socket pair: it
neither forks this process nor imports the user's script again, so it works below torch, in a
notebook and without `if __name__ == "__main__"`. A helper that dies costs time, never the result:
this process then encrypts its part itself.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import struct
import subprocess
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

from privagg.secure.scheme import Buffer, EncryptionKey
from privagg.threads import available_cpus

ENVIRONMENT = "PRIVAGG_PROCESSES"
MIN_RESIDUES_A_PROCESS = 8 << 20  # about a second of encryption; a helper takes two to start


class WorkerLostError(Exception):
    """A helper ended or broke its protocol; internal, its part is encrypted here instead."""


def encryption_processes(residues: int, parts: int) -> int:
    """Processes worth using, this one included.

    Args:
        residues: words of ciphertext that are to be made.
        parts: ciphertexts, the least that can be handed out.

    Returns:
        What PRIVAGG_PROCESSES says where it is set, else one a processor, so that each has at
        least `MIN_RESIDUES_A_PROCESS` residues to make; never more than `parts`.
    """
    wanted = os.environ.get(ENVIRONMENT, "")
    if wanted.isdigit() and int(wanted) > 0:
        return max(1, min(int(wanted), parts))
    return max(1, min(available_cpus(), residues // MIN_RESIDUES_A_PROCESS, parts))


class RangedKey(EncryptionKey):
    """A key whose payload is a row of ciphertexts, any range of which can be made by itself."""

    @abstractmethod
    def encrypt_range(self, first: int, last: int, units: Buffer) -> bytes:
        """The payload's piece that holds ciphertexts first ... last-1.

        Args:
            first, last: which ciphertexts.
            units: their plaintext units, int64 in this machine's order.
        """


def over_processes(
    key: RangedKey, parts: int, processes: int, units: Callable[[int, int], Buffer]
) -> list[bytes]:
    """Encrypt `parts` ciphertexts over processes, in order.

    Args:
        key: encrypts; helpers get its bytes once.
        parts: ciphertexts in all.
        processes: how many processes share them, this one included.
        units: the plaintext units of ciphertexts first ... last-1.

    Returns:
        Payload pieces whose concatenation is the payload.
    """
    bounds = [parts * i // processes for i in range(processes + 1)]
    ranges = list(itertools.pairwise(bounds))
    helpers = _helpers(processes - 1)

    def here(number: int) -> bytes:
        first, last = ranges[number]
        return key.encrypt_range(first, last, units(first, last))

    def remote(number: int) -> bytes | None:
        first, last = ranges[number]
        if number > len(helpers):
            return None
        try:
            return helpers[number - 1].encrypt(key, first, last, units(first, last))
        except WorkerLostError:
            return None

    with ThreadPoolExecutor(max_workers=max(1, processes - 1)) as pool:
        waiting = [pool.submit(remote, number) for number in range(1, processes)]
        pieces: list[bytes | None] = [here(0)]
        pieces += [future.result() for future in waiting]
    return [here(number) if piece is None else piece for number, piece in enumerate(pieces)]


class _Helper:
    """A child process that encrypts for this one."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        inherited = os.environ.get("PYTHONPATH")
        path = root if not inherited else os.pathsep.join((root, inherited))
        self._lock = threading.Lock()
        self._ready_for = ""
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "privagg.secure.encryption_worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, ENVIRONMENT: "1"},
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def encrypt(self, key: RangedKey, first: int, last: int, units: Buffer) -> bytes:
        with self._lock:
            try:
                if self._ready_for != key.key_id:
                    facts = json.dumps(key.parameters.to_dict()).encode()
                    for part in (key.parameters.scheme.encode(), facts, key.to_bytes()):
                        self._connection.send_bytes(part)
                    self._ready_for = key.key_id
                else:
                    self._connection.send_bytes(b"")
                self._connection.send_bytes(struct.pack("<QQ", first, last))
                self._connection.send_bytes(units)
                return self._connection.recv_bytes()
            except (OSError, ValueError, EOFError) as error:
                self.close()
                raise WorkerLostError from error

    def close(self) -> None:
        """End the process; it ends by itself when its connection does."""
        self._connection.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_pool: list[_Helper] = []
_pool_lock = threading.Lock()


def _helpers(count: int) -> list[_Helper]:
    """`count` living helpers, started where they are missing; fewer where none can be started."""
    with _pool_lock:
        for lost in [helper for helper in _pool if not helper.alive]:
            _pool.remove(lost)
            lost.close()  # its connection is open still
        with contextlib.suppress(OSError):
            while len(_pool) < count:
                _pool.append(_Helper())
        return _pool[:count]


def close_helpers() -> None:
    """End all helpers; the next large encryption starts new ones."""
    with _pool_lock:
        while _pool:
            _pool.pop().close()


atexit.register(close_helpers)
if hasattr(os, "register_at_fork"):
    # A forked child shares the connections; two processes on one would mix their messages up.
    os.register_at_fork(after_in_child=_pool.clear)
