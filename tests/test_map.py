"""README's map is the one that import-linter holds: the same rooms on the same floors."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_ROOMS, MOST_FLOORS = 20, 12


def floors() -> list[set[str]]:
    """What the layers contract says, top floor first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c["type"] == "layers"]
    return [{room.strip() for room in re.split("[|:]", floor)} for floor in layers]


def test_readme_draws_the_floors_that_are_enforced() -> None:
    text = (ROOT / "README.md").read_text()
    rows = text.partition("| floor | rooms |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    # A room is named first in its part of a row; what else is in backticks explains it.
    drawn = [
        {m[1] for m in re.finditer(r"(?:^\| [^|]+\| |· |, )`([a-z_]+)(?:\.py)?`", row)}
        for row in rows
    ]
    assert drawn == floors()


def test_every_room_stands_on_a_floor_and_there_are_few() -> None:
    package = ROOT / "privagg"
    rooms = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    rooms |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms == set().union(*floors())
    assert len(rooms) <= MOST_ROOMS
    assert len(floors()) <= MOST_FLOORS


def test_every_room_says_which_question_it_answers() -> None:
    for path in (ROOT / "privagg").glob("*/__init__.py"):
        assert path.read_text().startswith('"""'), path


def test_the_path_of_a_new_reader_is_short_and_there() -> None:
    """One round in at most eight files, named by README and by the room's own page."""
    text = (ROOT / "README.md").read_text()
    path = re.search(r"One round in eight files: (.*?)\n\n", text, re.DOTALL)
    assert path is not None
    files = re.findall(r"`([\w/]+\.(?:py|md))`", path[1])
    assert 0 < len(files) <= 8
    assert all((ROOT / "privagg" / file).is_file() for file in files), files
