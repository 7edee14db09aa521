"""The language in which people are told: English as it stands in the code, others by a file each.

`languages/NAME.toml` pairs every English sentence with its translation; both name the same places,
which figures, names and noun phrases fill. A further language is a further file. What another room
or an earlier version stated in English, `told` recognises by its sentence. `report.json` and errors
are English always.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from privagg.errors import ConfigError

ENGLISH = "en"
FOLDER = Path(__file__).with_name("languages")

LONGEST_TOLD = 8000
"""Characters of a text that is looked up as a whole; longer ones are no sentence of privagg's."""

_PLACE = re.compile(r"\{(\w+)\}")
_COUNT = re.compile(r"[\d.,\u00a0 ]+")


@dataclass(frozen=True)
class Language:
    """One language's sentences.

    Attributes:
        name: what `--language` takes; the file's.
        title: what its speakers call it.
        tag: for a page's `lang` (BCP 47).
        serif: families for its script on paper, best first; empty where the usual ones have it.
        sans: likewise, without serifs.
        install: which of these fonts to get, and how.
        sentences: English sentence -> its translation, with the same places.
        joints: those of them that only join parts, and are never looked for in a text.
    """

    name: str
    title: str
    tag: str
    serif: tuple[str, ...]
    sans: tuple[str, ...]
    install: str
    sentences: Mapping[str, str]
    joints: frozenset[str]

    @cached_property
    def patterns(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """Sentences with places: (literal, place, literal ...), translation; the longest first."""
        found = [
            (_PLACE.split(english), to)
            for english, to in self.sentences.items()
            if english not in self.joints
        ]
        found.sort(key=lambda pair: -sum(map(len, pair[0][::2])))
        return tuple((tuple(parts), to) for parts, to in found if len(parts) > 1)


_ENGLISH = Language(ENGLISH, "English", ENGLISH, (), (), "", {}, frozenset())
_spoken: ContextVar[Language] = ContextVar("language", default=_ENGLISH)


def languages() -> tuple[str, ...]:
    """Every name that `--language` takes, English first."""
    return (ENGLISH, *sorted(file.stem for file in FOLDER.glob("*.toml")))


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Within, `say` and `told` give this language.

    Args:
        name: one of `languages()`.

    Raises:
        ConfigError: there is no such language.
    """
    token = _spoken.set(language(name))
    try:
        yield
    finally:
        _spoken.reset(token)


def language(name: str) -> Language:
    """The language of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in languages():
        raise ConfigError(f"no language {name[:40]!r}; there are: {', '.join(languages())}")
    return _ENGLISH if name == ENGLISH else _read(FOLDER / f"{name}.toml")


def spoken() -> Language:
    """The language that is spoken now."""
    return _spoken.get()


def say(english: str, **places: object) -> str:
    """A sentence in the language that is spoken, its places filled; English where it has none.

    Args:
        english: the sentence, never another party's text: its braces are places.
        places: what fills them.
    """
    return unfilled(english).format(**places)


def unfilled(english: str) -> str:
    """A sentence in the language that is spoken, its places as they stand."""
    return spoken().sentences.get(english, english)


def told(english: str) -> str:
    """What was stated in English, line by line; a line that is no known sentence stays as it is.

    A place `said` holds a sentence, which is told in turn; a place `n` holds a number.
    """
    if not spoken().sentences:
        return english
    return "\n".join(map(_told, english.split("\n")))


def _told(line: str) -> str:
    if line in spoken().sentences and line not in spoken().joints:
        return spoken().sentences[line]
    for parts, to in spoken().patterns if len(line) <= LONGEST_TOLD else ():
        places = _matched(parts, line)
        if places is not None:
            return to.format(**{
                name: _told(held) if name.startswith("said") else held
                for name, held in places.items()
            })  # fmt: skip
    return line


def _matched(parts: tuple[str, ...], text: str) -> dict[str, str] | None:
    """What fills a sentence's places, each as short as can be: no search, so none that is long."""
    first, last = parts[0], parts[-1]
    if len(text) <= len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return None
    places: dict[str, str] = {}
    start, end = len(first), len(text) - len(last)
    for place in range(1, len(parts), 2):
        name, literal = parts[place], parts[place + 1]
        stop = end if place + 2 == len(parts) else text.find(literal, start + 1, end)
        held = text[start:stop] if stop > start else ""
        if not held or places.setdefault(name, held) != held:
            return None
        if re.fullmatch(r"n\d*", name) and not _COUNT.fullmatch(held):
            return None
        start = stop + len(literal)
    return places


@cache
def _read(file: Path) -> Language:
    tables = tomllib.loads(file.read_text("utf-8"))
    about = tables.pop("language")
    return Language(
        name=file.stem,
        title=about["title"],
        tag=about["tag"],
        serif=tuple(about["serif"]),
        sans=tuple(about["sans"]),
        install=about["install"],
        sentences={en: to for table in tables.values() for en, to in table.items()},
        joints=frozenset(tables["punctuation"]),
    )
