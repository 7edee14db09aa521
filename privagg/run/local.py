"""A run in this process: every party opened here, with messages that only the calling makes local.

Every party has its own folder, identity and ledger, and they exchange the very bytes that a network
would carry. The run's key is erased with the run, however it ends: nobody resumes one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from decimal import Decimal

from privagg.config.setup import Setup
from privagg.errors import ConfigError, LedgerError
from privagg.identity.keys import Roster
from privagg.party.open import make_local, open_key_holder, open_ledger, open_site
from privagg.party.ready import require_approvals, require_data, require_room
from privagg.privacy.randomness import Randomness
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.protocol.site import Site
from privagg.run.coordinator import Coordinator, Observed, OnRound
from privagg.run.open import open_job
from privagg.run.outputs import make_run_folder, run_folder, show_latest
from privagg.run.results import RunResult


class Run:
    """One run of a federation in this process: its parties and its coordinator.

    Args:
        setup: what is run.
        randomness: of every site; budgets are not looked at where it is not secure.
        run_id: the run's identifier; a new one by default.
    """

    def __init__(self, setup: Setup, randomness: Randomness, run_id: str | None = None) -> None:
        self.setup = setup
        self.plan = plan = setup.plan
        self.run_id = run_id or new_run_id(setup)
        run_folder(setup.output, self.run_id)  # refuses what cannot be a name
        require_data(setup)
        until = require_approvals(setup)
        if randomness.secure:
            require_room(setup)
        names = (COORDINATOR, KEY_HOLDER, *plan.names)
        self.folders = {name: make_local(setup, name) for name in names}
        self.roster = Roster.of(*(folder.identity() for folder in self.folders.values()))
        opener = self.folders[setup.opener]  # opens for as long as every site's owner approves
        self._key_holder = open_key_holder(setup, opener, self.roster, until=lambda: until)
        self.sites = {name: self._open_site(name, randomness) for name in plan.names}
        try:
            self.coordinator = self._open_coordinator(randomness)
        except BaseException:
            self._key_holder.erase(self.run_id)  # made for a run that does not begin
            raise

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds, then the files; the output folder shows them once all are there.

        Raises:
            LedgerError: a site's ledger cannot be read at the end; the model is written.
            ConfigError: a file cannot be written; what earlier runs left is as it was.
        """
        ledger = self.coordinator.record.ledger
        show_latest(self.setup.output, ledger)  # where the last run's end was killed
        try:
            result = self.coordinator.drive(on_round)
        finally:
            self._key_holder.erase(self.run_id)
        if result.missing:
            name, problem = next(iter(result.missing.items()))
            raise LedgerError(
                f"no report can be written without the ledger of {name!r}: {problem}; the model is "
                f"{result.model}"
            )
        own = self.coordinator.output
        result.shown = self.setup.output if show_latest(self.setup.output, ledger) == own else None
        result.ledgers = {name: self.folders[name].ledger for name in (COORDINATOR, *self.sites)}
        return result

    def _open_coordinator(self, randomness: Randomness) -> Coordinator:
        setup, folder = self.setup, self.folders[COORDINATOR]
        opener = {setup.opener: self._key_holder.handle}
        sites = {name: site.handle for name, site in self.sites.items()}
        transport = LocalTransport(opener | sites)
        ledger = open_ledger(setup, folder)
        if any(getattr(entry.payload, "run", None) == self.run_id for entry in ledger.entries()):
            raise ConfigError(
                f"the coordinator's ledger knows a run {self.run_id!r} already; nothing was spent. "
                "Choose another name"
            )
        return Coordinator(
            setup,
            job=open_job(setup, folder, self.roster, self.run_id, transport),
            transport=transport,
            ledger=ledger,
            output=make_run_folder(setup.output, self.run_id),
            generator=randomness.name,
            observed=Observed(self._epsilon, self._encrypt_seconds),
        )

    def _open_site(self, name: str, randomness: Randomness) -> Site:
        opener = self._key_holder if name == self.setup.opener else None
        return open_site(
            self.setup, self.folders[name], self.roster, randomness=randomness, key_holder=opener
        )

    def _encrypt_seconds(self, sites: Mapping[str, int]) -> float:
        return sum(self.sites[name].encrypt_seconds for name in sites)

    def _epsilon(self) -> dict[str, tuple[Decimal, Decimal]]:
        found = {}
        for name, site in self.sites.items():
            spending = site.ledger.spent(self.setup.budget_key(name))
            found[name] = (spending.epsilon.upper, spending.epsilon_budget)
        return found


def new_run_id(setup: Setup) -> str:
    """A fresh name for a run."""
    return f"{setup.config.federation.name}-{secrets.token_hex(6)}"
