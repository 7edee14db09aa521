"""Schemes are found by name through entry points, anybody's the same way as privagg's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from privagg.errors import MissingDependencyError, SchemeError
from privagg.secure import opening, registry
from privagg.secure.plaintext import PlaintextKeyGenerator, PlaintextScheme
from privagg.secure.scheme import Requirement


class Rot13Scheme(PlaintextScheme):
    """Somebody else's scheme."""

    name = "rot13"


class Rot13KeyGenerator(PlaintextKeyGenerator):
    """Its secret half."""

    name = "rot13"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points that a test can name: scheme, or "secret" and scheme -> module:object."""
    points: dict[str, str] = {}

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        prefix = "secret " if group == opening.GROUP else ""
        found = [
            EntryPoint(n.removeprefix(prefix).split("#")[0], v, group)
            for n, v in points.items()
            if n.startswith("secret ") == bool(prefix)
        ]
        return [p for p in found if name is None or p.name == name]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    halves = (registry.scheme, opening.key_generator)
    for half in halves:
        half.cache_clear()
    yield points
    for half in halves:
        half.cache_clear()


def test_our_own_schemes_are_registered() -> None:
    assert {"plaintext", "ckks", "bfv", "paillier"} <= set(registry.scheme_names())
    assert registry.scheme("ckks").name == "ckks"
    assert not registry.scheme("plaintext").protects


def test_a_third_party_scheme_is_found_by_its_entry_point(registered: dict[str, str]) -> None:
    registered["rot13"] = f"{__name__}:Rot13Scheme"
    assert registry.scheme_names() == ("rot13",)
    assert registry.scheme("rot13").name == "rot13"
    registered["secret rot13"] = f"{__name__}:Rot13KeyGenerator"
    assert isinstance(opening.key_generator("rot13"), Rot13KeyGenerator)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ({}, "scheme 'rot13' has no secret half.*privagg.key_generators"),
        ({"secret rot13": f"{__name__}:Rot13Scheme"}, "not a privagg KeyGenerator"),
    ],
)
def test_a_scheme_without_a_secret_half_makes_no_keys(
    registered: dict[str, str], secret: dict[str, str], text: str
) -> None:
    registered |= {"rot13": f"{__name__}:Rot13Scheme", **secret}
    with pytest.raises(SchemeError, match=text):
        opening.key_generator("rot13")


def test_every_scheme_of_ours_has_both_halves() -> None:
    for name in ("plaintext", "ckks", "bfv", "paillier"):
        assert opening.key_generator(name).name == registry.scheme(name).name == name


def test_no_public_half_makes_or_reads_a_secret() -> None:
    secret = {"generate_key", "load_decryption_key", "open_share"}
    for name in registry.scheme_names():
        chosen = registry.scheme(name)
        parameters = chosen.choose_parameters(Requirement(3, 10, 30, 3, security_bits=112))
        key = opening.key_generator(name).generate_key(parameters).encryption_key
        for public in (chosen, key, key.parameters, key.parameters.fold()):
            assert not secret & set(dir(public)), (name, public)


@pytest.mark.parametrize(
    ("points", "error", "text"),
    [
        ({}, SchemeError, "no secure aggregation scheme is called 'rot13'"),
        ({"rot13": "builtins:dict"}, SchemeError, "not a privagg Scheme"),
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
