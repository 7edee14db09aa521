"""A secret's file is read only where nobody else could have read or exchanged it.

The same rule for every key and secret: whoever reads one can act as the party, and whoever may
write one can put another in its place. They are written by `privagg.durable.write_new`.
"""

from __future__ import annotations

import os
from pathlib import Path

from privagg.errors import ConfigError


def require_private(path: Path, what: str) -> None:
    """Refuse a secret that others can read or change, before another program gets its path.

    Args:
        path: the file; where it is a link, what it leads to.
        what: whose or which secret, for the message: "the node key".

    Raises:
        ConfigError: it is missing or cannot be looked at, others can read or change it, or it is
            another user's.
    """
    try:
        _check(path.stat(), path, what)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error


def read_private(path: Path, what: str) -> bytes:
    """The bytes of a secret's file, of the very file whose mode and owner were checked.

    Args:
        path, what: as for `require_private`.

    Raises:
        ConfigError: as for `require_private`.
    """
    try:
        with path.open("rb") as file:
            _check(os.fstat(file.fileno()), path, what)
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error


def _check(facts: os.stat_result, path: Path, what: str) -> None:
    if facts.st_uid != os.geteuid():
        raise ConfigError(
            f"{what} {path} belongs to user {facts.st_uid}, not to the one that runs privagg "
            f"({os.geteuid()}), and could be exchanged by that user; run as its owner, or, where "
            f"it is yours: chown {os.geteuid()} {path}"
        )
    if facts.st_mode & 0o077:
        raise ConfigError(
            f"{what} {path} can be read or changed by others (mode {facts.st_mode & 0o777:04o}); "
            f"where nobody has copied it: chmod 600 {path}; else make a new one"
        )
