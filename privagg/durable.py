"""A new file outlives a power loss once its bytes are synced, and then the folder that names it."""

from __future__ import annotations

import os
from pathlib import Path


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
