"""Code that a configuration names: looked at without running it, imported only where approved.

A configuration is received from others, and `package.module:factory` in it names code on this
machine. So the module is found as the interpreter would find it, but nothing is imported, not even
the packages it lies in; its source is hashed; and only a module whose name and hash the owner's
approval names is imported.

The hash covers every source file under the module's top package, or the one file where it lies in
no package, and the same of every other local module that these files import by name. Installed
software is not covered. Approved modules are compiled from their source as it was hashed: a cached
`.pyc`, a compiled extension or a file that changed in between is not run in its place.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from sysconfig import get_paths
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Self

from privagg.errors import ApprovalError, ConfigError

if TYPE_CHECKING:  # a configuration is read without what stores ledgers
    from privagg.privacy.ledger import Ledger


@dataclass(frozen=True)
class Factory:
    """A function or class that a configuration names, as its source says.

    Attributes:
        module, name: `module:name` in the configuration.
        path: the source file.
        sha256: over the source files, hex.
        files: how many these are.
        sources: each file's own SHA-256, by its path.
    """

    module: str
    name: str
    path: Path
    sha256: str
    files: int
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


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
    files = _reached(first)
    sources = {name: _digest_of(path) for name, path in files.items()}
    by_path = {str(files[name].resolve()): digest for name, digest in sources.items()}
    return Factory(module, name, path, _hash(sources), len(files), by_path)


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


_INSTALLED = tuple(
    Path(path).resolve()
    for kind, path in get_paths().items()
    if kind in ("stdlib", "platstdlib", "purelib", "platlib")
)


def _reached(first: ModuleSpec) -> dict[str, Path]:
    """Name for the hash -> file: a module's sources, and those of local modules they import."""
    files: dict[str, Path] = {}
    waiting, seen = [first], {first.name, "privagg"}
    while waiting:
        top = waiting.pop()
        for name, path in _sources(top).items():
            files[f"{top.name}/{name}"] = path
            others = _imported(path) - seen
            seen |= others
            found = (PathFinder.find_spec(other) for other in others)
            waiting += [spec for spec in found if spec is not None and _is_local(spec)]
    return files


def _is_local(spec: ModuleSpec) -> bool:
    """Whether a module lies beside what is worked on, not where software is installed."""
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return any(
        not any(Path(place).resolve().is_relative_to(folder) for folder in _INSTALLED)
        for place in places
    )


def _imported(path: Path) -> frozenset[str]:
    """The top names of the modules that a source file imports by name, wherever in it."""
    try:
        return _names_in(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


@lru_cache(maxsize=4096)
def _names_in(source: bytes) -> frozenset[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()  # it cannot be imported either
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return frozenset(names)


def _sources(top: ModuleSpec) -> dict[str, Path]:
    """Name -> file: everything that belongs to the module."""
    folders = top.submodule_search_locations
    if folders is None:
        path = Path(str(top.origin))
        return {path.name: path}
    return {
        f"{number}/{path.relative_to(folder).as_posix()}": path
        for number, folder in enumerate(folders)
        for path in sorted(Path(folder).rglob("*.py"))
    }


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _hash(sources: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(sources.items()):
        whole.update(f"{len(name.encode())} {name} {content}\n".encode())
    return whole.hexdigest()


class _AsHashed(SourceFileLoader):
    """Loads a module from the very source that was hashed, never from a cache beside it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        if hashlib.sha256(source).hexdigest() != _ADMITTED.files.get(str(Path(path).resolve())):
            raise ImportError(f"{path} is not as it was approved", name=fullname, path=path)
        return self.source_to_code(source, path)


class _Admitted(MetaPathFinder):
    """Finds the modules of approved factories before anything else does."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._folders: set[Path] = set()

    def admit(self, factory: Factory) -> None:
        """From now on these files are imported as they are, and nothing else beside them."""
        self.files |= factory.sources
        self._folders |= {Path(path).parent for path in factory.sources}
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not self._is_beside(spec.origin, path):
            return None
        if str(Path(spec.origin).resolve()) in self.files:
            spec.loader = _AsHashed(fullname, spec.origin)
        elif _is_local(spec):
            raise ImportError(f"{spec.origin} is no source that was approved", name=fullname)
        return spec

    def _is_beside(self, origin: str, path: Sequence[str] | None) -> bool:
        """Whether it is one of the approved files, or would be imported from their package."""
        place = Path(origin).resolve()
        return str(place) in self.files or (path is not None and place.parent in self._folders)


_ADMITTED = _Admitted()


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
        _ADMITTED.admit(factory)
        try:
            found = importlib.import_module(factory.module)
        except ImportError as error:
            raise ConfigError(f"{reference!r} cannot be imported: {error}") from error
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
