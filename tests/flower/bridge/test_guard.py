"""The guard: no code comes to a node but what its owner installed or approved."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privagg.errors import AppRefusedError
from privagg.flower.bridge.guard import MANIFEST, check_app, read_approved

OWN = "privagg.flower.bridge.apps:client"


def _app(reference: str = OWN, **files: str) -> bytes:
    manifest = f'[tool.flwr.app.components]\nserverapp = "x:y"\nclientapp = "{reference}"\n'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, text in {MANIFEST: manifest, ".info/CONTENT": "", **files}.items():
            bundle.writestr(name, text)
    return buffer.getvalue()


def test_an_app_without_code_that_names_our_own_comes_in() -> None:
    archive = _app(**{"README.md": "hello"})
    assert check_app(archive, ()) == hashlib.sha256(archive).hexdigest()


@pytest.mark.parametrize(
    "name",
    ["app.py", "privagg/flower/bridge/apps.py", "sitecustomize.py", "x.pth", "x.so", "../app.py",
     "README.md/x.py", "PYPROJECT.TOML"],
)  # fmt: skip
def test_any_file_of_its_own_keeps_it_out(name: str) -> None:
    with pytest.raises(AppRefusedError, match="files of its own"):
        check_app(_app(**{name: ""}), ())


def test_unless_that_very_archive_was_approved() -> None:
    archive = _app("mine:client", **{"mine.py": "client = 1"})
    digest = hashlib.sha256(archive).hexdigest()
    assert check_app(archive, {digest}) == digest
    with pytest.raises(AppRefusedError, match=hashlib.sha256(archive + b"x").hexdigest()):
        check_app(archive + b"x", {digest})


@pytest.mark.parametrize("reference", ["os:system", "privaggx.app:client", "", "pty:spawn"])
def test_an_app_names_nothing_but_privaggs_own_apps(reference: str) -> None:
    with pytest.raises(AppRefusedError, match="are this machine's own"):
        check_app(_app(reference), ())


def test_a_manifest_that_names_no_app_is_refused() -> None:
    for text in ("", "[tool.flwr.app]\ncomponents = 3", "tool = 1"):
        with pytest.raises(AppRefusedError, match="names no clientapp"):
            check_app(_app(**{MANIFEST: text}), ())
    with pytest.raises(AppRefusedError, match="larger"):
        check_app(_app(**{MANIFEST: "#" * (1 << 19)}), ())


def test_two_files_of_one_name_are_refused() -> None:
    buffer = io.BytesIO(_app())
    with zipfile.ZipFile(buffer, "a") as bundle, pytest.warns(UserWarning, match="Duplicate"):
        bundle.writestr(MANIFEST, "")
    with pytest.raises(AppRefusedError, match="twice"):
        check_app(buffer.getvalue(), ())


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
@example(junk=b"", place=28, value=185)  # EOFError inside zipfile
def test_hostile_bytes_get_a_name(junk: bytes, place: int, value: int) -> None:
    with pytest.raises(AppRefusedError):
        check_app(junk, ())
    archive = bytearray(_app("os:system"))
    archive[place % len(archive)] = value
    with pytest.raises(AppRefusedError):  # no single changed byte lets it in
        check_app(bytes(archive), ())


def test_the_list_of_approved_apps(tmp_path: Path) -> None:
    path = tmp_path / "approved.txt"
    assert read_approved(path) == frozenset()
    path.write_text(f"# apps\n\n{'a' * 64}  Dr. Ito read it\n{'b' * 64}\n")
    assert read_approved(path) == {"a" * 64, "b" * 64}
    path.write_bytes(b"\xff")
    with pytest.raises(AppRefusedError, match="cannot read"):
        read_approved(path)


def test_once_installed_flower_unpacks_nothing_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode.runtime import run_clientapp

    from privagg.flower.bridge import guard

    def unpack(archive: bytes, folder: Path, skip_prompt: bool) -> Path:
        return folder / "unpacked"

    for hook in guard._HOOKS:
        monkeypatch.setattr(run_clientapp, hook, getattr(run_clientapp, hook))
    monkeypatch.setattr(run_clientapp, "install_from_fab", unpack)
    guard.install()
    with pytest.raises(AppRefusedError, match="no app was checked"):
        run_clientapp.get_project_dir("privagg/private", "1.0", "f" * 64)
    found = run_clientapp.install_from_fab(_app(), skip_prompt=True)
    assert found.name == "unpacked"
    assert run_clientapp.get_project_dir("../..", "..", "") == found
    with pytest.raises(AppRefusedError, match="files of its own"):
        run_clientapp.install_from_fab(_app(**{"app.py": ""}), skip_prompt=True)


def test_a_flower_without_the_hook_starts_no_app(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode.runtime import run_clientapp

    from privagg.flower.bridge import guard

    monkeypatch.setattr(run_clientapp, "run_clientapp", lambda: None)
    with pytest.raises(SystemExit, match="no hook"):
        guard.install()
