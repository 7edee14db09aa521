"""The report as one self-contained HTML file: no scripts, no network, everything escaped.

Names of sites, data sets and federations come from other parties; Jinja's autoescape treats every
value as text. The only markup let through is our own style sheet and the SVG of our own plots.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from privagg.errors import MissingDependencyError
from privagg.report import plots, view
from privagg.report.figures import epsilon_text
from privagg.report.model import Report
from privagg.report.page import Page, arranged


def render_html(report: Report) -> str:
    """The page for `report`, as text.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed (`privagg[report]`).
    """
    return str(_template().render(_context(arranged(report))))


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingDependencyError(
            "the HTML report needs jinja2, which is not installed; pip install 'privagg[report]', "
            "or ask for the JSON report only"
        ) from error
    files = resources.files("privagg.report")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["epsilon"] = epsilon_text
    environment.filters["svg"] = Markup
    environment.filters["unbroken"] = lambda text: text.replace(" = ", "\u00a0=\u00a0")
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)
    return environment.from_string(files.joinpath("template.html.j2").read_text(encoding="utf-8"))


def _context(page: Page) -> dict[str, Any]:
    report = page.report
    cost = (
        plots.metric_plot(report.rounds, page.public_table),
        plots.time_plot(report.rounds),
        plots.bytes_plot(report.rounds, [site.name for site in report.sites]),
    )
    return {
        "page": page,
        "report": report,
        "sites": tuple(zip(page.bars, report.sites, strict=True)),
        "spending_plots": [
            plots.epsilon_plot(site, report.run, i) for i, site in enumerate(page.plotted)
        ],
        "cost_plots": [plot for plot in cost if plot is not None],
        "comparisons": [
            (group, plots.accountant_plot(group.representative, i, view.ACCOUNTANTS))
            for i, group in enumerate(page.comparisons)
        ],
        "group_limit": view.MOST_GROUPS,
        "scheme_parameters": _pretty(report.scheme.parameters),
        "recipe": _pretty(report.plan.get("recipe") or {}),
    }


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
