"""A process that is killed (SIGKILL) at its n-th write: every statement that changes a database,
every commit, and every name, byte and sync that goes to a file system by `os`.
"""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE", "COMMIT")
CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")


def count_writes(tick: Callable[[str], None]) -> None:
    """Have `tick` called before every write of this process from now on, with what it is."""
    connect = sqlite3.dbapi2.connect

    def listening(*arguments: Any, **named: Any) -> sqlite3.Connection:
        made = connect(*arguments, **named)

        def trace(statement: str) -> None:
            if statement.lstrip().upper().startswith(WRITING):
                tick(statement.split("(")[0][:60])

        made.set_trace_callback(trace)
        return made

    sqlite3.dbapi2.connect = sqlite3.connect = listening  # type: ignore[assignment]

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any, **named: Any) -> Any:
            tick(f"{name} {arguments[0]}")
            return call(*arguments, **named)

        return do

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))


def in_child(work: Callable[[], Any], result: Path, *, dies_at: int = 0) -> Any:
    """Do some work in a process of its own.

    Args:
        work: what is done; it returns something that can be pickled.
        result: a file for that.
        dies_at: the write before which the process is killed, from 1; 0 for none.

    Returns:
        What the work returned, and how many writes it made; None where it was killed.
    """
    child = os.fork()
    if child == 0:
        made: list[str] = []

        def tick(what: str) -> None:
            made.append(what)
            if len(made) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            count_writes(tick)
            done = work()
            result.write_bytes(pickle.dumps((done, made)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0, "the work failed; its traceback stands above"
    return pickle.loads(result.read_bytes())
