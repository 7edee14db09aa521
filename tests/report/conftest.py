"""One world, report, page and PDF of each kind, made once."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable

import pytest

from privagg.report import Report
from privagg.report.render import render_html, render_pdf
from tests.report.worlds import WORLDS, World


def poppler(tool: str, pdf: bytes, *options: str) -> str:
    """What one of Poppler's programs, which others wrote, reads in a PDF."""
    if shutil.which(tool) is None:
        pytest.skip(f"poppler's {tool} is not installed")
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(pdf)
        file.flush()
        words = [tool, *options, file.name, *(["-"] if tool == "pdftotext" else [])]
        return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout.decode()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    made: dict[str, World] = {}

    def get(name: str) -> World:
        if name not in made:
            made[name] = WORLDS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def report(world: Callable[[str], World]) -> Callable[[str], Report]:
    made: dict[str, Report] = {}

    def get(name: str) -> Report:
        if name not in made:
            made[name] = world(name).report()
        return made[name]

    return get


@pytest.fixture(scope="session")
def html(report: Callable[[str], Report]) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = render_html(report(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def pdf(report: Callable[[str], Report]) -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def get(name: str) -> bytes:
        if name not in made:
            made[name] = render_pdf(report(name))
        return made[name]

    return get
