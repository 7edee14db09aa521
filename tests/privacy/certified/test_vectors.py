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


def composition(vector: dict[str, Any]) -> dict[Mechanism, int]:
    """Return the vector's rounds as the accountant takes them."""
    return {
        Mechanism(group["sampling_rate"], group["noise_multiplier"]): group["rounds"]
        for group in vector["groups"]
    }


def test_the_file_is_what_its_readme_says() -> None:
    assert DOCUMENT["format"] == "privagg-epsilon-vectors/1"
    assert DOCUMENT["neighbours"] == "add-or-remove-one"
    assert len(VECTORS) >= 200
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)
    assert sum(bool(vector["under_reported_by"]) for vector in VECTORS) >= 30
    for vector in VECTORS:
        low, high = Fraction(vector["epsilon_lower"]), Fraction(vector["epsilon_upper"])
        assert 0 <= low <= high
        assert high - low <= high * Fraction(2, 10**6)
        below = [
            name
            for name, value in vector["peers"].items()
            if value is not None and Fraction(value) < low
        ]
        # Ends in the file are rounded outwards, so a peer within rounding may be listed too.
        assert set(below) <= set(vector["under_reported_by"])


@pytest.mark.parametrize("vector", VECTORS[::11], ids=lambda vector: vector["id"])
def test_the_accountant_agrees(vector: dict[str, Any]) -> None:
    interval = epsilon_interval(composition(vector), vector["delta"])
    assert interval.lower <= Fraction(vector["epsilon_upper"])
    assert Fraction(vector["epsilon_lower"]) <= interval.upper
    assert interval.relative_width <= 1e-5
