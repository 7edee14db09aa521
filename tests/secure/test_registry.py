"""Schemes are found by name through entry points, anybody's the same way as privagg's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from privagg.errors import MissingDependencyError, SchemeError
from privagg.secure import registry
from privagg.secure.plaintext import PlaintextScheme


class Rot13Scheme(PlaintextScheme):
    """Somebody else's scheme."""

    name = "rot13"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points that a test can name: scheme -> module:object."""
    points: dict[str, str] = {}

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        found = [EntryPoint(n.split("#")[0], v, group) for n, v in points.items()]
        return [p for p in found if name is None or p.name == name]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry.scheme.cache_clear()
    yield points
    registry.scheme.cache_clear()


def test_our_own_schemes_are_registered() -> None:
    assert {"plaintext", "ckks", "bfv", "paillier"} <= set(registry.scheme_names())
    assert registry.scheme("ckks").name == "ckks"
    assert not registry.scheme("plaintext").protects


def test_a_third_party_scheme_is_found_by_its_entry_point(registered: dict[str, str]) -> None:
    registered["rot13"] = f"{__name__}:Rot13Scheme"
    assert registry.scheme_names() == ("rot13",)
    assert registry.scheme("rot13").name == "rot13"


@pytest.mark.parametrize(
    ("points", "error", "text"),
    [
        ({}, SchemeError, "no secure aggregation scheme is called 'rot13'"),
        ({"rot13": "builtins:dict"}, SchemeError, "not a privagg scheme"),
        ({"rot13": "nowhere_to_be_found:S"}, MissingDependencyError, "nowhere_to_be_found"),
        ({"rot13": "privagg.secure.rot13:S"}, SchemeError, "broken"),
        ({"rot13": "a:A", "rot13#2": "b:B"}, SchemeError, "several packages"),
    ],
)
def test_what_is_wrong_is_named(
    registered: dict[str, str], points: dict[str, str], error: type[Exception], text: str
) -> None:
    registered.update(points)
    with pytest.raises(error, match=text):
        registry.scheme("rot13")
