"""The forms of a report as files, and how the command line chooses them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from privagg.errors import MissingDependencyError
from privagg.report import FORMATS, Report, view, write_formats
from tests.commands import call

GetReport = Callable[[str], Report]
ANNEX_FILES = {
    "annex-nist-800-226.md",
    "annex-gdpr-35.md",
    "annex-model-risk.md",
    "annex-pipl-55.md",
    "annex-eu-ai-act-iv.md",
    "annex-edpb-28-2024.md",
}


@pytest.fixture(scope="module")
def source(report: GetReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return write_formats(folder, report("smooth"), ["json"])[0]


def test_every_form_has_a_file_of_its_own() -> None:
    files = [name for name, _ in FORMATS.values()]
    assert len(set(files)) == len(files)
    assert set(files) > ANNEX_FILES


def test_the_command_line_writes_the_forms_it_is_asked_for(source: Path, tmp_path: Path) -> None:
    asked = ("--format", "annexes", "-f", "registry", "-f", "annex-gdpr-35")
    assert call("report", source, "--output", tmp_path, *asked).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {*ANNEX_FILES, "registry.yaml"}
    for path in tmp_path.iterdir():
        assert path.read_text("utf-8").endswith("\n")


def test_a_pdf_is_written_from_the_json_alone(source: Path, tmp_path: Path) -> None:
    assert call("report", source, "-o", tmp_path, "-f", "pdf").code == 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_an_unknown_form_is_refused_with_those_there_are(source: Path) -> None:
    refused = call("report", source, "-f", "docx")
    assert refused.code == 2
    assert "registry" in refused.err


def _empty(facts: dict[str, Any]) -> None:
    facts.update(plan={}, sites=[], rounds=[], model=None, parties={}, versions={})


def _bare(facts: dict[str, Any]) -> None:
    facts["plan"] = {"recipe": {"model": 3, "data": {"features": [1]}}}
    for site in facts["sites"]:
        site.update(guarantees=[], accountants=[], history=[], budget=None)


def _huge(facts: dict[str, Any]) -> None:
    facts["plan"] = {"dimension": "x", "rounds": None, "recipe": [1]}
    for site in facts["sites"]:
        site["epsilon_after_run"] = site["committed"]["epsilon"] = "1" + "0" * 400
        for row in site["guarantees"]:
            row["epsilon"] = "1" + "0" * 400


@pytest.mark.parametrize("change", [_empty, _bare, _huge])
def test_every_form_takes_any_report_that_the_format_allows(
    source: Path, change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MOST_SITE_PLOTS", 1)
    facts = json.loads(source.read_text("utf-8"))
    change(facts)
    made = Report.from_json(json.dumps(facts))
    for _, render in FORMATS.values():
        assert render(made)


def test_nothing_is_written_where_a_library_is_missing(
    report: GetReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_spec("typst") is not None
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(MissingDependencyError, match=r"typst.*pip install 'privagg\[report\]'"):
        write_formats(tmp_path, report("smooth"), ["json", "pdf"])
    assert list(tmp_path.iterdir()) == []
