"""Every command and every block of the README and of the examples is done, by document and line.

`tests/documents/story.py` says how. A section that starts processes is done by `make guides`,
the other examples, of which `tests/test_examples.py` runs shortened ones, by `make nightly`.
"""

from __future__ import annotations

import shutil

import pytest

from tests.documents import deployments  # noqa: F401 - enters its directors
from tests.documents.directors import DATA, DIRECTORS, MARKED
from tests.documents.reading import ROOT, read
from tests.documents.story import DRAWN, Story

DONE = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("README.md"))]
SECTIONS = list(
    dict.fromkeys(
        (block.place.document, block.place.heading)
        for document in DONE
        for block in read(document).blocks
        if block.language not in DRAWN
    )
)
OUTPUTS = shutil.ignore_patterns("out", "__pycache__")


@pytest.mark.parametrize(
    ("document", "heading"),
    [
        pytest.param(*section, marks=[getattr(pytest.mark, mark)] if mark else [])
        for section in SECTIONS
        for mark in [MARKED.get(section)]
    ],
    ids=[f"{document}-{heading or 'all'}" for document, heading in SECTIONS],
)
def test_it_is_done_as_the_text_says(
    document: str, heading: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("d")  # a short path: parties listen on sockets below it
    story = Story(document, heading, root)
    if document.startswith("examples/"):
        shutil.copytree(ROOT / "examples", story.folder / "examples", ignore=OUTPUTS)
    if DATA.is_dir():
        (root / "shared").mkdir()
        (root / "shared" / "data").symlink_to(DATA)
    try:
        DIRECTORS.get((document, heading), Story.rest)(story)
        story.rest()
    finally:
        story.close()
    written = [path for path in story.home.rglob("*") if path.is_file()]
    assert written == []


def test_every_director_has_its_section() -> None:
    assert set(DIRECTORS) <= set(SECTIONS)
