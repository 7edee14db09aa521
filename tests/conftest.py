"""What tests everywhere may ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def no_page() -> Iterator[None]:
    """Runs draw no page, as where jinja2 is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privagg.report.write.can_draw", lambda: False)
        yield


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one test, as pytest's own, but short: a party's socket has to fit beneath it."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Heard again where a SuperLink ran in this process: its migrations disable all loggers."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("privagg") and isinstance(logger, logging.Logger):
            logger.disabled = False
    return caplog
