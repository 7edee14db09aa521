"""The oracle says what it is, and its fold knows the range of partial sums."""

from __future__ import annotations

import numpy as np
import pytest

from privagg.errors import CiphertextError
from privagg.secure.plaintext import PlaintextKeyGenerator, PlaintextScheme
from privagg.secure.scheme import Requirement

SCHEME, KEYS = PlaintextScheme(), PlaintextKeyGenerator()
PARAMETERS = SCHEME.choose_parameters(Requirement(3, 10, 30, 3))


def test_it_claims_no_protection() -> None:
    assert not SCHEME.protects
    assert PARAMETERS.security_bits == 0
    assert "no encryption" in PARAMETERS.explain()


def test_the_payload_is_the_values() -> None:
    key = KEYS.generate_key(PARAMETERS).encryption_key
    values = np.array([-10, 0, 10])
    assert np.frombuffer(key.encrypt(values), "<i8").tolist() == values.tolist()


def test_a_partial_sum_may_reach_its_addends_times_the_bound() -> None:
    fold = PARAMETERS.fold()
    partial = np.array([20, 20, -20], dtype="<i8").tobytes()
    with pytest.raises(CiphertextError, match="value 0 of the payload is 20"):
        fold.add(partial)
    fold.add(partial, addends=2)
    assert fold.count == 2


def test_many_contributions_are_added_in_one_pass_and_bad_ones_named() -> None:
    fold = PARAMETERS.fold()
    good = np.array([1, 2, 3], dtype="<i8").tobytes()
    bad = np.array([1, 11, 3], dtype="<i8").tobytes()
    errors = fold.add_many([good, bad, good[:-1]])
    assert errors[0] is None
    assert "value 1" in str(errors[1])
    assert "bytes" in str(errors[2])
    assert fold.count == 1
    assert fold.payload() == good


def test_an_empty_fold_has_no_sum_to_hand_out() -> None:
    with pytest.raises(CiphertextError, match="nothing was folded"):
        PARAMETERS.fold().payload()
