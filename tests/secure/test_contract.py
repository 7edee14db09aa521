"""Every scheme returns the same integers: the contract, over the list of schemes."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest

from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement, Scheme
from tests.secure.contract import CASES, KeyContract, setup

SCHEMES = ("plaintext", "ckks", "bfv", "paillier")


@pytest.fixture(params=SCHEMES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestContract(KeyContract):
    pass


@pytest.mark.parametrize("case", CASES)
def test_all_schemes_open_to_the_same_bytes(case: str) -> None:
    values = setup("plaintext", case).draw(np.random.default_rng(30), 2)
    opened = set()
    for name in (*SCHEMES, "masked"):
        made = setup(name, case)
        fold = made.parameters.fold()
        for contribution in values:
            fold.add(made.encrypt(contribution))
        opened.add(made.open(fold.payload(), 2).tobytes())
    assert len(opened) == 1


def test_the_example_of_a_sum_runs_as_it_is_written() -> None:
    text = (Scheme.__doc__ or "").split("::\n")[1].split("Attributes:")[0]
    names: dict[str, Any] = {
        "np": np,
        "scheme": scheme,
        "key_generator": key_generator,
        "Requirement": Requirement,
    }
    exec(textwrap.dedent(text), names)
    assert names["total"].tolist() == [11, 22, -27]
