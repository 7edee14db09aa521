"""Epsilon from below, by canaries through the sites' own code, beside what the rows claim.

    python -m tests.benchmarks.empirical --runs 10000 --json out/empirical.json

The short version, and builds that it refutes, are in tests/audit/test_empirical.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tests.audit.empirical import (
    CANARIES,
    FALSE_ALARM,
    Audit,
    audit,
    client_trials,
    record_trials,
    row,
)
from tests.audit.empirical_cases import CLIENT_PLANS, RECORD_PLANS
from tests.benchmarks.tables import show, write_json


def audits(runs: int) -> list[dict[str, Any]]:
    """Audit every plan and observer with about `runs` trials for a canary in, and one out."""
    rows = []
    for name in (*RECORD_PLANS, *CLIENT_PLANS):
        if name in RECORD_PLANS:
            plan: Any = RECORD_PLANS[name]()
            found = record_trials(plan, max(1, 2 * runs // CANARIES), seed=1)
        else:
            make, canary = CLIENT_PLANS[name]
            plan = make()
            found = client_trials(plan, canary, runs, seed=1)
        for (observer, k), trials in found.items():
            result = audit(row(plan, observer, k), trials)
            rows.append(row_of(name, observer, k, len(trials.present), result))
    return rows


def row_of(name: str, observer: str, k: int, trials: int, result: Audit) -> dict[str, Any]:
    """Return one line of the table."""
    return {
        "plan": name, "observer": observer, "colluding": k, "trials": trials,
        "claimed": result.claimed,
        "at least": max(0.0, result.lower),
        "refuted": result.refuted,
    }  # fmt: skip


def main() -> None:
    """Print the table; exit with 1 where a claim is refuted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="trials of each plan and world")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = audits(arguments.runs)
    columns = ("plan", "observer", "colluding", "trials", "claimed", "at least", "refuted")
    show(
        "Epsilon claimed and proved from below",
        {name: name for name in columns},
        rows,
        f"A true claim is refuted in at most {FALSE_ALARM:g} of the audits.",
    )
    write_json(arguments.json, rows)
    raise SystemExit(any(each["refuted"] for each in rows))


if __name__ == "__main__":
    main()
