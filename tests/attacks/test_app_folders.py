"""Unpacked apps of killed processes stayed for ever, and an app without code could fill a disk."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from privagg.errors import AppRefusedError
from privagg.flower.bridge.appfolders import PREFIX, fresh_folder
from privagg.flower.bridge.guard import check_app

HOLDER = """
import sys
from pathlib import Path
from privagg.flower.bridge.appfolders import fresh_folder
made = fresh_folder(Path(sys.argv[1]))
(made / "settings.toml").write_text("x = 1")
print(made, flush=True)
sys.stdin.read()
"""


def _holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that unpacked an app and goes on until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_goes_with_the_next_app(tmp_path: Path) -> None:
    place = tmp_path / "checked"
    killed, left = _holder(place)
    living, used = _holder(place)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (left / "settings.toml").exists()
    fresh = fresh_folder(place)
    assert not left.exists()
    assert (used / "settings.toml").exists()
    assert fresh.stat().st_mode & 0o777 == 0o700
    living.communicate("")
    assert living.returncode == 0
    assert not used.exists()


def test_nothing_but_unheld_folders_of_ones_own_is_erased(tmp_path: Path) -> None:
    place, foreign = tmp_path / "checked", tmp_path / "records"
    foreign.mkdir()
    (foreign / "patients.csv").write_text("1\n")
    fresh_folder(place)
    (place / f"{PREFIX}link").symlink_to(foreign)
    (place / f"{PREFIX}file").write_text("x")
    (place / "other").mkdir()
    left = place / f"{PREFIX}left"
    left.mkdir()
    (left / "inner").symlink_to(foreign)
    fresh_folder(place)
    assert not left.exists()
    for kept in (f"{PREFIX}link", f"{PREFIX}file", "other"):
        assert os.path.lexists(place / kept)
    assert (foreign / "patients.csv").read_text() == "1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_neither_erased_nor_used(tmp_path: Path) -> None:
    place = tmp_path / "checked"
    fresh_folder(place)
    theirs = place / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, -1)
    fresh_folder(place)
    assert theirs.exists()
    os.chown(place, 12345, -1)
    with pytest.raises(AppRefusedError, match="belongs to user 12345"):
        fresh_folder(place)


def test_a_place_that_others_can_write_or_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    place, link = tmp_path / "checked", tmp_path / "link"
    fresh_folder(place)
    link.symlink_to(place)
    with pytest.raises(AppRefusedError, match=f"cannot make a folder for the app in {link}"):
        fresh_folder(link)
    place.chmod(0o770)
    with pytest.raises(AppRefusedError, match="mode 0770.*chmod 700"):
        fresh_folder(place)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", ".info/CONTENT", "pyproject.toml"])
def test_a_harmless_file_that_unpacks_to_gigabytes_is_no_app(name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        if name != "pyproject.toml":
            manifest = '[tool.flwr.app.components]\nclientapp = "privagg.flower.apps:x"\n'
            bundle.writestr("pyproject.toml", manifest)
        bundle.writestr(name, bytes(64 << 20))
    assert len(buffer.getvalue()) < 1 << 17
    with pytest.raises(AppRefusedError, match="unpacks to more than"):
        check_app(buffer.getvalue(), ())
