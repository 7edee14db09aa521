"""What a report says about compression follows from the plan's facts, whatever those are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.privacy.plan import LocalPlan
from privagg.report.compressing import compression_text
from tests.privacy.test_compression import LOCAL, compressed
from tests.privacy.test_plan import client, distributed

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def said(plan: Any) -> str:
    return compression_text(plan.model_dump(mode="json"))


def test_nothing_is_said_where_nothing_is_compressed() -> None:
    assert said(client()) == said(distributed()) == ""


def test_a_clients_sentences_name_what_is_sent_and_what_rounding_adds() -> None:
    text = said(compressed(127, rounding="nearest", bits=8, rotation=True, kept=9))
    assert "carries 9 of the 40 coordinates, chosen at random" in text
    assert "After a public random rotation they are rounded to the nearest grid point" in text
    assert "to at most 8 bits each before weight and noise" in text
    assert "the sensitivity is 129 grid units where the clip norm has 127" in text
    whole = said(compressed(500, rounding="truncate"))
    assert "carries all 40 coordinates. They are truncated towards zero. " in whole


def test_record_level_sentences_say_why_sensitivity_stays() -> None:
    shared = said(distributed(compression={"kept": 5, "mask": "top-k"}))
    assert "5 of the 14 coordinates, half of them the largest of the model released" in shared
    assert shared.endswith("A record's sensitivity stays what it was.")
    assert "rounded" not in shared
    terms = {"bits": 8, "rounding": "stochastic"}
    local = LocalPlan.model_validate({**LOCAL, "compression": terms, "update_levels": 127})
    assert said(local).endswith("That is done to a private update and costs no privacy.")


@settings(max_examples=200, deadline=None)
@given(
    compression=junk | st.fixed_dictionaries({"kept": junk, "bits": junk, "mask": junk}),
    dimension=junk,
    steps=junk,
    mode=junk,
)
def test_facts_that_are_none_say_nothing_and_never_fail(
    compression: Any, dimension: Any, steps: Any, mode: Any
) -> None:
    facts = {
        "compression": compression, "dimension": dimension, "mode": mode,
        "clip_norm_grid": steps, "sensitivity_grid": steps,
    }  # fmt: skip
    assert isinstance(compression_text(facts), str)


@pytest.mark.parametrize("wrong", [{"bits": 99}, {"surprise": 1}, [], "all", 7])
def test_unknown_terms_are_not_described(wrong: Any) -> None:
    assert compression_text({"compression": wrong, "dimension": 9, "mode": "client"}) == ""
