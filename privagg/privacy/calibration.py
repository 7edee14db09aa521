"""The smallest noise whose epsilon fits: a search that never lands above the budget.

The search may be as clever as it likes; what it returns is checked by one evaluation of the
accountant on the exact multiplier returned.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from math import exp, log

from privagg.errors import CalibrationError, CertificationError, NoiseError
from privagg.privacy.accountant import Accountant
from privagg.privacy.events import DpEvent

RESOLUTION = Decimal("0.000001")
"""Noise multipliers are multiples of this."""

SMALLEST, LARGEST = Decimal(1) / 32, Decimal("1e6")


def calibrate(
    event_of: Callable[[Decimal], DpEvent],
    *,
    epsilon: Decimal,
    delta: Decimal,
    accountant: Accountant,
) -> Decimal:
    """Smallest noise multiplier, to `RESOLUTION`, whose epsilon at `delta` is at most `epsilon`.

    Args:
        event_of: the whole job's event at a noise multiplier; less noise never costs less.
        epsilon: the target, > 0.
        delta: in (0, 1).
        accountant: whose upper bound has to fit.

    Returns:
        A multiple of `RESOLUTION` with `accountant.epsilon(event_of(it), delta).upper <= epsilon`,
        which the next smaller multiple does not meet; or `SMALLEST`, where even that is enough.

    Raises:
        CalibrationError: not even a multiplier of a million meets the target.
    """

    def excess(sigma: Decimal) -> float:
        """log(epsilon at sigma / target); positive where sigma is too small."""
        try:
            upper = accountant.epsilon(event_of(sigma), delta).upper
            fits = upper <= epsilon
        except (CertificationError, NoiseError):
            return 50.0  # no bound, or a share too small for its guarantee: more noise is needed
        if not upper.is_finite():
            return 50.0
        if upper == 0:
            return -50.0
        steered = float((upper / epsilon).ln())
        # The sign is exact: it decides, and floats only steer.
        return min(steered, 0.0) if fits else max(steered, 1e-300)

    low, high = _bracket(excess)
    if low == high:
        return low
    low, high = _narrow(excess, low, high)
    sigma = high.quantize(RESOLUTION, rounding=ROUND_CEILING)
    while accountant.epsilon(event_of(sigma), delta).upper > epsilon:
        sigma += RESOLUTION
        if sigma > LARGEST:
            raise _impossible(epsilon, delta)
    # The bracket is as wide as a step, so that a multiple may have been left inside it.
    while sigma - RESOLUTION > low and excess(sigma - RESOLUTION) <= 0:
        sigma -= RESOLUTION
    return sigma


def _bracket(excess: Callable[[Decimal], float]) -> tuple[Decimal, Decimal]:
    """Multipliers around the answer, a factor of 2 apart; (s, s) where the smallest fits."""
    sigma = Decimal(1)
    if excess(sigma) <= 0:
        while sigma > SMALLEST:
            if excess(sigma / 2) > 0:
                return sigma / 2, sigma
            sigma /= 2
        return sigma, sigma
    while sigma < LARGEST:
        if excess(sigma * 2) <= 0:
            return sigma, sigma * 2
        sigma *= 2
    raise CalibrationError(
        f"even a noise multiplier of {LARGEST} does not meet the target; raise epsilon or delta, "
        "or lower the number of rounds or the sampling rate"
    )


def _narrow(
    excess: Callable[[Decimal], float], low: Decimal, high: Decimal
) -> tuple[Decimal, Decimal]:
    """Shrink a bracket to `RESOLUTION` by false position in log-log, with bisection as a guard."""
    above, below = excess(low), excess(high)
    for step in range(80):
        if high - low <= RESOLUTION:
            break
        share = above / (above - below) if above < 50 and step % 3 != 2 else 0.5
        share = min(max(share, 1e-7), 1 - 1e-7)
        middle = Decimal(repr(exp(log(float(low)) + share * (log(float(high)) - log(float(low))))))
        middle = min(max(middle, low + RESOLUTION / 2), high - RESOLUTION / 2)
        value = excess(middle)
        if value > 0:
            low, above = middle, value
        else:
            high, below = middle, value
        # A false position converges from one side; probe just beyond it to move the other end.
        if share not in (0.5,) and high - low > RESOLUTION:
            probe = middle + RESOLUTION / 2 if value > 0 else middle - RESOLUTION / 2
            if low < probe < high:
                probed = excess(probe)
                if probed > 0:
                    low, above = probe, probed
                else:
                    high, below = probe, probed
    return low, high


def _impossible(epsilon: Decimal, delta: Decimal) -> CalibrationError:
    return CalibrationError(f"no noise multiplier up to {LARGEST} gives {epsilon} at {delta}")
