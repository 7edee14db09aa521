"""The aggregator's fold: memory, batches and what remains after refusals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from privagg.errors import CapacityError, CiphertextError
from privagg.kernels.residues import pack_residues
from privagg.secure.bfv import BfvParameters, BfvScheme
from privagg.secure.scheme import Requirement


def made(addends: int) -> tuple[BfvParameters, list[bytes], list[list[int]]]:
    """Parameters and payloads of random residues, which a fold adds without knowing the key."""
    parameters = BfvScheme().choose_parameters(Requirement(30_000, 100, 6400, addends))
    layout, rng = parameters.layout, np.random.default_rng(1)
    words = [
        np.concatenate(
            [
                rng.integers(0, q, n, dtype=np.uint64)
                for q, n in zip(layout.moduli, layout.counts, strict=True)
            ]
        )
        for _ in range(3)
    ]
    return parameters, [pack_residues(layout, w) for w in words], [w.tolist() for w in words]


def test_memory_does_not_grow_with_the_sites() -> None:
    parameters, (payload, *_), _ = made(64)
    peaks = {}
    for sites in (1, 4, 64):  # the first run also pays for compilation
        tracemalloc.start()
        fold = parameters.fold()
        for _ in range(sites):
            fold.add(payload)
        fold.payload()
        peaks[sites] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[64] <= 1.05 * peaks[4]
    assert peaks[4] < 4 * parameters.payload_bytes


def test_a_batch_is_added_in_one_pass_and_its_bad_members_named() -> None:
    parameters, payloads, words = made(8)
    bad = payloads[1][:-9] + b"\xff" * 9
    fold = parameters.fold()
    errors = fold.add_many([payloads[0], bad, payloads[1], payloads[2][:-1], payloads[2]])
    assert [error is None for error in errors] == [True, False, True, False, True]
    assert isinstance(errors[1], CiphertextError)
    assert "outside its range" in str(errors[1])
    assert "bytes instead of" in str(errors[3])
    assert fold.count == 3
    moduli = np.repeat(np.array(parameters.layout.moduli, dtype=object), parameters.layout.counts)
    wanted = sum(np.array(w, dtype=object) for w in words) % moduli
    assert parameters.read(fold.payload()).tolist() == wanted.tolist()


def test_what_a_batch_has_no_room_for_is_refused_and_the_rest_is_added() -> None:
    parameters, payloads, _ = made(2)
    fold, expected = parameters.fold(), parameters.fold()
    errors = fold.add_many(payloads)
    assert errors[:2] == [None, None]
    assert isinstance(errors[2], CapacityError)
    assert fold.count == 2
    for payload in payloads[:2]:
        expected.add(payload)
    assert fold.payload() == expected.payload()
    with pytest.raises(CiphertextError, match="nothing was folded"):
        parameters.fold().payload()


def test_a_fold_of_one_is_that_one() -> None:
    parameters, payloads, _ = made(2)
    fold = parameters.fold()
    fold.add(payloads[0])
    assert fold.payload() == payloads[0]
