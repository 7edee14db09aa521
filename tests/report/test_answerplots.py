"""Plots of answers: which figures are drawn, how far curves go, and what cannot be drawn."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from privagg.report.answerplots import answer_plots
from privagg.report.drawing import on_paper
from privagg.report.language import speaking
from privagg.report.model import Answers


def figure(what: str, value: float | None, reach: float = 0.1, **group: str) -> dict[str, Any]:
    low, high = ((value or 0.0) - reach, (value or 0.0) + reach)
    ends = {"low": low, "high": high}
    return {
        "what": what, "group": group, "value": value, "raw": value or 0.0,
        "records": ends, "population": ends,
    }  # fmt: skip


def drawn(*figures: dict[str, Any], **question: Any) -> Any:
    answer = {"question": {"name": "asked", **question}, "figures": figures}
    facts = {"file": None, "sha256": None, "day": None, "level": 0.9, "contributors": []}
    (plots,) = answer_plots(Answers.model_validate({**facts, "answers": [answer]}))
    for plot in plots:
        ElementTree.fromstring(on_paper(plot))
    return plots


def test_a_curve_is_drawn_for_each_group_as_far_as_it_is_told() -> None:
    told = [figure(f"survival at {end}", 1 - end / 1000, sex=s) for s in "fm" for end in (100, 200)]
    (plot,) = drawn(*told, figure("survival at 300", None, sex="m"), time="days")
    assert all(text in plot.svg for text in ("sex = f", "sex = m", "days", ">200<"))
    assert ">300<" not in plot.svg
    assert "survival at 200 (sex = m) 0.8" in plot.alt
    with speaking("zh"):
        assert "深色" in drawn(*told, time="days")[0].title


@pytest.mark.parametrize(
    ("what", "columns", "count"),
    [
        ("count", ("a", "b"), 1),
        ("mean", ("a", "b"), 1),
        ("count", ("a",), 0),
        ("sum", ("a", "b"), 0),
    ],
)
def test_figures_of_several_groups_are_rows(what: str, columns: Any, count: int) -> None:
    plots = drawn(*(figure(what, 5.0, ward=each) for each in columns))
    assert len(plots) == count
    for plot in plots:
        assert all(f"ward = {each}" in plot.svg for each in columns)


def test_quantiles_and_ratios_are_rows() -> None:
    (quantiles,) = drawn(figure("quantile 0.25", 3.0), figure("quantile 0.5", 4.0))
    assert "quantile 0.25" in quantiles.svg
    (ratios,) = drawn(
        figure("coefficient", 0.7, term="age"), figure("hazard ratio", 2.0, term="age")
    )
    assert "hazard ratio" in ratios.svg
    assert "age" in ratios.svg


def test_what_no_axis_holds_is_left_out() -> None:
    assert drawn(figure("count", 1e300, ward="a"), figure("count", 5.0, ward="b")) == ()
    assert drawn(figure("survival at never", 0.5)) == ()
    assert drawn(figure("survival at nan", 0.5)) == ()
    assert drawn(figure("odds ratio", -2.0, term="x")) == ()


def test_a_name_is_no_markup() -> None:
    plots = drawn(*(figure("count", 5.0, ward=name) for name in ("<script>", "$x^2$")))
    assert "<script>" not in plots[0].svg
    assert "$x^2$" in plots[0].svg


def test_rows_of_several_columns_are_told_apart_by_their_categories() -> None:
    wards = ("internal medicine and emergencies", "surgery")
    cells = [figure("count", 5.0, department=ward, again=a) for ward in wards for a in "yn"]
    (plot,) = drawn(*cells)
    assert "department, again" in plot.svg
    for ward in wards:
        assert all(f"{ward}, {again}" in plot.svg for again in "yn")


def test_a_figure_without_an_interval_is_no_point() -> None:
    endless = figure("odds ratio", 2.0, term="age") | {"records": None, "population": None}
    assert drawn(endless) == ()
    (plot,) = drawn(endless, figure("odds ratio", 3.0, term="ward: b"))
    assert "ward: b" in plot.svg
    assert "age" not in plot.svg
