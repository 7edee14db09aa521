"""Encryption over processes: the same payloads, whatever becomes of the helpers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from privagg.secure import workers
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement

REQUIREMENT = Requirement(9000, 1000, 4000, 4)
VALUES = np.random.default_rng(1).integers(-1000, 1000, 9000, dtype=np.int64)


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    workers.close_helpers()


def test_small_models_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(workers.ENVIRONMENT, raising=False)
    monkeypatch.setenv("PRIVAGG_THREADS", "8")
    a_second = workers.MIN_RESIDUES_A_PROCESS
    assert workers.encryption_processes(a_second - 1, 100) == 1
    assert workers.encryption_processes(3 * a_second, 100) == 3
    assert workers.encryption_processes(100 * a_second, 100) == 8
    assert workers.encryption_processes(100 * a_second, 2) == 2


def test_the_environment_decides_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(workers.ENVIRONMENT, "3")
    assert workers.encryption_processes(1, 100) == 3
    assert workers.encryption_processes(1, 2) == 2
    monkeypatch.setenv(workers.ENVIRONMENT, "many")
    assert workers.encryption_processes(1, 100) == 1


@pytest.mark.parametrize("name", ["ckks", "bfv"])
def test_payloads_from_several_processes_open_exactly(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(workers.ENVIRONMENT, "2")
    found = scheme(name)
    parameters = found.choose_parameters(REQUIREMENT, ring_degree=2048)
    key = key_generator(found.name).generate_key(parameters)

    def opened() -> list[int]:
        payload = key.encryption_key.encrypt(VALUES)
        assert len(payload) == parameters.payload_bytes
        opened: list[int] = found.combine(parameters, [key.open_share(payload, 1)], 1).tolist()
        return opened

    assert opened() == VALUES.tolist()
    (helper,) = workers._pool
    assert opened() == VALUES.tolist()
    assert workers._pool == [helper]  # kept for the next round
    helper._process.kill()
    helper._process.wait()
    assert opened() == VALUES.tolist()  # with a new one
    assert workers._pool != [helper]
    assert helper._connection.closed  # nothing of the lost one stays open


def test_a_machine_that_starts_no_processes_encrypts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(workers.ENVIRONMENT, "2")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    found = scheme("bfv")
    parameters = found.choose_parameters(REQUIREMENT, ring_degree=2048)
    key = key_generator(found.name).generate_key(parameters)
    payload = key.encryption_key.encrypt(VALUES)
    assert found.combine(parameters, [key.open_share(payload, 1)], 1).tolist() == VALUES.tolist()
    assert workers._pool == []


def test_a_helper_that_breaks_down_costs_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(workers.ENVIRONMENT, "2")
    found = scheme("bfv")
    parameters = found.choose_parameters(REQUIREMENT, ring_degree=2048)
    key = key_generator(found.name).generate_key(parameters)
    monkeypatch.setattr(workers._Helper, "alive", True)
    helper = workers._Helper()
    helper._process.kill()
    workers._pool.append(helper)
    payload = key.encryption_key.encrypt(VALUES)
    assert found.combine(parameters, [key.open_share(payload, 1)], 1).tolist() == VALUES.tolist()
    assert workers._pool == [helper]
