"""Folders that checked apps are unpacked to: each goes with its process, however that one ends.

A killed process erases nothing itself. So every folder is held by a lock that the system lets go
of with the process, and whoever needs the next folder first erases those that nobody holds.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privagg.errors import AppRefusedError

PREFIX = "app-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fresh_folder(parent: Path) -> Path:
    """An empty folder (mode 0700) for one app; it is erased when this process ends, or later.

    Erased on the way are folders of the same kind in `parent` whose processes ended without doing
    so. A link, a file, another user's folder or one of another name is neither followed nor erased.

    Args:
        parent: this party's own; made with mode 0700 where it does not exist.

    Raises:
        AppRefusedError: `parent` is a link, another user's, open to others, or cannot be used.
    """
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone_in(parent):
            for left in parent.glob(f"{PREFIX}*"):
                _erase_if_left(left)
            made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
            # Never closed: the lock is to last as long as the process.
            fcntl.flock(os.open(made, _FOLDER), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AppRefusedError(
            f"cannot make a folder for the app in {parent}: {error.strerror}"
        ) from error
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@contextmanager
def _alone_in(parent: Path) -> Iterator[None]:
    """Nobody else makes or erases folders here meanwhile; between the two, none is held yet."""
    handle = os.open(parent, _FOLDER)
    try:
        facts = os.fstat(handle)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise AppRefusedError(
                f"{parent} belongs to user {facts.st_uid} with mode {facts.st_mode & 0o777:04o}, "
                f"and others could exchange an app in it; chmod 700 it, as user {os.geteuid()}"
            )
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _erase_if_left(folder: Path) -> None:
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            return
        handle = os.open(folder, _FOLDER)
    except FileNotFoundError:  # its process ends at this moment and erases it
        return
    try:
        with suppress(BlockingIOError):  # its process lives
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
