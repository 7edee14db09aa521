"""Proofs speak about the code as it is; a change of code or a lost test breaks the build."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofs import bind

CODE = '''
LIMIT: int = 3


class Lamp:
    """What it is."""

    colour = "red"

    def lit(self, hours: int) -> str:
        """Say so."""
        # a remark
        return f"{hours:02d} hours" if hours < LIMIT else "out"
'''

DOCUMENT = """
# A proof

```proof-binding
house.lamp:Lamp.lit sha256:?
house.lamp:LIMIT sha256:?
test: tests/test_lamp.py::test_lit
test: tests/test_lamp.py::TestLamp::test_out
```
"""

TESTS = """
def test_lit():
    pass


class TestLamp:
    def test_out(self):
        pass
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project whose one proof is bound."""
    for name, text in (
        ("house/lamp.py", CODE),
        ("tests/test_lamp.py", TESTS),
        ("proofs/lamp.md", DOCUMENT),
        ("proofs/README.md", "no proof"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bind.main(["--write"], tmp_path) == 0
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def test_there_are_proofs() -> None:
    names = {path.name for path in bind.documents()}
    assert {"integer-noise.md", "sensitivity.md", "capacity.md"} <= names


@pytest.mark.parametrize("document", bind.documents(), ids=lambda path: path.name)
def test_a_proof_is_about_the_present_code(document: Path) -> None:
    assert bind.problems(document) == []


@pytest.mark.parametrize("document", bind.documents(), ids=lambda path: path.name)
def test_a_proof_says_what_is_checked_and_what_is_owed(document: Path) -> None:
    text = document.read_text(encoding="utf-8").lower()
    assert "checked by code" in text
    assert "owed by the caller" in text
    assert "postcondition" in text


def test_a_bound_project_is_in_order(root: Path) -> None:
    assert bind.main([], root) == 0
    assert "sha256:?" not in (root / "proofs/lamp.md").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Say so."""', '"""Say that it is lit."""'),
        ("# a remark\n", "# another\n\n"),
        ('colour = "red"', 'colour = "blue"'),
        ("LIMIT: int = 3\n", 'LIMIT: int = 3\n"""Hours."""\n'),
    ],
)
def test_what_does_not_change_the_meaning_does_not_break_the_binding(
    root: Path, old: str, new: str
) -> None:
    change(root, "house/lamp.py", old, new)
    assert bind.main([], root) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hours < LIMIT", "hours <= LIMIT"),
        ("LIMIT: int = 3", "LIMIT: int = 4"),
        ('"out"', '""'),
        (":02d", ":03d"),
        ("def lit(self, hours: int)", "def lit(self, hours: float)"),
        ("def lit", "def shines"),
        ("    def lit", "    @property\n    def lit"),
    ],
)
def test_moving_code_breaks_the_binding_until_it_is_written_again(
    root: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(root, "house/lamp.py", old, new)
    assert bind.main([], root) == 1
    assert "lamp.md" in capsys.readouterr().err
    assert bind.main(["--write"], root) == int("shines" in new)


def test_a_lost_test_breaks_the_binding(root: Path) -> None:
    change(root, "tests/test_lamp.py", "def test_out", "def test_off")
    assert bind.main([], root) == 1
    assert "test_out" in bind.problems(root / "proofs/lamp.md", root)[0]
    (root / "tests/test_lamp.py").unlink()
    assert len(bind.problems(root / "proofs/lamp.md", root)) == 2


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("```proof-binding", "```text", "bound to no"),
        ("house.lamp:LIMIT", "house.lamp:LIMITS", "no LIMITS"),
        ("house.lamp:LIMIT", "house.desk:LIMIT", "no module"),
        ("test: tests", "tests: tests", "neither"),
    ],
)
def test_a_document_that_binds_nothing_real_is_refused(
    root: Path, old: str, new: str, complaint: str
) -> None:
    change(root, "proofs/lamp.md", old, new)
    assert complaint in " ".join(bind.problems(root / "proofs/lamp.md", root))
    assert bind.main([], root) == 1
