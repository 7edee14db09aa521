"""Certified Renyi orders: the fallback that asks for nothing but positive sums.

At an integer order alpha the moment of the remove direction is a finite sum of positive terms,

    E_Q[(P/Q)^alpha] = sum_j C(alpha, j) (1-q)^(alpha-j) q^j exp(j (j-1) / 2 sigma^2)

(Mironov, Talwar & Zhang 2019, "Rényi Differential Privacy of the Sampled Gaussian Mechanism",
section 3.3), and it bounds the add direction too (ibid., Theorem 5). From a moment to epsilon:
Canonne, Kamath & Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
Proposition 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from flint import arb, fmpz

from privagg.errors import CertificationError, PrivacyError
from privagg.privacy.certified.balls import ball, upper_end, working_precision
from privagg.privacy.certified.mechanism import (
    Composition,
    Mechanism,
    Rational,
    Rounds,
    checked_delta,
    normalised,
)

METHOD = "renyi"

ORDERS: tuple[int, ...] = (
    *range(2, 65), *range(68, 129, 4), *range(136, 257, 8), *range(272, 513, 16),
)  # fmt: skip

LARGEST_ORDER = 4096
_BITS = 192


def log_moment(mechanism: Mechanism, order: int) -> arb:
    """Return log E_Q[(P/Q)^order] of one round as a ball.

    Args:
        order: integer Renyi order alpha >= 2.
    """
    noise = ball(mechanism.noise_multiplier)
    half = 1 / (2 * noise * noise)
    if mechanism.is_gaussian:
        return order * (order - 1) * half
    rate = ball(mechanism.sampling_rate)
    ratio = rate / (1 - rate)
    # (1 - q)^order is taken out, so that each term follows from the one before. All are positive:
    # nothing cancels, and the balls stay narrow at any order.
    total, odds = arb(0), arb(1)
    binomial = fmpz(1)
    for j in range(order + 1):
        total += binomial * odds * (j * (j - 1) * half).exp()
        odds *= ratio
        binomial = binomial * (order - j) // (j + 1)
    return total.log() + order * (1 - rate).log()


@dataclass(frozen=True)
class RenyiBudget:
    """The composed log moments of a composition at the standing orders, as balls."""

    moments: dict[int, arb]

    @staticmethod
    def of(rounds: Rounds, orders: tuple[int, ...] = ORDERS) -> RenyiBudget:
        """Return the sums over rounds of the log moments at every order."""
        return RenyiBudget(
            {
                order: sum((times * log_moment(m, order) for m, times in rounds), arb(0))
                for order in orders
            }
        )

    def delta_at(self, epsilon: Fraction) -> arb:
        """Return a ball whose upper end bounds delta(eps) in both directions."""
        eps = ball(epsilon)
        best = arb(1)
        for order, moment in self.moments.items():
            alpha = arb(order)
            exponent = moment - (alpha - 1) * eps + _conversion(alpha)
            best = best.min(exponent.exp().upper())
        return best

    def upper_epsilon(self, delta: Fraction) -> Fraction:
        """Return an epsilon >= 0 proven to satisfy delta(eps) <= delta in both directions."""
        log_delta = ball(delta).log()
        best: Fraction | None = None
        for order, moment in self.moments.items():
            alpha = arb(order)
            value = (moment - log_delta + _conversion(alpha)) / (alpha - 1)
            if value.is_finite():
                end = max(upper_end(value), Fraction(0))
                best = end if best is None else min(best, end)
        if best is None:
            raise CertificationError("no Renyi order gave a finite bound")
        return best


def _conversion(alpha: arb) -> arb:
    """Return log((alpha-1)^(alpha-1) / alpha^alpha)."""
    return (alpha - 1) * (alpha - 1).log() - alpha * alpha.log()


def renyi_divergences(
    composition: Composition, orders: Iterable[int] = ORDERS
) -> dict[int, Fraction]:
    """Return, for each order, a proven upper bound of the composition's Renyi divergence.

    Args:
        composition: mechanism -> number of rounds; parameters fixed before the first round.
        orders: whole alpha from 2 to `LARGEST_ORDER`.

    Guarantees: D_alpha <= the value (nats), in both directions of add-or-remove-one. A further
        round costs its own divergence on top: the values add up under composition.
    Raises:
        PrivacyError: an order outside its range; UnknownEventError for other events.

    Source: Mironov, Talwar & Zhang 2019, section 3.3 and Theorem 5; proofs/certified-epsilon.md,
        section 'Renyi orders'.
    """
    rounds, wanted = normalised(composition), tuple(orders)
    for order in wanted:
        if isinstance(order, bool) or not isinstance(order, int) or not 2 <= order <= LARGEST_ORDER:
            raise PrivacyError(f"an order is a whole number from 2 to {LARGEST_ORDER}, not {order}")
    with working_precision(_BITS):
        moments = RenyiBudget.of(rounds, wanted).moments
        return {order: upper_end(moment / (order - 1)) for order, moment in moments.items()}


def epsilon_from_renyi(divergences: Mapping[int, Fraction], delta: Rational) -> Fraction:
    """Return the least epsilon that proven Renyi divergences imply at delta.

    Args:
        divergences: order alpha >= 2 -> upper bound of D_alpha in both directions, in nats.
        delta: exact rational in (0, 1).

    Guarantees: whatever has these divergences is (epsilon, delta)-differentially private.
    Raises:
        CertificationError: no order was given.

    Source: Canonne, Kamath & Steinke 2020, Proposition 12.
    """
    with working_precision(_BITS):
        moments = {order: (order - 1) * ball(value) for order, value in divergences.items()}
        return RenyiBudget(moments).upper_epsilon(checked_delta(delta))


def best_order(rounds: Rounds, delta: Fraction) -> int:
    """Return the standing order that floats expect to do best; it only steers."""
    log_delta = math.log(delta.numerator) - math.log(delta.denominator)
    variance = sum(
        times * float(m.sampling_rate) ** 2 / float(m.noise_multiplier) ** 2 for m, times in rounds
    )
    wanted = 1 + math.sqrt(-2 * log_delta / max(variance, 1e-300))
    return min(ORDERS, key=lambda order: abs(order - wanted))
