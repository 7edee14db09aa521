"""Do the vectors notice when the code changes? Wrong versions of privagg's functions, one by one.

Each of `mutants.toml` is made in a copy of the project, asked for its answers anew, and they are
held against the theorems' definitions by Rocq. One that Check.v accepts must be named harmless
there, with the reason.

    python -m tests.benchmarks.mutants --json out/mutants.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proofs import answers
from proofs.bind import ROOT
from proofs.check import RefusedError, compile_all
from proofs.theorems import Theory, theories, theory

_LIST = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Mutant:
    """A wrong version.

    Args:
        name: what is wrong.
        path: of the file.
        old: text in it, wherever it stands.
        new: what stands there instead.
        harmless: why no vector can notice it; empty where one must.
    """

    name: str
    path: str
    old: str
    new: str
    harmless: str = ""


def mutants() -> list[Mutant]:
    """Those of `mutants.toml`."""
    found = tomllib.loads(_LIST.read_text(encoding="utf-8"))
    return [Mutant(**each) for each in found["mutant"]]


def answered(mutant: Mutant, folder: Path) -> str:
    """The answers of a copy with one change, as a Rocq file; empty where Python refused."""
    path = folder / mutant.path
    text = path.read_text(encoding="utf-8")
    if mutant.old not in text:
        raise SystemExit(f"{mutant.path} has no {mutant.old!r}; bring {mutant.name!r} up to date")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "proofs.vectors"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "numba")},
        capture_output=True,
        check=False,
    )
    path.write_text(text, encoding="utf-8")
    return "" if done.returncode else (folder / answers.ROCQ_FILE).read_text(encoding="utf-8")


def verdict(mutant: Mutant, copy: Path, compiled: Path) -> str:
    """ "caught", "refused by Python" or "survived"."""
    text = answered(mutant, copy)
    if not text:
        return "refused by Python"
    check = theory("Check", ROOT)
    try:
        compile_all([Theory("Answers", text), check], compiled)
    except RefusedError:
        return "caught"
    return "survived"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every mutant. Exit status 1 where one that is not harmless survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mutants", description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    tried = [Mutant("no change", "privagg/errors.py", "", "", "it is the project"), *mutants()]
    with tempfile.TemporaryDirectory() as place:
        copy, compiled = Path(place) / "copy", Path(place) / "compiled"
        compiled.mkdir()
        for name in ("privagg", "proofs", "tests/vectors"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        compile_all([each for each in theories(ROOT) if each.name != "Check"], compiled)
        found = {each: verdict(each, copy, compiled) for each in tried}
    for mutant, how in found.items():
        print(f"{mutant.name}: {how}{f', harmless: {mutant.harmless}' if mutant.harmless else ''}")
    wrong = [m.name for m, how in found.items() if (how == "survived") != bool(m.harmless)]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({m.name: how for m, how in found.items()}, indent=2))
    print(f"{len(tried) - 1} mutants; not as they should be: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
