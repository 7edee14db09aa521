"""One dishonest site makes up its own c1: what its round opens to, and what one opening tells it.

The key holder adds the key parts that sites sign; a site signs what it likes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from privagg.digest import tree_digest
from privagg.kernels.residues import pack_residues
from privagg.protocol.frames import Message, read_message
from privagg.protocol.job import RoundOutcome
from privagg.protocol.key_holder import DOES_NOT_OPEN
from privagg.protocol.messages import Upload
from privagg.protocol.round import run_round
from privagg.secure.bfv import GUARD_BITS, BfvParameters
from privagg.secure.lattice import LatticeParameters
from privagg.secure.wire import EncryptedTensor
from tests.simulator import NAMES, Simulation

Words = NDArray[np.uint64]
RING = 2048


def parameters_of(simulation: Simulation) -> LatticeParameters:
    parameters = simulation.key.encryption_key.parameters
    assert isinstance(parameters, LatticeParameters)
    return parameters


def payload_of(simulation: Simulation, name: str) -> memoryview:
    """What a site last uploaded."""
    message = read_message(simulation.wire.seen[name][-1], simulation.roster)
    tensor = EncryptedTensor.from_bytes(message.payload, max_bytes=2**30)
    return memoryview(tensor.payload)


def makes_up(simulation: Simulation, name: str, change: Callable[[Words], None]) -> None:
    """Have a site change its residues and sign the result, key part and all, as its own."""
    parameters = parameters_of(simulation)

    def exchanged(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        tensor = EncryptedTensor.from_bytes(message.payload, max_bytes=len(frame))
        words = parameters.read(tensor.payload).copy()
        change(words)
        made_up = pack_residues(parameters.layout, words)
        part = tree_digest(parameters.key_part(made_up))
        header = message.header.model_copy(update={"key_part_digest": part})
        other = replace(tensor, payload=memoryview(made_up))
        return Message.sign(simulation.identities[name], header, other.to_bytes()).to_bytes()

    simulation.wire.answers[name] = exchanged


def c1_rows(parameters: LatticeParameters) -> list[tuple[slice, int]]:
    """Where the first ciphertext's c1 lies among the residues, prime by prime."""
    primes, layout = len(parameters.chain.primes), parameters.layout
    return [
        (slice(int(at), int(at) + layout.counts[row]), layout.moduli[row])
        for row, at in enumerate(layout.rows.target[: 2 * primes])
        if row >= primes
    ]


def one_ring(folder: Path, *, strict: bool) -> Simulation:
    """A model that fills one ring, and contributions with the plan's noise in them."""
    simulation = Simulation(folder, scheme_name="bfv", strict=strict, dimension=RING)
    noise, rng = simulation.plan.noise, np.random.default_rng(5)
    assert noise is not None
    deviation = float(noise.stddev_grid) / len(NAMES) ** 0.5
    for name in NAMES:
        simulation.learners[name].values = np.rint(rng.normal(0, deviation, RING)).astype(np.int64)
    return simulation


def opened(simulation: Simulation, outcome: RoundOutcome) -> NDArray[np.int64]:
    """The opened sum, from the update that everybody gets."""
    assert outcome.update is not None
    factor = float(simulation.plan.unit_per_grid / simulation.plan.divisor(NAMES))
    return np.rint(outcome.update / -factor).astype(np.int64)


def negacyclic(words: Words, secret: NDArray[np.int64], prime: int) -> list[int]:
    """A polynomial times a small one modulo x^N + 1 and a prime below 2^60."""
    product = np.zeros(2 * RING, dtype=object)
    for low in (0, 30):
        limbs = (words >> np.uint64(low)).astype(np.int64) & (2**30 - 1)
        product[: 2 * RING - 1] += np.convolve(limbs, secret).astype(object) << low
    return [int(v) % prime for v in product[:RING] - product[RING:]]


@pytest.mark.parametrize("strict", [False, True])
def test_one_opening_tells_a_dishonest_site_the_key_of_its_run(
    tmp_path: Path, strict: bool
) -> None:
    """Of BFV: a constant D in its own c1 adds D s to what is opened, through noise and range check.

    With the key and the aggregator's copy of an upload a single contribution is read, up to the
    noise share that is in it. That upload here is north's, read without the key holder.
    """
    simulation = one_ring(tmp_path, strict=strict)
    parameters = parameters_of(simulation)
    assert isinstance(parameters, BfvParameters)
    assert (parameters.chain.ring_degree, parameters.fields) == (RING, 1)
    ((row, prime),) = c1_rows(parameters)
    bits, height = parameters.field_layout.bits, simulation.plan.upload_bound * 3 // 4

    def change(words: Words) -> None:
        unit = prime / 2 ** (bits - GUARD_BITS)
        words[row.start] = (int(words[row.start]) + round(height * unit)) % prime

    makes_up(simulation, "south", change)
    outcome = run_round(simulation.job, simulation.wire, np.zeros(RING), round_number=1, attempt=1)
    assert outcome.outcome == "opened"
    assert outcome.survivors == NAMES
    secret = np.rint(opened(simulation, outcome) / height).astype(np.int64)
    assert set(secret.tolist()) == {-1, 0, 1}

    words = parameters.read(payload_of(simulation, "north"))
    product = negacyclic(words[row], secret, prime)
    phases = [(int(a) + b) % prime for a, b in zip(words[: row.start], product, strict=True)]
    coefficients = [((phase << bits) + prime // 2) // prime % 2**bits for phase in phases]
    found = [(m >> GUARD_BITS) - 2 ** (bits - GUARD_BITS - 1) for m in coefficients]
    assert found == simulation.learners["north"].values.tolist()


@pytest.mark.parametrize("height", [1, 2**10])
def test_under_ckks_a_constant_does_not_open(tmp_path: Path, height: int) -> None:
    """The key's image in the slots is no whole number, so that rounding refuses the sum.

    A constant is that number at every evaluation point, as which CKKS sends residues.
    """
    simulation = Simulation(tmp_path, scheme_name="ckks")
    parameters = parameters_of(simulation)
    step = height << parameters.to_dict()["scale_bits"]

    def change(words: Words) -> None:
        for row, prime in c1_rows(parameters):
            words[row] = (words[row] + np.uint64(step % prime)) % np.uint64(prime)

    makes_up(simulation, "south", change)
    outcome = simulation.round()
    assert (outcome.outcome, outcome.update) == ("stopped", None)
    assert DOES_NOT_OPEN in outcome.reason
