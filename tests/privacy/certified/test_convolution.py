"""The exact convolution: an upper bound close above what the other methods prove."""

from __future__ import annotations

from fractions import Fraction

import pytest

from privagg.errors import CertificationError
from privagg.privacy.certified import (
    Mechanism,
    delta_interval,
    epsilon_interval,
)
from privagg.privacy.certified.balls import upper_end, working_precision
from privagg.privacy.certified.convolution import (
    ConvolutionCurve,
    Resolution,
    convolution_upper_epsilon,
)
from privagg.privacy.certified.mechanism import Composition, Direction, normalised

from . import reference

COMPOSITIONS: list[tuple[Composition, str]] = [
    ({Mechanism("0.05", "1"): 60}, "1e-6"),
    ({Mechanism("0.001", "20"): 100}, "1e-5"),
    ({Mechanism("1", "17.45"): 30}, "1e-4"),
    ({Mechanism("0.002", "0.6"): 6}, "1e-7"),
    ({Mechanism("0.3", "6"): 20, Mechanism("0.1", "2"): 7, Mechanism(1, 30): 3}, "1e-9"),
]


@pytest.mark.parametrize(("composition", "delta"), COMPOSITIONS)
def test_convolution_lies_just_above_the_contour(composition: Composition, delta: str) -> None:
    interval = epsilon_interval(composition, delta)
    rounds, target, near = normalised(composition), Fraction(delta), float(interval.upper)
    loose = convolution_upper_epsilon(rounds, target, guess=near * 3)
    assert interval.lower <= loose <= interval.upper * Fraction(11, 10)
    convolved = convolution_upper_epsilon(rounds, target, guess=near, least_cells=400)
    assert convolved >= interval.lower
    assert convolved <= interval.upper * Fraction(101, 100)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("epsilon", ["0.05", "0.2"])
def test_one_round_against_numerical_integration(direction: Direction, epsilon: str) -> None:
    mechanism, eps = Mechanism("0.3", "1.5"), Fraction(epsilon)
    curve = ConvolutionCurve(((mechanism, 1),), direction, Resolution(Fraction(1, 2000)))
    with working_precision(224):
        bound = float(upper_end(curve.bounds(eps).upper))
    truth = float(
        reference.single_delta(
            Fraction("0.3"), Fraction("1.5"), eps, add=direction is Direction.ADD
        )
    )
    assert truth <= bound <= truth * 1.001 + 1e-12


def test_a_finer_grid_is_tighter() -> None:
    rounds = ((Mechanism("0.1", "2"), 40),)
    exact = delta_interval(dict(rounds), 1)
    found = []
    for cells in (50, 200, 800):
        curve = ConvolutionCurve(rounds, Direction.REMOVE, Resolution(Fraction(1, cells)))
        with working_precision(224):
            found.append(upper_end(curve.bounds(Fraction(1)).upper))
    assert found[0] > found[1] > found[2] >= exact.lower


def test_too_fine_a_grid_is_refused() -> None:
    with pytest.raises(CertificationError, match="cells"):
        ConvolutionCurve(
            ((Mechanism("0.5", "0.5"), 3),), Direction.REMOVE, Resolution(Fraction(1, 10**6))
        )
