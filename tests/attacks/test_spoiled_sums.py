"""One dishonest site spoils a sum with residues that it made up: nobody can name it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privagg.digest import tree_digest
from privagg.kernels.residues import pack_residues
from privagg.protocol.frames import Message, read_message
from privagg.protocol.key_holder import DOES_NOT_OPEN
from privagg.protocol.messages import Upload
from privagg.secure.lattice import LatticeParameters
from privagg.secure.wire import EncryptedTensor
from tests.simulator import NAMES, Simulation, opened_rounds


def spoil(simulation: Simulation, name: str) -> None:
    """Have a site upload uniform residues, each below its prime, signed like any upload."""
    parameters = simulation.key.encryption_key.parameters
    assert isinstance(parameters, LatticeParameters)
    layout, rng = parameters.layout, np.random.default_rng(31)
    rows = [
        rng.integers(0, q, n, dtype=np.uint64)
        for q, n in zip(layout.moduli, layout.counts, strict=True)
    ]
    made_up = pack_residues(layout, np.concatenate(rows))

    def exchanged(frame: bytes) -> bytes:
        message = read_message(frame, simulation.roster)
        if not isinstance(message.header, Upload):
            return frame
        tensor = EncryptedTensor.from_bytes(message.payload, max_bytes=len(frame))
        other = replace(tensor, payload=memoryview(made_up))
        identity = simulation.identities[name]
        part = tree_digest(parameters.key_part(made_up))
        header = message.header.model_copy(update={"key_part_digest": part})
        return Message.sign(identity, header, other.to_bytes()).to_bytes()

    simulation.wire.answers[name] = exchanged


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
@pytest.mark.parametrize("strict", [False, True])
def test_made_up_residues_open_nothing_and_the_stop_says_that_nobody_can_be_named(
    tmp_path: Path, scheme: str, strict: bool
) -> None:
    simulation = Simulation(tmp_path, scheme_name=scheme, strict=strict, dropouts=1)
    spoil(simulation, "south")
    outcome = simulation.round()
    assert (outcome.outcome, outcome.update, outcome.survivors) == ("stopped", None, ())
    assert DOES_NOT_OPEN in outcome.reason
    assert not outcome.refusals, "made-up residues in range look like any others"
    assert [simulation.charges(name) for name in NAMES] == [1, 1, 1, 1]


def test_no_part_of_a_spoiled_sum_is_opened_afterwards(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv", dropouts=1)
    spoil(simulation, "south")
    assert simulation.round().opening_asked, "so that the round is not asked again"
    # The coordinator tries all the same, this time without the site that it suspects.
    simulation.wire.answers["south"] = lambda frame: None
    again = simulation.round(attempt=2)
    assert again.outcome == "stopped"
    assert "a second cohort of one round is never opened" in again.reason
    assert opened_rounds(tmp_path / "openings.sqlite") == [("run-1", 1, 1)]
