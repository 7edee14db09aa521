"""Where floating-point accountants come out below the proven epsilon, as a table.

    python -m tests.benchmarks.under_reports --json out/under_reports.json
    python -m tests.benchmarks.under_reports --afresh 20

Settings and figures come from tests/vectors/epsilon.json; every interval is proved again. With
`--afresh` the worst settings' peers are asked again too, which takes seconds for each.
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from privagg.privacy.certified import epsilon_interval, round_down, round_up
from tests.benchmarks.settings import Setting
from tests.benchmarks.tables import show, write_json
from tests.vectors.peers import ask, peers

VECTORS = Path(__file__).parents[1] / "vectors" / "epsilon.json"
SHOWN_DIGITS = 7


def rows_of(vector: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each peer below one vector's interval, which is proved again."""
    setting = setting_of(vector)
    interval = epsilon_interval(setting.composition(), setting.delta)
    rows = []
    for name in vector["under_reported_by"]:
        value = max(vector["peers"][name], 0.0)
        below = 1 - Fraction(value) / interval.lower
        rows.append(
            {
                "setting": setting.text(), "origin": vector["origin"], "peer": name,
                "value": value, "below": float(below), "id": vector["id"],
                "lower": str(round_down(interval.lower, SHOWN_DIGITS)),
                "upper": str(round_up(interval.upper, SHOWN_DIGITS)),
            }
        )  # fmt: skip
    return rows


def setting_of(vector: dict[str, Any]) -> Setting:
    """Return a vector's rounds and delta."""
    groups = tuple(
        (group["sampling_rate"], group["noise_multiplier"], group["rounds"])
        for group in vector["groups"]
    )
    return Setting(groups, vector["delta"])


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many settings each peer misses and by how much at most."""
    found = []
    for name in sorted({row["peer"] for row in rows}):
        shares = [row["below"] for row in rows if row["peer"] == name]
        found.append(
            {
                "peer": name, "settings": len(shares), "largest": max(shares),
                "over_percent": sum(share > 0.01 for share in shares),
            }
        )  # fmt: skip
    return found


def asked_again(rows: list[dict[str, Any]], vectors: list[dict[str, Any]]) -> None:
    """Print what the peers of these rows say today, beside what the file records."""
    by_id = {vector["id"]: vector for vector in vectors}
    available = peers()
    for row in rows:
        if row["peer"] in available:
            row["now"] = ask(available[row["peer"]], setting_of(by_id[row["id"]]))
    show(
        "Asked again",
        {
            "setting": "setting", "peer": "peer",
            "recorded": lambda row: f"{row['value']:.7g}",
            "now": lambda row: "-" if row.get("now") is None else f"{row['now']:.7g}",
        },
        rows,
    )  # fmt: skip


def main() -> None:
    """Prove, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shown", type=int, default=25, help="rows to print, worst first")
    parser.add_argument("--afresh", type=int, default=0, help="ask these many worst peers again")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    document = json.loads(VECTORS.read_text())
    rows = [row for vector in document["vectors"] for row in rows_of(vector)]
    rows.sort(key=lambda row: -row["below"])
    show(
        f"Below the proven epsilon, of {len(document['vectors'])} settings",
        {
            "peer": lambda row: f"{row['peer']} {document['peer_versions'][row['peer']]}",
            "settings": lambda row: str(row["settings"]),
            "by more than 1 %": lambda row: str(row["over_percent"]),
            "at most": lambda row: f"{row['largest']:.1%}",
        },
        summary(rows),
    )
    show(
        "The worst",
        {
            "setting": "setting",
            "proven interval": lambda row: f"[{row['lower']}, {row['upper']}]",
            "peer": "peer",
            "says": lambda row: f"{row['value']:.7g}",
            "too low by": lambda row: f"{row['below']:.2%}",
        },
        rows[: arguments.shown],
    )
    if arguments.afresh:
        asked_again(rows[: arguments.afresh], document["vectors"])
    write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
