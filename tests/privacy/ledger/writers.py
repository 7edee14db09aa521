"""Many writers on one ledger, some of them killed: what a busy and unlucky institution looks like.

Every writer is a process of its own. It notes each receipt in a journal before it goes on, so that
afterwards nothing that any writer believed to be charged may be missing from the ledger.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import BudgetExceededError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, ChargeRequest, Ledger

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BUDGET = BudgetKey("table", "record")
EVENT = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal("1.1")))


class CountingAccountant:
    """Epsilon is the number of rounds: sums are exact and overspending by one is visible."""

    name = "counting"

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """The number of rounds in `event`."""
        rounds = sum((Decimal(term.count) for term in event.terms), Decimal(0))
        return EpsilonBound(rounds, rounds, "number of rounds", certified=False)


def create(location: Path | str, budget: int) -> Ledger:
    """A ledger in which exactly `budget` charges fit."""
    ledger = Ledger.create(location, "hospital-a", signing_key=KEY, accountant=CountingAccountant())
    ledger.set_budget(BUDGET, Decimal(budget), Decimal("1e-5"), who="officer", why="approved")
    return ledger


def opened(location: Path | str) -> Ledger:
    """The ledger as one more process opens it."""
    return Ledger.open(location, signing_key=KEY, accountant=CountingAccountant())


def charge_of(writer: int, number: int) -> ChargeRequest:
    """The `number`-th charge of a writer."""
    return ChargeRequest(
        run=f"writer-{writer}",
        round=number,
        attempt=0,
        dataset=BUDGET.dataset,
        unit=BUDGET.unit,
        event=EVENT,
        plan_digest="ab" * 32,
    )


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process; its exit status is 0 only where `work` returned."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def journal(folder: Path, writer: int) -> Path:
    """Where a writer notes what it was granted."""
    return folder / f"writer-{writer}.txt"


def noted(file: Path) -> list[str]:
    """The whole lines of a journal; a kill may have cut the last one off."""
    lines = file.read_text().split("\n") if file.exists() else [""]
    return lines[:-1]


def _write(location: Path | str, folder: Path, writer: int, charges: int) -> None:
    file = journal(folder, writer)
    done = noted(file)
    file.write_text("".join(line + "\n" for line in done))
    ledger = opened(location)
    with file.open("a") as notes:
        for number in range(len(done), charges):
            try:
                line = ledger.charge(charge_of(writer, number)).entry_hash
            except BudgetExceededError:
                line = "refused"
            notes.write(line + "\n")
            notes.flush()


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    seconds: float
    kills: int
    granted: list[tuple[int, int, str]]
    refused: int


def run(
    location: Path | str,
    folder: Path,
    *,
    writers: int,
    charges: int,
    kills: int,
    seed: int,
    gap_s: float,
) -> Outcome:
    """Let `writers` processes make `charges` charges each, killing random ones `kills` times.

    Args:
        location: of a ledger made by `create`.
        folder: for the journals.
        gap_s: mean time between kills.
    """
    rng = np.random.default_rng(seed)
    started = time.monotonic()

    def start(writer: int) -> int:
        return fork(lambda: _write(location, folder, writer, charges))

    running = {writer: start(writer) for writer in range(writers)}
    killed = 0
    while running:
        if killed < kills:
            time.sleep(float(rng.exponential(gap_s)))
            victim = int(rng.choice(list(running)))
            os.kill(running[victim], signal.SIGKILL)
        else:
            victim = next(iter(running))
        _, status = os.waitpid(running[victim], 0)
        if os.WIFSIGNALED(status):
            killed += 1
            running[victim] = start(victim)
        elif os.WEXITSTATUS(status):
            raise RuntimeError(f"writer {victim} failed")
        elif len(noted(journal(folder, victim))) == charges:
            del running[victim]
    seconds = time.monotonic() - started
    granted, refused = [], 0
    for writer in range(writers):
        for number, line in enumerate(noted(journal(folder, writer))):
            if line == "refused":
                refused += 1
            else:
                granted.append((writer, number, line))
    return Outcome(seconds, killed, granted, refused)


def check(location: Path | str, outcome: Outcome, *, budget: int, asked: int) -> None:
    """All that was granted is in the ledger, once; the budget is spent exactly; all verifies."""
    ledger = opened(location)
    history = ledger.history(BUDGET)
    expected = min(budget, asked)
    assert len(history) == expected == ledger.spent(BUDGET).epsilon.upper
    assert len(outcome.granted) == expected
    assert outcome.refused == asked - expected
    entries = {entry.index: entry.hash().hex() for entry in ledger.entries()}
    stored = {(point.run, point.round): entries[point.index] for point in history}
    assert stored == {(f"writer-{w}", n): line for w, n, line in outcome.granted}
    assert [point.epsilon_after for point in history] == list(range(1, expected + 1))
    findings = ledger.verify(ledger.checkpoint(len(ledger) // 2))
    assert findings == []
    ledger.close()
