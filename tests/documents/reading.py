"""What a document says, in reading order and by line: blocks of code, commands, inline code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("privagg", "python", "make", "flwr", "pip")
"""An indented block or inline code that begins with one of these is a command."""


@dataclass(frozen=True)
class Place:
    """Where something stands.

    Args:
        document: its path below the repository's root.
        heading: the heading of the second level that it stands under; empty before the first.
        line: counted from 1.
    """

    document: str
    heading: str
    line: int

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        place: of its first line.
        language: what its fence names; empty for an indented one.
        text: what is in it.
    """

    place: Place
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command line.

    Args:
        place: of its first line.
        words: what a shell makes of it, its comment left out.
    """

    place: Place
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words with one blank between them."""
        return " ".join(self.words)

    def __str__(self) -> str:
        return f"{self.place}: `{self.text}`"


@dataclass(frozen=True)
class Document:
    """A document as it is read.

    Args:
        blocks: of code.
        spans: inline code.
    """

    blocks: tuple[Block, ...]
    spans: tuple[Block, ...]

    def commands(self) -> list[Command]:
        """The commands in its blocks, in reading order."""
        return [command for block in self.blocks for command in commands_of(block)]

    def inline_commands(self) -> list[Command]:
        """The commands, whole or in part, that its sentences name."""
        found = (
            span for span in self.spans if span.text.startswith(tuple(f"{p} " for p in PROGRAMS))
        )
        return [Command(span.place, tuple(shlex.split(span.text))) for span in found]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block, where it is one for a shell; continued lines are one command."""
    if block.language != "sh" and (block.language or not block.text.startswith(PROGRAMS)):
        return
    begun, line = "", block.place.line
    for number, text in enumerate(block.text.splitlines(), start=block.place.line):
        line = line if begun else number
        begun += text.removesuffix("\\")
        if not text.endswith("\\"):
            words = tuple(shlex.split(begun, comments=True))
            if words:
                yield Command(Place(block.place.document, block.place.heading, line), words)
            begun = ""


@cache
def read(path: Path) -> Document:
    """Read one document."""
    name = str(path.relative_to(ROOT))
    blocks, spans, heading = [], [], ""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline" and before is not None and before.tag == "h2":
            heading = token.content
        if token.map is None:
            continue
        first = Place(name, heading, token.map[0] + 1)
        if token.type == "fence":
            inside = Place(name, heading, first.line + 1)
            blocks.append(Block(inside, token.info.strip(), token.content))
        elif token.type == "code_block":
            blocks.append(Block(first, "", token.content))
        elif token.type == "inline":
            spans += [Block(Place(name, heading, line), "", text) for text, line in _code(token)]
    return Document(tuple(blocks), tuple(spans))


def _code(paragraph: Token) -> Iterator[tuple[str, int]]:
    """The inline code of a paragraph, each with the line of the document that it begins on."""
    assert paragraph.map is not None
    line = paragraph.map[0] + 1
    for child in paragraph.children or ():
        if child.type == "code_inline":
            yield re.sub(r"\s+", " ", child.content), line
        if child.type in ("softbreak", "hardbreak"):
            line += 1
