"""What the files of `proofs/rocq` state, read as text: no Rocq is needed for that.

A theorem's hash is over its statement and over every definition, variable, hypothesis and notation
of its file and of the project's files that it imports. Proofs, comments, layout and the other
theorems do not count, so the hash moves when what is claimed may have moved. Whether the proofs
hold is for Rocq to say: `python -m proofs.check`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = "proofs/rocq"

_THEOREM = re.compile(r"^(?:Theorem|Lemma|Corollary|Fact|Remark|Proposition)\s+(\w+)")
_IMPORT = re.compile(r"^From Privagg Require (?:Import|Export)\s+([\w\s]+)$")
_END = re.compile(r"(?:^|[\s{}])(?:Qed|Defined|Admitted|Abort)$")
_MODELS = re.compile(r"^\s+(privagg[\w.]*):([\w.]+)", re.MULTILINE)
_REFUSED = re.compile(
    r"\b(Admitted|Abort|admit|give_up|Axioms?|Conjectures?|Parameters?|bypass_check|Declare\s+ML"
    r"|Unset\s+\w+\s+Checking)\b"
)


class TheoryError(ValueError):
    """A file or theorem that is not there, or that cannot be read."""


@dataclass(frozen=True)
class Theory:
    """One file.

    Args:
        name: without `.v`.
        text: all of it.
    """

    name: str
    text: str

    @cached_property
    def models(self) -> tuple[tuple[str, str], ...]:
        """The functions that it speaks about, as module and name, from what stands on top."""
        return tuple(_MODELS.findall(self.text.partition("\nFrom ")[0]))

    @cached_property
    def sentences(self) -> list[str]:
        """Every sentence but proofs and comments, blanks made one."""
        kept: list[str] = []
        proving = False
        for raw in re.split(r"\.(?=\s|$)", without_comments(self.text)):
            sentence = " ".join(raw.split())
            if proving:
                proving = _END.search(sentence) is None
            elif sentence.startswith("Proof"):
                proving = True
            elif sentence:
                kept.append(sentence)
        return kept

    @cached_property
    def theorems(self) -> dict[str, str]:
        """Name -> statement, lemmas included."""
        found = ((_THEOREM.match(sentence), sentence) for sentence in self.sentences)
        return {match.group(1): sentence for match, sentence in found if match}

    @cached_property
    def definitions(self) -> list[str]:
        """What theorems may depend on: every sentence that states none."""
        return [sentence for sentence in self.sentences if not _THEOREM.match(sentence)]

    @cached_property
    def imports(self) -> list[str]:
        """Names of the project's files that it imports, in order."""
        found = (_IMPORT.match(sentence) for sentence in self.sentences)
        return [name for match in found if match for name in match.group(1).split()]

    @cached_property
    def refused(self) -> list[str]:
        """Words by which something would be taken for granted."""
        return sorted(set(_REFUSED.findall(without_comments(self.text))))


def without_comments(text: str) -> str:
    """The text with a blank in the place of every comment; comments may be nested."""
    out, depth, place = [], 0, 0
    for mark in re.finditer(r"\(\*|\*\)", text):
        if depth == 0:
            out.append(text[place : mark.start()] + " ")
        depth = depth + 1 if mark.group() == "(*" else max(0, depth - 1)
        place = mark.end()
    return "".join(out) + (text[place:] if depth == 0 else "")


def theory(name: str, root: Path) -> Theory:
    """The file called `name`.

    Raises:
        TheoryError: there is none.
    """
    path = root / FOLDER / f"{name}.v"
    if not path.exists():
        raise TheoryError(f"no {FOLDER}/{name}.v")
    return Theory(name, path.read_text(encoding="utf-8"))


def theories(root: Path) -> list[Theory]:
    """All files, each after those that it imports.

    Raises:
        TheoryError: an import that is not there, or a circle of them.
    """
    ordered: dict[str, Theory] = {}
    for path in sorted((root / FOLDER).glob("*.v")):
        for found in with_imports(path.stem, root):
            ordered.setdefault(found.name, found)
    return list(ordered.values())


def with_imports(name: str, root: Path, importing: tuple[str, ...] = ()) -> list[Theory]:
    """A file after all that it imports.

    Raises:
        TheoryError: an import that is not there, or a circle of them.
    """
    if name in importing:
        raise TheoryError(f"{name}.v imports itself, by way of {', '.join(importing)}")
    own, found = theory(name, root), {}
    for imported in own.imports:
        for each in with_imports(imported, root, (*importing, name)):
            found[each.name] = each
    return [*found.values(), own]


def digest(name: str, theorem: str, root: Path) -> str:
    """SHA-256 (hex) of what a theorem claims.

    Raises:
        TheoryError: no such file or theorem.
    """
    files = with_imports(name, root)
    if theorem not in files[-1].theorems:
        raise TheoryError(f"no theorem {theorem} in {FOLDER}/{name}.v")
    claimed = [[each.name, *each.definitions] for each in files]
    claimed[-1].append(files[-1].theorems[theorem])
    return hashlib.sha256("\0".join(map("\n".join, claimed)).encode()).hexdigest()
