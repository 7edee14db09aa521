"""What is imported is what the lock names by its hashes; torch alone is fixed by version."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BY_VERSION = "torch"
OF_PEERS = {"dp_xgboost", "interpret", "lifelines", "nvflare", "opendp"}
"""Installed by `make peers` and its like into environments of their own."""
OF_TORCH = re.compile(r"nvidia-.*|cuda-.*|triton")
"""What torch's builds for graphics cards bring, and its CPU builds do not."""


def locked() -> dict[str, str]:
    """Name -> all that the lock says of it."""
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {
        canonicalize_name(re.split(r"[\s=;\[]", block)[0]): block
        for block in blocks
        if block and not block.startswith("#")
    }


def imported() -> dict[str, str]:
    """Top-level module that is not our own or Python's -> a file that imports it."""
    folders, found = ("privagg", "tests", "proofs", "examples"), {}
    scripts = {path.stem for path in (ROOT / "tests" / "benchmarks").glob("*.py")}
    apps = {path.name for path in (ROOT / "examples").glob("*/*") if path.is_dir()}
    ours = {*folders, *scripts, *apps}  # a script imports the one beside it by its bare name
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = [node.module]
                else:
                    continue
                found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {n: p for n, p in found.items() if n not in ours and n not in sys.stdlib_module_names}


def needed() -> set[str]:
    """Distributions that the development install needs, and what those need in turn."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        "privagg": [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    }
    waiting, seen = [("privagg", frozenset[str]())], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in asked.get(name) or metadata.requires(name) or ():
            one = Requirement(text)
            marks = one.marker
            if marks is None or any(marks.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((canonicalize_name(one.name), frozenset(one.extras)))
    return {name for name, _ in seen} - {"privagg"}


def test_every_entry_of_the_lock_has_hashes_and_one_version() -> None:
    found = locked()
    assert len(found) > 80
    for name, block in found.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
        assert re.match(r"[A-Za-z0-9._-]+(\[[^\]]*\])?==[^\s;]+", block), name


def test_every_import_is_of_a_locked_distribution() -> None:
    providers, names = metadata.packages_distributions(), locked()
    for module, path in imported().items():
        if module in OF_PEERS:
            continue
        of = {canonicalize_name(d) for d in providers.get(module, ())}
        assert of & {*names, BY_VERSION}, f"{path} imports {module}, which the lock does not name"


def test_whatever_the_install_needs_is_locked_too() -> None:
    lacking = needed() - locked().keys() - {BY_VERSION}
    assert {name for name in lacking if not OF_TORCH.fullmatch(name)} == set()


def test_the_lock_is_what_the_constraints_say() -> None:
    said = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    versions = {n: re.split(r"==|[\s;]", block)[1] for n, block in locked().items()}
    versions[BY_VERSION] = said[BY_VERSION]
    assert versions == {canonicalize_name(n.split("[")[0]): v for n, v in said.items()}
