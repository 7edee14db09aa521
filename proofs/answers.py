"""Answers of privagg's functions that theorems are held against, as JSON and as a Rocq file.

`proofs/rocq/answers.json` holds, for each family, the functions that answered, the Rocq type of a
case and the cases: integers and lists of them. `Answers.v` says the same in Rocq, and `Check.v`
compares with what the theorems' definitions say. `python -m proofs.vectors` writes both files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofs.theorems import FOLDER

JSON_FILE = f"{FOLDER}/answers.json"
ROCQ_FILE = f"{FOLDER}/Answers.v"

_HEAD = """\
(* What privagg's functions answered; written by `python -m proofs.vectors`, checked by Check.v.

   Models: nothing of its own. *)
From Coq Require Import ZArith List.
Import ListNotations.
Open Scope Z_scope.
"""


@dataclass(frozen=True)
class Family:
    """Answers of one kind.

    Args:
        functions: that gave them, each `module:name`.
        type: of a case, in Rocq.
        cases: each a list of integers and of lists of them, in the order of the type.
    """

    functions: list[str]
    type: str
    cases: list[list[Any]]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON."""
        text = json.dumps(vars(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read(root: Path) -> dict[str, Family]:
    """Name -> family; none where there is no file."""
    path = root / JSON_FILE
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: Family(**family) for name, family in found.items()}


def to_json(families: dict[str, Family]) -> str:
    """One line a case."""
    parts = []
    for name, family in families.items():
        cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in family.cases)
        parts.append(
            f'"{name}": {{"functions": {json.dumps(family.functions)},\n"type": '
            f'{json.dumps(family.type)}, "cases": [\n{cases}]}}'
        )
    return "{" + ",\n".join(parts) + "}\n"


def to_rocq(families: dict[str, Family]) -> str:
    """The same as a Rocq file."""
    out = [_HEAD]
    for name, family in families.items():
        cases = ";\n  ".join("(" + ", ".join(map(_term, case)) + ")" for case in family.cases)
        out.append(f"Definition {name} : list ({family.type}) := [\n  {cases}].\n")
    return "\n".join(out)


def problems(root: Path) -> list[str]:
    """Where the Rocq file does not say what the JSON says."""
    families, path = read(root), root / ROCQ_FILE
    if not families and not path.exists():
        return []
    if not path.exists() or path.read_text(encoding="utf-8") != to_rocq(families):
        return [f"{ROCQ_FILE} is not what {JSON_FILE} says; run python -m proofs.vectors"]
    return []


def _term(value: Any) -> str:
    if isinstance(value, list):
        return "[" + "; ".join(map(_term, value)) + "]"
    return f"({value})" if value < 0 else str(value)
