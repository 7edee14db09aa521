"""The page: self-contained, escaped, accessible, honest about infinity."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from html import unescape
from html.parser import HTMLParser

import pytest

from privagg.report import Report, view
from privagg.report.render import render_html

GetReport = Callable[[str], Report]
VOID = {"meta", "br", "hr", "link", "img", "input"}


class Page(HTMLParser):
    """Collects what the assertions ask about, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(html: Callable[[str], str]) -> Callable[[str], tuple[str, Page]]:
    return cache(lambda name: (html(name), Page(html(name))))


GetPage = Callable[[str], tuple[str, Page]]
NAMES = ["three-hospitals", "plaintext", "seven-sites", "infinite"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_and_nothing_runs(page: GetPage, name: str) -> None:
    text, parsed = page(name)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    for _, attrs in parsed.tags:
        assert not any(key.startswith("on") for key in attrs)
        for key in ("href", "src", "xlink:href"):
            assert (attrs.get(key) or "#").startswith("#")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_id_is_unique_and_every_reference_lands(page: GetPage, name: str) -> None:
    text, parsed = page(name)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {(attrs.get("href") or "")[1:] for _, attrs in parsed.tags if "href" in attrs}
    assert targets | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_names_are_text_and_never_markup(page: GetPage) -> None:
    text, parsed = page("seven-sites")
    assert "<b>&</b>" not in text
    assert "Krebsregister Süd &lt;b&gt;&amp;&lt;/b&gt; $x_1$" in text
    assert any("Süd <b>&</b> $x_1$" in piece for piece in parsed.text)


@pytest.mark.parametrize("name", NAMES)
def test_plots_and_tables_speak(page: GetPage, name: str) -> None:
    _, parsed = page(name)
    plots = [attrs for _, attrs in parsed.tags if attrs.get("role") == "img"]
    assert len(plots) == len(parsed.all("svg"))
    assert all(attrs.get("aria-label") for attrs in plots)
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.all("th"))
    assert parsed.all("html")[0]["lang"] == "en"


def test_colours_come_from_the_page(page: GetPage) -> None:
    text, _ = page("three-hospitals")
    body = text[text.index("<body>") :]
    assert "var(--series-1)" in body
    assert re.findall(r"#(?:0[1-9a-f]){3}\b", body) == []


def test_infinity_and_plain_text_are_announced(page: GetPage) -> None:
    assert "No guarantee." in page("infinite")[0]
    assert "∞" in page("infinite")[0]
    assert "Nothing was encrypted." in page("plaintext")[0]
    assert "Nothing was encrypted." not in page("three-hospitals")[0]


def test_a_stopped_round_is_a_marked_row_with_its_reason(page: GetPage) -> None:
    text, parsed = page("three-hospitals")
    assert sum(attrs.get("class") == "stopped" for attrs in parsed.all("tr")) == 1
    assert "1 of 3 contributions; the plan needs 2" in text


def test_the_matrix_marks_what_lies_above_the_budget(page: GetPage) -> None:
    text, _ = page("seven-sites")
    assert 'class="k over"' in text  # aggregator with key holder, against a budget of 2
    assert 'class="k over"' not in page("three-hospitals")[0]


def test_a_search_over_settings_is_shown_with_its_cost(page: GetPage) -> None:
    text, _ = page("three-hospitals")
    assert "<h3>learning rate</h3>" in text
    assert "this run is not among them" in text
    assert "recorded by data science in the ledger of coordinator and st-anna" in text
    assert "The ledgers record no search over hyperparameters." in page("plaintext")[0]


def test_the_darkest_field_is_the_weakest_guarantee(report: GetReport) -> None:
    matrix = view.matrices(report("three-hospitals"))[0]
    cells = [cell for row in matrix.rows for cell in row.cells if cell is not None]
    by_epsilon = sorted(cells, key=lambda cell: Decimal(cell.exact))
    assert [cell.heat for cell in by_epsilon] == sorted(cell.heat for cell in cells)
    assert (by_epsilon[0].heat, by_epsilon[-1].heat) == (0.0, 1.0)


def test_a_long_run_is_shortened_in_the_page_only(report: GetReport) -> None:
    made = report("three-hospitals")
    rounds = tuple(made.rounds[i % 12].model_copy(update={"round": i + 1}) for i in range(1000))
    text = render_html(made.model_copy(update={"rounds": rounds}))
    assert "rounds left out here; the JSON report has them" in text or "left out here" in text
    assert text.count("<tr") < 400
    assert len(text) < 1_000_000


def test_a_crowd_of_sites_is_plotted_for_those_closest_to_their_budgets(
    report: GetReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MOST_SITE_PLOTS", 5)
    made = report("smooth")
    crowd = tuple(
        made.sites[0].model_copy(
            update={"name": f"site-{i}", "epsilon_after_run": Decimal(i) / 100}
        )
        for i in range(30)
    )
    text = render_html(made.model_copy(update={"sites": crowd}))
    assert text.count("rounds charged") == 5
    assert "25 more stand in the table" in text
    assert text.count('class="bar"') == 5
    assert "<b>site-29</b>" in text
    assert "<b>site-0</b>" not in text
    assert '<th scope="row">site-0</th>' in text


@pytest.mark.parametrize("name", NAMES)
def test_the_first_section_says_what_it_rests_on_and_how_to_check(
    page: GetPage, report: GetReport, name: str
) -> None:
    first = unescape(page(name)[0].partition('id="spending"')[0])
    assert all(f"{assumption[1:]}.</li>" in first for assumption in report(name).assumptions)
    assert "privagg verify bundle.privagg.zip" in first
    assert "checkpoint that another party kept" in first


def test_page_one_says_whose_word_the_facts_are(html: Callable[[str], str]) -> None:
    page = unescape(html("three-hospitals"))
    for words in ("The bundle can prove:", "The coordinator's word:", "Each site's word:"):
        assert words in page
    assert "times the clip" in page
