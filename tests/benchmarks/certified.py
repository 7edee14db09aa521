"""The certified accountant on a log-uniform grid of settings, and a ledger's next round.

    python -m tests.benchmarks.certified --count 500 --json out/certified.json

Times are wall-clock on one core. Targets: a valid interval for each setting; relative width at most
1e-6 for 90 % and 25 % for all; median time at most 0.1 s; a further round of a known mechanism
under 1 ms and its epsilon under 20 ms, at round 10,000 as at round 10.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privagg.errors import CertificationError
from privagg.privacy.certified import (
    ContourState,
    Mechanism,
    epsilon_interval,
    round_down,
    round_up,
)
from tests.benchmarks.settings import Setting, draw_settings
from tests.benchmarks.tables import show, write_json

SEED = 20_260_101


def measure(setting: Setting) -> dict[str, Any]:
    """One setting's interval, width and processor time: one thread, whatever else is running."""
    composition = setting.composition()
    start = time.process_time()
    try:
        interval = epsilon_interval(composition, setting.delta)
    except CertificationError as error:
        return {
            "kind": "setting", "setting": setting.text(), "width": 1.0, "method": str(error),
            "seconds": time.process_time() - start, "lower": "0", "upper": "inf",
        }  # fmt: skip
    return {
        "kind": "setting",
        "setting": setting.text(),
        "lower": str(round_down(interval.lower, 12)),
        "upper": str(round_up(interval.upper, 12)),
        "width": interval.relative_width,
        "method": interval.method,
        "seconds": time.process_time() - start,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures that the targets speak about."""
    widths = [row["width"] for row in rows]
    seconds = sorted(row["seconds"] for row in rows)
    share = 1 / len(rows)
    figures = [
        ("settings", len(rows), ">= 500"),
        ("share of width <= 1e-6", sum(w <= 1e-6 for w in widths) * share, ">= 0.90"),
        ("share of width <= 0.25", sum(w <= 0.25 for w in widths) * share, "1"),
        ("share proven to be 0", sum(row["upper"] == "0" for row in rows) * share, ""),
        ("median width", statistics.median(widths), ""),
        ("median processor seconds", statistics.median(seconds), "<= 0.1"),
        ("90th percentile of processor seconds", seconds[int(0.9 * len(seconds))], ""),
        ("99th percentile of processor seconds", seconds[int(0.99 * len(seconds))], ""),
        ("largest processor seconds", seconds[-1], ""),
    ]
    return [{"kind": "summary", "figure": n, "value": v, "target": t} for n, v, t in figures]


def ledger_rows(repeats: int = 15) -> list[dict[str, Any]]:
    """Return the time of a further round and of its epsilon at round 10, 1,000 and 10,000."""
    mechanisms = [Mechanism("0.01", "1"), Mechanism("0.02", "1.5"), Mechanism("0.005", "0.8")]  # type: ignore[arg-type]
    rows = []
    for start in (10, 1000, 10_000):
        state = ContourState()
        for number in range(start):
            state.add(mechanisms[number % 3])
        state.epsilon("1e-6")
        adding, asking = [], []
        for number in range(repeats):
            begin = time.process_time()
            state.add(mechanisms[number % 3])
            middle = time.process_time()
            interval = state.epsilon("1e-6")
            adding.append(middle - begin)
            asking.append(time.process_time() - middle)
        rows.append(
            {
                "kind": "ledger",
                "round": start,
                "add_ms": 1e3 * statistics.median(adding),
                "epsilon_ms": 1e3 * statistics.median(asking),
                "width": interval.relative_width,
            }
        )
    return rows


def report(rows: Sequence[dict[str, Any]], ledger: Sequence[dict[str, Any]]) -> None:
    """Print summary, the widest and slowest settings, and the ledger's times."""
    figures = summary(rows)
    show(
        "Certified intervals",
        {
            "figure": "figure",
            "value": lambda row: f"{row['value']:.4g}",
            "target": "target",
        },
        figures,
    )
    columns = {
        "setting": "setting",
        "epsilon <=": "upper",
        "relative width": lambda row: f"{row['width']:.2g}",
        "seconds": lambda row: f"{row['seconds']:.3f}",
        "method": "method",
    }
    show("The widest", columns, sorted(rows, key=lambda row: -row["width"])[:10])
    show("The slowest", columns, sorted(rows, key=lambda row: -row["seconds"])[:10])
    show(
        "A ledger's next round (three mechanisms in turn)",
        {
            "at round": lambda row: str(row["round"]),
            "add, ms": lambda row: f"{row['add_ms']:.4f}",
            "epsilon, ms": lambda row: f"{row['epsilon_ms']:.2f}",
            "relative width": lambda row: f"{row['width']:.1e}",
        },
        ledger,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = [measure(setting) for setting in draw_settings(arguments.count, arguments.seed)]
    ledger = ledger_rows()
    report(rows, ledger)
    write_json(arguments.json, [*rows, *summary(rows), *ledger])


if __name__ == "__main__":
    main()
