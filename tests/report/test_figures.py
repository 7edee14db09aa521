"""Numbers for people: upper bounds only ever grow, lower ends only ever shrink."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.report import figures

POSITIVE = st.decimals(
    min_value=Decimal("1e-9"), max_value=Decimal(10**6), allow_nan=False, allow_infinity=False
)


def _read(text: str) -> Decimal:
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    if "10" in text and any(c in text for c in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"):
        mantissa, _, power = text.rpartition("10")
        return Decimal(mantissa.rstrip("·") or 1) * Decimal(10) ** int(power.translate(digits))
    return Decimal(text)


@settings(deadline=None, max_examples=200)
@given(POSITIVE, st.integers(1, 9))
def test_an_epsilon_is_never_written_smaller_than_it_is(value: Decimal, digits: int) -> None:
    written = _read(figures.epsilon_text(value, digits))
    assert value <= written <= value * (1 + Decimal(10) ** (1 - digits))


@settings(deadline=None, max_examples=200)
@given(POSITIVE, st.integers(1, 9))
def test_a_lower_end_is_never_written_larger_than_it_is(value: Decimal, digits: int) -> None:
    written = _read(figures.lower_text(value, digits))
    assert value * (1 - Decimal(10) ** (1 - digits)) <= written <= value


@pytest.mark.parametrize(
    ("value", "text"),
    [("0.00001", "10⁻⁵"), ("0.0000025", "2.5·10⁻⁶"), ("0.01", "0.01"), ("1e-12", "10⁻¹²")],
)
def test_deltas(value: str, text: str) -> None:
    assert figures.delta_text(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "proven", "text"),
    [("1.1", "1", "+10 %"), ("0.9", "1", "−10 %"), ("1", "1", "equal"),
     ("0.9999999", "1", "−10⁻⁵ %"), ("Infinity", "1", "")],
)  # fmt: skip
def test_relative_differences(value: str, proven: str, text: str) -> None:
    assert figures.relative_text(Decimal(value), Decimal(proven)) == text


def test_infinity_is_a_sign_of_its_own() -> None:
    assert figures.epsilon_text(Decimal("Infinity")) == "∞"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: figures.byte_text(812), "812 bytes"),
        (lambda: figures.byte_text(131_482), "131 kB"),
        (lambda: figures.second_text(0.0042), "4.2 ms"),
        (lambda: figures.second_text(3661), "61 min 1 s"),
        (lambda: figures.second_text(9000), "2 h 30 min"),
        (lambda: figures.count_text(1, "round"), "1 round"),
        (lambda: figures.count_text(12_345, "record"), "12 345 records"),
        (lambda: figures.joined(["a", "b", "c"]), "a, b and c"),
        (lambda: figures.joined([str(i) for i in range(9)], most=3), "0, 1 and 7 more"),
    ],
)
def test_words(call: object, text: str) -> None:
    assert callable(call)
    assert call() == text
