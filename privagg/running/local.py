"""A run in this process: every party made here, with messages that only the calling makes local.

Every party has its own identity, ledger and key material, and they exchange the very bytes that a
network would carry.
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
from privagg.running.holding import make_key_holder
from privagg.running.names import COORDINATOR, KEY_HOLDER
from privagg.running.parties import make_site
from privagg.running.results import RunResult
from privagg.runtime.local import LocalTransport
from privagg.secure.opening import DecryptionKey
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
        key = federation.scheme.generate_key(federation.parameters)
        self.ledgers = {name: federation.open_ledger(name) for name in plan.names}
        self.identities = {
            name: federation.identity(name) for name in (COORDINATOR, KEY_HOLDER, *plan.names)
        }
        self.roster = Roster.of(*self.identities.values())
        self.sites = self._make_sites(key, records, randomness)
        self.coordinator = Coordinator(
            federation,
            job=self._job(key),
            transport=LocalTransport(self._handlers(key)),
            ledger=federation.open_ledger(COORDINATOR),
            output=federation.output,
            generator=randomness.name,
            observed=Observed(self._epsilon, self._encrypt_seconds),
        )

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds, then the files.

        Raises:
            LedgerError: a site's ledger cannot be read at the end; the model is written.
        """
        result = self.coordinator.drive(on_round)
        if result.missing:
            name, problem = next(iter(result.missing.items()))
            raise LedgerError(f"no report can be written without the ledger of {name!r}: {problem}")
        result.ledgers = {
            name: self.federation.ledger_path(name) for name in (COORDINATOR, *self.plan.names)
        }
        return result

    def _job(self, key: DecryptionKey) -> Job:
        federation = self.federation
        return Job(
            run=self.run_id,
            plan=self.plan,
            scheme=federation.scheme,
            parameters=key.encryption_key.parameters,
            key_id=key.encryption_key.key_id,
            identity=self.identities[COORDINATOR],
            roster=self.roster,
            opener=federation.opener,
            watch=CheckpointWatch(
                CheckpointKeeper.open(federation.output / "checkpoints.sqlite"), self.roster
            ),
        )

    def _make_sites(
        self, key: DecryptionKey, records: Mapping[str, Records], randomness: Randomness
    ) -> dict[str, Site]:
        federation = self.federation
        return {
            name: make_site(
                federation,
                identity=self.identities[name],
                roster=self.roster,
                key=key.encryption_key,
                ledger=self.ledgers[name],
                records=records[name],
                randomness=randomness,
                decryption=(key, federation.opening_store(name))
                if name == federation.opener
                else None,
            )
            for name in self.plan.names
        }

    def _handlers(self, key: DecryptionKey) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {name: site.handle for name, site in self.sites.items()}
        if self.federation.opener == KEY_HOLDER:
            handlers[KEY_HOLDER] = make_key_holder(
                self.plan,
                identity=self.identities[KEY_HOLDER],
                roster=self.roster,
                key=key,
                store=self.federation.opening_store(KEY_HOLDER),
            ).handle
        return handlers

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
