"""What the documents name is there: files, commands, options, make targets, identifiers."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from privagg.cli.app import app
from privagg.config.schema import parse_config
from tests.documents.reading import ROOT, Command, read

DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "README.zh-CN.md",
        ROOT / "SECURITY.md",
        ROOT / "examples" / "README.md",
        *(ROOT / "tests").glob("*/README.md"),
        *(ROOT / "examples").glob("*/README.md"),
        *(ROOT / "privagg").rglob("README.md"),
        *(ROOT / "proofs").glob("*.md"),
    ]
)
OF_OTHERS = {"util/rlwe.cpp", "python3-venv", "lifespan", "flwr build", "flwr run"}
"""Named by a document, and somebody else's: SEAL's, Debian's, Flower's."""

OPTIONS_OF_OTHERS = {"--run-config", "--stream", "--superlink"}
"""The same of options: Flower's."""

GONE = ("privagg ledger budget",)
"""Commands that the changelog says are gone."""

_PATH = re.compile(r"(?:\.\./)?[\w.-]+(?:/[\w.-]+)*/?")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")

each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
"""Runs a test on every document by itself."""


def spans(path: Path) -> list[str]:
    """The inline code of a document, blocks left out."""
    return sorted({span.text for span in read(path).spans} - OF_OTHERS)


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
    kinds = (".py", ".toml", ".j2", ".json", ".v", ".ml", "Makefile")
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


def commands(path: Path) -> list[Command]:
    """Every command that a document shows, in a block or in a line of text."""
    document = read(path)
    return document.commands() + document.inline_commands()


@cache
def verbs() -> click.Command:
    """The command line, as click sees it."""
    return get_command(app)


def options_of(command: click.Command) -> set[str]:
    """The names of the options of a verb and of the verbs under it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return own.union(*(options_of(each) for each in below))


def misread(words: Sequence[str]) -> str:
    """What the command line says of `privagg …` before it does anything; nothing where it goes on.

    A sentence may name a verb or an option without its arguments; words in capitals stand for some.
    """
    at, context, rest = verbs(), click.Context(verbs(), info_name="privagg"), list(words[1:])
    try:
        while isinstance(at, click.Group):
            if not rest or rest[0].startswith("-"):
                return ""
            name, found, rest = at.resolve_command(context, rest)
            assert found is not None
            at, context = found, click.Context(found, parent=context, info_name=name)
        options, arguments, _ = at.make_parser(context).parse_args(list(rest))
        if any(word.isupper() or "..." in word for word in rest):
            return ""
        for each in at.get_params(context):
            value = options.get(each.name)
            if each.name not in ("help", None) and isinstance(value, str | list):
                each.type_cast_value(context, value)
        return f"too many words: {arguments}" if arguments else ""
    except click.BadOptionUsage as error:
        return "" if error.option_name == words[-1] else error.format_message()
    except click.UsageError as error:
        return error.format_message()


def faults_of(command: Command, targets: set[str]) -> list[str]:
    """Why a command cannot be given; nothing where it can."""
    words = command.words
    if words[0] == "privagg":
        typed = words[: words.index(">")] if ">" in words else words
        return [said] if (said := misread(typed)) else []
    if words[0] == "make":
        return [word for word in words[1:] if word not in targets and "=" not in word]
    if words[:2] == ("python", "-m") and words[2].startswith(("privagg", "tests", "proofs")):
        spec = importlib.util.find_spec(words[2])
        source = Path(spec.origin).read_text() if spec and spec.origin else ""
        wrong = [w for w in words[3:] if w.startswith("--") and f'"{w}"' not in source]
        return wrong if spec else [words[2]]
    return []


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_commands_in_it_can_be_given(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    told = [command for command in commands(path) if command.text not in GONE]
    wrong = {str(command): faults_of(command, targets) for command in told}
    assert {command: said for command, said in wrong.items() if said} == {}


def test_a_command_that_cannot_be_given_is_found() -> None:
    assert all(misread(text.split()) for text in GONE)
    for text in ("run my.toml --fast", "lern my.toml", "deploy party", "check my.toml your.toml"):
        fine = text == "deploy party"
        assert (misread(("privagg", *text.split())) == "") is fine, text
    assert misread(("privagg", "approve", "my.toml", "--runs", "none"))
    assert misread(("privagg", "approve", "--runs", "N")) == ""


@each_document
def test_the_options_in_it_are_somebodys(path: Path) -> None:
    named = {word for span in spans(path) for word in re.findall(r"(?<![\w-])--[a-z-]+", span)}
    scripts = [name for name in tracked() if re.match(r"tests/(benchmarks|vectors)/\w+\.py", name)]
    sources = "".join((ROOT / name).read_text() for name in scripts)
    known = {"--help"} | options_of(verbs()) | OPTIONS_OF_OTHERS
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
    tables = [block.text for block in read(ROOT / "README.md").blocks if block.language == "toml"]
    whole, *fragments = map(tomllib.loads, tables)
    assert parse_config(whole).sites[0].name == "north"
    assert fragments
    for fragment in fragments:
        private = "private" in fragment.get("evaluation", {})  # in place of the public table
        parse_config(merged({**whole, "evaluation": {}} if private else whole, fragment))


def test_both_languages_of_the_readme_show_the_same_commands() -> None:
    """Block by block, comments left out; whoever changes one changes README.zh-CN.md with it."""

    def shown(name: str) -> list[tuple[str, list[str]]]:
        return [
            (
                block.language,
                [re.sub(r"(^|\s)\s*#.*", "", line) for line in block.text.splitlines()],
            )
            for block in read(ROOT / name).blocks
            if block.language != "mermaid"
        ]

    english, chinese = shown("README.md"), shown("README.zh-CN.md")
    assert chinese == english
    assert len(english) > 10
    assert "[中文](README.zh-CN.md)" in (ROOT / "README.md").read_text("utf-8")
    assert "[English](README.md)" in (ROOT / "README.zh-CN.md").read_text("utf-8")
