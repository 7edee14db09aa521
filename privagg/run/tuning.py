"""A search over settings: every candidate an ordinary charged run, tied together before the first.

The candidates follow from the configuration alone, and are written into every ledger before any of
them is run. Each one is charged in full, so that what the search as a whole releases, to sites and
coordinator too, who see every candidate's models, is covered by composition. The choice among them
looks at the table declared public and nothing else, which is post-processing.

Selecting from a random number of repetitions and charging only for that (Liu and Talwar 2019;
Papernot and Steinke 2022, Theorems 2 and 6) is not offered: it holds against those who see nothing
but the winner, and here every site and the coordinator see all candidates.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any

from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.audit.bundle import ReportBundle
from privagg.config.schema import plain_settings, tuning_candidates
from privagg.config.sections import NOT_SEARCHED
from privagg.config.setup import Setup
from privagg.errors import ConfigError, ResumeError, SearchError
from privagg.party.open import ledger_here, make_local
from privagg.party.ready import (
    beyond_all,
    project,
    require_approvals,
    require_approved_data,
    require_data,
)
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Released, RunFinished, Tuning
from privagg.privacy.randomness import Randomness
from privagg.programs.program import MODEL_NAME
from privagg.protocol.names import COORDINATOR
from privagg.report import write_report
from privagg.report.write import JSON_NAME
from privagg.run.journal import alone
from privagg.run.local import How, Run
from privagg.run.outputs import run_folder, show_latest, statements_of
from privagg.run.results import RunResult
from privagg.run.unfinished import (
    BEGUN_NAME,
    journal_folder,
    remove,
    require_none_unfinished,
)
from privagg.training.models import get_parameters
from privagg.training.saving import load_model, write_model

LOWER_IS_BETTER = frozenset({"loss", "rmse", "mae"})


@dataclass(frozen=True)
class Candidate:
    """One point of the grid.

    Attributes:
        run: the identifier that its run will have.
        settings: dotted key of the configuration -> value.
        setup: with these settings.
        result: of its run; None before.
    """

    run: str
    settings: Mapping[str, Any]
    setup: Setup
    result: RunResult | None = None


@dataclass(frozen=True)
class SearchResult:
    """What a search left behind.

    Attributes:
        name: of the search, as the ledgers record it.
        metric: what was compared, on the public table.
        candidates: all of them, in the order of the grid.
        best: the selected one; its result's files tell of the whole search and lie in the search's
            folder. Every candidate's own lie in that of its run.
    """

    name: str
    metric: str
    candidates: tuple[Candidate, ...]
    best: Candidate


OnCandidate = Callable[[Candidate], None]
OnBegin = Callable[["Search"], None]


class Search:
    """A search as configured; making it checks every candidate and every budget, spends nothing.

    Args:
        setup: with a `[tuning]` section and a table declared public.
        randomness: source of sampling and noise for every run.
        resume: name of a search that was cut off; a new one by default.

    Attributes:
        costs: site -> epsilon spent before, with all candidates, and of the budget; empty where
            the randomness is not secure.

    Raises:
        ConfigError: no grid, no public table, or a candidate's settings cannot be used.
        ApprovalError: an owner has not approved every candidate.
        DataError: nor the records that lie at its site now.
        BudgetExceededError: a budget is too small for all candidates together.
        ResumeError: a run of something else was cut off; or the search to resume was never begun,
            has ended, or was begun with other candidates.
    """

    def __init__(self, setup: Setup, randomness: Randomness, resume: str | None = None) -> None:
        tuning = setup.config.tuning
        if tuning is None:
            told = f". Searched are trainings: {NOT_SEARCHED}" if setup.config.ask else ""
            raise ConfigError(
                f"there is nothing to search: give a [tuning] section with its grid{told}"
            )
        if setup.public_records is None:
            raise ConfigError(
                "a search compares candidates on a table declared public; give [evaluation] one "
                "(a figure on private data would have to be charged)"
            )
        require_none_unfinished(setup, search=resume)
        require_data(setup, joins=resume is None)
        self.setup = setup
        self.metric = tuning.metric
        self.name = resume or f"{setup.config.federation.name}-search-{secrets.token_hex(6)}"
        self._randomness = randomness
        self.candidates = [
            Candidate(f"{self.name}-{number}", settings, setup.with_config(config))
            for number, (settings, config) in enumerate(tuning_candidates(setup.config), start=1)
        ]
        if resume:
            self._require_begun()
        self._left = [each for each in self.candidates if self._ended(each) is None]
        for candidate in self._left:
            run = candidate.run if self._was_cut_off(candidate) else None
            require_approvals(candidate.setup, run)
            require_approved_data(candidate.setup, run)
            candidate.setup.rehearse()  # refuses a model before any candidate is charged
        self.costs = self._check_budgets() if randomness.secure else {}

    def _check_budgets(self) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
        costs = {}
        for name in self.setup.plan.names:
            plans = [each.setup.plan for each in self._left if not self._was_cut_off(each)]
            total = reduce(add, (plan.total_committed(name) for plan in plans), DpEvent())
            before, after, budget, fits = project(self.setup, name, total)
            if not fits:
                raise beyond_all(len(plans), name, before, after, budget)
            costs[name] = (before, after, budget)
        return costs

    def drive(self, on_candidate: OnCandidate | None = None) -> SearchResult:
        """Write the search down, run every candidate, select by the public table's metric.

        Of a search that is resumed, what has ended is read again, and the rest is run.

        Raises:
            SearchError: no candidate finished; everything charged stays charged.
        """
        self._record()
        done: list[Candidate] = []
        for candidate in self.candidates:
            done.append(replace(candidate, result=self._result(candidate)))
            if on_candidate is not None:
                on_candidate(done[-1])
        best = self._select(done)
        best = replace(best, result=self._release(best))
        return SearchResult(self.name, self.metric, tuple(done), best)

    def _entry(self) -> dict[str, Any]:
        """What every ledger says of the search."""
        return {
            "name": self.name,
            "runs": [candidate.run for candidate in self.candidates],
            "method": "composition",
            "who": COORDINATOR,
            "facts": {
                "metric": self.metric,
                "candidates": [
                    {"run": candidate.run, "settings": plain_settings(candidate.settings)}
                    for candidate in self.candidates
                ],
            },
        }

    def _record(self) -> None:
        """Into every ledger, before the first run, so that no run can be left out afterwards."""
        for party in (COORDINATOR, *self.setup.plan.names):
            ledger = ledger_here(self.setup, party)
            if self._begun(ledger) is None:
                ledger.record("tuning", self._entry())

    def _begun(self, ledger: Ledger) -> Tuning | None:
        found = (entry.payload for entry in ledger.entries())
        return next((p for p in found if isinstance(p, Tuning) and p.name == self.name), None)

    # --- a search that was cut off --------------------------------------------------------------

    def _require_begun(self) -> None:
        """Refuse to resume what was never begun, has ended, or was begun with something else."""
        begun = self._begun(ledger_here(self.setup, COORDINATOR))
        if begun is None:
            raise ResumeError(
                f"there is no search {self.name!r} in {self.setup.output}; see: privagg runs"
            )
        if (run_folder(self.setup.output, self.name) / BUNDLE_NAME).exists():
            raise ResumeError(f"search {self.name!r} has ended, and selected; see: privagg runs")
        if begun != Tuning.model_validate(self._entry()):
            raise ResumeError(
                f"search {self.name!r} cannot be resumed: it was begun with other candidates or "
                "another metric. Put the grid back as it was; nothing more was spent"
            )

    def _was_cut_off(self, candidate: Candidate) -> bool:
        return (journal_folder(self.setup.output, candidate.run) / BEGUN_NAME).exists()

    def _ended(self, candidate: Candidate) -> RunFinished | None:
        """How a candidate's run ended; None where it has not, or not with all its files."""
        if self._was_cut_off(candidate):
            return None
        found = (e.payload for e in ledger_here(self.setup, COORDINATOR).entries())
        runs = (payload for payload in found if isinstance(payload, RunFinished))
        return next((ended for ended in runs if ended.run == candidate.run), None)

    def _result(self, candidate: Candidate) -> RunResult:
        """A candidate's run, made now, gone on with, or read again where it has ended."""
        ended = self._ended(candidate)
        if ended is not None:
            return self._read_again(candidate, ended)
        how: How = "resume" if self._was_cut_off(candidate) else "new"
        folder = journal_folder(self.setup.output, candidate.run)
        if how == "new" and folder.exists():  # killed before anything of the run was written down
            with alone(folder, candidate.run):  # another process may be about to write it down
                remove(folder)
        run = Run(candidate.setup, self._randomness, candidate.run, how=how, search=self.name)
        return run.drive(None)

    def _read_again(self, candidate: Candidate, ended: RunFinished) -> RunResult:
        """What a run that has ended left behind: its files, and what the ledger says of it."""
        folder, metrics = run_folder(self.setup.output, candidate.run), dict[str, float]()
        for entry in ledger_here(self.setup, COORDINATOR).entries():
            said = entry.payload
            if isinstance(said, Released) and said.facts.get("run") == candidate.run:
                told = said.facts.get("metrics") or {}
                metrics = {name: float(value) for name, value in told.items()}
        model = folder / MODEL_NAME
        parameters = get_parameters(load_model(candidate.setup.fresh_model(), model))
        return RunResult(
            candidate.run, ended.outcome, ended.reason, parameters, metrics, model=model,
            report_json=folder / JSON_NAME, bundle=folder / BUNDLE_NAME,
        )  # fmt: skip

    def _select(self, done: list[Candidate]) -> Candidate:
        """The best by the metric; of equals, the first in the grid."""
        fit = [
            candidate
            for candidate in done
            if candidate.result is not None
            and candidate.result.outcome == "finished"
            and self.metric in candidate.result.metrics
        ]
        if not fit:
            raise SearchError(
                f"no candidate finished with a value of {self.metric!r}; what was charged stays"
            )
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        return max(fit, key=lambda candidate: sign * self._value(candidate))

    def _value(self, candidate: Candidate) -> float:
        assert candidate.result is not None
        return candidate.result.metrics[self.metric]

    def _release(self, best: Candidate) -> RunResult:
        """Record the choice; write the winner's report and bundle with the whole search in it."""
        result, output = best.result, self.setup.output
        assert result is not None
        assert result.model is not None
        folder = run_folder(output, self.name)
        model = folder / result.model.name
        write_model(model, result.model.read_bytes())
        coordinator = ledger_here(self.setup, COORDINATOR)
        said = (entry.payload for entry in coordinator.entries())
        if not any(isinstance(p, Released) and p.facts.get("search") == self.name for p in said):
            facts = {
                "search": self.name,
                "selected_run": best.run,
                "settings": plain_settings(best.settings),
                "metric": {self.metric: self._value(best)},
            }
            selected = {"what": "selected settings", "who": COORDINATOR, "facts": facts}
            coordinator.record("released", selected)
        sites = {name: ledger_here(self.setup, name) for name in self.setup.plan.names}
        report_json, report_html = write_report(
            folder,
            run=best.run,
            coordinator=coordinator,
            sites=sites,
            accountant=self.setup.accountant,
        )
        evidence = ReportBundle.make(
            report_json.read_bytes(),
            {COORDINATOR: coordinator, **sites},
            make_local(self.setup, COORDINATOR).identity(),
            statements_of(output, best.run).of(best.run),
        )
        bundle = folder / BUNDLE_NAME
        evidence.write(bundle)
        return replace(
            result,
            model=model,
            report_json=report_json,
            report_html=report_html,
            bundle=bundle,
            shown=output if show_latest(output, coordinator) == folder else None,
        )
