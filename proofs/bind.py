"""Hold every proof to the code it speaks about: `python -m proofs.bind`.

A document lists in fenced blocks, opened by three backticks and `proof-binding`, the functions,
classes or constants that its argument reads, each with a hash, and the tests that exercise it:

    privagg.encoding.grid:Grid.clamp sha256:<64 hexadecimal digits>
    test: tests/encoding/test_grid.py::test_name

The hash is over the syntax tree, without docstrings, comments and layout, so it moves when the
meaning may have moved and only then, whatever the Python version. Without arguments the command
checks and exits with 1 on drift. `--write` puts the present hashes in: run it after re-reading the
argument against the changed code, never before. Nothing is imported, so no optional dependency is
needed.
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

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(r"^```proof-binding\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^([\w.]+):([\w.]+) sha256:([0-9a-f]{64}|\?|<[^>]*>)$")
_TEST = re.compile(r"^test: ([\w./-]+\.py)::([\w:]+)$")
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


def documents(root: Path = ROOT) -> list[Path]:
    """All proofs, in order; the README is none."""
    return sorted(p for p in (root / "proofs").glob("*.md") if p.name != "README.md")


def bindings(text: str) -> Iterator[CodeBinding | TestBinding]:
    """What a document is bound to.

    Raises:
        BindingError: a line in a binding block is neither code nor test.
    """
    for block in _BLOCK.finditer(text):
        for line in filter(None, map(str.strip, block.group(1).splitlines())):
            if code := _CODE.match(line):
                yield CodeBinding(*code.groups())
            elif test := _TEST.match(line):
                yield TestBinding(*test.groups())
            else:
                raise BindingError(
                    f"{line!r} is neither `module:name sha256:<hash>` nor `test: file.py::name`"
                )


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
    for binding in bound:
        if isinstance(binding, TestBinding):
            if not has_test(binding.path, binding.name, root):
                found.append(f"names the test {binding.path}::{binding.name}, which is not there")
            continue
        try:
            present = digest(binding.module, binding.name, root)
        except BindingError as error:
            found.append(str(error))
            continue
        if present != binding.digest:
            found.append(
                f"{binding.module}:{binding.name} has changed; re-read the argument against it, "
                "then run python -m proofs.bind --write"
            )
    return found


def rewritten(document: Path, root: Path = ROOT) -> str:
    """The document's text with the present hashes.

    Raises:
        BindingError: a binding cannot be read or resolved.
    """

    def line(text: str) -> str:
        code = _CODE.match(text.strip())
        if code is None:
            return text
        module, name, _ = code.groups()
        return f"{module}:{name} sha256:{digest(module, name, root)}"

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
    status = 0
    for document in documents(root):
        if options.only and document.name not in options.only:
            continue
        if options.write:
            try:
                document.write_text(rewritten(document, root), encoding="utf-8")
            except BindingError as error:
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
