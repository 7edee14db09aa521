"""Floating-point portraits of one round's integrands: they choose parameters, and prove nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privagg.privacy.certified.mechanism import Direction, Mechanism
from privagg.privacy.certified.window import Window

Array = NDArray[np.float64]

_STEP = 0.1
_LEFT = -45.0


@dataclass(frozen=True)
class Profile:
    """One subsampled round in noise units, cut hard at `reach` for choosing the order.

    Attributes:
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
        return log_integral(self._integrand(orders, self.nodes, self.log_ratio))

    def _integrand(self, orders: Array, nodes: Array, log_ratio: Array) -> Array:
        power = orders + 1 if self.direction is Direction.REMOVE else -orders
        result: Array = power[:, None] * log_ratio[None, :] - nodes[None, :] ** 2 / 2
        return result

    def windowed(self, order: float, window: Window, right: float) -> tuple[Array, Array]:
        """Return (nodes, log integrand) up to `right` under a window, on the real axis."""
        nodes = np.arange(_LEFT, right + _STEP, _STEP)
        log_ratio = log_ratio_at(self.rate, self.mu, nodes)
        values = self._integrand(np.array([order]), nodes, log_ratio)[0]
        return nodes, values + log_window(window, nodes)

    def remote_peak(self, order: float, window: Window) -> tuple[float, float]:
        """Return (place, log integrand) of the second mode, the shifted component's own.

        Where there is none beyond `reach`, the height is -inf.
        """
        if self.direction is Direction.ADD:
            return self.reach, -math.inf
        blur = window.blur**2
        edge = window.high if math.isfinite(window.high) else 0.0
        curvature = 1 + (1 / blur if math.isfinite(window.high) else 0.0)
        pull = edge / blur if math.isfinite(window.high) else 0.0
        best, place, peak = -math.inf, self.reach, ((order + 1) * self.mu + pull) / curvature
        for _ in range(12):
            if peak <= self.reach:
                break
            at = np.array([peak])
            ratio = log_ratio_at(self.rate, self.mu, at)
            value = (order + 1) * ratio - at**2 / 2 + log_window(window, at)
            if float(value[0]) > best:
                best, place = float(value[0]), peak
            # Stationary where u = ((c+1) mu w(u) + pull) / curvature, w the shifted share.
            share = 1 - (1 - self.rate) * math.exp(-min(float(ratio[0]), 700.0))
            peak = ((order + 1) * self.mu * share + pull) / curvature
        return place, best


def profile_of(mechanism: Mechanism, direction: Direction, log_negligible: float) -> Profile:
    """Return the portrait of one subsampled round.

    Args:
        log_negligible: log of a probability per round that may be ignored when choosing.
    """
    rate, mu = float(mechanism.sampling_rate), 1 / float(mechanism.noise_multiplier)
    depth = math.sqrt(max(-2 * log_negligible, 1.0))
    shifted = mu + math.sqrt(max(-2 * (log_negligible - math.log(rate)), 1.0))
    reach = max(depth, shifted)
    nodes = np.arange(_LEFT, reach + _STEP, _STEP)
    return Profile(rate, mu, direction, reach, nodes, log_ratio_at(rate, mu, nodes))


def log_ratio_at(rate: float, mu: float, nodes: Array) -> Array:
    """Return log V at float64 nodes without overflow."""
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
    return np.where(x < 0, -negative**2 / 2 - np.log(2 + 2.5 * -negative), 0.0)


def log_integral(values: Array) -> Array:
    """Return log of step * sum exp(values) / sqrt(2 pi) along the last axis."""
    top = values.max(axis=-1, keepdims=True)
    total = np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]
    result: Array = total + math.log(_STEP / math.sqrt(2 * math.pi))
    return result
