"""A report's files: written whole or not at all, in every form there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from privagg.durable import write_whole
from privagg.errors import ConfigError
from privagg.privacy.accountant import Accountant
from privagg.report.annexes import ANNEXES, render_annex
from privagg.report.build import build_report
from privagg.report.language import ENGLISH, spoken
from privagg.report.model import Report
from privagg.report.registry import registry_yaml
from privagg.report.source import LedgerView

JSON_NAME, HTML_NAME = "report.json", "report.html"


def _json(report: Report) -> str:
    return report.to_json()


def _html(report: Report) -> str:
    from privagg.report.render import render_html

    return render_html(report)


def _pdf(report: Report) -> bytes:
    from privagg.report.render import render_pdf

    return render_pdf(report)


def _annex(name: str) -> Callable[[Report], str]:
    return lambda report: render_annex(name, report)


FORMATS: Mapping[str, tuple[str, Callable[[Report], str | bytes]]] = MappingProxyType(
    {
        "json": (JSON_NAME, _json),
        "html": (HTML_NAME, _html),
        "pdf": ("report.pdf", _pdf),
        "registry": ("registry.yaml", registry_yaml),
        **{f"annex-{name}": (f"annex-{name}.md", _annex(name)) for name in ANNEXES},
    }
)
"""Name of a form -> its file's name, and what renders it. The first one is what `verify` reads."""

ONE_LANGUAGE = ("json", "registry")
"""Forms that are English whatever language is spoken."""


def write_report(
    output: Path,
    *,
    run: str,
    coordinator: LedgerView,
    sites: Mapping[str, LedgerView],
    accountant: Accountant | None = None,
) -> tuple[Path, Path | None]:
    """Build the report of a run from its ledgers and write `report.json` and `report.html`.

    Args:
        output: a folder, made where it is missing.
        run: the run's name.
        coordinator: the coordinator's ledger.
        sites: site name -> its ledger; every site of the plan must be there.
        accountant: whose epsilon is reported; the certified one by default.

    Returns:
        The two paths; None for the page where `privagg[report]` is not installed.

    Raises:
        LedgerError: as `build_report`.
        ConfigError: `output` cannot be written to.
    """
    report = build_report(run=run, coordinator=coordinator, sites=sites, accountant=accountant)
    return write_files(output, report)


def write_files(output: Path, report: Report) -> tuple[Path, Path | None]:
    """Write a report's JSON and, where what it needs is installed, its page."""
    (json_path,) = write_formats(output, report, ["json"])
    if not can_draw():
        return json_path, None
    (html_path,) = write_formats(output, report, ["html"])
    return json_path, html_path


def write_formats(output: Path, report: Report, formats: Sequence[str]) -> tuple[Path, ...]:
    """Write a report in these forms; all are rendered before one is written.

    Args:
        output: a folder, made where it is missing.
        report: what is written.
        formats: names of `FORMATS`.

    Returns:
        The path of each file, in the order of `formats`.

    Raises:
        MissingDependencyError: a library that a form needs is not installed.
        ConfigError: `output` cannot be written to.
    """
    rendered = [(output / file_name(name), FORMATS[name][1](report)) for name in formats]
    for path, content in rendered:
        _write(path, content if isinstance(content, bytes) else content.encode())
    return tuple(path for path, _ in rendered)


def file_name(form: str) -> str:
    """What a form's file is called; a form for people names the language unless it is English."""
    stem, _, suffix = FORMATS[form][0].partition(".")
    if spoken().name == ENGLISH or form in ONE_LANGUAGE:
        return FORMATS[form][0]
    return f"{stem}.{spoken().name}.{suffix}"


def can_draw() -> bool:
    """True where what the HTML page needs is installed."""
    return find_spec("jinja2") is not None


def _write(path: Path, content: bytes) -> None:
    """Replace `path` in one step, so that nobody ever reads half a report."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    write_whole(path, content)
