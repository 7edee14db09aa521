"""What the floating-point accountants say: dp-accounting's PLD and RDP, Opacus's PRV and RDP."""

from __future__ import annotations

import importlib.util
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.settings import Setting


class TooSlowError(Exception):
    """A peer took longer than it was given."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TooSlowError in the main thread after some seconds."""

    def ring(*_: Any) -> None:
        raise TooSlowError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def pld_epsilon(setting: Setting) -> float:
    """Return dp-accounting's PLD epsilon, pessimistic, at its default discretisation of 1e-4."""
    from dp_accounting import pld

    return _dp_accounting(pld.PLDAccountant(), setting)


def rdp_epsilon(setting: Setting) -> float:
    """Return dp-accounting's RDP epsilon at its default orders."""
    from dp_accounting import rdp

    return _dp_accounting(rdp.RdpAccountant(), setting)


def _dp_accounting(accountant: Any, setting: Setting) -> float:
    import dp_accounting

    for rate, noise, rounds in setting.groups:
        event: Any = dp_accounting.GaussianDpEvent(float(noise))
        if float(rate) < 1:
            event = dp_accounting.PoissonSampledDpEvent(float(rate), event)
        accountant.compose(event, rounds)
    return float(accountant.get_epsilon(float(setting.delta)))


def prv_epsilon(setting: Setting) -> float:
    """Return Opacus's PRV epsilon at its default errors (upper end of its interval)."""
    from opacus.accountants import PRVAccountant

    return _opacus(PRVAccountant(), setting)


def opacus_rdp_epsilon(setting: Setting) -> float:
    """Return Opacus's RDP epsilon at its default orders."""
    from opacus.accountants import RDPAccountant

    return _opacus(RDPAccountant(), setting)


def _opacus(accountant: Any, setting: Setting) -> float:
    accountant.history = [
        (float(noise), float(rate), rounds) for rate, noise, rounds in setting.groups
    ]
    return float(accountant.get_epsilon(delta=float(setting.delta)))


def peers() -> dict[str, Callable[[Setting], float]]:
    """Return the peers that can be run here, by name."""
    found: dict[str, Callable[[Setting], float]] = {
        "dp_accounting_pld": pld_epsilon,
        "dp_accounting_rdp": rdp_epsilon,
    }
    if importlib.util.find_spec("opacus") is not None:
        found |= {"opacus_prv": prv_epsilon, "opacus_rdp": opacus_rdp_epsilon}
    return found


def ask(peer: Callable[[Setting], float], setting: Setting, seconds: int = 30) -> float | None:
    """Return a peer's epsilon, or None where it fails, takes too long or is not finite."""
    try:
        with time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # One remark for each Renyi order left out would bury everything else.
            logging.getLogger("absl").setLevel(logging.ERROR)
            value = peer(setting)
    except Exception:
        # A peer's refusal is its own business; only numbers are compared.
        return None
    return value if math.isfinite(value) else None
