"""Whoever chooses what is multiplied with the secret key reads the key: c1 of a sum is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privagg.digest import tree_digest
from privagg.errors import CiphertextError
from privagg.kernels.residues import pack_residues
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import OpenRequest, Refusal, Upload
from privagg.secure.bfv import GUARD_BITS, BfvParameters
from privagg.secure.lattice import LatticeParameters
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement
from privagg.secure.wire import EncryptedTensor
from tests.simulator import NAMES, Simulation, opened_rounds


def with_c1_shifted(parameters: LatticeParameters, payload: memoryview) -> bytes:
    """A payload whose first c1 has a constant added: what is opened then holds that times s.

    Under BFV the constant is one unit of the lowest field, so that coefficient j of the opened
    vector is moved by the secret's coefficient j, which is -1, 0 or 1.
    """
    words = parameters.read(payload).copy()
    moduli, starts = parameters.layout.moduli, parameters.layout.rows.target
    primes = parameters.chain.primes
    step = parameters.chain.modulus >> 20
    if isinstance(parameters, BfvParameters):
        step = parameters.chain.modulus >> (parameters.field_layout.bits - GUARD_BITS)
    for row in range(len(primes), 2 * len(primes)):
        at = int(starts[row])
        words[at] = (int(words[at]) + step) % moduli[row]
    return pack_residues(parameters.layout, words)


def honest_request(simulation: Simulation) -> Message:
    """What an honest aggregator asks once everybody's upload is in."""
    aggregator = Aggregator(
        simulation.job.terms(1, 1, NAMES), simulation.job.parameters, simulation.roster
    )
    simulation.wire.handlers["key-holder"] = lambda frame: b""  # it hears of nothing yet
    simulation.round()
    for name in NAMES:
        aggregator.receive(simulation.wire.seen[name][-1])
    return aggregator.open_request(simulation.identities["coordinator"])


def altered(
    simulation: Simulation, honest: Message, change: Callable[[bytearray, OpenRequest], None]
) -> Message:
    """The request with its payload changed, signed by the aggregator like any other."""
    payload, header = bytearray(honest.payload), honest.header
    assert isinstance(header, OpenRequest)
    change(payload, header)
    return Message.sign(simulation.identities["coordinator"], header, bytes(payload))


def shift_c1(simulation: Simulation) -> Callable[[bytearray, OpenRequest], None]:
    parameters = simulation.key.encryption_key.parameters
    assert isinstance(parameters, LatticeParameters)

    def change(payload: bytearray, header: OpenRequest) -> None:
        start = header.tensor_bytes - parameters.payload_bytes
        inside = memoryview(bytes(payload[start : header.tensor_bytes]))
        payload[start : header.tensor_bytes] = with_c1_shifted(parameters, inside)

    return change


def require_refused(simulation: Simulation, request: Message, told: str) -> None:
    """The key holder names the aggregator, binds nothing, and still opens the honest sum."""
    answer = simulation.key_holder.handle(request.to_bytes())
    header = read_message(answer, simulation.roster).header
    assert isinstance(header, Refusal)
    assert told in header.message
    assert "'coordinator'" in header.message
    assert opened_rounds(simulation.folder / "openings.sqlite") == []


def test_a_shifted_c1_would_open_to_the_secret_key() -> None:
    """What is at stake, shown on the decryption itself: the altered sum opens to s in the clear."""
    bfv, zeros = scheme("bfv"), np.zeros(2048, dtype=np.int64)
    parameters = bfv.choose_parameters(Requirement(2048, 100, 200, 2), ring_degree=2048)
    assert isinstance(parameters, BfvParameters)
    assert parameters.fields == 1
    key, fold = key_generator("bfv").generate_key(parameters), parameters.fold()
    for _ in range(2):
        fold.add(key.encryption_key.encrypt(zeros))
    altered_sum = with_c1_shifted(parameters, memoryview(fold.payload()))
    secret = bfv.combine(parameters, [key.open_share(altered_sum, 2)], 2)
    # A key's coefficients are -1, 0 and 1, a third each; every one of them is told.
    values, counts = np.unique(secret, return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    assert counts.min() > 500


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_an_aggregator_that_alters_c1_is_named_and_nothing_is_opened(
    tmp_path: Path, scheme: str
) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme)
    honest = honest_request(simulation)
    require_refused(simulation, altered(simulation, honest, shift_c1(simulation)), "altered")
    answer = simulation.key_holder.handle(honest.to_bytes())
    assert not isinstance(read_message(answer, simulation.roster).header, Refusal)
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_a_c1_that_the_parts_were_made_to_fit_is_not_what_sites_signed(
    tmp_path: Path, scheme: str
) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme)
    parameters = simulation.key.encryption_key.parameters
    assert isinstance(parameters, LatticeParameters)
    size = parameters.key_part_bytes

    def fit(payload: bytearray, header: OpenRequest) -> None:
        """Shift the sum's c1, and the first contributor's part by as much."""
        shift_c1(simulation)(payload, header)
        at = header.tensor_bytes
        first = memoryview(payload)[at - parameters.payload_bytes : at]
        payload[at : at + size] = parameters.key_part(bytes(first))

    honest = honest_request(simulation)
    require_refused(simulation, altered(simulation, honest, fit), "did not sign")


def test_parts_in_another_order_or_too_few_of_them_are_refused(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv")
    size = simulation.key.encryption_key.parameters.key_part_bytes

    def swap(payload: bytearray, header: OpenRequest) -> None:
        at = header.tensor_bytes
        first, second = payload[at : at + size], payload[at + size : at + 2 * size]
        payload[at : at + 2 * size] = second + first

    honest = honest_request(simulation)
    require_refused(simulation, altered(simulation, honest, swap), "did not sign")

    def drop(payload: bytearray, header: OpenRequest) -> None:
        del payload[-size:]

    answer = simulation.key_holder.handle(altered(simulation, honest, drop).to_bytes())
    header = read_message(answer, simulation.roster).header
    assert isinstance(header, Refusal)
    assert "sizes do not add up" in header.message


def test_a_single_upload_cannot_be_opened_as_the_sum(tmp_path: Path) -> None:
    """The lie that was believed before: one site's upload in the place of the sum."""
    simulation = Simulation(tmp_path, scheme_name="bfv")
    honest = honest_request(simulation)
    parameters = simulation.key.encryption_key.parameters
    one = read_message(simulation.wire.seen["north"][-1], simulation.roster)
    single = bytes(EncryptedTensor.from_bytes(one.payload, max_bytes=2**30).payload)

    def instead(payload: bytearray, header: OpenRequest) -> None:
        payload[header.tensor_bytes - parameters.payload_bytes : header.tensor_bytes] = single

    require_refused(simulation, altered(simulation, honest, instead), "altered")


@pytest.mark.parametrize("scheme", ["bfv", "ckks", "paillier", "plaintext"])
def test_a_site_that_signs_another_key_part_is_left_out_by_name(
    tmp_path: Path, scheme: str
) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme, dropouts=1)

    def lie(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        header = message.header.model_copy(update={"key_part_digest": tree_digest(b"another")})
        return Message.sign(
            simulation.identities["south"], header, bytes(message.payload)
        ).to_bytes()

    simulation.wire.answers["south"] = lie
    outcome = simulation.round()
    assert outcome.survivors == ("north", "east", "west")
    assert "signed another key part" in outcome.refusals["south"]


def test_in_strict_mode_the_uploads_are_added_again_whole(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv", strict=True)
    honest = honest_request(simulation)
    assert isinstance(honest.header, OpenRequest)
    assert len(honest.header.upload_bytes) == len(NAMES)
    answer = simulation.key_holder.handle(
        altered(simulation, honest, shift_c1(simulation)).to_bytes()
    )
    header = read_message(answer, simulation.roster).header
    assert isinstance(header, Refusal)
    assert "not the sum of the uploads" in header.message


def test_a_key_part_is_cut_out_of_every_ciphertext(tmp_path: Path) -> None:
    """Against the payload read residue by residue, for one ciphertext and for several."""
    for name in ("bfv", "ckks"):
        for length in (10, 60_000):
            parameters = scheme(name).choose_parameters(Requirement(length, 100, 400, 4))
            assert isinstance(parameters, LatticeParameters)
            rng, layout = np.random.default_rng(length), parameters.layout
            rows = [
                rng.integers(0, q, n, dtype=np.uint64)
                for q, n in zip(layout.moduli, layout.counts, strict=True)
            ]
            primes = len(parameters.chain.primes)
            c1 = [row for i, row in enumerate(rows) if i % (2 * primes) >= primes]
            key_layout = replace(
                layout,
                moduli=parameters.chain.primes * parameters.ciphertexts,
                counts=tuple(len(row) for row in c1),
            )
            payload = pack_residues(layout, np.concatenate(rows))
            part = parameters.key_part(payload)
            assert part == pack_residues(key_layout, np.concatenate(c1))
            fold = parameters.key_part_fold()
            assert fold is not None
            fold.add(part)
            assert fold.payload() == part
            with pytest.raises(CiphertextError):
                fold.add(part[:-1])
