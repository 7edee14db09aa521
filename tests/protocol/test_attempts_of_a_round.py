"""Of several attempts of one round, masked sums open at most one."""

from __future__ import annotations

from pathlib import Path

from privagg.protocol.messages import Refusal, Release, Upload
from tests.dishonest import Coordinator
from tests.simulator import Simulation

SEVEN = tuple("abcdefg")


def test_a_bound_round_has_no_further_attempt(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    first = {site: coordinator.start(site, 1) for site in SEVEN}
    assert isinstance(coordinator.show("a", SEVEN).header, Release)
    said = coordinator.start("a", 2).header
    assert isinstance(said, Refusal)
    assert "bound to a list of attempt 1" in said.message
    assert simulation.charges("a") == 1
    again = coordinator.start("a", 1)
    assert again.to_bytes() == first["a"].to_bytes()
    assert isinstance(coordinator.start("b", 2).header, Upload)


def test_attempts_are_masked_in_rising_order_alone(tmp_path: Path) -> None:
    """Three that masked 2 before 1 could release for 1, and the other four for 2."""
    simulation = Simulation(tmp_path, scheme_name="masked", names=SEVEN, dropouts=1, colluders=1)
    coordinator = Coordinator(simulation)
    coordinator.start("a", 2)
    for site in SEVEN:
        said = coordinator.start(site, 1).header
        assert isinstance(said, Refusal) == (site == "a")
    assert simulation.charges("a") == 1
    said = coordinator.start("a", 1).header
    assert isinstance(said, Refusal)
    assert "round 1, attempt 2, of run" in said.message
    assert "comes too late" in said.message
