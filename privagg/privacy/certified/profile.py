"""Floating-point portraits of one round's integrands: they choose parameters, and prove nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from privagg.errors import CertificationError
from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.window import Window
from privagg.privacy.certified.work import charge

Array = NDArray[np.float64]

_STEP = 0.1
_LEFT = -45.0
_FARTHEST = 1e4


@dataclass(frozen=True)
class Profile:
    """One subsampled round in noise units, cut hard at `reach` for choosing the order.

    Attributes:
        rate: sampling rate q, below 1.
        mu: 1 / noise multiplier.
        direction: which of the two dominating pairs.
        reach: beyond it lies less probability than the target delta can notice.
        nodes: float64 (n,), from -45 to reach.
        log_ratio: float64 (n,), log V at the nodes.
    """

    rate: float
    mu: float
    direction: Direction
    reach: float
    nodes: Array
    log_ratio: Array

    def log_moment(self, orders: Array) -> Array:
        """Return log M at float64 (m,) orders, on the cut range."""
        charge(50 + 0.05 * len(self.nodes) * len(orders))
        return log_integral(self._integrand(orders, self.nodes, self.log_ratio))

    def _integrand(self, orders: Array, nodes: Array, log_ratio: Array) -> Array:
        power = orders + 1 if self.direction is Direction.REMOVE else -orders
        result: Array = power[:, None] * log_ratio[None, :] - nodes[None, :] ** 2 / 2
        return result

    def windowed(self, order: float, window: Window, right: float) -> tuple[Array, Array]:
        """Return (nodes, log integrand) up to `right` under a window, on the real axis.

        Args:
            order: c, a moment order.
            window: which outputs count.
            right: last node, in noise units.

        Returns: two float64 (n,) arrays.
        """
        nodes = np.arange(_LEFT, right + _STEP, _STEP)
        log_ratio = log_ratio_at(self.rate, self.mu, nodes)
        values = self._integrand(np.array([order]), nodes, log_ratio)[0]
        return nodes, values + log_window(window, nodes)

    def log_moment_under(self, orders: Array, window: Window) -> Array:
        """Return log M at float64 (m,) orders under a window, its remote mode left out."""
        nodes = np.arange(-15.0, self.reach + 4 + 10 * window.blur, _STEP)
        charge(200 + 0.2 * len(nodes) * len(orders))
        log_ratio = log_ratio_at(self.rate, self.mu, nodes)
        values = self._integrand(orders, nodes, log_ratio) + log_window(window, nodes)[None, :]
        return log_integral(values)

    def log_moment_upto(self, orders: Array, window: Window, edge: float) -> Array:
        """Return log M at float64 (m,) orders under a window and left of an edge.

        Args:
            orders: float64 (m,).
            window: which outputs count.
            edge: right end of the range, in noise units.

        Returns: float64 (m,).
        """
        nodes = np.linspace(-12.0, edge, 500)
        log_ratio = log_ratio_at(self.rate, self.mu, nodes)
        values = self._integrand(orders, nodes, log_ratio) + log_window(window, nodes)[None, :]
        step = (edge + 12.0) / (len(nodes) - 1)
        result: Array = logsumexp(values, axis=-1) + math.log(step / math.sqrt(2 * math.pi))
        return result

    def log_tail(self, nodes: Array) -> Array:
        """Return log P(u > node) at float64 nodes, with and without participation."""
        shifted = math.log(self.rate) + log_ndtr(self.mu - nodes)
        result: Array = np.logaddexp(math.log1p(-self.rate) + log_ndtr(-nodes), shifted)
        return result

    def remote_peaks(self, orders: Array, window: Window) -> tuple[Array, Array]:
        """Return (places, log integrand) of the second mode, the shifted component's own.

        Where there is none beyond `reach`, the height is -inf.
        """
        charge(800)
        heights = np.full_like(orders, -np.inf)
        places = np.full_like(orders, self.reach)
        if self.direction is Direction.ADD:
            return places, heights
        squeezed = 1 / window.blur**2 if math.isfinite(window.high) else 0.0
        pull = window.high * squeezed if squeezed else 0.0
        power = orders + 1
        peaks = (power * self.mu + pull) / (1 + squeezed)
        for _ in range(12):
            ratio = log_ratio_at(self.rate, self.mu, peaks)
            value = power * ratio - peaks**2 / 2 + log_window(window, peaks)
            better = (peaks > self.reach) & (value > heights)
            heights, places = np.where(better, value, heights), np.where(better, peaks, places)
            # Stationary where u = ((c+1) mu w(u) + pull) / curvature, w the shifted share.
            share = 1 - (1 - self.rate) * np.exp(-np.minimum(ratio, 700.0))
            peaks = (power * self.mu * share + pull) / (1 + squeezed)
        return places, heights

    def remote_peak(self, order: float, window: Window) -> tuple[float, float]:
        """Return `remote_peaks` at one order, as floats."""
        places, heights = self.remote_peaks(np.array([order]), window)
        return float(places[0]), float(heights[0])


@dataclass(frozen=True)
class Part:
    """A mechanism, how often it ran, and its profile.

    Attributes:
        mechanism: one round.
        times: number of rounds, at least 1.
        profile: floats of one round; None without subsampling, where the moment has a closed form.
    """

    mechanism: Mechanism
    times: int
    profile: Profile | None

    def log_moment(self, orders: Array) -> Array:
        """Return log M(order)^times."""
        if self.profile is None:
            variance = 1 / float(self.mechanism.noise_multiplier) ** 2
            result: Array = self.times * orders * (orders + 1) * variance / 2
            return result
        return self.times * self.profile.log_moment(orders)


def profile_of(mechanism: Mechanism, direction: Direction, log_negligible: float) -> Profile:
    """Return the portrait of one subsampled round.

    Args:
        mechanism: one round with a sampling rate below 1.
        direction: which of the two dominating pairs.
        log_negligible: log of a probability per round that may be ignored when choosing.

    Raises: CertificationError where the noise is too little for a contour.
    """
    rate, mu = float(mechanism.sampling_rate), 1 / float(mechanism.noise_multiplier)
    depth = math.sqrt(max(-2 * log_negligible, 1.0))
    shifted = mu + math.sqrt(max(-2 * (log_negligible - math.log(rate)), 1.0))
    reach = max(depth, shifted)
    if reach > _FARTHEST:
        raise CertificationError("there is too little noise for a contour")
    nodes = np.arange(_LEFT, reach + _STEP, _STEP)
    return Profile(rate, mu, direction, reach, nodes, log_ratio_at(rate, mu, nodes))


def log_ratio_at(rate: float, mu: float, nodes: Array) -> Array:
    """Return log V at float64 nodes without overflow.

    Args:
        rate: sampling rate q, below 1.
        mu: 1 / noise multiplier.
        nodes: float64, any shape, in noise units.

    Returns: float64 of the nodes' shape.
    """
    exponent = mu * nodes - mu * mu / 2
    small = np.log1p(rate * np.expm1(np.minimum(exponent, 600.0)))
    return np.where(exponent > 600.0, exponent + math.log(rate), small)


def log_window(window: Window, nodes: Array) -> Array:
    """Return log W at float64 nodes, roughly, far out by the leading term."""
    total = np.zeros_like(nodes)
    if math.isfinite(window.high):
        total = total + _log_cdf((window.high - nodes) / window.blur)
    if math.isfinite(window.low):
        total = total + _log_cdf((nodes - window.low) / window.blur)
    return total


def _log_cdf(x: Array) -> Array:
    # log Phi to a few percent: enough to choose by.
    negative = np.minimum(x, 0.0)
    return np.where(x < 0, -(negative**2) / 2 - np.log(2 + 2.5 * -negative), 0.0)


def log_integral(values: Array) -> Array:
    """Return log of step * sum exp(values) / sqrt(2 pi) along the last axis."""
    top = values.max(axis=-1, keepdims=True)
    total = np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]
    result: Array = total + math.log(_STEP / math.sqrt(2 * math.pi))
    return result
