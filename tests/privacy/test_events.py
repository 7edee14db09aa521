"""Events compose exactly, and what has to be rounded goes up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.privacy.events import DpEvent, Mechanism

mechanisms = st.builds(
    Mechanism.of,
    st.decimals("0.001", "1", places=3),
    st.decimals("0.1", "9", places=2),
)
events = st.builds(
    lambda m, c, d: DpEvent.once(m, count=c, distance=d),
    mechanisms,
    st.integers(1, 1000),
    st.decimals(0, 1, places=40),
)


@given(events, events, events)
def test_composition_is_a_multiset(a: DpEvent, b: DpEvent, c: DpEvent) -> None:
    assert (a + b).terms == (b + a).terms
    assert ((a + b) + c).terms == (a + (b + c)).terms
    assert (a + a).terms == a.repeated(2).terms
    assert a.repeated(0) == DpEvent()


@given(events, events, st.integers(1, 10**6))
def test_distances_are_never_rounded_down(a: DpEvent, b: DpEvent, times: int) -> None:
    assert Fraction((a + b).distance) >= Fraction(a.distance) + Fraction(b.distance)
    assert Fraction(a.repeated(times).distance) >= Fraction(a.distance) * times


@given(events)
def test_json_keeps_every_digit(event: DpEvent) -> None:
    assert DpEvent.model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize(
    "facts",
    [
        {"kind": "gaussian", "sampling_rate": "0.5", "noise_multiplier": "1"},
        {"kind": "gaussian", "noise_multiplier": "0"},
        {"kind": "poisson-gaussian", "sampling_rate": "0", "noise_multiplier": "1"},
        {"kind": "poisson-gaussian", "sampling_rate": "1.5", "noise_multiplier": "1"},
        {"kind": "gaussian", "noise_multiplier": "NaN"},
        {"kind": "os.system", "noise_multiplier": "1"},
        {"kind": "gaussian", "noise_multiplier": "1", "module": "os"},
    ],
)
def test_what_is_no_event_is_refused(facts: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Mechanism.model_validate(facts)
