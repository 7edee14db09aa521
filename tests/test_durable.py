"""Files that must outlive a power loss: their folder is synced once they have their name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from privagg.durable import write_new, write_whole
from privagg.errors import ConfigError
from privagg.identity.keys import Identity
from privagg.privacy.ledger.copies import write_new as write_bundle
from privagg.privacy.ledger.store import Store
from privagg.training.saving import write_model

WRITERS: dict[str, Callable[[Path], object]] = {
    "identity key": lambda path: Identity.load_or_create("north", path),
    "secret that must not be there yet": lambda path: write_new(path, b"x", secret=True),
    "file that is replaced": lambda path: write_whole(path, b"x"),
    "bundle": lambda path: write_bundle(path, [b"x"]),
    "model": lambda path: write_model(path, b"x"),
    "ledger": lambda path: Store(path, read_only=False).make_file(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_files_name_is_synced_after_it_is_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, fsync = tmp_path / "file", [], os.fsync

    def watched(handle: int) -> None:
        if os.path.sameopenfile(handle, folder):
            seen.append(path.exists())
        fsync(handle)

    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "fsync", watched)
    try:
        WRITERS[name](path)
    finally:
        os.close(folder)
    assert seen
    assert seen[-1]


@pytest.mark.parametrize("write", [write_whole, write_model])
def test_a_full_disk_keeps_the_file_that_is_there(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").write_bytes(b"paid for")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path / "file", b"x" * 1000)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"paid for"]


@pytest.mark.parametrize("write", [write_whole, write_new, write_model])
def test_a_full_disk_leaves_no_half_written_file(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every try to go on would fill it further, by as much as a model."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path / "file", b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
