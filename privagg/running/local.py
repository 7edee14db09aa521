"""A run in this process: every party made here, with messages that only the calling makes local.

Every party has its own identity and ledger, and they exchange the very bytes that a network would
carry. The run's key is erased with the run, however it ends: nobody goes on with one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from privagg.client.data import Records
from privagg.errors import LedgerError
from privagg.identity import Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.randomness import Randomness
from privagg.round import Job
from privagg.running.coordinator import Coordinator, Observed, OnRound
from privagg.running.keying import key_of_run
from privagg.running.names import COORDINATOR, KEY_HOLDER
from privagg.running.parties import make_opener, make_site, make_terms
from privagg.running.results import RunResult
from privagg.runtime.local import LocalTransport
from privagg.secure.keyholder import KeyHolder
from privagg.server.checkpoints import CheckpointWatch
from privagg.transport import Handler

if TYPE_CHECKING:
    from privagg.client.site import Site
    from privagg.federation import Federation


class Run:
    """One run of a federation in this process: its parties and its coordinator."""

    def __init__(
        self, federation: Federation, randomness: Randomness, run_id: str | None = None
    ) -> None:
        self.federation = federation
        self.plan = plan = federation.plan
        self.run_id = run_id or new_run_id(federation)
        records = {site.name: federation.records_of(site) for site in federation.config.sites}
        federation.require_approvals()
        federation.require_approved_records()
        if randomness.secure:
            federation.check_budgets()
        self.ledgers = {name: federation.open_ledger(name) for name in plan.names}
        self.identities = {
            name: federation.identity(name) for name in (COORDINATOR, KEY_HOLDER, *plan.names)
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
            name: self.federation.ledger_path(name) for name in (COORDINATOR, *self.plan.names)
        }
        return result

    def _make_coordinator(self, randomness: Randomness) -> Coordinator:
        federation, transport = self.federation, LocalTransport(self._handlers())
        return Coordinator(
            federation,
            job=self._job(transport),
            transport=transport,
            ledger=federation.open_ledger(COORDINATOR),
            output=federation.output,
            generator=randomness.name,
            observed=Observed(self._epsilon, self._encrypt_seconds),
        )

    def _job(self, transport: LocalTransport) -> Job:
        federation, identity = self.federation, self.identities[COORDINATOR]
        key, gone = key_of_run(
            make_terms(federation, self.roster), self.run_id, identity, transport
        )
        return Job(
            run=self.run_id,
            plan=self.plan,
            scheme=federation.scheme,
            key=key,
            key_gone=gone,
            identity=identity,
            roster=self.roster,
            opener=federation.opener,
            watch=CheckpointWatch(
                CheckpointKeeper.open(federation.output / "checkpoints.sqlite"), self.roster
            ),
        )

    def _make_key_holder(self) -> KeyHolder:
        """On one machine whoever opens does so for as long as every site's owner approves."""
        opener, digest = self.federation.opener, self.plan.digest
        until = min(ledger.approved_until(digest) for ledger in self.ledgers.values())
        return make_opener(
            self.federation,
            identity=self.identities[opener],
            roster=self.roster,
            until=lambda: until,
            store=self.federation.opening_store(opener),
        )

    def _make_sites(
        self, records: Mapping[str, Records], randomness: Randomness
    ) -> dict[str, Site]:
        federation = self.federation
        return {
            name: make_site(
                federation,
                identity=self.identities[name],
                roster=self.roster,
                ledger=self.ledgers[name],
                records=records[name],
                randomness=randomness,
                key_holder=self._key_holder if name == federation.opener else None,
            )
            for name in self.plan.names
        }

    def _handlers(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {name: site.handle for name, site in self.sites.items()}
        return {self.federation.opener: self._key_holder.handle, **handlers}

    def _encrypt_seconds(self, sites: Mapping[str, int]) -> float:
        return sum(self.sites[name].encrypt_seconds for name in sites)

    def _epsilon(self) -> dict[str, tuple[Decimal, Decimal]]:
        found = {}
        for name, ledger in self.ledgers.items():
            spending = ledger.spent(self.federation.budget_key(name))
            found[name] = (spending.epsilon.upper, spending.epsilon_budget)
        return found


def new_run_id(federation: Federation) -> str:
    """A fresh name for a run."""
    return f"{federation.config.federation.name}-{secrets.token_hex(6)}"
