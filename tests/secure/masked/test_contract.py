"""Masked sums keep to the contract of every scheme: the same integers as the others."""

from __future__ import annotations

import pytest

from tests.secure.contract import SchemeContract


@pytest.fixture(scope="module")
def name() -> str:
    return "masked"


class TestContract(SchemeContract):
    pass
