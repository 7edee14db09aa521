"""Writes epsilon.json: settings with proven intervals of epsilon, and what other accountants say.

    python -m tests.vectors.make_epsilon --output tests/vectors/epsilon.json

The settings come from fixed seeds, the intervals from the certified accountant (rounded outwards),
the peers' figures from the installed dp-accounting and, where it is installed, Opacus. Peers run
under a time limit, so a slower machine may record fewer of their figures. Figures that the file
already holds from the same versions of the peers are kept, unless `--afresh` is given.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Hunt:
    """Where to look for settings that a peer gets wrong; all ranges log-uniform, ends included.

    Attributes:
        origin: name of the hunt in the file.
        rates: of sampling; (1, 1) for plain Gaussian rounds.
        tried: how many settings are drawn, from `SEED + offset`.
        largest_epsilon: settings above it are left out, as the peers' grids grow with it.
    """

    origin: str
    offset: int
    tried: int
    rates: tuple[float, float]
    noises: tuple[float, float]
    rounds: tuple[float, float]
    deltas: tuple[float, float]
    largest_epsilon: float = math.inf

    def settings(self) -> list[Setting]:
        """Return the settings that are tried."""
        generator = np.random.default_rng(SEED + self.offset)

        def draw(ends: tuple[float, float]) -> float:
            return math.exp(generator.uniform(math.log(ends[0]), math.log(ends[1])))

        found = []
        for _ in range(self.tried):
            rounds = round(draw(self.rounds))
            group = (f"{draw(self.rates):.4g}", f"{draw(self.noises):.4g}", rounds)
            found.append(Setting((group,), f"{draw(self.deltas):.4g}"))
        return found


HUNTS = (
    # Many equal rounds at a delta where doubles run out of digits.
    Hunt("small-delta", 1, 150, (1e-4, 1), (0.5, 100), (100, 1e5), (1e-12, 1e-8)),
    Hunt("smallest-delta", 2, 150, (1e-4, 1), (0.5, 100), (100, 1e5), (1e-12, 1e-10), 20),
    Hunt("low-rate", 3, 60, (1e-4, 1e-2), (0.45, 1.5), (1000, 1e5), (1e-12, 1e-10), 12),
    Hunt("gaussian", 4, 60, (1, 1), (2, 300), (1, 1e4), (1e-13, 1e-9), 12),
    # Rates so low that one round's Renyi divergence is below the last digit of a double.
    Hunt("tiny-rate", 5, 30, (1e-9, 1e-7), (300, 3000), (1e3, 1e6), (1e-15, 1e-12)),
)


class Recorded:
    """Peers' figures: those already in a file of the same versions, else asked for now."""

    def __init__(self, document: dict[str, Any] | None, seconds: int) -> None:
        self._peers = peers()
        self._seconds = seconds
        self._known: dict[tuple[Any, ...], dict[str, float | None]] = {}
        if document is None or not _versions().items() >= document["peer_versions"].items():
            return
        for row in document["vectors"]:
            groups = tuple(
                (group["sampling_rate"], group["noise_multiplier"], group["rounds"])
                for group in row["groups"]
            )
            self._known[groups, row["delta"]] = row["peers"]

    def figures(self, setting: Setting) -> dict[str, float | None]:
        """Return each peer's epsilon, None where it failed or took too long."""
        known = self._known.get((setting.groups, setting.delta), {})
        return {
            name: known[name] if name in known else ask(peer, setting, self._seconds)
            for name, peer in self._peers.items()
        }


def entry(origin: str, setting: Setting, interval: Interval, recorded: Recorded) -> dict[str, Any]:
    """Return one vector: the setting, the proven ends and the peers' figures."""
    said = recorded.figures(setting)
    low = [
        name
        for name, value in said.items()
        if value is not None and max(Fraction(value), Fraction(0)) < interval.lower
    ]
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


def vectors(drawn: int, recorded: Recorded) -> list[dict[str, Any]]:
    """Return all vectors: named settings, drawn ones, and those of the hunts that a peer missed."""
    found = []
    for origin, settings in (
        ("named", [Setting(groups, delta) for groups, delta in NAMED]),
        ("drawn", draw_settings(drawn, SEED)),
    ):
        for setting in settings:
            interval = epsilon_interval(setting.composition(), setting.delta)
            if interval.relative_width <= WIDEST:
                found.append(entry(origin, setting, interval, recorded))
    for hunt in HUNTS:
        caught = 0
        for setting in hunt.settings():
            interval = epsilon_interval(setting.composition(), setting.delta)
            # An epsilon proven to be 0 cannot be missed.
            if interval.relative_width > WIDEST or not 0 < interval.upper <= hunt.largest_epsilon:
                continue
            candidate = entry(hunt.origin, setting, interval, recorded)
            if candidate["under_reported_by"]:
                caught += 1
                found.append(candidate)
        print(f"{hunt.origin}: {caught} of {hunt.tried} settings", flush=True)
    return found


def _versions() -> dict[str, str | None]:
    accounting, opacus = _version("dp-accounting"), _version("opacus")
    return {
        "dp_accounting_pld": accounting,
        "dp_accounting_rdp": accounting,
        "opacus_prv": opacus,
        "opacus_rdp": opacus,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("tests/vectors/epsilon.json"))
    parser.add_argument("--drawn", type=int, default=260)
    parser.add_argument("--seconds", type=int, default=15, help="time limit of one peer's figure")
    parser.add_argument("--afresh", action="store_true", help="ask the peers again for everything")
    arguments = parser.parse_args()
    before = None
    if arguments.output.exists() and not arguments.afresh:
        before = json.loads(arguments.output.read_text())
    rows = vectors(arguments.drawn, Recorded(before, arguments.seconds))
    for number, row in enumerate(rows):
        row["id"] = f"eps-{number:04d}"
    document = {
        "format": FORMAT,
        "neighbours": "add-or-remove-one",
        "peer_versions": _versions(),
        "vectors": rows,
    }
    arguments.output.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    low = sum(bool(row["under_reported_by"]) for row in rows)
    print(f"{len(rows)} vectors, {low} of them under-reported by a peer -> {arguments.output}")


if __name__ == "__main__":
    main()
