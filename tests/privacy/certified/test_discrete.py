"""Integer shares against the continuous Gaussian: explicit sums over the integers."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import PrivacyError
from privagg.privacy.certified import Mechanism
from privagg.privacy.certified.discrete import ShareSum
from privagg.privacy.certified.renyi import log_moment


def probabilities(variance: float, reach: int) -> np.ndarray:
    """Return the discrete Gaussian on -reach ... reach, computed as it is defined."""
    places = np.arange(-reach, reach + 1)
    weights = np.exp(-(places**2) / (2 * variance))
    return weights / weights.sum()


@settings(max_examples=25, deadline=None)
@given(shares=st.integers(2, 6), variance=st.floats(0.3, 2.0))
def test_the_ratio_of_a_sum_to_one_discrete_gaussian_is_bounded(
    shares: int, variance: float
) -> None:
    noise = ShareSum(shares, Fraction(variance))
    try:
        bound = float(noise.log_ratio())
    except PrivacyError:
        return
    reach = 60
    total = np.array([1.0])
    for _ in range(shares):
        total = np.convolve(total, probabilities(variance, reach))
    middle = len(total) // 2
    near = slice(middle - 8, middle + 9)
    single = probabilities(shares * variance, len(total) // 2)
    ratios = np.log(total[near] / single[near])
    assert np.abs(ratios).max() <= bound + 1e-9


@settings(max_examples=25, deadline=None)
@given(
    shares=st.integers(1, 4),
    variance=st.floats(0.7, 2.5),
    share=st.floats(0.3, 0.9),
)
def test_the_distance_of_a_rounded_gaussian_is_bounded(
    shares: int, variance: float, share: float
) -> None:
    noise = ShareSum(shares, Fraction(variance))
    smoothing = share * float(noise.variance_grid)
    try:
        bound = float(noise.distance_from_gaussian(Fraction(smoothing)))
    except PrivacyError:
        return
    # N(0, s^2) on a fine grid, then each y to an integer by a discrete Gaussian centred at y.
    left, places = float(noise.variance_grid) - smoothing, np.arange(-40, 41)
    ys = np.arange(-30, 30, 1 / 64)
    density = np.exp(-(ys**2) / (2 * left)) / math.sqrt(2 * math.pi * left) / 64
    kernel = np.exp(-((places[:, None] - ys[None, :]) ** 2) / (2 * smoothing))
    rounded = (kernel / kernel.sum(axis=0)) @ density
    total = np.array([1.0])
    for _ in range(shares):
        total = np.convolve(total, probabilities(variance, 40))
    middle = len(total) // 2
    actual = total[middle - 40 : middle + 41]
    assert 0.5 * np.abs(actual - rounded).sum() <= bound + 1e-7


@pytest.mark.parametrize(("stddev", "shift", "order"), [("1", 1, 2), ("0.7", 2, 5), ("3", 4, 16)])
def test_at_whole_orders_the_divergence_is_the_gaussians(
    stddev: str, shift: int, order: int
) -> None:
    variance = mpmath.mpf(stddev) ** 2
    weight = [mpmath.exp(-mpmath.mpf(k * k) / (2 * variance)) for k in range(400)]
    total = sum(weight) * 2 - 1
    moment = sum(
        mpmath.exp((-order * (k - shift) ** 2 - (1 - order) * k * k) / (2 * variance))
        for k in range(-300, 301)
    )
    expected = mpmath.log(moment / total)
    gaussian = log_moment(Mechanism(1, Fraction(stddev) / shift), order)
    assert math.isclose(float(expected), float(gaussian), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("shares", "variance"),
    [(0, "1"), (1, "0"), (2, "-1")],
)
def test_no_noise_is_no_sum(shares: int, variance: str) -> None:
    with pytest.raises(PrivacyError, match="at least one share"):
        ShareSum(shares, Fraction(variance))


def test_too_coarse_noise_is_refused() -> None:
    with pytest.raises(PrivacyError, match="finer grid"):
        ShareSum(1, Fraction(3)).distance_from_gaussian(Fraction(4))
    with pytest.raises(PrivacyError, match="too coarse to be added up"):
        ShareSum(3, Fraction(1, 100)).log_ratio()
