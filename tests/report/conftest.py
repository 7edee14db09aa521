"""One world and report of each kind, made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from privagg.report import Report
from tests.report.worlds import WORLDS, World


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
