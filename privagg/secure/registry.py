"""Schemes by name, found through entry points; each half of a scheme in a group of its own.

privagg's own schemes are registered the same way as anybody else's, in `pyproject.toml`: the public
half in `privagg.schemes`, the secret one in `privagg.key_generators` (`opening.key_generator`). A
scheme is imported only when it is asked for, so that an aggregator needs neither SEAL nor phe.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from privagg.errors import MissingDependencyError, SchemeError
from privagg.secure.scheme import Scheme

GROUP = "privagg.schemes"
Half = TypeVar("Half")


def scheme_names() -> tuple[str, ...]:
    """Names of every installed scheme, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


@cache
def scheme(name: str) -> Scheme:
    """The scheme called `name`: its public half.

    Raises:
        SchemeError: no installed package registers that name, or it registers something else.
        MissingDependencyError: the scheme's own package is not installed.
    """
    return registered(GROUP, name, Scheme)  # type: ignore[type-abstract]


def registered(group: str, name: str, half: type[Half]) -> Half:
    """What is registered as `name` in a group of entry points, made.

    Args:
        group: of entry points.
        name: of a scheme.
        half: what it has to be.

    Raises:
        SchemeError, MissingDependencyError: as `scheme`.
    """
    found = list(entry_points(group=group, name=name))
    if not found and name in scheme_names():
        raise SchemeError(
            f"scheme {name!r} has no secret half: no package registers it in {group!r}; privagg's "
            "own are there once it is installed again (pip install)"
        )
    if not found:
        raise SchemeError(
            f"no secure aggregation scheme is called {name!r}; installed: "
            f"{', '.join(scheme_names()) or 'none'}"
        )
    if len({entry.value for entry in found}) > 1:
        raise SchemeError(
            f"several packages register a scheme called {name!r} "
            f"({', '.join(entry.value for entry in found)}); uninstall all but one"
        )
    try:
        loaded = found[0].load()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == found[0].value.split(".")[0]:
            raise SchemeError(f"scheme {name!r} is registered but broken: {error}") from error
        raise MissingDependencyError(
            f"scheme {name!r} needs the package {error.name!r}; "
            f"install it with: pip install 'privagg[{name}]'"
        ) from error
    made = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(made, half):
        raise SchemeError(
            f"{found[0].value} is not a privagg {half.__name__}: it is {type(made).__name__}"
        )
    return made
