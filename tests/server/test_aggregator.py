"""Trees of aggregators: disjoint partial sums merge, everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privagg.errors import (
    CohortError,
    MessageError,
    PrivaggError,
    ReplayError,
    SignatureError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity import Identity, Roster
from privagg.messages import Message, OpenRequest, PartialSum, read_message
from privagg.server.aggregator import Aggregator
from tests.simulator import DIMENSION, NAMES, Simulation
from tests.test_round import start_frame

LEFT, RIGHT = Identity.generate("left"), Identity.generate("right")


@pytest.fixture(params=["plaintext", "ckks", "bfv"])
def simulation(tmp_path: Path, request: pytest.FixtureRequest) -> Simulation:
    return Simulation(tmp_path, scheme_name=request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


def aggregator(simulation: Simulation, *, attempt: int = 1, strict: bool = False) -> Aggregator:
    terms = replace(
        simulation.job.terms(1, attempt, NAMES), aggregators=("left", "right"), strict=strict
    )
    keys = {**simulation.roster.keys, **Roster.of(LEFT, RIGHT).keys}
    return Aggregator(terms, simulation.job.parameters, Roster(keys))


def branch(simulation: Simulation, identity: Identity, names: tuple[str, ...]) -> Message:
    made = aggregator(simulation)
    for name in names:
        made.receive(simulation.sites[name].handle(start_frame(simulation)))
    return made.partial_sum(identity)


def test_a_tree_adds_what_one_aggregator_adds(simulation: Simulation) -> None:
    root = aggregator(simulation)
    root.receive(branch(simulation, LEFT, ("west", "north")).to_bytes())
    root.receive(branch(simulation, RIGHT, ("south",)).to_bytes())
    root.receive(simulation.sites["east"].handle(start_frame(simulation)))
    assert root.contributors == NAMES
    request = root.open_request(simulation.identities["coordinator"])
    share = simulation.key_holder.handle(request.to_bytes())
    payload = bytes(read_message(share, simulation.roster).payload)
    opened = simulation.scheme.combine(simulation.job.parameters, [payload], 4)
    np.testing.assert_array_equal(opened, sum(simulation.learners[name].values for name in NAMES))


def test_overlapping_sums_are_refused_and_change_nothing(plain: Simulation) -> None:
    root = aggregator(plain)
    root.receive(branch(plain, LEFT, ("north", "east")).to_bytes())
    before = root.partial_sum(LEFT).payload
    with pytest.raises(ReplayError, match="east"):
        root.receive(branch(plain, RIGHT, ("east", "south")).to_bytes())
    with pytest.raises(ReplayError, match="north"):
        root.receive(plain.sites["north"].handle(start_frame(plain)))
    assert root.partial_sum(LEFT).payload == before
    assert root.contributors == ("north", "east")


Lie = Callable[[PartialSum], PartialSum]


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (lambda h: h.model_copy(update={"contributions": h.contributions[:1]}), PrivaggError),
        (lambda h: h.model_copy(update={"contributions": h.contributions[:1] * 2}), MessageError),
        (lambda h: h.model_copy(update={"attempt": 2}), WrongRoundError),
        (
            lambda h: h.model_copy(
                update={
                    "contributions": (
                        h.contributions[0].model_copy(update={"signature": "00" * 64}),
                        h.contributions[1],
                    )
                }
            ),
            SignatureError,
        ),
    ],
)
def test_a_lying_branch_is_refused(plain: Simulation, lie: Lie, error: type[Exception]) -> None:
    honest = branch(plain, LEFT, ("north", "east"))
    assert isinstance(honest.header, PartialSum)
    root = aggregator(plain)
    with pytest.raises(error):
        root.receive(Message.sign(LEFT, lie(honest.header), bytes(honest.payload)).to_bytes())
    assert root.contributors == ()
    root.receive(honest.to_bytes())
    assert root.contributors == ("north", "east")


def test_only_pinned_aggregators_and_never_in_strict_mode(plain: Simulation) -> None:
    honest = branch(plain, LEFT, ("north",))
    with pytest.raises(MessageError, match="strict"):
        aggregator(plain, strict=True).receive(honest.to_bytes())
    assert isinstance(honest.header, PartialSum)
    lie = honest.header.model_copy(update={"sender": "north"})
    forged = Message.sign(plain.identities["north"], lie, bytes(honest.payload))
    with pytest.raises(UnknownPartyError, match="not an aggregator"):
        aggregator(plain).receive(forged.to_bytes())
    with pytest.raises(CohortError):
        aggregator(plain).partial_sum(LEFT)


def test_memory_is_that_of_one_model_whatever_the_cohort(plain: Simulation) -> None:
    """Beyond the fold itself an aggregator keeps a statement a site: no payload."""
    made = aggregator(plain)
    for name in NAMES:
        made.receive(plain.sites[name].handle(start_frame(plain)))
    assert made._uploads == {}
    request = made.open_request(plain.identities["coordinator"])
    assert isinstance(request.header, OpenRequest)
    assert request.header.tensor_bytes == len(request.payload) < 8 * DIMENSION + 1024
