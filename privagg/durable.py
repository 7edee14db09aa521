"""A new file outlives a power loss once its bytes are synced, and then the folder that names it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from privagg.errors import ConfigError


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; call it after creating, renaming or linking a file.

    Raises:
        OSError: the folder cannot be synced.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a file whole or not at all, durably; one that is there already is replaced.

    Args:
        path: its folder must exist.
        data: the content.
        secret: True gives it mode 0600, False mode 0644.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not secret:
                os.chmod(part, 0o644)
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def write_new(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a file that must not exist yet, whole or not at all.

    Two processes that write the same file cannot both succeed, so that no key is ever lost to
    another one of the same name.

    Args:
        path: folders that are missing are made, with mode 0700.
        data: the content.
        secret: True gives it mode 0600, False mode 0644.

    Raises:
        ConfigError: the file exists already, or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(part, data, secret=secret)
        os.link(part, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists already and is never overwritten; move it away if you mean it"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
