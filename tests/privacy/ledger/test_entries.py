"""Canonical bytes: one value, one spelling, and nothing else is taken."""

from __future__ import annotations

import json
from decimal import Context, Decimal, Inexact
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.events import DpEvent, Mechanism, Term
from privagg.privacy.ledger import canonical
from privagg.privacy.ledger.composition import compose, event_digest, event_to_json
from privagg.privacy.ledger.entries import KINDS, BudgetSet, Entry, payload_of, timestamp
from tests.privacy.ledger.conftest import clock, request_for

EXACT = Context(prec=1000, traps=[Inexact])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
MECHANISMS = st.builds(
    Mechanism.of,
    st.decimals("0.0001", "1", places=4),
    st.decimals("0.1", "300", places=3),
)
EVENTS = st.builds(
    DpEvent,
    terms=st.lists(st.builds(Term, mechanism=MECHANISMS, count=st.integers(1, 1000)), max_size=3),
    distance=st.integers(0, 2**128).map(lambda units: Decimal(units).scaleb(-60, EXACT)),
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_canonical_bytes_are_json_and_read_back(value: Any) -> None:
    data = canonical.dumps(value)
    assert json.loads(data) == value
    assert canonical.loads(data, what="value") == value


@pytest.mark.parametrize(
    "data",
    [
        *(b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1.0}', b'{"a":1e0}', b'{"a":1,"a":1}'),
        *(b'"\xc3\xa4"', b'"\\u00E4"', b'"\\/"', b"01", b"-0", b"1 ", b"NaN", b"", b"{"),
        *(b"9223372036854775808", b"1" * 5000, b" " * (1 << 21)),
        *(b"[" * 20 + b"]" * 20, b"[" * 100_000),
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(LedgerTamperedError):
        canonical.loads(data, what="value")


@pytest.mark.parametrize("value", [1.5, {1: 2}, 1 << 63, b"bytes", {"a": {"b": 0.1}}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(LedgerError):
        canonical.dumps(value)


def test_facts_keep_every_digit() -> None:
    given_facts = {
        "float": 0.1, "tiny": 5e-324, "decimal": Decimal("1.500"), "tuple": (1, None, True),
        "infinite": float("inf"), "none": float("nan"), "mechanism": Mechanism(kind="non-private"),
    }  # fmt: skip
    facts = canonical.facts(given_facts)
    assert facts["float"] == "0.1"
    assert float(facts["tiny"]) == 5e-324
    assert (facts["decimal"], facts["tuple"]) == ("1.5", [1, None, True])
    assert (facts["infinite"], facts["none"]) == ("Infinity", "NaN")
    assert canonical.facts(facts) == facts
    with pytest.raises(LedgerError, match="bytes"):
        canonical.facts({"a": b"raw"})


@settings(max_examples=100, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=30, min_value=0, max_value=10**9))
def test_equal_decimals_are_spelled_alike(value: Decimal) -> None:
    text = canonical.plain_decimal(value)
    assert Decimal(text) == value
    assert canonical.plain_decimal(Decimal(text)) == text
    assert "E" not in text


@settings(max_examples=40, deadline=None)
@given(EVENTS, EVENTS)
def test_composition_does_not_depend_on_order_or_spelling(one: DpEvent, two: DpEvent) -> None:
    assert event_digest(compose(one, two)) == event_digest(compose(two, one))
    assert DpEvent.model_validate(event_to_json(one)) == compose(DpEvent(), one)
    assert compose(one, two).distance == EXACT.add(one.distance, two.distance)


def test_distances_are_never_rounded_down() -> None:
    large = DpEvent(distance=Decimal("0.1"))
    tiny = DpEvent(distance=Decimal("1e-500"))
    assert compose(large, tiny).distance > Decimal("0.1")
    assert compose(large, *[tiny] * 3).distance > Decimal("0.1")


def test_an_event_is_one_however_it_is_spelled() -> None:
    spelled = DpEvent(
        terms=(
            Term(mechanism=Mechanism(kind="gaussian", noise_multiplier=Decimal("1.50")), count=1),
            Term(mechanism=Mechanism(kind="gaussian", noise_multiplier=Decimal("1.5")), count=2),
        )
    )
    plain = DpEvent.once(Mechanism.of(Decimal(1), Decimal("1.5")), count=3)
    assert event_to_json(spelled) == event_to_json(plain)


def entry() -> Entry:
    budget = BudgetSet(
        dataset="table", unit="record", epsilon=Decimal("1.50"), delta=Decimal("1e-5"),
        who="officer", why="äußerst nötig",
    )  # fmt: skip
    return Entry(3, timestamp(clock(), budget), budget, "00" * 32)


def test_an_entry_reads_back_as_it_was_written() -> None:
    body = entry().body()
    assert body == (
        b'{"index":3,"kind":"budget","payload":{"dataset":"table","delta":"0.00001",'
        b'"epsilon":"1.5","unit":"record","who":"officer",'
        b'"why":"\\u00e4u\\u00dferst n\\u00f6tig"},"state":"' + b"00" * 32 + b'",'
        b'"time":"2026-01-02T03:04:05Z","version":1}'
    )
    again = Entry.parse(body)
    assert again.body() == body
    assert again.hash() == entry().hash()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version":1', '"version":2'),
        ('"kind":"budget"', '"kind":"gift"'),
        ('"kind":"budget"', '"kind":7'),
        ('"epsilon":"1.5"', '"epsilon":"1.50"'),
        ('"epsilon":"1.5"', '"epsilon":"NaN"'),
        ('"epsilon":"1.5"', '"epsilon":"1E+99999999999"'),
        ('"delta":"0.00001"', '"delta":"1E-99999999999"'),
        ('"epsilon":"1.5"', '"epsilon":1'),
        ('"epsilon":"1.5",', ""),
        ('"unit":"record"', '"unit":"record","z":1'),
        ('"unit":"record"', '"unit":""'),
        ('"time":"2026-01-02T03:04:05Z"', '"time":"2026-01-02"'),
        ('"time":"2026-01-02T03:04:05Z"', '"time":"yesterday"'),
        ('"index":3', '"index":"3"'),
    ],
)
def test_an_entry_that_is_not_quite_one_is_refused(old: str, new: str) -> None:
    body = entry().body().decode()
    assert old in body
    with pytest.raises(LedgerTamperedError):
        Entry.parse(body.replace(old, new).encode())


def test_entries_of_rounds_must_not_carry_the_time() -> None:
    payload = payload_of("aborted", {"run": "r", "round": 0, "attempt": 0, "reason": "x"})
    precise = Entry(0, "2026-01-02T03:04:05Z", payload, "00" * 32)
    with pytest.raises(LedgerTamperedError, match="no valid time"):
        Entry.parse(precise.body())
    assert timestamp(clock(), payload) == "2026-01-02"


def test_names_with_control_characters_are_refused() -> None:
    for run in ("", "a\nb", "a\x00b", "x" * 241, "\ud800", "ä" * 100):
        with pytest.raises(ValueError, match="run"):
            request_for(0, run=run)


def test_the_kinds_are_a_closed_set() -> None:
    assert sorted(KINDS) == [
        *("aborted", "approval", "budget", "charge", "consumed", "created", "key", "opened"),
        "owner-key",
        *("realised", "released", "restored", "roster", "round", "run-finished", "run-key"),
        *("run-started", "tuning"),
        *("upload", "withdrawal"),
    ]
    with pytest.raises(LedgerError, match="unknown kind"):
        payload_of("refund", {})
