"""Integer Laplace noise and its shares in double precision, as dp-accounting's peers take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from privagg.privacy.events import LaplaceMechanism

_DEPTH = 60
"""Scales beyond which less than about e^-60 lies, for shape 1."""


def log_masses(scale: float, shape: float, count: int) -> NDArray[np.float64]:
    """log P(k), k = 0 ... count, of the noise that these shares make together.

    Args:
        scale: t > 0.
        shape: s > 0.
        count: far enough out that nothing to speak of lies beyond.

    Returns:
        float64 (count + 1,).
    """
    decay = math.exp(-1 / scale)
    logs = np.zeros(count + 1)
    both, ratio = decay + 1 / decay, decay
    for k in range(count, 0, -1):
        ratio = (k - 1 + shape) / (both * k - (k + 1 - shape) * ratio)
        logs[k] = math.log(ratio)
    logs = np.cumsum(logs)
    whole = logsumexp(np.concatenate([logs, logs[1:]]))
    result: NDArray[np.float64] = logs - whole
    return result


def _pair(mechanism: LaplaceMechanism) -> tuple[NDArray[np.int64], Any, Any]:
    """Values, their log masses, and those of the noise moved by the shift."""
    scale, shape = float(mechanism.scale), mechanism.shares / mechanism.shared_by
    reach = math.ceil(scale * (_DEPTH + 3 * shape)) + 1
    logs = log_masses(scale, shape, reach + mechanism.shift)
    values = np.arange(-reach, reach + 1)
    return values, logs[np.abs(values)], logs[np.abs(values - mechanism.shift)]


def divergences(mechanism: LaplaceMechanism, orders: Sequence[float]) -> NDArray[np.float64]:
    """Renyi divergence of one release at each order above 1.

    Args:
        mechanism: what is released.
        orders: any above 1.

    Returns:
        float64 of the orders' length.
    """
    _, own, other = _pair(mechanism)
    most = float(np.max(own - other))
    alpha = np.asarray(orders, dtype=np.float64)[:, None]
    inside = logsumexp(alpha * own + (1 - alpha) * other, axis=1)
    # What is cut off has at most the largest loss.
    cut = (alpha[:, 0] - 1) * most - _DEPTH
    result: NDArray[np.float64] = np.logaddexp(inside, cut) / (alpha[:, 0] - 1)
    return result


def distribution(mechanism: LaplaceMechanism, interval: float, *, pessimistic: bool) -> Any:
    """One release as dp-accounting's privacy loss distribution.

    Args:
        mechanism: what is released.
        interval: of its grid.
        pessimistic: whether losses are rounded up, else down.
    """
    from dp_accounting.pld import privacy_loss_distribution as distributions

    values, own, other = _pair(mechanism)
    names = values.tolist()
    return distributions.from_two_probability_mass_functions(
        dict(zip(names, other.tolist(), strict=True)),
        dict(zip(names, own.tolist(), strict=True)),
        pessimistic_estimate=pessimistic,
        value_discretization_interval=interval,
    )
