"""Check every theorem by Rocq: `python -m proofs.check`, which `make proofs` runs.

Compiles every file of `proofs/rocq`, which checks the proofs and, in Check.v, holds the theorems'
definitions against the answers of privagg's functions; and asks of every theorem on which axioms it
rests: on none but those of the standard library's real numbers.

Where `coqc` is missing it says how to install it and goes on; with `--required` that is a failure.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from proofs import answers
from proofs.bind import ROOT
from proofs.theorems import Theory, TheoryError, theories

INSTALL = "apt-get install coq libcoq-flocq libcoq-interval libzarith-ocaml-dev"

ALLOWED = frozenset(
    {
        "ClassicalDedekindReals.sig_forall_dec",
        "ClassicalDedekindReals.sig_not_dec",
        "FunctionalExtensionality.functional_extensionality_dep",
        "Classical_Prop.classic",
    }
)
"""Axioms of the standard library's real numbers."""

_NEXT = "next answer"
_NO_AXIOM = frozenset({"Axioms", "Closed under the global context"})


class RefusedError(Exception):
    """What Rocq did not accept."""


def compile_all(files: Sequence[Theory], folder: Path, *options: str) -> None:
    """Compile files, in this order, in a folder of their own.

    Args:
        files: what to compile.
        folder: where.
        options: of `coqc`.

    Raises:
        RefusedError: one does not compile.
    """
    command = ["coqc", "-w", "-all", *options, "-R", ".", "Privagg"]
    for each in files:
        (folder / f"{each.name}.v").write_text(each.text, encoding="utf-8")
        _rocq([*command, f"{each.name}.v"], folder, each.name)


def assumptions(questions: Sequence[Sequence[str]], folder: Path) -> list[set[str]]:
    """The axioms on which theorems of compiled files rest.

    Args:
        questions: each some theorems, `File.theorem`, which are answered for together: every answer
            goes through all that the reals are made of.
        folder: of the compiled files.

    Raises:
        RefusedError: a theorem that Rocq does not know.
    """
    files = sorted({name.split(".")[0] for names in questions for name in names})
    asked = [f"From Privagg Require {' '.join(files)}.\n"]
    for number, names in enumerate(questions):
        together = ", ".join(f"@{name}" for name in names)
        asked.append(
            f'Definition asked{number} := ({together}, tt).\nGoal True. idtac "{_NEXT}". Abort.\n'
            f"Print Assumptions asked{number}.\n"
        )
    (folder / "Asked.v").write_text("".join(asked), encoding="utf-8")
    said = _rocq(["coqc", "-w", "-all", "-R", ".", "Privagg", "Asked.v"], folder, "Asked")
    return [_axioms(answer) for answer in said.split(_NEXT)[1:]]


def problems(root: Path = ROOT, *, kernel: bool = False) -> list[str]:
    """Everything that Rocq has against the files, and axioms beyond the allowed ones.

    Args:
        root: of the project.
        kernel: have the compiled files checked again by `coqchk`, as well.
    """
    try:
        files = theories(root)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            compile_all(files, folder)
            found = _beyond(files, folder)
            if kernel:
                modules = [f"Privagg.{each.name}" for each in files]
                _rocq(["coqchk", "-silent", "-R", ".", "Privagg", *modules], folder, "coqchk")
    except (RefusedError, TheoryError) as error:
        return [str(error)]
    return found


def _beyond(files: Sequence[Theory], folder: Path) -> list[str]:
    """Theorems that rest on more than the allowed axioms; asked one by one where some do."""
    names = [f"{each.name}.{theorem}" for each in files for theorem in each.theorems]
    if not assumptions([names], folder)[0] - ALLOWED:
        return []
    each = zip(names, assumptions([[name] for name in names], folder), strict=True)
    return [
        f"{name} rests on {', '.join(sorted(axioms - ALLOWED))}"
        for name, axioms in each
        if axioms - ALLOWED
    ]


def _axioms(said: str) -> set[str]:
    lines = (line for line in said.splitlines() if line.strip() and not line[0].isspace())
    return {line.split(":")[0].strip() for line in lines} - _NO_AXIOM


def _rocq(command: Sequence[str], folder: Path, what: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"{what}: {' '.join((done.stderr or done.stdout).split())[:400]}")
    return done.stdout


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Check everything. Exit status."""
    parser = argparse.ArgumentParser(prog="python -m proofs.check", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where coqc is missing")
    parser.add_argument("--kernel", action="store_true", help="and have coqchk check it again")
    options = parser.parse_args(arguments)
    if shutil.which("coqc") is None:
        print(f"proofs: coqc is missing, no theorem was checked; install it: {INSTALL}")
        return int(options.required)
    start, found = time.monotonic(), problems(root, kernel=options.kernel)
    for problem in found:
        print(f"proofs/rocq: {problem}", file=sys.stderr)
    if found:
        return 1
    count = sum(len(each.theorems) for each in theories(root))
    cases = sum(len(family.cases) for family in answers.read(root).values())
    print(
        f"proofs: {count} theorems checked, {cases} answers of privagg agree with their "
        f"definitions; {time.monotonic() - start:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
