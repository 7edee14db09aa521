"""A party's folder: what is written is read again, secrets stay secret, nonsense gets a name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from privagg.durable import write_new, write_whole
from privagg.errors import ConfigError
from privagg.party.folder import PartyFile, PartyFolder, PinsFile

PINS = PinsFile(
    plan_digest="a" * 64,
    configuration="e" * 64,
    roster={"north": "c" * 64, "x.y": "d" * 64},
)


@pytest.fixture
def folder(tmp_path: Path) -> PartyFolder:
    return PartyFolder.create(tmp_path / "north", PartyFile(name="north", data='da"ta\\é.csv'))


def test_a_folder_says_again_what_was_written(folder: PartyFolder) -> None:
    folder.pin(PINS)
    again = PartyFolder(folder.root)
    assert again.party() == PartyFile(name="north", data='da"ta\\é.csv')
    assert again.pins() == PINS
    assert again.identity().public_hex == folder.identity().public_hex
    assert again.federation_file.resolve() == folder.root.parent / "federation.toml"


def test_secrets_are_for_their_owner_only(folder: PartyFolder) -> None:
    write_whole(folder.owner_key, b"secret", secret=True)
    for path, mode in (
        (folder.root, 0o700),
        (folder.identity_key, 0o600),
        (folder.owner_key, 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_belongs_to_one_party(folder: PartyFolder) -> None:
    PartyFolder.create(folder.root, folder.party())
    with pytest.raises(ConfigError, match="folder of 'north' already"):
        PartyFolder.create(folder.root, PartyFile(name="south"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is missing"),
        ("name = ", "cannot read"),
        ('name = "north"\ncolour = "red"', "colour"),
        ('name = "../north"', "name"),
    ],
)
def test_what_is_no_party_file_is_named(folder: PartyFolder, text: str | None, words: str) -> None:
    folder.party_file.unlink()
    if text is not None:
        folder.party_file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        folder.party()


def test_a_secret_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    write_new(path, b"first", secret=True)
    with pytest.raises(ConfigError, match="never overwritten"):
        write_new(path, b"second", secret=True)
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
