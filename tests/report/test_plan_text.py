"""What a report says about compression follows from the plan alone."""

from __future__ import annotations

from privagg.privacy.plan import LocalPlan
from privagg.report.plan_text import compression_text
from tests.privacy.test_compression import LOCAL, compressed
from tests.privacy.test_plan import client, distributed


def test_nothing_is_said_where_nothing_is_compressed() -> None:
    assert compression_text(client()) == compression_text(distributed()) == ""


def test_a_clients_sentences_name_what_is_sent_and_what_rounding_adds() -> None:
    text = compression_text(compressed(127, rounding="nearest", bits=8, rotation=True, kept=9))
    assert "carries 9 of the 40 coordinates, chosen at random" in text
    assert "After a public random rotation they are rounded to the nearest grid point" in text
    assert "to at most 8 bits each before weight and noise" in text
    assert "the sensitivity is 129 grid units where the clip norm has 127" in text
    whole = compression_text(compressed(500, rounding="truncate"))
    assert "carries all 40 coordinates. They are truncated towards zero. " in whole


def test_record_level_sentences_say_why_sensitivity_stays() -> None:
    shared = compression_text(distributed(compression={"kept": 5, "mask": "top-k"}))
    assert "5 of the 14 coordinates, half of them the largest of the model released" in shared
    assert shared.endswith("A record's sensitivity stays what it was.")
    assert "rounded" not in shared
    terms = {"bits": 8, "rounding": "stochastic"}
    local = LocalPlan.model_validate({**LOCAL, "compression": terms, "update_levels": 127})
    assert compression_text(local).endswith(
        "That is done to a private update and costs no privacy."
    )
