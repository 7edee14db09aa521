"""Runs one job many times over with fresh noise: the whole path, charge to open, for every draw.

What a federation sets up once (identities, keys, the plan, the hooked models) is set up once. What
makes a run is made for every draw: a run identifier, the institutions' ledgers with their budgets,
receipts, noise from the operating system, encrypted uploads, one opening a round, the server's
step. Each draw starts from fresh ledgers because it stands for the one run that would really be
made; a hundred of them on one ledger would rightly be refused.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.progress import track

from privagg import Federation
from privagg.encoding.vectors import FloatVector
from privagg.identity.keys import Roster
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.open import open_holder, open_seat
from privagg.privacy.accountant import Accountant
from privagg.privacy.calibration import calibrate
from privagg.privacy.events import DpEvent
from privagg.privacy.guarantee import Guarantee, guarantee
from privagg.privacy.plan import TrainingPlan
from privagg.programs.program import Opened
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.job import Job
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.protocol.round import run_round
from privagg.protocol.site import Site
from privagg.run.journal import Journal
from privagg.run.open import open_job
from tests.approvals import FOR_EVER, approve_plan

Watcher = tuple[str, int]
"""An observer's name and how many sites collude with it."""

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Draw:
    """One finished run.

    Args:
        parameters: float64 (d,), the released model.
        epsilon_spent: what each site's ledger says it spent, against the committed observer.
        bytes_up: all uploads together.
    """

    parameters: FloatVector
    epsilon_spent: dict[str, Decimal]
    bytes_up: int


class Replay:
    """A federation whose job is run again and again.

    Args:
        federation: configured, with its data where the configuration says.
        folder: an empty folder for ledgers and the key holder's store.
    """

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.federation = federation
        self.plan: TrainingPlan = federation.plan
        self._folder = folder
        self._setup = federation.setup
        self._learners = {
            site.name: federation.setup.learner(site.name) for site in federation.config.sites
        }

    def draws(self, count: int) -> Iterator[Draw]:
        """`count` runs, each from charge to model, with noise of its own."""
        for number in range(count):
            yield self._draw(f"draw-{number}")

    def guarantees(self, *wanted: Watcher) -> list[Guarantee]:
        """What the plan's rounds promise the first site's records.

        Args:
            wanted: observers.

        Returns:
            One guarantee each, composed over all planned rounds with every site surviving.
        """
        plan = self.plan
        rows = {
            (row.name, row.colluding_sites): row
            for row in plan.observers(plan.names[0], len(plan.names))
        }
        accountant = self.federation.setup.accountant
        found = []
        for key in wanted:
            event = rows[key].event.repeated(plan.rounds)
            found.append(guarantee(rows[key], event, plan.delta, plan.unit, accountant))
        return found

    def _draw(self, run: str) -> Draw:
        parties = (COORDINATOR, KEY_HOLDER, *self.plan.names)
        folders = {
            name: PartyFolder.create(self._folder / run / name, PartyFile(name=name))
            for name in parties
        }
        roster = Roster.of(*(folder.identity() for folder in folders.values()))
        sites = {name: self._open_site(folders[name], roster) for name in self.plan.names}
        try:
            handlers = {name: site.handle for name, site in sites.items()}
            setup, own = self._setup, folders[KEY_HOLDER]
            opener = open_holder(setup, own, roster, until=lambda: FOR_EVER)
            transport = LocalTransport({**handlers, KEY_HOLDER: opener.handle})
            job = open_job(
                setup, folders[COORDINATOR], roster, run, transport, Journal(self._folder / run)
            )
            parameters, sent = self._train(job, transport)
            spent = {
                name: site.ledger.spent(self._setup.budget_key(name)).epsilon.upper
                for name, site in sites.items()
            }
            return Draw(parameters, spent, sent)
        finally:
            for site in sites.values():
                site.ledger.close()

    def _train(self, job: Job, transport: LocalTransport) -> tuple[FloatVector, int]:
        """All rounds; every one must open with every site in it, or the row would not hold."""
        program, sent = self._setup.program(), 0
        state = program.begin()
        for number in range(1, self.plan.rounds + 1):
            outcome = run_round(job, transport, state, round_number=number)
            if (
                outcome.update is None
                or outcome.total is None
                or outcome.survivors != self.plan.names
            ):
                raise RuntimeError(f"{job.run} round {number}: {outcome.reason or outcome}")
            place = (job.run, number, outcome.attempt)
            opened = Opened(place, outcome.total, outcome.update, outcome.survivors)
            state = program.fold(state, opened)
            sent += sum(outcome.bytes_up.values())
        result = program.finish(state, self._folder / job.run, measured=False)
        assert result is not None
        return result.state, sent

    def _open_site(self, folder: PartyFolder, roster: Roster) -> Site:
        seat, privacy = open_seat(self._setup, folder, roster), self._setup.config.privacy
        name = seat.identity.name
        key = self._setup.budget_key(name)
        approve_plan(seat.ledger, key, self.plan.digest, privacy.budget, privacy.delta)
        return seat.site(self._learners[name])


def noise_against(
    plan: TrainingPlan, observer: Watcher, epsilon: Decimal, accountant: Accountant
) -> Decimal:
    """The plan's noise multiplier at which this observer's epsilon over all rounds fits.

    Args:
        plan: with any noise multiplier but 0.
        observer: who looks, and with how many.
        epsilon: what all rounds together may cost, as that observer sees them.
        accountant: whose upper bound has to fit.
    """

    def event_of(multiplier: Decimal) -> DpEvent:
        rows = plan.with_noise(multiplier).observers(plan.names[0], len(plan.names))
        event = next(row.event for row in rows if (row.name, row.colluding_sites) == observer)
        return event.repeated(plan.rounds)

    return calibrate(event_of, epsilon=epsilon, delta=plan.delta, accountant=accountant)


def calibrated(
    values: dict[str, Any], base: Path, observer: Watcher, epsilon: Decimal
) -> Federation:
    """The configured federation with its noise set so that `observer`'s epsilon is `epsilon`.

    The budget at every site is what the plan's committed observer costs, which is more where the
    plan counts on fewer noise shares than `observer` meets. Epsilon 0 stands for no noise at all.
    """
    privacy = values["privacy"]
    if epsilon == 0:
        limits = {"epsilon": "1", "budget_epsilon": "Infinity", "noise_multiplier": "0"}
        return _with_privacy(values, base, {**privacy, **limits})
    draft = _with_privacy(values, base, {**privacy, "epsilon": str(epsilon)})
    noise = noise_against(draft.plan, observer, epsilon, draft.setup.accountant)
    committed = draft.plan.with_noise(noise).total_committed(draft.plan.names[0])
    budget = str(draft.setup.accountant.epsilon(committed, draft.plan.delta).upper)
    limits = {"epsilon": budget, "budget_epsilon": budget, "noise_multiplier": str(noise)}
    return _with_privacy(values, base, {**privacy, **limits})


def _with_privacy(values: dict[str, Any], base: Path, privacy: dict[str, Any]) -> Federation:
    return Federation.from_dict({**values, "privacy": privacy}, base=base)


def privacy_facts(found: Guarantee, federation: Federation) -> dict[str, Any]:
    """What a row says about its guarantee; `epsilon` is rounded up to four decimals."""
    plan, secure = federation.plan, federation.config.secure
    step, up = Decimal("0.0001"), None
    if found.epsilon.is_finite():
        up = float(found.epsilon.quantize(step, rounding=ROUND_CEILING))
    return {
        "epsilon": up,
        "epsilon_upper": str(found.epsilon),
        "epsilon_lower": None if found.epsilon_lower is None else str(found.epsilon_lower),
        "delta": float(plan.delta),
        "observer": found.observer,
        "colluding_sites": found.colluding_sites,
        "unit": found.unit.value,
        "adjacency": found.adjacency,
        "certified": found.certified,
        "method": found.method,
        "assumptions": list(found.assumptions),
        "noise_multiplier": str(plan.noise_multiplier),
        "scheme": secure.scheme,
        "custody": secure.custody.value,
    }


def over_draws(name: str, values: Sequence[float]) -> dict[str, float | int]:
    """Mean over draws with its standard error, under `name`, `<name>_se` and `draws`."""
    draws = len(values)
    spread = float(np.std(values, ddof=1)) if draws > 1 else 0.0
    return {name: float(np.mean(values)), f"{name}_se": spread / draws**0.5, "draws": draws}


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """A folder in memory where the system has one, else on disk.

    A draw's ledgers are deleted after it; waiting for a disk to make them durable first would
    measure the disk.
    """
    memory = Path("/dev/shm")
    where = str(memory) if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        yield Path(name)


def in_parallel(work: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[R]:
    """The results of `work` on each job in order, computed in so many processes."""
    if workers <= 1:
        yield from track(map(work, jobs), total=len(jobs), description="jobs")
        return
    # Fresh processes: a fork would copy the threads that numerical libraries may have started.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(work, jobs), total=len(jobs), description="jobs")
