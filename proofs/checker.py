"""The program that checks convolution certificates: `accepted` of Certificate.v, as OCaml."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from proofs.bind import ROOT
from proofs.check import RefusedError, compile_all
from proofs.theorems import FOLDER, with_imports

PROGRAM = "checks.ml"


def missing() -> bool:
    """True where Rocq, OCaml or Zarith is not installed."""
    if shutil.which("coqc") is None or shutil.which("ocamlfind") is None:
        return True
    found = subprocess.run(
        ["ocamlfind", "query", "-format", "%d", "zarith"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return bool(found.returncode) or not (Path(found.stdout.strip()) / "zarith.cmxa").exists()


def build(folder: Path, root: Path = ROOT, *, unproved: bool = False) -> Path:
    """Compile the theorems, extract the checker from them, and compile that.

    Args:
        folder: an empty one, where all of it goes.
        root: of the project.
        unproved: believe the proofs: the program is the same.

    Raises:
        RefusedError: something does not compile.
    """
    *files, extract = with_imports("Extract", root)
    compile_all(files, folder, *(["-vos"] if unproved else []))
    compile_all([extract], folder, *(["-vok"] if unproved else []))
    shutil.copy(root / FOLDER / PROGRAM, folder)
    command = ["ocamlfind", "ocamlopt", "-w", "-a", "-package", "zarith", "-linkpkg"]
    command += ["accepted.mli", "accepted.ml", PROGRAM, "-o", "checks"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"{PROGRAM}: {' '.join(done.stderr.split())[:400]}")
    return folder / "checks"


def said(checker: Path, files: Sequence[Path]) -> tuple[bool, str]:
    """Whether it accepts all of the files, and what it prints.

    Args:
        checker: what `build` made.
        files: certificates.
    """
    done = subprocess.run(
        [str(checker), *map(str, files)], capture_output=True, text=True, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr
