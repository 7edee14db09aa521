"""Mistakes that people make: refused with exit code 2, nothing spent, and what to do is said.

Each file of this folder is one of them: the command, what it has to say, and in what the folder
differs from `good/`, in which the command succeeds.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.privacy.ledger import Ledger
from tests.commands import call

HERE = Path(__file__).parent
MISTAKES = sorted(HERE.glob("*.toml"))
LIBRARIES_WORDS = ("Input should", "Field required", "validation error", "Traceback", "pydantic")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of its own in which nothing is wrong yet, its path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mistake-") as made:
        yield Path(shutil.copytree(HERE / "good", Path(made) / "good"))


def test_without_a_mistake_nothing_is_wrong(folder: Path) -> None:
    for words in ("check my.toml", "approve my.toml --all-sites --yes", "run my.toml"):
        answer = call(*words.split(), where=folder)
        assert answer.code == 0
        assert "error" not in answer.out + answer.err
    assert _charges(folder)


def test_there_are_sixty() -> None:
    assert len(MISTAKES) >= 60


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_a_mistake_is_refused_unspent_and_what_to_do_is_said(path: Path, folder: Path) -> None:
    mistake = tomllib.loads(path.read_text(encoding="utf-8"))
    for words in mistake.get("before", ()):
        assert call(*words, where=folder).code == 0
    _make(mistake, folder)
    answer = call(*mistake["command"], where=folder)
    said = " ".join((answer.out + answer.err).replace("│", " ").split())  # boxes break lines
    assert answer.code == 2, said
    assert mistake["says"], "a mistake that may be answered by anything"
    for text in mistake["says"]:
        assert text in said
    assert not [words for words in LIBRARIES_WORDS if words in said]
    assert not _charges(folder)


def _make(mistake: dict[str, Any], folder: Path) -> None:
    """Change the folder as the mistake says: lines of the configuration, files, arrays."""
    config = folder / "my.toml"
    text = config.read_text()
    for old, new in mistake.get("change", {}).items():
        assert old in text, f"{old!r} is not in good/my.toml"
        text = text.replace(old, new, 1)
    config.write_text(text)
    for name, content in mistake.get("files", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding=mistake.get("encoding", "utf-8"))
    for name, values in mistake.get("arrays", {}).items():
        np.save(folder / name, np.array(values))
    for name in mistake.get("missing", ()):
        (folder / name).unlink()


def _charges(folder: Path) -> int:
    ledgers = folder.rglob("ledger.sqlite")
    return sum(entry.kind == "charge" for path in ledgers for entry in Ledger.open(path).entries())
