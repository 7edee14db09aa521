"""A stale theorem fails as a stale hash does; what claims the same passes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proofs import answers, bind, check
from proofs.answers import Family
from proofs.theorems import Theory, digest, without_comments
from tests.benchmarks.mutants import mutants

LAMP = """\
(* What a lamp costs (* really *).

   Models:
     privagg.lamp:cost *)
From Coq Require Import ZArith Lia.
From Privagg Require Import Base.
Open Scope Z_scope.

Definition cost (x : Z) : Z := twice x + 1.

Lemma helper x : twice x = 2 * x.
Proof. reflexivity. Qed.

(* Light is not free. *)
Theorem light_costs_more x : 0 < x -> x < cost x.
Proof. unfold cost; rewrite helper; lia. Qed.
"""
BASE = """\
(* Numbers.

   Models: nothing of its own. *)
From Coq Require Import ZArith.
Open Scope Z_scope.
Definition twice (x : Z) : Z := 2 * x.
"""
CHECK = """\
(* The definitions give what was answered.

   Models: nothing of its own. *)
From Coq Require Import ZArith List Bool.
From Privagg Require Import Lamp Answers.
Import ListNotations.
Open Scope Z_scope.
Theorem answers_agree : forallb (fun '(x, y) => cost x =? y) costs = true.
Proof. vm_compute; reflexivity. Qed.
"""
DOCUMENT = """
```proof-binding
privagg.lamp:cost sha256:?
test: tests/test_lamp.py::test_cost
theorem: Lamp.light_costs_more sha256:?
vectors: costs sha256:?
```
"""
FAMILIES = {"costs": Family(["privagg.lamp:cost"], "Z * Z", [[3, 7], [-1, -1]])}
FILES = {
    "privagg/lamp.py": "def cost(x):\n    return 2 * x + 1\n",
    "tests/test_lamp.py": "def test_cost():\n    pass\n",
    "proofs/lamp.md": DOCUMENT,
    "proofs/rocq/Base.v": BASE,
    "proofs/rocq/Lamp.v": LAMP,
    "proofs/rocq/Check.v": CHECK,
    answers.JSON_FILE: answers.to_json(FAMILIES),
    answers.ROCQ_FILE: answers.to_rocq(FAMILIES),
}
LAMP_FILE, BASE_FILE = "proofs/rocq/Lamp.v", "proofs/rocq/Base.v"

needs_rocq = pytest.mark.skipif(shutil.which("coqc") is None, reason="coqc is not installed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project with one theorem, bound."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bind.main(["--write"], tmp_path) == 0
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert text.count(old) == 1
    (root / name).write_text(text.replace(old, new))


def edit_an_answer(root: Path) -> None:
    change(root, answers.JSON_FILE, "[3,7]", "[3,8]")
    change(root, answers.ROCQ_FILE, "(3, 7)", "(3, 8)")


STALE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a definition changed": (
        lambda root: change(root, BASE_FILE, "2 * x", "x"),
        "claims has changed",
        "Lamp: ",
    ),
    "a hypothesis weakened": (
        lambda root: change(root, LAMP_FILE, "0 < x ->", "- 2 < x ->"),
        "claims has changed",
        "Lamp: ",
    ),
    "a proof admitted": (
        lambda root: change(root, LAMP_FILE, "reflexivity. Qed", "Admitted"),
        "Lamp.v says Admitted",
        "light_costs_more rests on",
    ),
    "an axiom added": (
        lambda root: change(
            root,
            LAMP_FILE,
            "Lemma helper x : twice x = 2 * x.\nProof. reflexivity",
            "Axiom free : forall x, twice x = 2 * x.\nLemma helper x : twice x = 2 * x.\n"
            "Proof. apply free",
        ),
        "Lamp.v says Axiom",
        "light_costs_more rests on Lamp.free",
    ),
    "a theorem renamed": (
        lambda root: change(root, LAMP_FILE, "Theorem light_costs_more", "Theorem light_costs"),
        "no theorem light_costs_more",
        "",
    ),
    "an answer edited": (edit_an_answer, "vectors costs have changed", "Check: "),
    "the function changed": (
        lambda root: change(root, "privagg/lamp.py", "+ 1", "+ 2"),
        "privagg.lamp:cost has changed",
        "",
    ),
    "the Rocq file not written anew": (
        lambda root: change(root, answers.JSON_FILE, "[-1,-1]", "[-2,-3]"),
        "Answers.v is not what",
        "",
    ),
}


@pytest.mark.parametrize("state", STALE)
def test_a_stale_state_fails_without_rocq(
    root: Path, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, complaint, _ = STALE[state]
    spoil(root)
    assert bind.main([], root) == 1
    assert complaint in capsys.readouterr().err


@needs_rocq
@pytest.mark.parametrize("state", [state for state in STALE if STALE[state][2]])
def test_a_stale_state_with_its_hash_written_fails_by_rocq(root: Path, state: str) -> None:
    spoil, _, complaint = STALE[state]
    spoil(root)
    bind.main(["--write"], root)
    assert complaint in " ".join(check.problems(root))


@needs_rocq
def test_the_small_project_is_accepted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--required"], root) == 0
    assert "3 theorems checked, 2 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(* Light is not free. *)", "(* Light costs (* more *) than nothing. *)"),
        ("Proof. unfold cost; rewrite helper; lia. Qed.", "Proof.\n  cbv; lia.\nQed."),
        ("Lemma helper x : twice x = 2 * x.", "Lemma helper (x : Z) : twice x = 2 * x."),
        ("0 < x -> x", "0 < x ->\n  x"),
    ],
)
def test_what_claims_the_same_passes(root: Path, old: str, new: str) -> None:
    before = digest("Lamp", "light_costs_more", root)
    change(root, LAMP_FILE, old, new)
    assert digest("Lamp", "light_costs_more", root) == before
    assert bind.main([], root) == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("proofs/lamp.md", "privagg.lamp:cost", "privagg.lamp:other", "no function that the file"),
        ("proofs/lamp.md", "privagg.lamp:cost", "privagg.lamp:other", "not privagg.lamp:cost that"),
        ("proofs/lamp.md", "vectors: costs", "vectors: prices", "no vectors prices"),
        ("proofs/lamp.md", "theorem: Lamp.", "theorem: Lantern.", "no proofs/rocq/Lantern.v"),
        (LAMP_FILE, "privagg.lamp:cost", "privagg.lamp:price", "models what is not there"),
        (LAMP_FILE, "Import Base", "Import Ground", "no proofs/rocq/Ground.v"),
        (
            BASE_FILE,
            "Open Scope",
            "From Privagg Require Import Lamp.\nOpen Scope",
            "imports itself",
        ),
    ],
)
def test_a_theorem_stands_beside_its_code(
    root: Path, name: str, old: str, new: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "privagg/lamp.py").write_text(FILES["privagg/lamp.py"] + "\n\ndef other():\n    pass\n")
    change(root, name, old, new)
    assert bind.main([], root) == 1
    assert complaint in capsys.readouterr().err


def test_without_rocq_the_installation_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert check.main([], root) == 0
    assert "apt-get install coq" in capsys.readouterr().out
    assert check.main(["--required"], root) == 1


def test_a_function_that_answers_otherwise_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from proofs import vectors

    def costs(_: object) -> list[list[int]]:
        return [[3, factor * 3 + 1], [-1, -1]]

    factor = 2
    monkeypatch.setattr(vectors, "FAMILIES", ((costs, "Z * Z", ("privagg.lamp:cost",)),))
    assert vectors.main(["--check"], root) == 0
    factor = 3
    assert vectors.main(["--check"], root) == 1
    assert "costs: privagg answers otherwise" in capsys.readouterr().err
    assert vectors.main([], root) == 0
    assert vectors.main(["--check"], root) == 0


def test_every_mutant_still_has_its_place() -> None:
    for mutant in mutants():
        text = (bind.ROOT / mutant.path).read_text(encoding="utf-8")
        assert mutant.old in text, mutant.name
        assert mutant.new != mutant.old, mutant.name


def test_comments_are_nested_and_proofs_end_where_they_end() -> None:
    assert without_comments("a (* b (* c *) d *) e").split() == ["a", "e"]
    found = Theory("X", "Lemma l : True.\nProof.\n  split. { auto. } Qed.\nDefinition d := 1.")
    assert found.sentences == ["Lemma l : True", "Definition d := 1"]
