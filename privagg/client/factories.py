"""Code that a configuration names: looked at without running it, imported only where approved.

A configuration is received from others, and `package.module:factory` in it names code on this
machine. So the module is found as the interpreter would find it, but nothing is imported, not even
the packages it lies in; its source is hashed; and only a module whose name and hash the owner's
approval names is imported.

The hash covers every `.py` file under the module's top package, or the one file where it lies in no
package. What these files import from elsewhere is installed software and not covered.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any, Self

from privagg.errors import ApprovalError, ConfigError
from privagg.privacy.ledger import Ledger


@dataclass(frozen=True)
class Factory:
    """A function or class that a configuration names, as its source says.

    Attributes:
        module, name: `module:name` in the configuration.
        path: the source file.
        sha256: over the source files, hex.
        files: how many these are.
    """

    module: str
    name: str
    path: Path
    sha256: str
    files: int


def look_at(reference: str) -> Factory:
    """What `package.module:factory` names, found and hashed without importing anything.

    Raises:
        ConfigError: it does not read so, there is no such source file, it is the interpreter's own,
            or the file does not itself define the factory.
    """
    module, _, name = reference.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(
            f"{reference!r} cannot be used: it must read 'package.module:factory' and be importable"
        )
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        raise ConfigError(
            f"{reference!r} is Python's own and never a factory; a configuration that names it "
            "wants to run something else on this machine"
        )
    found, first = _find(module)
    path = Path(found.origin or "")
    if not isinstance(found.loader, SourceFileLoader):
        raise ConfigError(
            f"{reference!r} cannot be imported as source: there is no file {module}.py to look at "
            "from where privagg runs; it must read 'package.module:factory' and be importable"
        )
    if name not in _defined(path):
        raise ConfigError(
            f"{reference!r} cannot be used: {path} does not itself define {name!r} with def or "
            "class; what is approved must be importable from the file that defines it"
        )
    files = _sources(first)
    return Factory(module, name, path, _hash(files), len(files))


def _find(module: str) -> tuple[ModuleSpec, ModuleSpec]:
    """The specs of a module and of its top package, from the import path; nothing is imported."""
    where: list[str] | None = None
    specs: list[ModuleSpec] = []
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), where)
        if spec is None:
            raise ConfigError(
                f"the module {module!r} cannot be imported: there is no "
                f"{'.'.join(parts[:depth])!r}; it must be importable from where privagg runs"
            )
        specs.append(spec)
        where = list(spec.submodule_search_locations or ())
        if depth < len(parts) and not where:
            raise ConfigError(f"the module {module!r} cannot be imported: {spec.name} is a file")
    return specs[-1], specs[0]


def _defined(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as Python: {error}") from error
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def _sources(top: ModuleSpec) -> dict[str, Path]:
    """Name for the hash -> file: everything that belongs to the module."""
    folders = top.submodule_search_locations
    if folders is None:
        path = Path(str(top.origin))
        return {path.name: path}
    return {
        f"{number}/{path.relative_to(folder).as_posix()}": path
        for number, folder in enumerate(folders)
        for path in sorted(Path(folder).rglob("*.py"))
    }


def _hash(files: Mapping[str, Path]) -> str:
    whole = hashlib.sha256()
    for name, path in sorted(files.items()):
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        whole.update(f"{len(name.encode())} {name} {content}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class ApprovedCode:
    """What may be imported: module -> the hashes that somebody who may decide has approved."""

    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, *factories: Factory) -> Self:
        """These, as they are now."""
        return cls({each.module: frozenset({each.sha256}) for each in factories})

    def __or__(self, other: ApprovedCode) -> ApprovedCode:
        """What either allows."""
        names = {*self.hashes, *other.hashes}
        none: frozenset[str] = frozenset()
        return ApprovedCode(
            {n: self.hashes.get(n, none) | other.hashes.get(n, none) for n in names}
        )

    def allows(self, factory: Factory) -> bool:
        """Whether this very source is approved under its module's name."""
        return factory.sha256 in self.hashes.get(factory.module, frozenset())

    def load(self, reference: str) -> Any:
        """The factory, its module imported now; nothing is imported unless it is approved.

        Raises:
            ConfigError: there is no such factory, or another one is imported under its name.
            ApprovalError: no approval names its module and hash.
        """
        factory = look_at(reference)
        if not self.allows(factory):
            raise ApprovalError(
                f"{reference!r} is code, {factory.path} (SHA-256 {factory.sha256}), and no "
                "approval in force names it; nothing was imported. Read it, and if it may run "
                "beside the data, its owner says so: privagg approve (on one machine, privagg "
                f"approve CONFIG --all-sites; before `privagg deploy` made the party's folder, "
                f"--trust-code {factory.module}={factory.sha256})"
            )
        found = importlib.import_module(factory.module)
        if Path(str(found.__file__)).resolve() != factory.path.resolve():
            raise ConfigError(
                f"{factory.module!r} was imported from {found.__file__}, approved is {factory.path}"
            )
        return getattr(found, factory.name)


def code_approved_in(ledger: Ledger) -> ApprovedCode:
    """What the approvals in force today in a ledger let be imported."""
    found = ApprovedCode()
    for approval in ledger.approvals():
        found |= ApprovedCode({c.module: frozenset({c.sha256}) for c in approval.code})
    return found
