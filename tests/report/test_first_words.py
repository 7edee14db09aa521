"""The first page's words: every figure is the report's, every comparison has its source."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privagg.report import Report
from privagg.report.figures import epsilon_text
from privagg.report.render import render_html
from privagg.report.sentences import worst_row
from privagg.report.words import _words, factor_text, first_words

GetReport = Callable[[str], Report]
OLD_BUNDLE = Path(__file__).parents[1] / "vectors" / "bundle-649ed6a.privagg.zip"
TERMS = ("custody", "opened sum", "colluder", "observer", "record", "unit", "δ", "ε", "budget",
         "charge", "round", "sites")  # fmt: skip


def test_a_report_of_an_old_bundle_says_which_epsilon_applies_when() -> None:
    with zipfile.ZipFile(OLD_BUNDLE) as bundle:
        old = Report.from_json(bundle.read("report.json"))
    words = first_words(old)
    assert words.applies == (
        "For this run at most ε = 1.00 was charged to each site's budget; ε = 0.792 holds against "
        "users of the model, who see every opened sum; ε = 1.51 holds if the aggregator and the "
        "key holder pool what they have. All are about one record, at δ = 10⁻⁵."
    )
    assert words.factor.startswith("ε = 0.792 means a factor of at most 2.21 on the odds")
    assert "base rate" not in render_html(old)  # it was not measured then
    assert "Each class of the public table" not in render_html(old)


@pytest.mark.parametrize("name", ["three-hospitals", "seven-sites", "plaintext", "weighted"])
def test_figures_are_the_report_s(report: GetReport, name: str) -> None:
    made = report(name)
    rows = [worst_row(made, who, 0) for who in ("model-users", "aggregator+key-holder")]
    charged = max(site.committed.epsilon for site in made.sites)
    expected = [charged, *(row.epsilon for row in rows if row is not None)]
    found = re.findall(r"ε = ([\d.]+)", first_words(made).applies)
    assert found == [epsilon_text(epsilon) for epsilon in expected]


def test_where_nothing_is_guaranteed_no_figure_and_no_factor_stands(report: GetReport) -> None:
    words = first_words(report("infinite"))
    assert words.applies.startswith("No ε applies")
    assert words.factor == ""


def test_a_pool_that_learns_all_is_told_beside_what_still_holds(report: GetReport) -> None:
    made = report("three-hospitals")
    sites = tuple(
        site.model_copy(
            update={
                "guarantees": tuple(
                    row.model_copy(update={"epsilon": Decimal("Infinity")})
                    if row.observer == "aggregator+key-holder"
                    else row
                    for row in site.guarantees
                )
            }
        )
        for site in made.sites
    )
    words = first_words(made.model_copy(update={"sites": sites}))
    assert "pool what they have, nothing is guaranteed" in words.applies
    assert "∞" not in words.applies


@given(st.decimals("0", "6.9", places=9))
def test_the_factor_is_never_smaller_than_it_is(epsilon: Decimal) -> None:
    shown, exact = float(factor_text(epsilon)), math.exp(float(epsilon))
    assert exact * (1 - 1e-12) <= shown <= exact * 1.011


def test_a_factor_that_tells_nothing_is_no_number() -> None:
    assert factor_text(Decimal(7)) == "> 1000"
    assert factor_text(Decimal("Infinity")) == "∞"
    assert factor_text(Decimal(0)) == "1.01"  # rounded up from just above 1


def test_every_term_that_the_page_needs_is_explained(report: GetReport) -> None:
    explained = " ".join(term for term, _ in first_words(report("smooth")).glossary).lower()
    assert all(term in explained for term in TERMS)


def test_what_others_published_has_its_source_and_lies_where_the_page_says(
    report: GetReport,
) -> None:
    deployments = _words()["deployments"]
    published = first_words(report("smooth")).published
    for each in deployments:
        assert each["source"] in published
        assert Decimal(each["low"]) < 3 < 10 < Decimal(each["high"])  # 1 is near the low end


def test_page_one_has_the_words_and_times_stand_last(html: Callable[[str], str]) -> None:
    page = unescape(html("three-hospitals")).replace("\u00a0", " ")
    first, _, rest = page.partition('id="limits"')
    assert "what is called attested there is a party's word" in first
    for words in ("Which ε applies when", "Where ε = 1 stands", "<b>Custody.</b>"):
        assert words in first
    assert "Time on uploads and sums, and traffic" in rest.partition('id="statements"')[2]
    assert '<th scope="row">class 1</th><td class="number">357 records</td>' in page
    assert '<td class="number">0.975</td>' in page
    assert "always naming its largest class would reach 0.627" in first
