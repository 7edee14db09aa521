"""What each part of a masked sum costs, beside Flower SecAgg+'s, in one run.

`python -m tests.benchmarks.masking [--quick] [--rounds N] [--json FILE]`. Milliseconds of processor
time, medians; sums of 22 bits. Up to 32 sites all have masks in common; the 64 stand on a ring, and
again with everybody. SecAgg+ runs where `make peers` put Flower: its server's work on vectors, and
the combination of its shares with our threshold.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from privagg.secure.masked.rule import Rule
from tests.benchmarks.masked_cohort import Cohort
from tests.benchmarks.peers import PEERS, PeerProcess
from tests.benchmarks.tables import show, write_json

SIZES = (
    (10_000, Rule.choose(4, 3, 1)),
    (1_000_000, Rule.choose(16, 14, 2)),
    (1_000_000, Rule.choose(64, 58, 6)),
    (1_000_000, Rule(64, 58, 6, 63, always_consents=False)),
)


def jobs(cohort: Cohort) -> dict[str, Callable[[], object]]:
    """What is timed of one size."""
    names = cohort.occasion.members
    recovery = cohort.read(names[1:])
    found: dict[str, Callable[[], object]] = {
        "a site's masks, made and added": cohort.expand,
        "a site's upload": lambda: cohort.mask(names[0]),
        "the sum of all payloads": lambda: cohort.add(names),
        "all attachments, read": lambda: cohort.read(names),
        "a site's release, 1 missing": lambda: cohort.release(names[1], names[1:], recovery),
    }
    most = cohort.rule.asked - cohort.rule.least
    for missing in sorted({0, 1, min(6, most)}):
        found[f"unmasking, {missing} missing"] = cohort.unmasking(missing)
    return found


def processor_ms(work: Callable[[], object], rounds: int) -> float:
    """Median processor milliseconds; a first run compiles and touches memory."""
    work()
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - started))
    return statistics.median(spent)


def measure(length: int, rule: Rule, rounds: int, peers: dict[str, PeerProcess]) -> list[Any]:
    """Rows for one size."""
    cohort = Cohort(length, rule)
    upload = cohort.masked[cohort.occasion.members[0]]
    sent = (len(upload.payload) + len(upload.attachments)) / length
    common = {"values": length, "sites": rule.asked, "neighbours": rule.neighbours}
    rows = [
        {**common, "what": what, "ms": processor_ms(work, rounds), "bytes_a_value": sent}
        for what, work in jobs(cohort).items()
    ]
    added = next(row for row in rows if row["what"] == "the sum of all payloads")
    added["gb_a_second"] = rule.asked * len(upload.payload) / added["ms"] / 1e6
    for what, peer in peers.items():
        holders = rule.neighbours + 1
        size = peer.ask(
            {
                "parameters": length,
                "sites": rule.asked,
                "threshold": rule.threshold,
                "holders": holders,
            }
        )
        spent = [peer.ask({})["processor_seconds"] for _ in range(2 if rule.asked > 16 else rounds)]
        sent = size["bytes"] / length
        rows.append(
            {**common, "what": what, "ms": 1e3 * statistics.median(spent), "bytes_a_value": sent}
        )
    return rows


def start_peers() -> dict[str, PeerProcess]:
    """Flower's pieces, where it is installed."""
    if not (PEERS / "flower" / "bin" / "python").exists():
        print("Flower is not installed for comparison and left out; `make peers` installs it")
        return {}
    pieces = {
        "Flower SecAgg+: reading, adding and unmasking, 0 missing": "secagg",
        "Flower SecAgg+: combining shares, 0 missing": "shares",
    }
    return {what: PeerProcess("flower", "peer_flower.py", piece) for what, piece in pieces.items()}


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest size alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("out/masking.json"))
    arguments = parser.parse_args()
    peers, rows = start_peers(), []
    for length, rule in SIZES[:1] if arguments.quick else SIZES:
        rows += measure(length, rule, arguments.rounds, peers)
    for peer in peers.values():
        peer.close()
    show(
        "Parts of a masked sum",
        {
            "values": lambda row: f"{row['values']:,}",
            "sites": "sites",
            "neighbours": "neighbours",
            "what": "what",
            "processor ms": "ms",
            "GB/s": lambda row: f"{row['gb_a_second']:.1f}" if "gb_a_second" in row else "",
            "upload, bytes a value": "bytes_a_value",
        },
        rows,
        "Medians. Our upload's bytes hold what opens the sum, Flower's its masked vector alone.",
    )
    write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
