"""A report's files: written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from privagg.errors import ConfigError
from privagg.privacy.accountant import Accountant
from privagg.privacy.ledger.reading import LedgerReading
from privagg.report.build import build_report
from privagg.report.model import Report

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write_report(
    output: Path,
    *,
    run: str,
    coordinator: LedgerReading,
    sites: Mapping[str, LedgerReading],
    accountant: Accountant | None = None,
) -> tuple[Path, Path | None]:
    """Build the report of a run from its ledgers and write `report.json` and `report.html`.

    Returns:
        The two paths; None for the page where `privagg[report]` is not installed.

    Raises:
        LedgerError: as `build_report`.
        ConfigError: `output` cannot be written to.
    """
    report = build_report(run=run, coordinator=coordinator, sites=sites, accountant=accountant)
    return write_files(output, report)


def write_files(output: Path, report: Report) -> tuple[Path, Path | None]:
    """Write a report's JSON and, where the plotting libraries are installed, its page."""
    json_path, html_path = output / JSON_NAME, output / HTML_NAME
    _write(json_path, report.to_json())
    if not can_draw():
        return json_path, None
    from privagg.report.html import render_html

    _write(html_path, render_html(report))
    return json_path, html_path


def can_draw() -> bool:
    """True where what the HTML page needs is installed."""
    return all(find_spec(name) is not None for name in ("jinja2", "matplotlib"))


def _write(path: Path, text: str) -> None:
    """Replace `path` in one step, so that nobody ever reads half a report."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; choose another folder"
        ) from error
