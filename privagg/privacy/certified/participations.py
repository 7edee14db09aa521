"""Little noise: each output tells whether the record took part, so only the count matters.

Given that a record took part in m of T rounds the loss is Gaussian, so delta is a sum over m of
binomial weights times closed forms. That sum is never above delta, and below it by about the
chance that an output and its coin disagree, times delta where epsilon is a little less.
Argument in proofs/certified-epsilon.md, section 'Little noise'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from flint import arb
from scipy.special import gammaln, log_ndtr

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import ball, lower_end, normal_cdf
from privagg.privacy.certified.mechanism import Mechanism
from privagg.privacy.certified.profile import Array
from privagg.privacy.certified.search import DeltaBounds
from privagg.privacy.certified.window import Law
from privagg.privacy.certified.work import charge

METHOD = "participations"

_MAX_TERMS = 20_000
_WORK_PER_COUNT = 30.0
_NATS = 30.0
# A doubt below this share of delta is added as it stands: it is not seen in epsilon's digits.
_DOUBT = 1e-8
# Of a doubt that leaves so much of delta open, epsilon's seventh digit could not be told.
_MOST_DOUBT = 1e-3
# A round is compared with its likelier explanation times 1 + _LIFT: the doubt's factor
# (1 + _LIFT) / _LIFT is small, and so is log(1 + _LIFT), by which epsilon is less.
_LIFT = 3
# Outputs beyond the edge are looked at in pieces, whose losses grow from the first by this factor;
# epsilons are looked at rounded down to so many bits, so that a search finds them again.
_FIRST_LOSS, _GROWTH, _LOOK_BITS = 0.25, 1.5, 10
_BISECTIONS = 110


@dataclass(frozen=True)
class _Counts:
    """Floats that steer: counts m (n,), and the logs of their binomial weights (n,)."""

    rate: float
    mu: float
    times: int
    values: Array
    log_weights: Array

    def terms(self, epsilon: float) -> tuple[Array, Array]:
        """Return, roughly, at float64 (n,): log(weight * Gaussian delta), and log of its gain."""
        shift = epsilon - (self.times - self.values) * math.log1p(-self.rate)
        spread = np.sqrt(np.maximum(self.values, 0.25)) * self.mu
        shift = shift - self.values * math.log(self.rate)
        gain = log_ndtr(spread / 2 - shift / spread)
        loss = np.minimum(shift + log_ndtr(-spread / 2 - shift / spread), gain)
        log_delta = gain + np.log(-np.expm1(np.minimum(loss - gain, -1e-16)))
        return np.where(self.values > 0, self.log_weights + log_delta, -np.inf), gain

    def log_delta(self, epsilon: float) -> float:
        """Return the log of the sum over all counts."""
        terms = self.terms(epsilon)[0]
        top = float(terms.max())
        return top + math.log(float(np.exp(terms - top).sum())) if top > -math.inf else top

    def range(self, epsilon: float, log_delta: float) -> tuple[int, int]:
        """Return the least and the largest count that matter at epsilon."""
        terms, gain = self.terms(epsilon)
        top = float(terms.max())
        floor = min(top, log_delta) - _NATS
        upto = gain + np.minimum(np.logaddexp.accumulate(self.log_weights), 0.0)
        low, high = np.nonzero(upto >= floor)[0], np.nonzero(terms >= floor)[0]
        if not math.isfinite(top) or not len(low):
            raise CertificationError("no number of participations reaches this epsilon")
        return max(int(self.values[low[0]]), 1), int(self.values[high[-1]])


def _counts(mechanism: Mechanism, times: int, log_delta: float) -> _Counts:
    rate, mu = float(mechanism.sampling_rate), 1 / float(mechanism.noise_multiplier)
    nats = _NATS + 10 - log_delta
    # Bernstein: a count further than this from its mean is rarer than exp(-nats).
    far = 3 * math.sqrt(nats * times * rate * (1 - rate)) + 2 * nats
    first, last = max(times * rate - far, 1.0), min(times * rate + far, float(times))
    values = np.append(0.0, np.arange(math.floor(first), math.ceil(last) + 1, dtype=np.float64))
    weights = gammaln(times + 1.0) - gammaln(values + 1) - gammaln(times - values + 1)
    weights = weights + values * math.log(rate) + (times - values) * math.log1p(-rate)
    kept = weights > log_delta - _NATS - 10
    kept[0] = True
    return _Counts(rate, mu, times, values[kept], weights[kept])


class ParticipationCurve:
    """Proven bounds of the remove direction's delta(eps) of equal rounds with little noise.

    Args:
        mechanism: the one mechanism of all rounds, with a sampling rate below 1.
        times: number of rounds, at least 1.
        delta: exact rational in (0, 1); the chance of misreading a coin must be small against it.

    Raises: CertificationError without subsampling, and where outputs and coins disagree too often
        for delta.
    """

    def __init__(self, mechanism: Mechanism, times: int, delta: Fraction) -> None:
        log_delta = math.log(delta.numerator) - math.log(delta.denominator)
        rate, noise = ball(mechanism.sampling_rate), ball(mechanism.noise_multiplier)
        if mechanism.is_gaussian:
            raise CertificationError("without sampling there is nothing to count")
        self._rate, self._mu, self._times = rate, 1 / noise, times
        self._log_delta = log_delta
        mu = 1 / float(mechanism.noise_multiplier)
        odds = math.log1p(-float(mechanism.sampling_rate)) - math.log(mechanism.sampling_rate)
        edge = ball(mu / 2 + odds / mu)
        missed = (1 - rate) * normal_cdf(-edge) + rate * normal_cdf(edge - self._mu)
        self._doubt, share = (times * missed).upper(), _MOST_DOUBT * ball(delta)
        if not self._doubt * (self._doubt + ball(delta)) < share or not self._mu**2 > 2 * odds + 1:
            raise CertificationError("the noise hides too often whether a record took part")
        self._is_clear = bool(self._doubt < _DOUBT * ball(delta))
        self._edge, self._looked_at = edge, dict[Fraction, arb]()
        self._counts = _counts(mechanism, times, log_delta)

    def guess(self) -> tuple[float, float]:
        """Return floats near epsilon(delta) and the slope of log delta there; they only steer."""
        low, high = 0.0, self._times * (float(self._mu.mid()) ** 2 + 60 * float(self._mu.mid()))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self._counts.log_delta(middle) > self._log_delta:
                low = middle
            else:
                high = middle
        step = max(1e-6 * high, 1e-9)
        gap = self._counts.log_delta(high + step) - self._counts.log_delta(max(high - step, 0.0))
        return high, min(gap / (2 * step), -1e-12)

    def bounds(self, epsilon: Fraction) -> DeltaBounds:
        """Return proven bounds of delta(eps)."""
        lower, upper = self._summed(epsilon)
        missing = self._doubt if self._is_clear else self._missing(epsilon)
        return DeltaBounds(lower, upper + missing)

    def _summed(self, epsilon: Fraction) -> tuple[arb, arb]:
        """Return bounds of the sum over all counts: of the terms that matter, and with the rest."""
        first, last = self._counts.range(float(epsilon), self._log_delta)
        if last - first > _MAX_TERMS:
            raise CertificationError("too many participations count to be added up one by one")
        charge(_WORK_PER_COUNT * (last - first + 1))
        eps, total, weight = ball(epsilon), arb(0), self._weight(first)
        outside = self._below(first - 1, weight, eps)
        for count in range(first, last + 1):
            total += weight * self._given(count, eps)
            weight *= self._ratio(count)
        outside += self._above(last, weight)
        return total, total + outside.upper()

    def _missing(self, epsilon: Fraction) -> arb:
        """Bound what the sum over all counts lacks of delta(eps): less than `_doubt` says alone."""
        low = _rounded_down(epsilon)
        if low not in self._looked_at:
            self._looked_at[low] = self._lacking(low)
        return self._looked_at[low]

    def _lacking(self, epsilon: Fraction) -> arb:
        """Bound delta(eps) less the sum, by delta at what a doubtful round leaves of epsilon."""
        odds, law = (1 - self._rate) / self._rate, Law(self._rate, self._mu)
        ratio = law.likelihood(self._edge) / odds
        if not (ratio <= _LIFT and 1 / ratio <= _LIFT):
            raise CertificationError("the edge lies too far from where the coins are even")
        eps, lifted = ball(epsilon), (1 + _LIFT) * self._rate
        # Took part, and the output lies left of the edge.
        hidden = self._rate * normal_cdf(self._edge - self._mu)
        total = hidden * self._no_more_than(eps - arb(1 + _LIFT).log())
        # Took no part, and the output lies right of it: piece by piece.
        left, loss = self._edge, _FIRST_LOSS
        while loss < epsilon:
            right = self._edge + loss / self._mu
            reached = (lifted * law.likelihood(right)).log()
            mass = normal_cdf(-left) - normal_cdf(-right)
            total += (1 - self._rate) * mass * self._no_more_than(eps - reached)
            left, loss = right, _GROWTH * loss
        total += (1 - self._rate) * normal_cdf(-left)
        return (self._times * total * (1 + _LIFT) / _LIFT).upper()

    def _no_more_than(self, eps: arb) -> arb:
        """Bound delta at any epsilon of this ball."""
        if not eps > 0:
            return arb(1)
        return (self._summed(_rounded_down(lower_end(eps)))[1] + self._doubt).min(arb(1))

    def _weight(self, count: int) -> arb:
        rest = self._times - count
        ways = arb(self._times + 1).lgamma() - arb(count + 1).lgamma() - arb(rest + 1).lgamma()
        return (ways + count * self._rate.log() + rest * (1 - self._rate).log()).exp()

    def _ratio(self, count: int) -> arb:
        """Return the binomial weight of count + 1 over that of count."""
        return (self._times - count) * self._rate / ((count + 1) * (1 - self._rate))

    def _shift(self, count: int, eps: arb) -> arb:
        silent = (self._times - count) * (1 - self._rate).log()
        return eps - count * self._rate.log() - silent

    def _given(self, count: int, eps: arb) -> arb:
        """Return the Gaussian delta of `count` participations at its own epsilon."""
        spread, shift = arb(count).sqrt() * self._mu, self._shift(count, eps)
        gain = normal_cdf(spread / 2 - shift / spread)
        return gain - shift.exp() * normal_cdf(-spread / 2 - shift / spread)

    def _below(self, last: int, weight_after: arb, eps: arb) -> arb:
        """Bound all counts from 1 to `last`: their weight, and the largest Gaussian gain."""
        if last < 1:
            return arb(0)
        spread = arb(last).sqrt() * self._mu
        most = normal_cdf(spread / 2 - self._shift(last, eps) / spread)
        back = 1 / self._ratio(last)
        return most * (weight_after * back / (1 - back)).min(arb(1)) if back < 1 else most

    def _above(self, last: int, weight: arb) -> arb:
        """Bound the weight of all counts beyond `last`; `weight` is that of the next."""
        if last >= self._times:
            return arb(0)
        ratio = self._ratio(last + 1)
        return weight / (1 - ratio) if ratio < 1 else arb(1)


def _rounded_down(value: Fraction) -> Fraction:
    """Return the largest number of few bits that is at most `value`, which is positive."""
    if not value:
        return value
    scale = Fraction(2) ** (_LOOK_BITS - math.frexp(float(value))[1])
    return math.floor(value * scale) / scale
