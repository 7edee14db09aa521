"""A scheme that another package adds, written from the files that `privagg.secure` names.

It adds numbers in the clear without any kernel of privagg's, so that it is short; it keeps to the
whole contract, and a round runs with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.encoding.vectors import IntVector
from privagg.errors import CapacityError, CiphertextError, KeyMismatchError
from privagg.secure import facts as fact
from privagg.secure import opening, registry
from privagg.secure.opening import DecryptionKey, KeyGenerator
from privagg.secure.scheme import Buffer, EncryptionKey, Fold, Parameters, Requirement, Scheme
from tests.secure.contract import KeyContract
from tests.simulator import NAMES, Simulation


@dataclass(frozen=True)
class TallyParameters(Parameters):
    requirement: Requirement
    scheme = "tally"
    security_bits = 0
    packing = "tally"

    def __post_init__(self) -> None:
        fact.check_requirement(self.requirement)

    def to_dict(self) -> dict[str, Any]:
        return {"tally": fact.requirement_to_dict(self.requirement)}

    @property
    def payload_bytes(self) -> int:
        return 8 * self.requirement.length

    def explain(self) -> str:
        return f"tally: {self.payload_bytes} bytes in the clear"

    def fold(self) -> TallyFold:
        return TallyFold(self)


class TallyFold(Fold):
    def __init__(self, parameters: TallyParameters) -> None:
        self.count = 0
        self._parameters = parameters
        self._total = np.zeros(parameters.requirement.length, dtype=np.int64)

    def add(self, payload: Buffer, addends: int = 1) -> None:
        if addends < 1 or self.count + addends > self._parameters.requirement.addends:
            raise CapacityError(f"no room for {addends} more")
        self._total += self._read(payload, addends)
        self.count += addends

    def payload(self) -> bytes:
        return self._total.tobytes()

    def _read(self, payload: Buffer, addends: int) -> IntVector:
        size = memoryview(payload).nbytes
        if size != self._parameters.payload_bytes:
            raise CiphertextError(f"{size} bytes instead of {self._parameters.payload_bytes}")
        values = np.frombuffer(payload, dtype=np.int64)
        limit = self._parameters.requirement.upload_bound * addends
        for place in np.flatnonzero((values > limit) | (values < -limit)):
            raise CiphertextError(f"value {place} is out of range")
        return values


class TallyEncryptionKey(EncryptionKey):
    def __init__(self, parameters: TallyParameters, label: bytes) -> None:
        if len(label) != 8:
            raise KeyMismatchError("a label has 8 bytes")
        self.parameters = parameters
        self._label = label

    def to_bytes(self) -> bytes:
        return self._label

    def encrypt(self, values: IntVector) -> bytes:
        return fact.check_contribution(values, self.parameters.requirement).tobytes()


class TallyDecryptionKey(DecryptionKey):
    def __init__(self, public: TallyEncryptionKey) -> None:
        self.encryption_key = public

    def to_bytes(self) -> bytes:
        return self.encryption_key.to_bytes()

    def open_share(self, payload: Buffer, count: int) -> bytes:
        requirement = self.encryption_key.parameters.requirement
        return fact.share_from(fact.sum_from(payload, requirement, count), requirement, count)


class TallyScheme(Scheme):
    name = "tally"
    protects = False

    def choose_parameters(self, requirement: Requirement, **options: Any) -> TallyParameters:
        fact.require_options(options, {})
        return TallyParameters(requirement)

    def load_parameters(self, facts: Mapping[str, Any]) -> TallyParameters:
        fact.require_keys(facts, {"tally"}, "tally parameters")
        return TallyParameters(fact.requirement_from_dict(facts["tally"]))

    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> TallyEncryptionKey:
        return TallyEncryptionKey(fact.own(parameters, TallyParameters), bytes(data))

    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        requirement = fact.own(parameters, TallyParameters).requirement
        return fact.sum_of_one(shares, requirement, count)


class TallyKeyGenerator(KeyGenerator):
    name = "tally"

    def generate_key(self, parameters: Parameters) -> TallyDecryptionKey:
        return self.load_decryption_key(parameters, secrets.token_bytes(8))

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> TallyDecryptionKey:
        own = fact.own(parameters, TallyParameters)
        return TallyDecryptionKey(TallyEncryptionKey(own, bytes(data)))


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """The package is installed: its two lines of `pyproject.toml` are found."""
    lines = {registry.GROUP: "TallyScheme", opening.GROUP: "TallyKeyGenerator"}
    others = registry.entry_points

    def entry_points(**wanted: str) -> list[EntryPoint]:
        group = wanted["group"]
        ours = EntryPoint("tally", f"{__name__}:{lines[group]}", group)
        return [*others(**wanted), *([ours] if wanted.get("name", "tally") == "tally" else [])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", entry_points)
        yield
    registry.scheme.cache_clear()
    opening.key_generator.cache_clear()


@pytest.fixture(scope="module")
def name() -> str:
    return "tally"


class TestContract(KeyContract):
    pass


def test_a_round_runs_with_it(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="tally")
    outcome = simulation.round()
    assert outcome.survivors == NAMES
    np.testing.assert_array_equal(outcome.update, simulation.expected_update(NAMES))
