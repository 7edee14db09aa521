"""Hostile bytes against the aggregator, a small count; `tests.benchmarks.fuzz` runs the big one."""

from __future__ import annotations

import pytest

from tests.benchmarks.fuzz import Fuzzer, wanted_count


@pytest.mark.parametrize("name", ["plaintext", "ckks", "bfv"])
def test_no_hostile_input_crashes_is_added_or_allocates(name: str) -> None:
    fuzzer = Fuzzer(name, seed=11)
    if name == "plaintext":  # every byte string is some counter vector
        del fuzzer.attacks["insider: a SEAL file as payload"]
        del fuzzer.attacks["insider: residues out of range"]
    count = wanted_count(2800)
    outcome = fuzzer.run(count)
    assert outcome.failures == []
    assert outcome.inputs == count
    assert sum(outcome.errors.values()) == count
    assert {"MessageError", "SignatureError", "ReplayError", "CiphertextError"} <= set(
        outcome.errors
    )
