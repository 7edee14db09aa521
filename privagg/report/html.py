"""The report as one self-contained HTML file: no scripts, no network, everything escaped.

Names of sites, data sets and federations come from other parties; Jinja's autoescape treats every
value as text. The only markup let through is our own style sheet and the SVG of our own plots.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from privagg.errors import MissingDependencyError
from privagg.report import plots, roundview, view
from privagg.report.figures import delta_text, epsilon_text
from privagg.report.model import Report


def render_html(report: Report) -> str:
    """The page for `report`, as text.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed (`privagg[report]`).
    """
    return str(_template().render(_context(report)))


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


def _context(report: Report) -> dict[str, Any]:
    bars = view.budget_bars(report)
    matrices = view.matrices(report)
    cells = [c for m in matrices for row in m.rows for c in row.cells if c is not None]
    spoken_table = report.public_table.name if report.public_table else "the public table"
    cost = (
        plots.metric_plot(report.rounds, spoken_table),
        plots.time_plot(report.rounds),
        plots.bytes_plot(report.rounds, [site.name for site in report.sites]),
    )
    plotted = view.closest_to_budget(report)
    return {
        "report": report,
        "unplotted": len(report.sites) - len(plotted),
        "banners": _banners(report),
        "bars": bars,
        "summary_bars": [b for b in bars if b.site in {site.name for site in plotted}],
        "sites": tuple(zip(bars, report.sites, strict=True)),
        "any_before": any(bar.before_share > 0 for bar in bars),
        "any_infinite": any(bar.infinite for bar in bars) or any(c.infinite for c in cells),
        "any_over": any(c.over for c in cells),
        "headline": view.headline_rows(report),
        "headline_delta": delta_text(report.sites[0].committed.delta) if report.sites else "",
        "spending_plots": [
            plots.epsilon_plot(site, report.run, i) for i, site in enumerate(plotted)
        ],
        "cost_plots": [plot for plot in cost if plot is not None],
        "totals": roundview.total_rows(report),
        "comparisons": [
            (group, plots.accountant_plot(group.representative, i, view.ACCOUNTANTS))
            for i, group in enumerate(view.comparisons(report))
        ],
        "matrices": matrices,
        "group_limit": view.MOST_GROUPS,
        "plan": view.plan_rows(report),
        "rounds": roundview.round_rows(report),
        "measures": roundview.metric_names(report),
        "scheme_parameters": _pretty(report.scheme.parameters),
        "recipe": _pretty(report.plan.get("recipe") or {}),
    }


def _banners(report: Report) -> list[tuple[str, str]]:
    found = []
    if not report.scheme.protects:
        found.append(
            ("Nothing was encrypted.", f"The scheme {report.scheme.name} is for tests and "
             "comparisons: whoever adds the contributions can read each of them.")
        )  # fmt: skip
    if any(site.epsilon_after_run.is_infinite() for site in report.sites):
        found.append(
            ("No guarantee.", "At least one round was run without noise, or with a generator made "
             "for tests: ε is infinite.")
        )  # fmt: skip
    if report.outcome != "finished":
        found.append(
            (f"The run is {report.outcome}.", report.reason or "The ledger gives no reason.")
        )
    return found


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
