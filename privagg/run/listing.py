"""Which runs and searches were there, how did each end, what did it cost, and what is left of it?

Everything is read from signed ledgers and from the folders as they are; nothing is kept besides
that could disagree with them, and nothing private is told. Neither torch nor a scheme is needed.

    OUT                       a local federation's output folder, and the trial under it if any
    trial, coordinator        a deployment on this machine, or the coordinator's own folder
"""

from __future__ import annotations

import fcntl
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from privagg.audit.bundle import NAME as BUNDLE_NAME
from privagg.errors import ConfigError, PrivaggError
from privagg.party.folder import PartyFolder
from privagg.party.local import local_folder, local_ledgers
from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants import default_accountant
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import (
    Charge,
    Payload,
    Released,
    RoundEnded,
    RunFinished,
    RunStarted,
    Tuning,
)
from privagg.privacy.plan import load_plan
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.program import ANSWERS_NAME, MODEL_NAME
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import Bounds, composed
from privagg.report.write import HTML_NAME, JSON_NAME
from privagg.run.committed import CommittedSpending
from privagg.run.outputs import RUNS, answering, owner_of

FILES = {
    "model": MODEL_NAME,
    "answers": ANSWERS_NAME,
    "report": JSON_NAME,
    "page": HTML_NAME,
    "bundle": BUNDLE_NAME,
}
PARTY_FILE, TRIAL = "party.toml", "trial"

Ending = Literal[
    "finished", "stopped", "failed", "interrupted", "under way", "selected", "unrecorded"
]
Resumed = Literal["", "run", "app"]


@dataclass(frozen=True)
class Charged:
    """What a run or search has cost one site's data set, by itself.

    Attributes:
        epsilon: upper bound.
        delta: at which it holds.
        unit: what is protected; empty where nothing says so.
        by_ledger: the site's own ledger says so. Else that lies elsewhere, and it is what the plan
            bounds for every attempt that asked the site.
    """

    epsilon: Decimal
    delta: Decimal
    unit: str
    by_ledger: bool


@dataclass(frozen=True)
class ListedRun:
    """A run or a search as ledgers and folders tell it.

    Attributes:
        name: its identifier.
        search: whose candidate it is; empty where it is of none.
        candidates: how many runs a search has; 0 for a run.
        began, ended: UTC as the coordinator's ledger has them; empty where it does not.
        mode, model: of the plan; empty where there is none.
        program: what it asked, where it left answers in place of a model: `questions`, or an
            installed program's name; empty where it trained.
        rounds: planned. 0 for a search, and where no plan is there.
        opened: how many were opened.
        last: number of the last one that was over, opened or not; 0 before the first.
        ending: how it ended. `unrecorded`: only sites' ledgers know it.
        reason: why it did not finish; what a search selected.
        resumed: how it goes on: by `privagg run --resume`, by the Flower app, or not at all.
        charged: site -> what it cost, for every site that is known of.
        metrics: figures on the table declared public; empty where there is none.
        files: label of `FILES` -> where it lies; only what is there.
        is_shown: the output folder shows copies of them, as it was the latest that ended.
        deployment: the configuration and the coordinator's folder; None of a local run.
    """

    name: str
    search: str = ""
    candidates: int = 0
    began: str = ""
    ended: str = ""
    mode: str = ""
    model: str = ""
    program: str = ""
    rounds: int = 0
    opened: int = 0
    last: int = 0
    ending: Ending = "unrecorded"
    reason: str = ""
    resumed: Resumed = ""
    charged: Mapping[str, Charged] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    is_shown: bool = False
    deployment: tuple[Path, Path] | None = None

    @property
    def largest(self) -> Charged | None:
        """The largest of what it cost; None where no site is known of."""
        return max(self.charged.values(), key=lambda each: each.epsilon, default=None)

    @property
    def is_gone(self) -> bool:
        """Something was charged, it has ended, and of what it left nothing is there."""
        paid = self.largest is not None and self.largest.epsilon > 0
        over = self.ending not in ("under way", "failed") and not self.resumed
        return paid and over and not self.files


def runs_at(where: Path, accountant: Accountant | None = None) -> list[ListedRun]:
    """The runs and searches of a place, oldest first; candidates follow their search.

    Args:
        where: an output folder, a trial's folder, or a coordinator's.
        accountant: whose epsilon is told; the certified one by default.

    Raises:
        ConfigError: no such place.
        LedgerError: a ledger cannot be read, or was changed.
    """
    bounds = Bounds(accountant or default_accountant())
    if (where / PARTY_FILE).is_file():
        return _Deployment(PartyFolder(where), bounds).rows()
    found: list[ListedRun] = []
    if (where / "parties").is_dir():
        found += _Local(where, bounds).rows()
    for folder in (where / COORDINATOR, where / TRIAL / COORDINATOR):
        if (folder / PARTY_FILE).is_file():
            found += _Deployment(PartyFolder(folder), bounds).rows()
    if not found and not (where / "parties").is_dir() and not (where / COORDINATOR).is_dir():
        raise ConfigError(
            f"{where} holds no runs: name a configuration, an output folder (with parties/ in it), "
            "a trial's folder, or a deployment's coordinator folder"
        )
    return found


class _Place(ABC):
    """One coordinator's runs.

    Args:
        coordinator: its folder.
        ledgers: party -> ledger, for those that lie on this machine.
        bounds: computes and remembers epsilon.
    """

    deployment: tuple[Path, Path] | None = None
    """Its configuration and its coordinator's folder; None of local runs."""

    def __init__(
        self, coordinator: PartyFolder, ledgers: Mapping[str, Ledger], bounds: Bounds
    ) -> None:
        self._folder, self._bounds = coordinator, bounds
        own = ledgers.get(COORDINATOR)
        self._entries = [] if own is None else own.entries()
        self._charges: dict[str, dict[str, list[Charge]]] = {}
        """Site whose ledger lies here -> run -> its charges."""
        for site, ledger in ledgers.items():
            if site != COORDINATOR:
                of_site = self._charges.setdefault(site, {})
                for entry in ledger.entries():
                    if isinstance(entry.payload, Charge):
                        of_site.setdefault(entry.payload.run, []).append(entry.payload)

    @abstractmethod
    def files_of(self, name: str) -> dict[str, Path]:
        """Label -> place of what is left of a run or search."""

    def shows(self, files: Mapping[str, Path]) -> bool:
        """Whether copies of these files lie above the runs' folders."""
        return False

    def rows(self) -> list[ListedRun]:
        """Every run and search that any of the ledgers knows."""
        searches = [e for e in self._entries if isinstance(e.payload, Tuning)]
        of_search = {
            run: entry.payload.name
            for entry in searches
            if isinstance(entry.payload, Tuning)
            for run in entry.payload.runs
        }
        found: list[ListedRun] = []
        for entry in self._entries:
            said = entry.payload
            if isinstance(said, Tuning):
                found.append(self._search(said, entry.time))
            elif isinstance(said, RunStarted):
                found.append(self._run(said, entry.time, of_search.get(said.run, "")))
        known = {row.name for row in found}
        alone = dict.fromkeys(run for runs in self._charges.values() for run in runs)
        return found + [self._unrecorded(run) for run in alone if run not in known]

    def _about(self, kind: type[Payload], run: str) -> list[tuple[str, Any]]:
        """(time, payload) of the coordinator's entries of a kind about a run."""
        return [
            (entry.time, entry.payload)
            for entry in self._entries
            if isinstance(entry.payload, kind) and getattr(entry.payload, "run", None) == run
        ]

    def _run(self, started: RunStarted, began: str, search: str) -> ListedRun:
        run, plan, files = started.run, _plan_facts(started), self.files_of(started.run)
        ended = [said for _, said in self._about(RoundEnded, run)]
        opened = [said.round for said in ended if said.outcome == "opened"]
        finished = self._about(RunFinished, run)
        time, last = finished[-1] if finished else ("", None)
        return ListedRun(
            run,
            search=search,
            began=began,
            ended=time,
            mode=str(plan.get("mode", "")),
            model=str(plan.get("recipe", {}).get("model", {}).get("kind", "")),
            program=answering(started),
            rounds=int(plan.get("rounds", len(plan.get("openings", ())))),
            opened=len(opened),
            last=max((said.round for said in ended), default=0),
            ending=last.outcome if last else self._unfinished(run),
            reason=last.reason if last else "",
            resumed=self._resumed(run) if last is None or "report" not in files else "",
            charged=self._charged([run], started, ended),
            metrics=self._metrics(run, ended),
            files=files,
            is_shown=self.shows(files),
            deployment=self.deployment,
        )

    def _metrics(self, run: str, ended: Sequence[RoundEnded]) -> dict[str, float]:
        """Figures of the released model; before there is one, of the last opened round."""
        figures: list[Any] = [said.facts.get("metrics") for said in ended]
        figures += [
            entry.payload.facts.get("metrics")
            for entry in self._entries
            if isinstance(entry.payload, Released) and entry.payload.facts.get("run") == run
        ]
        last = [found for found in figures if found][-1:]
        return {name: float(value) for found in last for name, value in found.items()}

    def _search(self, said: Tuning, began: str) -> ListedRun:
        selected = [
            (entry.time, entry.payload.facts)
            for entry in self._entries
            if isinstance(entry.payload, Released)
            and entry.payload.facts.get("search") == said.name
        ]
        time, facts = selected[-1] if selected else ("", {})
        files = self.files_of(said.name)
        over = sum(bool(self._about(RunFinished, run)) for run in said.runs)
        ending: Ending = "failed" if over == len(said.runs) else "interrupted"
        if any(self._unfinished(run) == "under way" for run in said.runs):
            ending = "under way"
        nothing = f"{over} of {len(said.runs)} candidates ended, and nothing was selected"
        return ListedRun(
            said.name,
            candidates=len(said.runs),
            began=began,
            ended=time,
            ending="selected" if selected else ending,
            reason=_selection(facts) if facts else nothing,
            charged=self._charged(said.runs),
            metrics={name: float(value) for name, value in facts.get("metric", {}).items()},
            files=files,
            is_shown=self.shows(files),
        )

    def _unrecorded(self, run: str) -> ListedRun:
        return ListedRun(run, charged=self._charged([run]), files=self.files_of(run))

    def _unfinished(self, run: str) -> Ending:
        """Whether a process drives a run that has not ended."""
        try:
            with (self._folder.run_folder(run) / "driving").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "under way"
        except OSError:
            pass
        return "interrupted"

    def _resumed(self, run: str) -> Resumed:
        folder = self._folder.run_folder(run)
        if (folder / "rounds").is_dir():
            return "app"
        return "run" if any((folder / n).exists() for n in ("state.json", "begun.json")) else ""

    def _charged(
        self,
        runs: Sequence[str],
        started: RunStarted | None = None,
        ended: Iterable[RoundEnded] = (),
    ) -> dict[str, Charged]:
        """Site -> what runs have cost it together, of the sites that are known of."""
        found = {}
        for site, of_site in self._charges.items():
            charges = [charge for run in runs for charge in of_site.get(run, ())]
            if charges:
                delta = min(charge.delta for charge in charges)
                event = composed(Counter(charge.event for charge in charges))
                epsilon = self._bounds.epsilon(event, delta).upper
                found[site] = Charged(epsilon, delta, charges[-1].unit, by_ledger=True)
        if started is not None:
            for site, charged in self._planned(started, ended).items():
                if site not in self._charges:
                    found[site] = charged
        return found

    def _planned(self, started: RunStarted, ended: Iterable[RoundEnded]) -> dict[str, Charged]:
        """What the plan bounds for the attempts that are recorded, or were under way."""
        try:
            plan = load_plan(_plan_facts(started))
        except PrivaggError:
            return {}
        if set(plan.names) <= set(self._charges):
            return {}
        secure = started.facts.get("generator") == SystemRandomness().name
        spending = CommittedSpending(plan, self._bounds.accountant, secure=secure)
        for said in ended:
            spending.asked((said.round, said.attempt), said.facts["cohort"])
        spending.asked(*self._under_way(started.run))
        return {
            site: Charged(epsilon, plan.delta, plan.unit.value, by_ledger=False)
            for site, epsilon in spending.so_far().items()
        }

    def _under_way(self, run: str) -> tuple[tuple[int, int], Sequence[str]]:
        """The attempt that the journal has under way: its sites may have charged it already."""
        try:
            facts = json.loads((self._folder.run_folder(run) / "attempt.json").read_bytes())
            return (int(facts["round"]), int(facts["attempt"])), list(facts["cohort"])
        except (OSError, ValueError, KeyError, TypeError):
            return (0, 0), ()


class _Local(_Place):
    """The runs of an output folder."""

    def __init__(self, output: Path, bounds: Bounds) -> None:
        self._output, ledgers = output, local_ledgers(output)
        super().__init__(local_folder(output, COORDINATOR), ledgers, bounds)
        own = ledgers.get(COORDINATOR)
        self._shown = {
            path: owner_of(path, own)
            for name in FILES.values()
            if own is not None and (path := output / name).is_file()
        }
        """File above the runs' folders -> whose it is; an earlier version kept no other."""

    def files_of(self, name: str) -> dict[str, Path]:
        found = {}
        for label, file in FILES.items():
            own = (self._output / RUNS / name / file, self._output / "candidates" / name / file)
            shown = [path for path, run in self._shown.items() if (path.name, run) == (file, name)]
            place = next((path for path in (*own, *shown) if path.is_file()), None)
            if place is not None:
                found[label] = place
        return found

    def shows(self, files: Mapping[str, Path]) -> bool:
        report, shown = files.get("report"), self._output / JSON_NAME
        if report is None or not shown.is_file():
            return False
        return report != shown and report.read_bytes() == shown.read_bytes()


class _Deployment(_Place):
    """The runs of a deployment's coordinator; in a trial the sites' ledgers lie beside it."""

    def __init__(self, coordinator: PartyFolder, bounds: Bounds) -> None:
        name = coordinator.party().name
        if name != COORDINATOR:
            raise ConfigError(
                f"{coordinator.root} is the folder of {name!r}; runs are listed at the "
                f"coordinator's. What was charged here: privagg ledger show {coordinator.ledger}"
            )
        beside = [PartyFolder(path.parent) for path in coordinator.root.parent.glob("*/party.toml")]
        here = [each for each in (coordinator, *beside) if each.ledger.exists()]
        ledgers = {each.party().name: Ledger.open(each.ledger) for each in here}
        super().__init__(coordinator, ledgers, bounds)
        self.deployment = (coordinator.federation_file, coordinator.root)

    def files_of(self, name: str) -> dict[str, Path]:
        places = {label: self._folder.run_folder(name) / file for label, file in FILES.items()}
        return {label: path for label, path in places.items() if path.is_file()}


def _selection(facts: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key} = {value}" for key, value in facts.get("settings", {}).items())
    return f"{settings} ({facts['selected_run']})"


def _plan_facts(started: RunStarted) -> dict[str, Any]:
    """The plan that a run was recorded with; empty where it is none."""
    stored = started.facts.get("plan", "")
    try:
        found = json.loads(stored) if isinstance(stored, str) else stored
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
