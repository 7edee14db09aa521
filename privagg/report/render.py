"""The report for people, as a page and as a PDF: one template, two ways of setting it.

`template.html.j2` says what stands where; a browser sets it by `style.css`, Typst by `paper.typ`.
Names of sites, data sets and federations come from other parties. Jinja's autoescape treats every
value as text, and the only markup let through is our own style sheet and the SVG of our own plots.
Typst is given the page as XML and shows its texts character by character; none is Typst source.
Neither form asks the network for anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from privagg.errors import MissingDependencyError
from privagg.report import plots, view
from privagg.report.answerplots import answer_plots
from privagg.report.drawing import PAPER, Plot, on_paper, shortened
from privagg.report.figures import epsilon_text
from privagg.report.language import Language, say, spoken, told, unfilled
from privagg.report.model import Report
from privagg.report.page import Page, arranged
from privagg.report.shown import clean

_FILES = resources.files("privagg.report")
JSON_LINE = 180
"""Characters of JSON that may stand on one line; a feature of a recipe has about 150."""

RUNNING_NAME = 40
"""Characters of a name at the head of a sheet, where all has to stay on one line."""


def render_html(report: Report) -> str:
    """The page for `report`, as one self-contained file: no scripts, no network.

    In the language that is spoken (`report.language`).

    Raises:
        MissingDependencyError: jinja2 is not installed (`privagg[report]`).
    """
    return _rendered(_drawn(arranged(report)), lambda plot: plot.svg)


def render_pdf(report: Report) -> bytes:
    """The same page on A4; equal reports give equal bytes with the same library versions.

    Fonts are Typst's own and matplotlib's, and the machine's only for a script that these lack.

    Raises:
        MissingDependencyError: jinja2, matplotlib or typst is not installed (`privagg[report]`),
            or no font of the language's script.
    """
    typst = _typst()
    script = spoken()
    fonts = typst.Fonts(include_system_fonts=bool(script.sans), font_paths=[_font_folder()])
    drawn = _drawn(arranged(report))
    page = _rendered(drawn, lambda plot: f'<img src="{plot.name}"/>')
    made = report.generated
    inputs = {
        "body": page[page.index("<body>") : page.rindex("</html>")],
        "plots": json.dumps({plot.name: on_paper(plot) for plot in drawn.plots}),
        "colours": json.dumps(PAPER),
        "script": json.dumps(_families(script, fonts.families())),
        "lang": script.tag.partition("-")[0],
        "title": clean(drawn.page.title),
        "running": say(
            "{federation} · run {run}",
            federation=shortened(report.federation, RUNNING_NAME),
            run=shortened(report.run, RUNNING_NAME),
        ),
        "made": json.dumps(
            {
                "year": made.year, "month": made.month, "day": made.day,
                "hour": made.hour, "minute": made.minute, "second": made.second,
            }
        ),
    }  # fmt: skip
    style = _FILES.joinpath("paper.typ").read_bytes()
    made_pdf: bytes = typst.compile(style, font_paths=fonts, sys_inputs=inputs)
    return made_pdf


@dataclass(frozen=True)
class _Drawn:
    """A page with its plots."""

    page: Page
    spending: tuple[Plot, ...]
    quality: tuple[Plot, ...]
    answers: tuple[tuple[Plot, ...], ...]
    cost: tuple[Plot, ...]
    comparisons: tuple[tuple[view.ComparisonGroup, Plot | None], ...]

    @property
    def plots(self) -> tuple[Plot, ...]:
        """All of them."""
        compared = (plot for _, plot in self.comparisons if plot is not None)
        answered = (plot for each in self.answers for plot in each)
        return (*self.spending, *self.quality, *answered, *self.cost, *compared)


def _drawn(page: Page) -> _Drawn:
    report = page.report
    quality = (plots.metric_plot(report.rounds, page.public_table),)
    cost = (
        plots.time_plot(report.rounds),
        plots.bytes_plot(report.rounds, [site.name for site in report.sites]),
    )
    return _Drawn(
        page=page,
        spending=tuple(
            plots.epsilon_plot(site, report.run, i) for i, site in enumerate(page.plotted)
        ),
        quality=tuple(plot for plot in quality if plot is not None),
        answers=answer_plots(report.answers),
        cost=tuple(plot for plot in cost if plot is not None),
        comparisons=tuple(
            (group, plots.accountant_plot(group.representative, i, view.accountant_name))
            for i, group in enumerate(page.comparisons)
        ),
    )


def _rendered(drawn: _Drawn, embedded: Callable[[Plot], str]) -> str:
    """The template's text, with each plot as the markup that `embedded` gives for it."""
    template, marked = _template()
    places = {"language": spoken(), "embedded": lambda plot: marked(embedded(plot))}
    return str(template.render(_context(drawn) | places))


@cache
def _template() -> tuple[Any, Any]:
    """The template, compiled, and what marks a text as markup.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingDependencyError(
            "the report's page and its PDF need jinja2, which is not installed; "
            "pip install 'privagg[report]', or ask for the JSON report only"
        ) from error

    def shown(value: Any) -> Any:
        return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def marked(english: str, **places: Any) -> Markup:
        return Markup(unfilled(english)).format(
            **{name: shown(held) for name, held in places.items()}
        )

    environment.globals |= {"say": marked, "told": told}
    environment.globals["code"] = lambda text: Markup("<code>{}</code>").format(shown(text))
    environment.filters["epsilon"] = epsilon_text
    environment.filters["unbroken"] = _unbroken
    environment.globals["style"] = Markup(_FILES.joinpath("style.css").read_text("utf-8"))
    source = _FILES.joinpath("template.html.j2").read_text("utf-8")
    return environment.from_string(source), Markup


def _context(drawn: _Drawn) -> dict[str, Any]:
    page, report = drawn.page, drawn.page.report
    return {
        "page": page,
        "report": report,
        "sites": tuple(zip(page.bars, report.sites, strict=True)),
        "spending_plots": drawn.spending,
        "quality_plots": drawn.quality,
        "answers": tuple(zip(page.answers, drawn.answers, strict=True)),
        "cost_plots": drawn.cost,
        "comparisons": drawn.comparisons,
        "group_limit": view.MOST_GROUPS,
        "scheme_parameters": _pretty(report.scheme.parameters),
        "recipe": _pretty(report.plan.get("recipe") or {}),
    }


def _pretty(value: Any, indent: str = "") -> str:
    """JSON in which whatever fits a line stands on one."""
    whole = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(whole) <= JSON_LINE or not isinstance(value, dict | list):
        return whole
    inner = indent + "  "
    if isinstance(value, list):
        parts, (opening, closing) = [_pretty(item, inner) for item in value], "[]"
    else:
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_pretty(value[key], inner)}"
            for key in sorted(value)
        ]
        opening, closing = "{}"
    between = f",\n{inner}"
    return f"{opening}\n{inner}{between.join(parts)}\n{indent}{closing}"


def _unbroken(sentence: str) -> str:
    """A sentence in which no figure is parted from its sign."""
    return sentence.replace(" = ", "\u00a0=\u00a0").replace(" δ", "\u00a0δ")


def _typst() -> Any:
    try:
        import typst
    except ImportError as error:
        raise MissingDependencyError(
            "the PDF report needs typst, which is not installed; pip install 'privagg[report]', "
            "or print the page"
        ) from error
    return typst


def _families(script: Language, known: Sequence[str]) -> dict[str, list[str]]:
    """The fonts of a language's script that are here, for `paper.typ`.

    Raises:
        MissingDependencyError: it needs one, and none is here.
    """
    found = {
        "serif": [name for name in (*script.serif, *script.sans) if name in known][:1],
        "sans": [name for name in (*script.sans, *script.serif) if name in known][:1],
    }
    if script.sans and not found["sans"]:
        raise MissingDependencyError(
            f"the PDF in this language ({script.name}) needs a font that has its characters, and "
            f"this machine has none; install {script.install}, or take the page: --format html"
        )
    return found


def _font_folder() -> Path:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            "the PDF report needs matplotlib, for its fonts, which is not installed; "
            "pip install 'privagg[report]', or ask for the JSON report only"
        ) from error
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
