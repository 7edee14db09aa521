"""Every scheme returns the same integers: the contract, over the list of schemes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.secure.contract import CASES, SchemeContract, setup

SCHEMES = ("plaintext", "ckks", "bfv", "paillier")


@pytest.fixture(params=SCHEMES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestContract(SchemeContract):
    pass


@pytest.mark.parametrize("case", CASES)
def test_all_schemes_open_to_the_same_bytes(case: str) -> None:
    values = setup("plaintext", case).draw(np.random.default_rng(30), 2)
    opened = set()
    for name in SCHEMES:
        made = setup(name, case)
        fold = made.parameters.fold()
        for contribution in values:
            fold.add(made.encrypt(contribution))
        opened.add(made.open(fold.payload(), 2).tobytes())
    assert len(opened) == 1
