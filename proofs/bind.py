"""Hold every proof to the code it speaks about: `python -m proofs.bind`.

A document lists in fenced blocks, opened by three backticks and `proof-binding`, the functions,
classes or constants that its argument reads, each with a hash, and the tests that exercise it:

    privagg.encoding.grid:Grid.clamp sha256:<64 hexadecimal digits>
    test: tests/encoding/test_grid.py::test_name
    theorem: Sensitivity.clamp_keeps_to_its_bound sha256:<64 hexadecimal digits>
    vectors: clamps sha256:<64 hexadecimal digits>

The hash is over the syntax tree, without docstrings, comments and layout, so it moves when the
meaning may have moved and only then, whatever the Python version. A theorem's is over what it
claims (`proofs/theorems.py`); vectors are answers of privagg's functions that its definitions are
held against (`proofs/answers.py`). A theorem stands beside a function that its file models, vectors
stand beside every function that answered. Without arguments the command checks and exits with 1
on drift. `--write` puts the present hashes in: run it after re-reading the argument against the
changed code, never before. Nothing of privagg is imported and no Rocq is run, so nothing optional
is needed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proofs import answers
from proofs.theorems import TheoryError, theories, theory
from proofs.theorems import digest as digest_of_theorem

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(r"^```proof-binding\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^([\w.]+):([\w.]+) sha256:([0-9a-f]{64}|\?|<[^>]*>)$")
_TEST = re.compile(r"^test: ([\w./-]+\.py)::([\w:]+)$")
_THEOREM = re.compile(r"^theorem: (\w+)\.(\w+) sha256:([0-9a-f]{64}|\?|<[^>]*>)$")
_VECTORS = re.compile(r"^vectors: (\w+) sha256:([0-9a-f]{64}|\?|<[^>]*>)$")
_WITHOUT_MEANING = frozenset({"ctx", "kind", "type_comment"})


class BindingError(ValueError):
    """A binding that cannot be read or resolved."""


@dataclass(frozen=True)
class CodeBinding:
    """A piece of code as a proof knew it.

    Args:
        module: dotted name of the module.
        name: dotted name within it.
        digest: SHA-256 (hex) of its normalised syntax tree; at first a placeholder, `?` or `<...>`.
    """

    module: str
    name: str
    digest: str


@dataclass(frozen=True)
class TestBinding:
    """A test that a proof relies on.

    Args:
        path: the test file, from the root.
        name: the test's name, with its class before `::` where it has one.
    """

    __test__ = False  # not one for pytest to collect
    path: str
    name: str


@dataclass(frozen=True)
class TheoremBinding:
    """A theorem as a proof knew it.

    Args:
        theory: its file in `proofs/rocq`, without `.v`.
        name: of the theorem.
        digest: SHA-256 (hex) of what it claims; at first a placeholder.
    """

    theory: str
    name: str
    digest: str


@dataclass(frozen=True)
class VectorsBinding:
    """Answers of privagg's functions as a proof knew them.

    Args:
        family: their name in `proofs/rocq/answers.json`.
        digest: SHA-256 (hex) of them; at first a placeholder.
    """

    family: str
    digest: str


Binding = CodeBinding | TestBinding | TheoremBinding | VectorsBinding


def documents(root: Path = ROOT) -> list[Path]:
    """All proofs, in order; the README is none."""
    return sorted(p for p in (root / "proofs").glob("*.md") if p.name != "README.md")


def bindings(text: str) -> Iterator[Binding]:
    """What a document is bound to.

    Raises:
        BindingError: a line in a binding block is of no kind.
    """
    kinds = (
        (_CODE, CodeBinding),
        (_TEST, TestBinding),
        (_THEOREM, TheoremBinding),
        (_VECTORS, VectorsBinding),
    )
    for block in _BLOCK.finditer(text):
        for line in filter(None, map(str.strip, block.group(1).splitlines())):
            found = ((pattern.match(line), kind) for pattern, kind in kinds)
            match, kind = next(((m, k) for m, k in found if m), (None, None))
            if match is None or kind is None:
                raise BindingError(
                    f"{line!r} is neither `module:name sha256:<hash>`, `test: file.py::name`, "
                    "`theorem: File.name sha256:<hash>` nor `vectors: name sha256:<hash>`"
                )
            yield kind(*match.groups())


def digest(module: str, name: str, root: Path = ROOT) -> str:
    """SHA-256 (hex) of the normalised syntax tree of `name` in `module`.

    Raises:
        BindingError: there is no such module or name.
    """
    base = root.joinpath(*module.split("."))
    source = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)
    if source is None:
        raise BindingError(f"no module {module}")
    node: ast.AST = ast.parse(source.read_text(encoding="utf-8"))
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if part in _names(child)]
        if not found:
            raise BindingError(f"no {name} in {module}")
        node = found[-1]
    return hashlib.sha256(_normalised(node).encode()).hexdigest()


def _names(node: ast.AST) -> list[str]:
    """The names that a statement binds in its body."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _normalised(node: object) -> str:
    """A syntax tree as text without docstrings, positions and empty fields.

    `ast.unparse` and `ast.dump` write the same tree differently in different Python versions.
    """
    if isinstance(node, list):
        return "[" + ",".join(_normalised(x) for x in node if not _is_bare_text(x)) + "]"
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if isinstance(node, ast.AST):
        fields = (
            f"{field}={_normalised(value)}"
            for field, value in ast.iter_fields(node)
            if field not in _WITHOUT_MEANING and value is not None and value != []
        )
        return f"{type(node).__name__}({','.join(fields)})"
    return repr(node)


def _is_bare_text(node: object) -> bool:
    """A string that stands as a statement: a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def has_test(path: str, name: str, root: Path = ROOT) -> bool:
    """Whether the test file exists and defines the test."""
    file = root / path
    if not file.exists():
        return False
    node: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    for part in name.split("::"):
        found = [child for child in ast.iter_child_nodes(node) if part in _names(child)]
        if not found:
            return False
        node = found[-1]
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def problems(document: Path, root: Path = ROOT) -> list[str]:
    """Everything that keeps a document from speaking about the present code."""
    text = document.read_text(encoding="utf-8")
    try:
        bound = list(bindings(text))
    except BindingError as error:
        return [str(error)]
    found = []
    for kind, what in ((CodeBinding, "code"), (TestBinding, "test")):
        if not any(isinstance(binding, kind) for binding in bound):
            found.append(f"is bound to no {what}")
    code = [binding for binding in bound if isinstance(binding, CodeBinding)]
    for binding in bound:
        if isinstance(binding, TestBinding):
            if not has_test(binding.path, binding.name, root):
                found.append(f"names the test {binding.path}::{binding.name}, which is not there")
            continue
        try:
            if _present(binding, root) != binding.digest:
                found.append(_stale(binding))
            found += _alone(binding, code, root)
        except (BindingError, TheoryError) as error:
            found.append(str(error))
    return found


def _present(binding: CodeBinding | TheoremBinding | VectorsBinding, root: Path) -> str:
    """The present hash of what a line names."""
    if isinstance(binding, CodeBinding):
        return digest(binding.module, binding.name, root)
    if isinstance(binding, TheoremBinding):
        return digest_of_theorem(binding.theory, binding.name, root)
    return _family(binding.family, root).digest


def _family(name: str, root: Path) -> answers.Family:
    families = answers.read(root)
    if name not in families:
        raise BindingError(f"no vectors {name} in {answers.JSON_FILE}")
    return families[name]


def _stale(binding: CodeBinding | TheoremBinding | VectorsBinding) -> str:
    then = "then run python -m proofs.bind --write"
    if isinstance(binding, CodeBinding):
        return (
            f"{binding.module}:{binding.name} has changed; re-read the argument against it, {then}"
        )
    if isinstance(binding, TheoremBinding):
        return f"what {binding.theory}.{binding.name} claims has changed; re-read it, {then}"
    return f"the vectors {binding.family} have changed; see why, {then}"


def _alone(
    binding: CodeBinding | TheoremBinding | VectorsBinding, code: list[CodeBinding], root: Path
) -> list[str]:
    """A theorem without a function that its file models, vectors without one that answered."""
    if isinstance(binding, TheoremBinding):
        models = theory(binding.theory, root).models
        if not any(_covers(line, *model) for line in code for model in models):
            return [f"has {binding.theory}.{binding.name}, but no function that the file models"]
    if isinstance(binding, VectorsBinding):
        named = (function.split(":") for function in _family(binding.family, root).functions)
        return [
            f"has vectors {binding.family}, but not {module}:{name} that answered"
            for module, name in named
            if not any(_covers(line, module, name) for line in code)
        ]
    return []


def _covers(line: CodeBinding, module: str, name: str) -> bool:
    """Whether a line binds this, what it is part of, or a part of it."""
    same = line.name == name
    within = line.name.startswith(f"{name}.") or name.startswith(f"{line.name}.")
    return line.module == module and (same or within)


def theory_problems(root: Path = ROOT) -> list[str]:
    """What is wrong with the files of theorems themselves, whoever names them."""
    try:
        files = theories(root)
    except TheoryError as error:
        return [str(error)]
    found = [f"{each.name}.v says {', '.join(each.refused)}" for each in files if each.refused]
    for each in files:
        for module, name in each.models:
            try:
                digest(module, name, root)
            except BindingError as error:
                found.append(f"{each.name}.v models what is not there: {error}")
    return found + answers.problems(root)


def rewritten(document: Path, root: Path = ROOT) -> str:
    """The document's text with the present hashes.

    Raises:
        BindingError, TheoryError: a binding cannot be read or resolved.
    """

    def line(text: str) -> str:
        for binding in bindings(f"```proof-binding\n{text}\n```"):
            if not isinstance(binding, TestBinding):
                return f"{text.strip().rpartition(':')[0]}:{_present(binding, root)}"
        return text

    def block(match: re.Match[str]) -> str:
        body = "\n".join(line(text) for text in match.group(1).splitlines())
        return f"```proof-binding\n{body}\n```"

    text = document.read_text(encoding="utf-8")
    list(bindings(text))
    return _BLOCK.sub(block, text)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Check all documents, or with `--write` take the present hashes over. Exit status."""
    parser = argparse.ArgumentParser(prog="python -m proofs.bind", description=__doc__)
    parser.add_argument("--write", action="store_true", help="take the present hashes over")
    parser.add_argument("only", nargs="*", help="file names of documents; all by default")
    options = parser.parse_args(arguments)
    wrong = theory_problems(root)
    for problem in wrong:
        print(f"proofs/rocq: {problem}", file=sys.stderr)
    status = int(bool(wrong))
    for document in documents(root):
        if options.only and document.name not in options.only:
            continue
        if options.write:
            try:
                document.write_text(rewritten(document, root), encoding="utf-8")
            except (BindingError, TheoryError) as error:
                print(f"proofs/{document.name}: {error}", file=sys.stderr)
                status = 1
                continue
        found = problems(document, root)
        for problem in found:
            print(f"proofs/{document.name}: {problem}", file=sys.stderr)
        status = 1 if found else status
    return status


if __name__ == "__main__":
    sys.exit(main())
