"""Settings for the certified accountant, drawn log-uniformly from a fixed seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from privagg.privacy.certified import Mechanism

Group = tuple[str, str, int]


@dataclass(frozen=True)
class Setting:
    """A composition and a delta, as decimal strings.

    Attributes:
        groups: (sampling rate, noise multiplier, rounds), each mechanism once.
        delta: target delta.
    """

    groups: tuple[Group, ...]
    delta: str

    def composition(self) -> dict[Mechanism, int]:
        """Return the setting as the accountant takes it."""
        return {Mechanism(rate, noise): rounds for rate, noise, rounds in self.groups}  # type: ignore[arg-type]

    def text(self) -> str:
        """Return the setting on one line."""
        parts = [f"{rounds} x (q={rate}, sigma={noise})" for rate, noise, rounds in self.groups]
        return " + ".join(parts) + f", delta={self.delta}"


def draw_range(count: int, seed: int, group: str) -> list[Setting]:
    """Return `count` settings of equal rounds from the whole range that is promised.

    q from 1e-9 to 1, sigma from 0.01 to 1e4, 1 to 10^6 rounds and delta from 1e-15 to 0.1, all
    log-uniform. Group "near" has q * rounds / delta in [1e-2, 1e2], "few" has 1 to 100 rounds,
    "whole" has no condition.
    """
    generator = np.random.default_rng([seed, ("whole", "near", "few").index(group)])

    def draw(low: float, high: float) -> float:
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    settings: list[Setting] = []
    while len(settings) < count:
        rate, noise, delta = draw(1e-9, 1), draw(1e-2, 1e4), draw(1e-15, 0.1)
        rounds = max(1, round(draw(1, 100 if group == "few" else 1e6)))
        if group == "near" and not 1e-2 <= rate * rounds / delta <= 1e2:
            continue
        settings.append(Setting(((f"{rate:.4g}", f"{noise:.4g}", rounds),), f"{delta:.4g}"))
    return settings


def draw_settings(count: int, seed: int) -> list[Setting]:
    """Return `count` settings: three quarters of equal rounds, one quarter of 2 to 4 mechanisms.

    q from 1e-4 to 1 (1 exactly in every twentieth group), sigma from 0.4 to 300, 1 to 100,000
    rounds and delta from 1e-12 to 1e-3, all log-uniform, to four decimal digits.
    """
    generator = np.random.default_rng(seed)

    def draw(low: float, high: float) -> float:
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    settings = []
    while len(settings) < count:
        size = 1 if generator.random() < 0.75 else int(generator.integers(2, 5))
        groups: dict[tuple[str, str], int] = {}
        for _ in range(size):
            whole = generator.random() < 0.05
            rate = "1" if whole else f"{draw(1e-4, 1):.4g}"
            groups[rate, f"{draw(0.4, 300):.4g}"] = max(1, round(draw(1, 1e5)))
        rows = tuple((rate, noise, rounds) for (rate, noise), rounds in groups.items())
        settings.append(Setting(rows, f"{draw(1e-12, 1e-3):.4g}"))
    return settings
