"""The published vectors: well-formed, and what the accountant still proves."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from privagg.privacy.certified import Mechanism, epsilon_interval

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "epsilon.json").read_text()
)
VECTORS: list[dict[str, Any]] = DOCUMENT["vectors"]
HUNTS = ("small-delta", "smallest-delta", "low-rate", "gaussian", "tiny-rate")


def composition(vector: dict[str, Any]) -> dict[Mechanism, int]:
    """Return the vector's rounds as the accountant takes them."""
    return {
        Mechanism(group["sampling_rate"], group["noise_multiplier"]): group["rounds"]
        for group in vector["groups"]
    }


def test_the_file_is_what_its_readme_says() -> None:
    assert DOCUMENT["format"] == "privagg-epsilon-vectors/1"
    assert DOCUMENT["neighbours"] == "add-or-remove-one"
    assert len(VECTORS) >= 340
    assert [vector["id"] for vector in VECTORS] == [f"eps-{k:04d}" for k in range(len(VECTORS))]
    assert {vector["origin"] for vector in VECTORS} == {"named", "drawn", *HUNTS}
    settings = {(str(vector["groups"]), vector["delta"]) for vector in VECTORS}
    assert len(settings) == len(VECTORS)


@pytest.mark.parametrize("name", ["dp_accounting_pld", "dp_accounting_rdp", "opacus_prv"])
def test_the_file_holds_what_a_peer_misses(name: str) -> None:
    missed = [vector for vector in VECTORS if name in vector["under_reported_by"]]
    assert len(missed) >= 15
    assert name in DOCUMENT["peer_versions"]


@pytest.mark.parametrize("origin", HUNTS)
def test_a_hunt_keeps_only_what_a_peer_misses(origin: str) -> None:
    caught = [vector for vector in VECTORS if vector["origin"] == origin]
    assert caught
    assert all(vector["under_reported_by"] for vector in caught)


def test_every_vector_is_consistent_with_itself() -> None:
    for vector in VECTORS:
        low, high = Fraction(vector["epsilon_lower"]), Fraction(vector["epsilon_upper"])
        assert 0 <= low <= high
        assert high - low <= high * Fraction(2, 10**6)
        assert 0 < Fraction(vector["delta"]) < 1
        assert len(composition(vector)) == len(vector["groups"])
        said = {
            name: max(Fraction(value), Fraction(0))
            for name, value in vector["peers"].items()
            if value is not None
        }
        listed = set(vector["under_reported_by"])
        # Ends in the file are rounded outwards, so a peer within rounding may be listed too.
        assert {name for name, value in said.items() if value < low} <= listed
        assert all(said[name] < high for name in listed)


@pytest.mark.parametrize("vector", VECTORS[::13], ids=lambda vector: vector["id"])
def test_the_accountant_agrees(vector: dict[str, Any]) -> None:
    interval = epsilon_interval(composition(vector), vector["delta"])
    assert interval.lower <= Fraction(vector["epsilon_upper"])
    assert Fraction(vector["epsilon_lower"]) <= interval.upper
    assert interval.relative_width <= 1e-5
