"""What a ledger costs as it grows, and whether it holds under many writers that are being killed.

    python -m tests.benchmarks.ledger --json out/ledger.json

Two tables, the same as JSON:

- the time of a charge early and late in one ledger (median over a window of charges), and of the
  whole verification of the exported bundle at the end;
- 8 writer processes making 2,000 charges together, killed 200 times at random, on SQLite and on a
  PostgreSQL server that is started for it: what was asked for, granted and spent. It stops with an
  error where a charge was lost or doubled, or the budget exceeded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import CertifiedAccountant, RdpAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, Bundle, ChargeRequest, Ledger
from tests.privacy.ledger import postgres, writers

KEY = BudgetKey("table", "record")
EVENT = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal("1.1")), distance=Decimal("1e-25"))
WINDOW = 20


def request(round_: int) -> ChargeRequest:
    """One round's charge with facts of a usual size."""
    facts = {"clip_norm_l2": 1.0, "cohort": [f"site-{i}" for i in range(8)], "scheme": "ckks"}
    return ChargeRequest(
        run="run",
        round=round_,
        attempt=0,
        dataset=KEY.dataset,
        unit=KEY.unit,
        event=EVENT,
        plan_digest="ab" * 32,
        facts=facts,
    )


def growth(folder: Path, accountant: Accountant, charges: int) -> dict[str, Any]:
    """Time every charge of one ledger; compare the windows after the 10th and before the last."""
    ledger = Ledger.create(
        folder / f"{accountant.name}.db",
        "hospital-a",
        signing_key=writers.KEY,
        accountant=accountant,
    )
    ledger.set_budget(KEY, Decimal(1000), Decimal("1e-5"), who="officer", why="benchmark")
    seconds = []
    for round_ in range(charges):
        prepared = request(round_)
        started = time.perf_counter()
        ledger.charge(prepared)
        seconds.append(time.perf_counter() - started)
    early = statistics.median(seconds[10 - 1 : 10 - 1 + WINDOW])
    late = statistics.median(seconds[-WINDOW:])
    bundle = folder / f"{accountant.name}.jsonl"
    ledger.export(bundle)
    started, started_cpu = time.perf_counter(), time.process_time()
    findings = Bundle.read(bundle).verify(
        verifier=ledger.verifier, checkpoint=ledger.checkpoint(charges // 2), accountant=accountant
    )
    return {
        "accountant": accountant.name,
        "charges": charges,
        "median_10th_ms": early * 1e3,
        "median_last_ms": late * 1e3,
        "ratio": late / early,
        "bundle_bytes": bundle.stat().st_size,
        "verify_s": time.perf_counter() - started,
        "verify_cpu_s": time.process_time() - started_cpu,
        "findings": findings,
        "epsilon": str(ledger.spent(KEY).epsilon.upper),
    }


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, Callable[[], Path | str]]]:
    """Where a ledger can live here: a file always, a server where its programs are installed."""
    places: dict[str, Callable[[], Path | str]] = {"sqlite": lambda: folder / "writers.db"}
    if postgres.programs() is None:
        yield places
        return
    with postgres.running() as server:
        yield {**places, "postgresql": server.database}


def storm(
    name: str, location: Path | str, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Many writers on one ledger, killed again and again, with a budget they would overspend."""
    notes = folder / name
    notes.mkdir()
    budget = arguments.writer_charges * 9 // 10
    each = arguments.writer_charges // arguments.writers
    writers.create(location, budget).close()
    outcome = writers.run(
        location,
        notes,
        writers=arguments.writers,
        charges=each,
        kills=arguments.kills,
        seed=1,
        gap_s=arguments.gap_s,
    )
    writers.check(location, outcome, budget=budget, asked=each * arguments.writers)
    ledger = writers.opened(location)
    return {
        "database": name,
        "writers": arguments.writers,
        "asked": each * arguments.writers,
        "budget": budget,
        "granted": len(outcome.granted),
        "refused": outcome.refused,
        "spent": str(ledger.spent(writers.BUDGET).epsilon.upper),
        "kills": outcome.kills,
        "seconds": outcome.seconds,
    }


def main() -> None:
    """Run all of it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--charges", type=int, default=10_000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--writer-charges", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--gap-s", type=float, default=0.05, help="mean time between kills")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    accountants: list[Accountant] = [RdpAccountant(), CertifiedAccountant()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grown = []
        for accountant in accountants:
            row = growth(folder, accountant, arguments.charges)
            grown.append(row)
            print(
                f"{row['accountant']:>10}: charge 10 takes {row['median_10th_ms']:.2f} ms, charge "
                f"{row['charges']} {row['median_last_ms']:.2f} ms, ratio {row['ratio']:.2f}; "
                f"bundle of {row['bundle_bytes']} bytes verified in {row['verify_s']:.1f} s "
                f"({row['verify_cpu_s']:.1f} s of one core)"
            )
        stormed = []
        with databases(folder) as places:
            for place, make in places.items():
                row = storm(place, make(), folder, arguments)
                stormed.append(row)
                print(
                    f"{row['database']:>10}: {row['writers']} writers asked for {row['asked']} of "
                    f"{row['budget']}: {row['granted']} granted, {row['refused']} refused, spent "
                    f"{row['spent']}, {row['kills']} kills, {row['seconds']:.1f} s"
                )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"growth": grown, "writers": stormed}, indent=2))


if __name__ == "__main__":
    main()
