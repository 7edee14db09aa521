"""Intervals of one and two rounds against quadrature of the definition, over drawn settings.

    python -m tests.benchmarks.contained --count 300 --json out/contained.json

Rates, noises and deltas lie where the accountant changes its method: rare rounds up to and beyond
its limits, little noise, one round from q = 1e-9 to 1, delta just below and above the total
variation where epsilon becomes 0. The truth is integrated in 240 bits (`quadrature.py`), by code
that the accountant shares nothing with. A setting counts as missed where delta at the upper end
exceeds the target, or delta at the lower end falls below it; exit status 1 if there is one. One
that takes longer than 10 s of processor time is left out, and counted.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, epsilon_interval
from tests.benchmarks.tables import show, write_json
from tests.privacy.certified.quadrature import two_sided

SEED = 20_261_127
_SECONDS = 10
# rounds, rates, noises: log-uniform, the rates' ends drawn on their own too.
KINDS = {
    "one round": (1, (1e-9, 1.0), (1e-2, 1e4)),
    "rare": (2, (1e-9, 1e-3), (0.25, 200.0)),
    "rare no more": (2, (5e-4, 3e-3), (0.2, 3.0)),
    "little noise": (2, (1e-9, 0.999999), (0.01, 0.13)),
    "contour": (2, (1e-3, 0.99), (0.1, 50.0)),
}


def measure(kind: str, drawn: random.Random) -> dict[str, Any]:
    """Draw one setting, prove its interval and hold both ends against the truth."""
    rounds, rates, noises = KINDS[kind]
    rate = Fraction(f"{drawn.choice([*rates, _between(drawn, *rates)]):.5g}")
    noise = Fraction(f"{_between(drawn, *noises):.5g}")
    target = Fraction(f"{_between(drawn, 1e-15, 0.1):.4g}")
    if drawn.random() < 0.5:  # near the total variation, where epsilon becomes 0
        near = 1 + drawn.choice([-1, 1]) * Fraction(_between(drawn, 1e-12, 1e-2))
        target = min(_truth(rate, noise, rounds, Fraction(0)) * near, Fraction(1, 2))
    row = {
        "kind": kind, "rate": float(rate), "noise": float(noise), "rounds": rounds,
        "delta": float(target),
    }  # fmt: skip
    try:
        with _processor_limit():
            interval = epsilon_interval({Mechanism(rate, noise): rounds}, target)
    except (CertificationError, TimeoutError) as error:
        return {**row, "method": type(error).__name__, "missed": False}
    slack = target / 10**16
    missed = _truth(rate, noise, rounds, interval.upper) > target + slack or (
        interval.lower > 0 and _truth(rate, noise, rounds, interval.lower) < target - slack
    )
    ends = {"lower": float(interval.lower), "upper": float(interval.upper)}
    return {**row, **ends, "method": interval.method, "missed": missed}


def _truth(rate: Fraction, noise: Fraction, rounds: int, epsilon: Fraction) -> Fraction:
    return max(two_sided(rate, noise, rounds, epsilon))


def _between(drawn: random.Random, low: float, high: float) -> float:
    return math.exp(drawn.uniform(math.log(low), math.log(high)))


@contextmanager
def _processor_limit() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def measured(count: int, seed: int = SEED) -> list[dict[str, Any]]:
    """Return the rows of `count` settings, the kinds in turn."""
    drawn, kinds = random.Random(seed), list(KINDS)
    return [measure(kinds[number % len(kinds)], drawn) for number in range(count)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = measured(arguments.count)
    counts = Counter((row["kind"], row["method"], row["missed"]) for row in rows)
    summary = [
        {"kind": kind, "method": method, "missed": missed, "settings": number}
        for (kind, method, missed), number in sorted(counts.items())
    ]
    show(
        f"Intervals against quadrature, {len(rows)} settings",
        {
            "kind": "kind",
            "method": "method",
            "truth inside": lambda row: "NO" if row["missed"] else "yes",
            "settings": lambda row: str(row["settings"]),
        },
        summary,
    )
    write_json(arguments.json, rows)
    sys.exit(any(row["missed"] for row in rows))


if __name__ == "__main__":
    main()
