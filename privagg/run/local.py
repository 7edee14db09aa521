"""A run in this process: every party made here, with messages that only the calling makes local.

Every party has its own identity and ledger, and they exchange the very bytes that a network would
carry. The run's key is erased with the run, however it ends: nobody resumes one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from decimal import Decimal

from privagg.config.setup import Setup
from privagg.errors import LedgerError
from privagg.identity.keys import Roster
from privagg.party.budgets import require_room
from privagg.party.make import make_opener, make_site, make_terms
from privagg.party.ready import require_approvals, require_approved_data
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.randomness import Randomness
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.protocol.round import Job
from privagg.protocol.site import Site
from privagg.protocol.transport import Handler
from privagg.run.coordinator import Coordinator, Observed, OnRound
from privagg.run.keying import key_of_run
from privagg.run.results import RunResult
from privagg.training.data import Records


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
        records = {site.name: setup.records_of(site) for site in setup.config.sites}
        require_approvals(setup)
        require_approved_data(setup)
        if randomness.secure:
            require_room(setup)
        self.ledgers = {name: setup.open_ledger(name) for name in plan.names}
        self.identities = {
            name: setup.identity(name) for name in (COORDINATOR, KEY_HOLDER, *plan.names)
        }
        self.roster = Roster.of(*self.identities.values())
        self._key_holder = self._make_key_holder()
        self.sites = self._make_sites(records, randomness)
        try:
            self.coordinator = self._make_coordinator(randomness)
        except BaseException:
            self._key_holder.erase(self.run_id)  # made for a run that does not begin
            raise

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds, then the files.

        Raises:
            LedgerError: a site's ledger cannot be read at the end; the model is written.
        """
        try:
            result = self.coordinator.drive(on_round)
        finally:
            self._key_holder.erase(self.run_id)
        if result.missing:
            name, problem = next(iter(result.missing.items()))
            raise LedgerError(f"no report can be written without the ledger of {name!r}: {problem}")
        result.ledgers = {
            name: self.setup.ledger_path(name) for name in (COORDINATOR, *self.plan.names)
        }
        return result

    def _make_coordinator(self, randomness: Randomness) -> Coordinator:
        setup, transport = self.setup, LocalTransport(self._handlers())
        return Coordinator(
            setup,
            job=self._job(transport),
            transport=transport,
            ledger=setup.open_ledger(COORDINATOR),
            output=setup.output,
            generator=randomness.name,
            observed=Observed(self._epsilon, self._encrypt_seconds),
        )

    def _job(self, transport: LocalTransport) -> Job:
        setup, identity = self.setup, self.identities[COORDINATOR]
        key, gone = key_of_run(make_terms(setup, self.roster), self.run_id, identity, transport)
        return Job(
            run=self.run_id,
            plan=self.plan,
            scheme=setup.scheme,
            key=key,
            key_gone=gone,
            identity=identity,
            roster=self.roster,
            opener=setup.opener,
            watch=CheckpointWatch(
                CheckpointKeeper.open(setup.output / "checkpoints.sqlite"), self.roster
            ),
        )

    def _make_key_holder(self) -> KeyHolder:
        """On one machine whoever opens does so for as long as every site's owner approves."""
        opener, digest = self.setup.opener, self.plan.digest
        until = min(ledger.approved_until(digest) for ledger in self.ledgers.values())
        return make_opener(
            self.setup,
            identity=self.identities[opener],
            roster=self.roster,
            until=lambda: until,
            store=self.setup.opening_store(opener),
        )

    def _make_sites(
        self, records: Mapping[str, Records], randomness: Randomness
    ) -> dict[str, Site]:
        setup = self.setup
        return {
            name: make_site(
                setup,
                identity=self.identities[name],
                roster=self.roster,
                ledger=self.ledgers[name],
                records=records[name],
                randomness=randomness,
                key_holder=self._key_holder if name == setup.opener else None,
            )
            for name in self.plan.names
        }

    def _handlers(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {name: site.handle for name, site in self.sites.items()}
        return {self.setup.opener: self._key_holder.handle, **handlers}

    def _encrypt_seconds(self, sites: Mapping[str, int]) -> float:
        return sum(self.sites[name].encrypt_seconds for name in sites)

    def _epsilon(self) -> dict[str, tuple[Decimal, Decimal]]:
        found = {}
        for name, ledger in self.ledgers.items():
            spending = ledger.spent(self.setup.budget_key(name))
            found[name] = (spending.epsilon.upper, spending.epsilon_budget)
        return found


def new_run_id(setup: Setup) -> str:
    """A fresh name for a run."""
    return f"{setup.config.federation.name}-{secrets.token_hex(6)}"
