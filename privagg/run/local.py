"""A run in this process: every party opened here, with messages that only the calling makes local.

Every party has its own folder, identity and ledger, and they exchange the very bytes that a network
would carry. A run that was cut off keeps its key and its journal (`privagg.run.unfinished`) until
it is resumed or given up; once it has ended, both are gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from decimal import Decimal
from typing import Literal

from privagg.config.evaluating import RoundsSetup
from privagg.config.setup import TRAINING, Setup
from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError, LedgerError, LedgerTamperedError
from privagg.identity.keys import Roster
from privagg.party.open import key_terms, make_local, open_holder, open_ledger, open_site
from privagg.party.ready import require_approvals, require_data, require_room
from privagg.privacy.ledger import Checkpoint, Ledger
from privagg.privacy.randomness import Randomness
from privagg.programs.gradient import GradientTraining
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.protocol.site import Site
from privagg.report.selected import looks_run
from privagg.run.coordinator import Coordinator, Observed, OnRound
from privagg.run.journal import Journal
from privagg.run.open import open_job
from privagg.run.outputs import make_run_folder, run_folder, show_latest
from privagg.run.results import RunResult
from privagg.run.selecting import Selecting
from privagg.run.unfinished import (
    BEGUN_NAME,
    Begun,
    journal_folder,
    new,
    remove,
    require_none_unfinished,
    require_unfinished,
    resumed,
)

How = Literal["new", "resume", "give up"]

GIVEN_UP = "given up by whoever ran it"


class Run:
    """One run of a federation in this process: its parties and its coordinator.

    Args:
        setup: what is run.
        randomness: of every site; budgets are not looked at where it is not secure.
        run_id: the run's identifier; a new one by default.
        how: a new run, or one that was cut off, resumed or given up.
        search: the search that the run is a candidate of; it has looked for runs that were cut off.
        beside: name of the run during which this one is done, and which has looked for them.

    Raises:
        ResumeError: `new`, and a run was cut off; or the one named was not, or was begun with
            something else.
        RunInProgressError: another process drives the run.
        LedgerTamperedError: a ledger is an older copy of the one that the run was begun with.
        PrivaggError: files, approvals, budgets; nothing was spent.
    """

    def __init__(
        self,
        setup: Setup,
        randomness: Randomness,
        run_id: str | None = None,
        *,
        how: How = "new",
        search: str = "",
        beside: str = "",
    ) -> None:
        self.setup = setup
        self.plan = plan = setup.plan
        self.run_id = run_id or new_run_id(setup)
        run_folder(setup.output, self.run_id)  # refuses what cannot be a name
        self._how, self._held = how, ExitStack()
        self._began: RunResult | None = None
        self._folder = journal_folder(setup.output, self.run_id)
        self._fresh = fresh = how == "new"
        if not fresh:
            require_unfinished(setup.output, self.run_id)
        elif not (search or beside):
            require_none_unfinished(setup)
        require_data(setup, joins=fresh)
        until = self._approved_until(None if fresh else self.run_id)
        if randomness.secure and how != "give up":
            require_room(setup, None if fresh else self.run_id)
        apart = () if setup.scheme.every_site else (KEY_HOLDER,)
        names = (COORDINATOR, *apart, *plan.names)
        self.folders = {name: make_local(setup, name) for name in names}
        self.roster = Roster.of(*(folder.identity() for folder in self.folders.values()))
        begun = Begun.of(
            setup, self.run_id, generator=randomness.name, search=search, beside=beside
        )
        self._open(begun, randomness, until)

    def _open(self, begun: Begun, randomness: Randomness, until: Callable[[], str]) -> None:
        """Every party, and the journal; nothing of it stays where one of them refuses."""
        with ExitStack() as undo:
            undo.callback(self._held.close)
            if self._fresh:
                self._held.enter_context(new(self._folder, begun))
                undo.callback(remove, self._folder)
            else:
                self._held.enter_context(resumed(self.setup.output, begun))
            # Each opens for as long as every site's owner approves.
            self._holders = {
                name: open_holder(self.setup, self.folders[name], self.roster, until=until)
                for name in self.setup.holders
            }
            if self._how != "resume":  # made for a run that does not begin, or does not go on
                undo.callback(self._erase)
            self.sites = {name: self._open_site(name, randomness) for name in self.plan.names}
            self.coordinator = self._open_coordinator(randomness)
            self._require_same_ledgers()
            self._evaluate_rounds(randomness)
            undo.pop_all()

    def drive(self, on_round: OnRound | None) -> RunResult:
        """All rounds that are not over yet, then the files; then the output folder shows them.

        Whatever ends this before the run has ended (an error, an interruption, a kill) leaves it
        to be resumed, with its key. An interruption that comes out of `on_round` ends the run.

        Raises:
            LedgerError: a site's ledger cannot be read at the end; model or answers are written.
            ConfigError: a file cannot be written; what earlier runs left is as it was.
        """
        return self._drive(on_round, GIVEN_UP if self._how == "give up" else "")

    def _drive(self, on_round: OnRound | None, give_up: str) -> RunResult:
        ledger = self.coordinator.record.ledger
        with self._held:
            show_latest(self.setup.output, ledger)  # where the last run's end was killed
            result = self.coordinator.drive(on_round, give_up=give_up)
            self._erase()
            if result.missing:
                name, problem = next(iter(result.missing.items()))
                raise LedgerError(
                    f"no report can be written without the ledger of {name!r}: {problem}; what "
                    f"the run left is {result.model or result.answers}"
                )
            remove(self._folder)
        own = self.coordinator.output
        result.shown = self.setup.output if show_latest(self.setup.output, ledger) == own else None
        result.ledgers = {name: self.folders[name].ledger for name in (COORDINATOR, *self.sites)}
        return result

    def look(self, number: int, parameters: FloatVector) -> None:
        """See `privagg.run.selecting.Beside.look`."""
        if self._began is None:
            self._began, _ = self.coordinator.begin()
        if self._began.outcome == "finished":
            self.coordinator.advance(self._began, number, parameters)

    def conclude(self) -> None:
        """See `privagg.run.selecting.Beside.conclude`."""
        self._drive(None, "its training has ended")

    def close(self) -> None:
        """Let go of a run that is not driven; it can be resumed."""
        self._held.close()

    def _evaluate_rounds(self, randomness: Randomness) -> None:
        """The job of evaluations between rounds, where the configuration has one."""
        setup = self.setup
        if setup.job != TRAINING or not RoundsSetup.configured(setup.config):
            return
        rounds, name = RoundsSetup.of(setup), looks_run(self.run_id)
        ledger, program = self.coordinator.record.ledger, self.coordinator.program
        assert isinstance(program, GradientTraining)  # as for every training
        begun = (journal_folder(setup.output, name) / BEGUN_NAME).exists()
        known = [e.payload for e in ledger.entries() if getattr(e.payload, "run", None) == name]
        beside = None
        if begun or not (known or self._how == "give up"):
            how = self._how if begun else "new"
            beside = Run(rounds, randomness, name, how=how, beside=self.run_id)
            self._held.callback(beside.close)
        every = rounds.terms.rounds.every if rounds.terms.rounds is not None else 0
        self.coordinator.selecting = Selecting(
            self.run_id, name, every,
            beside=beside, program=program, ledger=ledger, output=self.coordinator.output,
        )  # fmt: skip

    def _approved_until(self, run: str | None) -> Callable[[], str]:
        """The last day on which sums are opened; giving a run up needs nobody's approval."""
        if self._how == "give up":
            return lambda: require_approvals(self.setup, run)
        day = require_approvals(self.setup, run)
        return lambda: day

    def _require_same_ledgers(self) -> None:
        """Refuse ledgers that are older than what the coordinator keeps of them."""
        for name, site in self.sites.items():
            for note in self.coordinator.job.watch.notes(name):
                require_holds(site.ledger, Checkpoint.parse(note))

    def _open_coordinator(self, randomness: Randomness) -> Coordinator:
        setup, folder = self.setup, self.folders[COORDINATOR]
        holders = {name: holder.handle for name, holder in self._holders.items()}
        sites = {name: site.handle for name, site in self.sites.items()}
        transport = LocalTransport(holders | sites)
        ledger, journal = open_ledger(setup, folder), Journal(self._folder)
        done, output = journal.progress(), run_folder(setup.output, self.run_id)
        over = done is not None and bool(done.over)
        if self._fresh:
            require_unknown(ledger, self.run_id)
            make_run_folder(setup.output, self.run_id)
        output.mkdir(parents=True, exist_ok=True)
        return Coordinator(
            setup,
            job=open_job(setup, folder, self.roster, self.run_id, transport, journal, over=over),
            terms=key_terms(setup, self.roster),
            transport=transport,
            ledger=ledger,
            output=output,
            generator=randomness.name,
            journal=journal,
            observed=Observed(self._epsilon, self._encrypt_seconds),
        )

    def _open_site(self, name: str, randomness: Randomness) -> Site:
        return open_site(
            self.setup, self.folders[name], self.roster, randomness=randomness,
            key_holder=self._holders.get(name),
            joins=False,  # they have joined before
        )  # fmt: skip

    def _erase(self) -> None:
        """Nobody will open anything of this run any more."""
        for holder in self._holders.values():
            holder.erase(self.run_id)

    def _encrypt_seconds(self, sites: Mapping[str, int]) -> float:
        return sum(self.sites[name].encrypt_seconds for name in sites)

    def _epsilon(self) -> dict[str, tuple[Decimal, Decimal]]:
        found = {}
        for name, site in self.sites.items():
            spending = site.ledger.spent(self.setup.budget_key(name))
            found[name] = (spending.epsilon.upper, spending.epsilon_budget)
        return found


def require_unknown(ledger: Ledger, run: str) -> None:
    """Refuse a new run under a name that the coordinator's ledger has already.

    Raises:
        ConfigError: it has; nothing was spent.
    """
    if any(getattr(entry.payload, "run", None) == run for entry in ledger.entries()):
        raise ConfigError(
            f"the coordinator's ledger knows a run {run!r} already; nothing was spent. Choose "
            "another name"
        )


def require_holds(ledger: Ledger, kept: Checkpoint) -> None:
    """Refuse a ledger that lacks what a kept checkpoint of it covers.

    Raises:
        LedgerTamperedError: it is an older copy, or was rewritten; nothing was spent.
    """
    size = Checkpoint.parse(ledger.checkpoint()).size
    if size < kept.size or Checkpoint.parse(ledger.checkpoint(kept.size)).root != kept.root:
        raise LedgerTamperedError(
            f"the ledger of {ledger.owner!r} has {size} entries, and is not the one that had "
            f"{kept.size} when the coordinator last saw it: it was restored from an older copy, or "
            "rewritten. Put back the one that the run was begun with; nothing was spent"
        )


def new_run_id(setup: Setup) -> str:
    """A fresh name for a run."""
    return f"{setup.config.federation.name}-{secrets.token_hex(6)}"
