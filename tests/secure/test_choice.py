"""Whatever the lattice schemes choose carries the largest contributions to their exact sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from privagg.errors import ParameterError
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    bound = draw(st.integers(0, 45).flatmap(lambda bits: st.integers(1, 2 << bits)))
    addends = draw(st.one_of(st.integers(1, 4), st.integers(5, 2000)))
    tight = draw(st.booleans())  # sums promised to stay close to a single contribution
    total = max(bound, round(bound * addends**0.5)) if tight else bound * addends
    level = draw(st.sampled_from([128, 128, 192, 256]))
    return Requirement(draw(st.integers(1, 3000)), bound, total, addends, level)


options = st.fixed_dictionaries(
    {
        "ring_degree": st.sampled_from([None, None, 2048, 4096, 8192, 16384]),
        "smudging_bits": st.sampled_from([0, 0, 20, 60]),
        "packed": st.booleans(),
    }
)


@pytest.mark.parametrize("name", ["bfv", "ckks"])
@settings(max_examples=25, deadline=None)
@given(requirement=requirements(), chosen=options, sign=st.sampled_from([-1, 1]))
def test_chosen_parameters_carry_the_largest_sums(
    name: str, requirement: Requirement, chosen: dict[str, Any], sign: int
) -> None:
    made = scheme(name)
    try:
        parameters = made.choose_parameters(requirement, **chosen)
    except ParameterError:
        assume(False)
        return
    key = key_generator(name).generate_key(parameters)
    addends = min(requirement.addends, requirement.sum_bound // requirement.upload_bound, 3)
    values = np.full(requirement.length, sign * requirement.upload_bound, dtype=np.int64)
    fold = parameters.fold()
    for _ in range(addends):
        fold.add(key.encryption_key.encrypt(values))
    share = key.open_share(fold.payload(), addends)
    assert made.combine(parameters, [share], addends).tolist() == (values * addends).tolist()
