"""What the documents name is there: files, commands, options, make targets, identifiers."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from privagg.cli.app import app
from privagg.config.schema import parse_config

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "tests" / "vectors" / "README.md",
        *(ROOT / "examples").glob("*/README.md"),
        *(ROOT / "privagg").rglob("README.md"),
        *(ROOT / "proofs").glob("*.md"),
    ]
)
OF_OTHERS = {"util/rlwe.cpp", "python3-venv", "lifespan", "flwr build", "flwr run"}
"""Named by a document, and somebody else's: SEAL's, Debian's, Flower's."""

OPTIONS_OF_OTHERS = {"--run-config", "--stream", "--superlink"}
"""The same of options: Flower's."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PATH = re.compile(r"(?:\.\./)?[\w.-]+(?:/[\w.-]+)*/?")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")

each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
"""Runs a test on every document by itself."""


def spans(path: Path) -> list[str]:
    """The inline code of a document, fenced blocks left out."""
    return sorted(set(_SPAN.findall(_FENCE.sub("", path.read_text()))) - OF_OTHERS)


def blocks(path: Path, language: str) -> list[str]:
    """A document's fenced blocks in one language."""
    return [text for kind, text in _FENCE.findall(path.read_text()) if kind == language]


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    found = [name for name in listed if name]
    return tuple(found or [str(p.relative_to(ROOT)) for p in ROOT.glob("*/**/*") if p.is_file()])


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word in what is run or read by it; documents left out."""
    kinds = (".py", ".toml", ".j2", ".json", "Makefile")
    names = [name for name in tracked() if name.endswith(kinds)]
    me = str(Path(__file__).relative_to(ROOT))
    return frozenset(
        word
        for name in names
        if name != me and (ROOT / name).is_file()
        for word in re.findall(r"\w+", (ROOT / name).read_text())
    )


def is_there(name: str, document: Path) -> bool:
    """Whether a path is named from the root, the document, the package, or by its end."""
    homes = (ROOT, document.parent, ROOT / "privagg")
    if any((home / name).exists() for home in homes):
        return True
    return any(file.endswith("/" + name) for file in tracked())


@each_document
def test_the_files_it_names_are_there(path: Path) -> None:
    folders = {name.split("/")[0] for name in tracked() if "/" in name}
    named = [
        span
        for span in spans(path)
        if _PATH.fullmatch(span)
        and (span.endswith((".py", ".md")) or ("/" in span and span.split("/")[0] in folders))
    ]
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [name for name in (*named, *links) if not is_there(name, path)] == []


@each_document
def test_the_names_in_it_are_in_the_code(path: Path) -> None:
    known = words_of_the_code() | {Path(name).stem for name in tracked()}
    named = {
        span: re.findall(r"\w+", span)
        for span in spans(path)
        if _NAME.fullmatch(span) and not is_there(span, path)
    }
    assert [span for span, words in named.items() if not known.issuperset(words)] == []


# --- commands -------------------------------------------------------------------------------------


def lines(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, as words; comments and continuations are resolved."""
    for line in text.replace("\\\n", " ").split("\n"):
        words = shlex.split(line, comments=True)
        if words:
            yield words


def commands(path: Path) -> list[list[str]]:
    """Every command that a document shows, in a block or in a line of text."""
    shown = [words for text in blocks(path, "sh") for words in lines(text)]
    return shown + [words for span in spans(path) if " " in span for words in lines(span)]


@cache
def verbs() -> click.Command:
    """The command line, as click sees it."""
    return get_command(app)


def options_of(command: click.Command) -> set[str]:
    """The names of one verb's options."""
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)}


def all_options(command: click.Command) -> set[str]:
    """The names of the options of a verb and of the verbs under it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return options_of(command).union(*(all_options(each) for each in below))


def unknown_words(words: list[str]) -> list[str]:
    """What of `privagg …` is no verb or option of it."""
    at, known, wrong = verbs(), {"--help", *options_of(verbs())}, []
    for word in words[1:]:
        if isinstance(at, click.Group) and not word.startswith("-"):
            if word not in at.commands:
                return [word]
            at = at.commands[word]
            known |= options_of(at)
        elif word.startswith("--") and word.partition("=")[0] not in known:
            wrong.append(word)
    return wrong


@each_document
def test_the_commands_in_it_can_be_given(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    wrong = []
    for words in commands(path):
        if words[0] == "privagg":
            wrong += [(words, word) for word in unknown_words(words)]
        elif words[0] == "make":
            wrong += [
                (words, word) for word in words[1:] if word not in targets and "=" not in word
            ]
        elif words[:2] == ["python", "-m"] and words[2].startswith(("privagg", "tests", "proofs")):
            spec = importlib.util.find_spec(words[2])
            source = Path(spec.origin).read_text() if spec and spec.origin else ""
            options = [word for word in words[3:] if word.startswith("--")]
            wrong += [(words, word) for word in options if f'"{word}"' not in source]
            wrong += [] if spec else [(words, words[2])]
    assert wrong == []


@each_document
def test_the_options_in_it_are_somebodys(path: Path) -> None:
    named = {word for span in spans(path) for word in re.findall(r"(?<![\w-])--[a-z-]+", span)}
    scripts = [name for name in tracked() if re.match(r"tests/(benchmarks|vectors)/\w+\.py", name)]
    sources = "".join((ROOT / name).read_text() for name in scripts)
    known = {"--help"} | all_options(verbs()) | OPTIONS_OF_OTHERS
    known |= set(re.findall(r'"(--[a-z-]+)"', sources))
    assert named - known == set()


# --- the readme's configuration -------------------------------------------------------------------


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`one` with the tables of `other` put into it."""
    result = dict(one)
    for name, value in other.items():
        held = result.get(name)
        both = isinstance(value, dict) and isinstance(held, dict)
        result[name] = merged(held, value) if both else value
    return result


def test_the_readmes_configuration_is_one() -> None:
    whole, *fragments = map(tomllib.loads, blocks(ROOT / "README.md", "toml"))
    assert parse_config(whole).sites[0].name == "north"
    assert fragments
    for fragment in fragments:
        parse_config(merged(whole, fragment))
