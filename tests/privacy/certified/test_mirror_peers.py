"""The mirror against dp-accounting's bracket: its optimistic and its pessimistic discretisation."""

from __future__ import annotations

import numpy as np
import pytest

from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.mirror import METHOD

pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")

# Cells between 0 and epsilon; what dp-accounting's rounding and truncation may cost; and how far
# its pessimistic end lies above the truth on such a grid.
CELLS, ERROR, COARSE = 400, 1e-6, 0.02


def drawn(count: int) -> list[tuple[str, str, int, str]]:
    """Return rare settings whose delta lies well above dp-accounting's truncation of 1e-14."""
    generator, settings = np.random.default_rng(20_261_127), []
    while len(settings) < count:
        rate, noise = 10 ** generator.uniform(-6, -3), 10 ** generator.uniform(-0.35, 0.7)
        rounds, share = int(10 ** generator.uniform(0.4, 3.3)), 10 ** generator.uniform(-3.5, -0.7)
        # Below the total variation of one round, so that epsilon is not 0.
        settings.append((f"{rate:.3g}", f"{noise:.3g}", rounds, f"{rate / noise * share:.3g}"))
    return settings


def bracket(rate: str, noise: str, rounds: int, delta: str, step: float) -> tuple[float, float]:
    """Return dp-accounting's (optimistic, pessimistic) epsilon on a grid of this step."""
    ends = []
    for pessimistic in (False, True):
        one = pld.from_gaussian_mechanism(
            float(noise),
            pessimistic_estimate=pessimistic,
            value_discretization_interval=step,
            log_mass_truncation_bound=-36,
            sampling_prob=float(rate),
            use_connect_dots=pessimistic,
        )
        ends.append(float(one.self_compose(rounds).get_epsilon_for_delta(float(delta))))
    return ends[0], ends[1]


SETTINGS = drawn(30)
SOME = [*SETTINGS[:12], *(pytest.param(*one, marks=pytest.mark.nightly) for one in SETTINGS[12:])]


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta"), SOME)
def test_the_interval_lies_inside_dp_accountings_bracket(
    rate: str, noise: str, rounds: int, delta: str
) -> None:
    interval = epsilon_interval({Mechanism(rate, noise): rounds}, delta)
    assert interval.method == METHOD
    low, high = bracket(rate, noise, rounds, delta, float(interval.upper) / CELLS)
    assert float(interval.lower) <= high * (1 + ERROR)
    assert high <= float(interval.upper) * (1 + COARSE)
    assert low * (1 - ERROR) <= float(interval.upper)
