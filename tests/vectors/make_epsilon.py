"""Writes epsilon.json: settings with proven intervals of epsilon, and what other accountants say.

    python -m tests.vectors.make_epsilon --output tests/vectors/epsilon.json

The settings come from fixed seeds, the intervals from the certified accountant (rounded outwards),
the peers' figures from the installed dp-accounting and, where it is installed, Opacus. Peers run
under a time limit, so a slower machine may record fewer of their figures.
"""

from __future__ import annotations

import argparse
import json
import math
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from privagg.privacy.certified import Interval, epsilon_interval, round_down, round_up
from tests.benchmarks.settings import Setting, draw_settings
from tests.vectors.peers import ask, peers

FORMAT = "privagg-epsilon-vectors/1"
SEED = 11
DIGITS = 13
# A setting is worth its place only if its interval is narrow; all that were drawn are.
WIDEST = 1e-6

NAMED = [
    ((("0.01", "1", 1000),), "1e-5"),
    ((("0.01", "1", 3000),), "1e-5"),
    ((("0.01", "0.5", 1000),), "1e-5"),
    ((("0.001", "20", 100),), "1e-5"),
    ((("1", "100", 10_000),), "1e-12"),
    ((("1", "17.45", 30),), "1e-4"),
    ((("1e-4", "0.6", 30_000),), "1e-12"),
    ((("1e-4", "0.6", 50_000),), "1e-12"),
    ((("0.05", "10", 30_000),), "1e-12"),
    ((("1e-4", "0.8", 100_000),), "1e-11"),
    ((("0.2", "10", 10_000),), "1e-9"),
]


def small_delta_settings(count: int, seed: int) -> list[Setting]:
    """Return settings of many equal rounds at delta from 1e-12 to 1e-8, where doubles run out."""
    generator = np.random.default_rng(seed)

    def draw(low: float, high: float) -> float:
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    settings = []
    for _ in range(count):
        rounds = round(draw(100, 1e5))
        group = (f"{draw(1e-4, 1):.4g}", f"{draw(0.5, 100):.4g}", rounds)
        settings.append(Setting((group,), f"{draw(1e-12, 1e-8):.4g}"))
    return settings


def entry(origin: str, setting: Setting, interval: Interval, seconds: int) -> dict[str, Any]:
    """Return one vector: the setting, the proven ends and the peers' figures."""
    said = {name: ask(peer, setting, seconds) for name, peer in peers().items()}
    low = [n for n, value in said.items() if value is not None and Fraction(value) < interval.lower]
    return {
        "origin": origin,
        "groups": [
            {"sampling_rate": rate, "noise_multiplier": noise, "rounds": rounds}
            for rate, noise, rounds in setting.groups
        ],
        "delta": setting.delta,
        "epsilon_lower": str(round_down(interval.lower, DIGITS)),
        "epsilon_upper": str(round_up(interval.upper, DIGITS)),
        "method": interval.method,
        "peers": said,
        "under_reported_by": low,
    }


def vectors(drawn: int, hunted: int, tried: int, seconds: int) -> list[dict[str, Any]]:
    """Return all vectors: named settings, drawn ones, and small deltas that a peer gets wrong."""
    found = []
    for origin, settings in (
        ("named", [Setting(groups, delta) for groups, delta in NAMED]),
        ("drawn", draw_settings(drawn, SEED)),
    ):
        for setting in settings:
            interval = epsilon_interval(setting.composition(), setting.delta)
            if interval.relative_width <= WIDEST:
                found.append(entry(origin, setting, interval, seconds))
    low = 0
    for setting in small_delta_settings(tried, SEED + 1):
        if low >= hunted:
            break
        interval = epsilon_interval(setting.composition(), setting.delta)
        if interval.relative_width > WIDEST:
            continue
        candidate = entry("small-delta", setting, interval, seconds)
        if candidate["under_reported_by"]:
            low += 1
            found.append(candidate)
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("tests/vectors/epsilon.json"))
    parser.add_argument("--drawn", type=int, default=200)
    parser.add_argument("--hunted", type=int, default=60)
    parser.add_argument("--tried", type=int, default=150)
    parser.add_argument("--seconds", type=int, default=15, help="time limit of one peer's figure")
    arguments = parser.parse_args()
    rows = vectors(arguments.drawn, arguments.hunted, arguments.tried, arguments.seconds)
    for number, row in enumerate(rows):
        row["id"] = f"eps-{number:04d}"
    document = {
        "format": FORMAT,
        "neighbours": "add-or-remove-one",
        "peer_versions": {
            "dp_accounting_pld": _version("dp-accounting"),
            "opacus_prv": _version("opacus"),
        },
        "vectors": rows,
    }
    arguments.output.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    low = sum(bool(row["under_reported_by"]) for row in rows)
    print(f"{len(rows)} vectors, {low} of them under-reported by a peer -> {arguments.output}")


if __name__ == "__main__":
    main()
