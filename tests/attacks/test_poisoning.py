"""One dishonest site poisons a sum: how far it gets is the bound that `privagg check` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.secure import facts
from tests.simulator import DIMENSION, NAMES, Simulation


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site's own check of its contribution binds no site that leaves it out."""

    def anything(values: Any, requirement: Any) -> Any:
        return np.ascontiguousarray(values)

    monkeypatch.setattr(facts, "check_contribution", anything)


def poisoned(folder: Path, scheme: str, target: int) -> Simulation:
    """North chooses its upload so that every coordinate of the sum is `target`."""
    simulation = Simulation(folder, scheme_name=scheme)
    others = sum(simulation.learners[name].values for name in NAMES[1:])
    simulation.learners["north"].values = np.full(DIMENSION, target, dtype=np.int64) - others
    return simulation


@pytest.mark.parametrize("scheme", ["bfv", "ckks", "paillier"])
@pytest.mark.usefixtures("unchecked")
def test_inside_the_bound_a_site_sets_the_sum_as_it_likes(tmp_path: Path, scheme: str) -> None:
    bound = Simulation(tmp_path / "ask", scheme_name=scheme).plan.reach_of_one_site
    simulation = poisoned(tmp_path, scheme, bound)
    outcome = simulation.round()
    assert outcome.update is not None
    expected = -bound * float(simulation.plan.unit_per_grid / simulation.plan.divisor(NAMES))
    np.testing.assert_array_equal(outcome.update, np.full(DIMENSION, expected))


@pytest.mark.parametrize("scheme", ["bfv", "ckks", "paillier"])
@pytest.mark.usefixtures("unchecked")
def test_beyond_the_bound_nothing_is_opened(tmp_path: Path, scheme: str) -> None:
    bound = Simulation(tmp_path / "ask", scheme_name=scheme).plan.reach_of_one_site
    outcome = poisoned(tmp_path, scheme, bound + 1).round()
    assert outcome.outcome == "stopped"
    assert outcome.update is None
    assert outcome.survivors == ()


@pytest.mark.usefixtures("unchecked")
def test_where_nothing_is_encrypted_the_site_is_named_and_left_out(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, scheme_name="plaintext", dropouts=1)
    bound = simulation.plan.reach_of_one_site
    assert bound == simulation.plan.upload_bound
    simulation.learners["north"].values = np.full(DIMENSION, bound + 1, dtype=np.int64)
    outcome = simulation.round()
    assert outcome.survivors == NAMES[1:]
    assert set(outcome.refusals) == {"north"}
