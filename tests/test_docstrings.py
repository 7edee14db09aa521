"""Every public function with three parameters or more says what each of them is.

Read from the source, so that nothing is imported. A parameter is documented by a line of an `Args:`
or `Attributes:` block that names it: in the function's docstring, for a constructor or a class of
fields in the class's own, for a method also in that of the method it overrides; where that is
another library's, the docstring begins with "See `Class.method`". A field may have its text right
below it, and a verb of the command line documents a parameter by its option's help.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MANY = 3
_BLOCK = re.compile(r"^(Args|Attributes):$")
_ELSEWHERE = re.compile(r"See `[A-Za-z]+\.[a-z_]+`")
_NAMES = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):(?: |$)")
Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A function, constructor or class of fields, and which of its parameters are documented."""

    where: str
    parameters: tuple[str, ...]
    explained: frozenset[str]

    @property
    def missing(self) -> list[str]:
        return [name for name in self.parameters if name not in self.explained]


def named_in(docstring: str | None) -> frozenset[str]:
    """The names that the `Args:` and `Attributes:` blocks of a docstring explain."""
    names: set[str] = set()
    inside = False
    for line in (docstring or "").splitlines():
        if line and not line.startswith(" "):
            inside = bool(_BLOCK.match(line))
        elif inside and (found := _NAMES.match(line)):
            names.update(name.strip(" *") for name in found.group(1).split(","))
    return frozenset(names)


def parameters_of(function: Definition) -> dict[str, ast.expr | None]:
    """Name -> annotation of every parameter but self and cls."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    unnamed = ("self", "cls", "_", "__")
    return {a.arg: a.annotation for a in every if a is not None and a.arg not in unnamed}


class House:
    """All public definitions of a package, as far as their docstrings go.

    Args:
        root: the folder that holds the package.
        package: its name.
    """

    def __init__(self, root: Path, package: str) -> None:
        self.trees = {
            ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
            for path in sorted((root / package).rglob("*.py"))
        }
        self._classes = {
            node.name: node
            for tree in self.trees.values()
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }
        # Annotated types of the command line that carry their help with them.
        self._helped = {
            target.id
            for name, tree in self.trees.items()
            if name.startswith(f"{package}.cli.")
            for node in tree.body
            if isinstance(node, ast.Assign) and "help=" in ast.unparse(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def definitions(self) -> Iterator[Documented]:
        """Every public definition at module or class level."""
        for module, tree in self.trees.items():
            if module.rpartition(".")[2].startswith("_") and not module.endswith("__init__"):
                continue
            for node in tree.body:
                if isinstance(node, Definition) and not node.name.startswith("_"):
                    yield self._function(f"{module}:{node.name}", node)
                elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield from self._class(module, node)

    def _class(self, module: str, node: ast.ClassDef) -> Iterator[Documented]:
        where, own = f"{module}:{node.name}", named_in(ast.get_docstring(node))
        if self._has_fields(node):
            yield self._fields(where, node, own)
        for method in node.body:
            if not isinstance(method, Definition):
                continue
            if method.name == "__init__":
                yield self._function(where, method, own)
            elif not method.name.startswith("_"):
                yield self._function(
                    f"{where}.{method.name}", method, self._overridden(node, method)
                )

    def _function(
        self, where: str, node: Definition, known: frozenset[str] = frozenset()
    ) -> Documented:
        parameters = parameters_of(node)
        text = ast.get_docstring(node) or ""
        explained = set(parameters if _ELSEWHERE.match(text) else known | named_in(text))
        for name, annotation in parameters.items() if ".cli." in where else ():
            text = ast.unparse(annotation) if annotation is not None else ""
            if "help=" in text or text.split(" | ")[0] in self._helped:
                explained.add(name)
        return Documented(where, tuple(parameters), frozenset(explained))

    def _has_fields(self, node: ast.ClassDef) -> bool:
        """Whether a dataclass, named tuple or pydantic model is made from what stands in it."""
        if any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
            return True
        parents = [self._classes.get(ast.unparse(base)) for base in node.bases]
        return any(ast.unparse(base) in ("NamedTuple", "BaseModel") for base in node.bases) or any(
            self._has_fields(parent) for parent in parents if parent is not None
        )

    def _fields(self, where: str, node: ast.ClassDef, own: frozenset[str]) -> Documented:
        """The public fields that stand in the class itself; a constant of the format is none."""
        fields, explained = [], set(own)
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            name, kind = statement.target.id, ast.unparse(statement.annotation)
            if name.startswith("_") or re.match(r"ClassVar|Literal\['[^,]*'\]$", kind):
                continue
            fields.append(name)
            if "description=" in ast.unparse(statement) or (
                isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            ):
                explained.add(name)
        return Documented(where, tuple(fields), frozenset(explained))

    def _overridden(self, node: ast.ClassDef, method: Definition) -> frozenset[str]:
        """What the same method of the bases explains."""
        names: frozenset[str] = frozenset()
        for base in node.bases:
            parent = self._classes.get(ast.unparse(base).partition("[")[0].rpartition(".")[2])
            if parent is None or parent is node:
                continue
            for other in parent.body:
                if isinstance(other, Definition) and other.name == method.name:
                    names |= named_in(ast.get_docstring(other))
            names |= self._overridden(parent, method)
        return names


@pytest.fixture(scope="module")
def definitions() -> list[Documented]:
    return list(House(ROOT, "privagg").definitions())


def test_parameters_are_documented(definitions: list[Documented]) -> None:
    """Whoever calls a function with many parameters need not read its body."""
    assert len(definitions) > 1000, "most of privagg was not looked at"
    silent = [
        f"{d.where}: {', '.join(d.missing)}"
        for d in definitions
        if len(d.parameters) >= MANY and d.missing
    ]
    assert not silent, "an Args: or Attributes: line is missing for\n" + "\n".join(silent)


def test_what_counts_as_documented(tmp_path: Path) -> None:
    """The check finds what is missing, wherever a parameter may be explained."""
    (tmp_path / "box" / "cli").mkdir(parents=True)
    (tmp_path / "box" / "room.py").write_text(
        '''
from dataclasses import dataclass

def half(a, b, *rest, c=0):
    """Do.

    Args:
        a, b: two.
        *rest: more.

    Returns:
        c: not a parameter's line.
    """

@dataclass
class Pair:
    """Two.

    Attributes:
        left: one.
    """

    left: int
    right: int
    middle: int
    """Its text."""
    kind: Literal["pair"] = "pair"
    _kept: int

class Base:
    """B."""

    def __init__(self, x, y, z):
        """Args: none."""

    def go(self, a, b, c):
        """Go.

        Args:
            a: one.
            b: two.
        """

class Child(Base):
    """C."""

    def go(self, a, b, c):
        """As the base's."""

    def send(self, a, b, c):
        """See `Grid.send`."""
'''
    )
    (tmp_path / "box" / "cli" / "verbs.py").write_text(
        'Path = Annotated[str, Argument(help="Where.")]\n'
        'def verb(path: Path, n: Annotated[int, Option(help="N.")], loud: bool): "Do."\n'
    )
    missing = {d.where: d.missing for d in House(tmp_path, "box").definitions()}
    assert missing["box.room:half"] == ["c"]
    assert missing["box.room:Pair"] == ["right"]
    assert missing["box.room:Base.go"] == ["c"]
    assert missing["box.room:Child.go"] == ["c"]
    assert not missing["box.room:Child.send"]
    assert missing["box.room:Base"] == ["x", "y", "z"]
    assert missing["box.cli.verbs:verb"] == ["loud"]
