"""The certified accountant over the whole range of settings, and a ledger's next round.

    python -m tests.benchmarks.certified --count 2000 --json out/certified.json

Half of the settings come from the whole range, a quarter has q * rounds near delta, a quarter has 1
to 100 rounds; two seeds each. Target in each group, among the settings with epsilon > 0: relative
width at most 1e-6, or absolute width at most 1e-9, for 99 %; infinity counts as wide. Every setting
runs in a process of its own, which is stopped at 10 s of processor time: target 5 s and 1 GB.
A further round of a known mechanism costs under 1 ms and its epsilon under 20 ms, at round 10,000
as at round 10.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from fractions import Fraction
from multiprocessing.connection import Connection
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
from tests.benchmarks.settings import Setting, draw_range
from tests.benchmarks.tables import show, write_json

SEEDS = (20_260_101, 20_260_102)
GROUPS = (("whole", 2), ("near", 1), ("few", 1))
_STOPPED_S, _MEMORY = 10, 4 << 30
_LIMIT_S, _LIMIT_GB = 5.0, 1.0


def measure(setting: Setting) -> dict[str, Any]:
    """One setting's interval, width, processor time and memory, in a forked process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(setting, sender))
    child.start()
    sender.close()
    try:
        row: dict[str, Any] = receiver.recv()
    except EOFError:
        row = _unanswered("no answer", float(_STOPPED_S))
    child.join()
    return {"kind": "setting", "setting": setting.text(), **row}


def _unanswered(why: str, seconds: float) -> dict[str, Any]:
    return {
        "lower": "0", "upper": "inf", "width": 1.0, "narrow": False, "method": why,
        "seconds": seconds, "gigabytes": 0.0,
    }  # fmt: skip


def _answer(setting: Setting, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_STOPPED_S, _STOPPED_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        interval = epsilon_interval(setting.composition(), setting.delta)
    except (CertificationError, ArithmeticError, ValueError, MemoryError) as error:
        sender.send(_unanswered(type(error).__name__, time.process_time() - start))
        return
    width = interval.upper - interval.lower
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sender.send(
        {
            "lower": str(round_down(interval.lower, 12)),
            "upper": str(round_up(interval.upper, 12)),
            "width": interval.relative_width,
            "narrow": width <= max(interval.upper / 10**6, Fraction(1, 10**9)),
            "method": interval.method,
            "seconds": time.process_time() - start,
            "gigabytes": grown / 2**20,
        }
    )


def measured(count: int) -> list[dict[str, Any]]:
    """Return the rows of about `count` settings, each named after its group."""
    rows = []
    for group, quarters in GROUPS:
        for seed in SEEDS:
            settings = draw_range(max(1, count * quarters // 8), seed, group)
            rows += [{"group": group, **measure(setting)} for setting in settings]
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each group, the figures that the targets speak about."""
    figures: list[tuple[str, float, str]] = []
    for group, _ in GROUPS:
        held = [row for row in rows if row["group"] == group]
        positive = [row for row in held if row["upper"] != "0"]
        seconds = [row["seconds"] for row in held]
        narrow = sum(row["narrow"] for row in positive) / max(len(positive), 1)
        figures += [
            (f"{group}: settings", len(held), ""),
            (f"{group}: share of epsilon = 0", 1 - len(positive) / len(held), ""),
            (f"{group}: share of infinity", sum(r["upper"] == "inf" for r in held) / len(held), ""),
            (f"{group}: with epsilon > 0, narrow", narrow, ">= 0.99"),
            (f"{group}: median processor seconds", statistics.median(seconds), ""),
            (f"{group}: over {_LIMIT_S:g} s", sum(s > _LIMIT_S for s in seconds), "0"),
            (f"{group}: most memory, GB", max(r["gigabytes"] for r in held), f"<= {_LIMIT_GB:g}"),
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
    worst = sorted(rows, key=lambda row: (row["narrow"], -row["width"]))
    show("The worst", columns, worst[:20])
    show("The slowest", columns, sorted(rows, key=lambda row: -row["seconds"])[:20])
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
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = measured(arguments.count)
    ledger = ledger_rows()
    report(rows, ledger)
    write_json(arguments.json, [*rows, *summary(rows), *ledger])


if __name__ == "__main__":
    main()
