"""The room's page maps the protocol to what is there: a rename here breaks it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from privagg.protocol.messages import KINDS

PACKAGE = Path(__file__).resolve().parents[2] / "privagg"
ROOM = PACKAGE / "protocol"
PAGE = (ROOM / "README.md").read_text()
BLOCKS = "".join(re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
CODE = "\n".join([BLOCKS, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PAGE)])
CLASS = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b")


@cache
def members() -> dict[str, frozenset[str]]:
    """Class -> its methods; under "" every function, of the package."""
    found: dict[str, frozenset[str]] = {}
    functions: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = (n.name for n in node.body if isinstance(n, ast.FunctionDef))
                found[node.name] = found.get(node.name, frozenset()) | frozenset(methods)
            elif isinstance(node, ast.FunctionDef):
                functions.add(node.name)
    return {**found, "": frozenset(functions)}


def test_every_message_stands_in_its_table_and_no_other() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.count("|") == 5]
    named = set(re.findall(r"`(\w+)`", "".join(rows)))
    assert named == {header.__name__ for header in KINDS.values()}


@pytest.mark.parametrize("name", sorted(set(CLASS.findall(CODE))))
def test_a_class_that_it_names_is_there(name: str) -> None:
    assert name in members()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b[A-Z]\w+\.[a-z]\w+", CODE))))
def test_a_method_is_one_of_its_class(name: str) -> None:
    owner, method = name.split(".")
    assert method in members()[owner]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b([a-z]\w+)\(", BLOCKS))))
def test_what_its_round_calls_is_there(name: str) -> None:
    assert name in members()[""]


def test_every_file_of_the_room_is_named() -> None:
    files = {path.name for path in ROOM.glob("*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"`(\w+\.py)`", PAGE))
