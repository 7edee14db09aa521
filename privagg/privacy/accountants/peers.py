"""dp-accounting's two accountants, in double precision: peers to compare with, and no proof."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privagg.privacy.accountant import EpsilonBound, round_up
from privagg.privacy.accountants import floats
from privagg.privacy.accountants.folding import (
    INFINITE,
    check_delta,
    check_relation,
    float_down,
    float_up,
    fold_distance,
    without_mechanism,
)
from privagg.privacy.events import AnyMechanism, DpEvent, LaplaceMechanism, Mechanism

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FLOAT_SLACK = 1e-12
"""Relative allowance for the last digits of a double-precision figure; no proof, only caution."""


class RdpAccountant:
    """Renyi accounting by dp-accounting, in double precision: an independent second opinion.

    Source: I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian
    Mechanism" (2019), with the conversion of Canonne, Kamath and Steinke (2020), Proposition 12.
    """

    name = "rdp"

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta`, computed in double precision.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the neighbouring relation is not add-or-remove-one.
        """
        check_delta(delta)
        check_relation(event)
        method = "Renyi orders in double precision (dp-accounting)"
        if not event.is_private:
            return EpsilonBound(INFINITE, None, method, certified=False)
        if not event.terms:
            return without_mechanism(event, delta, method)
        first, *rest = (term.count * _rdp_curve(term.mechanism) for term in event.terms)
        total = sum(rest, start=first)

        def epsilon_at(allowed: Decimal) -> Decimal:
            return _rdp_epsilon(total, float_down(allowed))

        upper = fold_distance(epsilon_at, delta, event.distance)
        return EpsilonBound(round_up(upper), None, method, certified=False)


@lru_cache(maxsize=4096)
def _rdp_curve(mechanism: AnyMechanism) -> NDArray[np.float64]:
    """Renyi divergence of one run at dp-accounting's default orders; infinite where unusable."""
    import dp_accounting
    import numpy as np
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant()
    if isinstance(mechanism, LaplaceMechanism):
        return floats.divergences(mechanism, accountant.orders) * (1 + _FLOAT_SLACK)
    with _quiet_peer():
        accountant.compose(_peer_event(mechanism, dp_accounting))
    curve = np.array(accountant.rdp, dtype=np.float64)
    # At tiny sampling rates cancellation yields zeros and negative values; such an order says
    # nothing, and dp-accounting would read it as epsilon = 0.
    curve[~(curve > 0)] = np.inf
    return curve * (1 + _FLOAT_SLACK)


@contextmanager
def _quiet_peer() -> Iterator[None]:
    """Silences dp-accounting where it remarks that it leaves out an order, as it is meant to."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _rdp_epsilon(curve: NDArray[np.float64], delta: float) -> Decimal:
    from dp_accounting import rdp

    if delta <= 0:
        return INFINITE
    orders = rdp.RdpAccountant().orders
    usable = [
        (order, value) for order, value in zip(orders, curve, strict=True) if value < math.inf
    ]
    if not usable:
        return INFINITE
    epsilon, _ = rdp.rdp_privacy_accountant.compute_epsilon(
        [order for order, _ in usable], [value for _, value in usable], delta
    )
    return Decimal(math.nextafter(float(epsilon) * (1 + _FLOAT_SLACK), math.inf))


class PldAccountant:
    """Privacy loss distributions by dp-accounting, discretised pessimistically, in doubles.

    Its figure can lie below the proven epsilon at small delta (noise of the Fourier transform), so
    it is a peer to compare with and never the figure that a budget is held against by default.

    Args:
        value_discretization_interval: width of a step of the privacy loss, in units of epsilon.

    Source: A. Koskela, J. Jalko, A. Honkela, "Computing Tight Differential Privacy Guarantees Using
        FFT", AISTATS 2020; V. Doroshenko, B. Ghazi, P. Kamath, R. Kumar, P. Manurangsi, "Connect
        the Dots: Tighter Discrete Approximations of Privacy Loss Distributions", PoPETs 2022.
    """

    name = "pld"

    def __init__(self, value_discretization_interval: float = 1e-4) -> None:
        self._interval = value_discretization_interval

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Bound epsilon at `delta`, computed in double precision.

        Raises:
            CertificationError: delta lies outside (0, 1).
            UnknownEventError: the neighbouring relation is not add-or-remove-one.
        """
        check_delta(delta)
        check_relation(event)
        return _pld_bound(event, delta, self._interval)


@lru_cache(maxsize=4096)
def _pld_bound(event: DpEvent, delta: Decimal, interval: float) -> EpsilonBound:
    """The bound itself; sites of one plan, and the reports of one run, ask for the same ones."""
    method = f"privacy loss distribution, interval {interval:g} (dp-accounting)"
    if not event.is_private:
        return EpsilonBound(INFINITE, None, method, certified=False)
    if not event.terms:
        return without_mechanism(event, delta, method)
    composed = _distribution(event, interval)

    def epsilon_at(allowed: Decimal) -> Decimal:
        value = float_down(allowed)
        if value <= 0:
            return INFINITE
        epsilon = float(composed(value))
        return Decimal(math.nextafter(epsilon * (1 + _FLOAT_SLACK), math.inf))

    upper = fold_distance(epsilon_at, delta, event.distance)
    return EpsilonBound(round_up(upper), None, method, certified=False)


def _distribution(event: DpEvent, interval: float) -> Callable[[float], float]:
    """Epsilon as a function of delta by a pessimistic distribution of the ideal mechanisms."""
    import dp_accounting
    from dp_accounting import pld

    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    laplaces: Any = None
    for term in event.terms:
        if isinstance(term.mechanism, LaplaceMechanism):
            one = floats.distribution(term.mechanism, interval, pessimistic=True)
            composed = one.self_compose(term.count)
            laplaces = composed if laplaces is None else laplaces.compose(composed)
        else:
            accountant.compose(_peer_event(term.mechanism, dp_accounting), term.count)
    if laplaces is None:
        return accountant.get_epsilon  # type: ignore[no-any-return]
    # The accountant takes events alone, and has none for this noise.
    whole = laplaces.compose(accountant._pld)
    return whole.get_epsilon_for_delta  # type: ignore[no-any-return]


def _peer_event(mechanism: Mechanism, dp_accounting: object) -> object:
    """Our mechanism in dp-accounting's words, its parameters rounded to the pessimistic side."""
    events = dp_accounting
    noise = float_down(mechanism.noise_multiplier)
    gaussian = events.GaussianDpEvent(noise)  # type: ignore[attr-defined]
    if mechanism.kind == "gaussian":
        return gaussian
    rate = min(1.0, float_up(mechanism.sampling_rate))
    return events.PoissonSampledDpEvent(rate, gaussian)  # type: ignore[attr-defined]
