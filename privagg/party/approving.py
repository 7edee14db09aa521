"""The owner's act: what is approved, shown in words first, then signed into the owner's ledger.

Nothing here spends anything. An approval sets a data set's budget and names the plans that may use
it, the code that may run beside it, for whom or what, and until when. Whoever wrote the
configuration decides none of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, reduce
from operator import add
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.data import AppData
from privagg.config.schema import tuning_candidates
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ApprovalError, ConfigError
from privagg.identity.owner import make_owner_key, read_owner_key
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.local import local_folder
from privagg.party.open import make_local, open_ledger, overlaps_text
from privagg.party.ready import Room, beyond_all, beyond_budgets
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Approval, BudgetKey, Ledger, sign_approval, sign_withdrawal
from privagg.privacy.ledger.approvals import public_hex
from privagg.privacy.plan import Plan
from privagg.training.factories import Factory
from privagg.training.inspection import Finding
from privagg.training.known import KnownRecords, Recognised, Tags

APPROVED_DAYS = 90
"""How long an approval lasts where its owner says nothing else."""


def last_day(until: date | None = None) -> str:
    """The last day (UTC) of an approval that is written now, `YYYY-MM-DD`."""
    return (until or datetime.now(UTC).date() + timedelta(days=APPROVED_DAYS)).isoformat()


@dataclass(frozen=True)
class Terms:
    """What an owner decides, the same for every site that it decides for.

    Args:
        who: the person.
        why: the analyst or the purpose.
        until: last day, UTC, `YYYY-MM-DD`.
        epsilon: budget over all jobs; the configuration's where it is None.
        without_guarantee: an infinite budget is meant.
        overlaps: why it is right that records count under another name too; empty: they may not.
        runs: how many runs of the job's plans, all together; None: any number that the budget has
            room for.
    """

    who: str
    why: str
    until: str
    epsilon: Decimal | None = None
    without_guarantee: bool = False
    overlaps: str = ""
    runs: int | None = None


@dataclass(frozen=True)
class Job:
    """What may use the data: one plan, or all candidates of a search.

    Args:
        kind: `plan` or `tune`.
        plans: all of them, of the same sites, data sets and unit.
        code: what its configuration names.
    """

    kind: Literal["plan", "tune"]
    plans: tuple[Plan, ...]
    code: tuple[Factory, ...] = ()

    @classmethod
    def of(cls, setup: Setup) -> Job:
        """The job of a setup: what it asks, or a search where it has a grid, or a run.

        Raises:
            ParameterError: what the scheme opens for none of its epochs, or has no room for.
        """
        if setup.job != TRAINING:
            return cls("plan", (_openable(setup),))
        candidates = [setup.with_config(config) for _, config in tuning_candidates(setup.config)]
        plans = tuple(map(_openable, candidates or [setup]))
        kind: Literal["plan", "tune"] = "tune" if setup.config.tuning else "plan"
        return cls(kind, plans, setup.factories())

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the plans, each once."""
        return tuple(dict.fromkeys(plan.digest for plan in self.plans))

    def event(self, site: str) -> DpEvent:
        """What all of it commits a site to: every candidate of a search, or the plan."""
        return reduce(add, (plan.total_committed(site) for plan in self.plans))

    def key(self, site: str) -> BudgetKey:
        """The budget that a site is charged to."""
        return BudgetKey.of(self.plans[0], site)


@dataclass(frozen=True)
class Approver:
    """Where an owner decides: a party's folder, with the owner's key and the federation.

    Args:
        folder: the party's own.
        owner: the owner's key.
        setup: the job, as this party knows it.
    """

    folder: PartyFolder
    owner: Ed25519PrivateKey
    setup: Setup

    @cached_property
    def name(self) -> str:
        """Whose folder."""
        return self.folder.party().name

    @cached_property
    def ledger(self) -> Ledger:
        """The party's, open for writing; where there is none yet, made with the owner's key pinned.

        Raises:
            LedgerError: it cannot be used.
        """
        return open_ledger(self.setup, self.folder, owner_key=public_hex(self.owner))

    @property
    def known(self) -> KnownRecords:
        """The owner's memory of records."""
        return KnownRecords(self.folder.known_records)

    @cached_property
    def tags(self) -> Tags | None:
        """The site's records as that memory sees them; None where privagg does not.

        Raises:
            ApprovalError, ConfigError, DataError: they cannot be read as declared.
        """
        return self.setup.tags_of(self.setup.section(self.name), self.known)


def inspect_records(setup: Setup, names: Iterable[str]) -> dict[str, list[Finding]]:
    """Read the records that somebody is about to decide on: what is wrong is told before they do.

    Args:
        setup: the job.
        names: the sites'.

    Returns:
        What each site's owner should know; for their eyes only.

    Raises:
        ApprovalError, ConfigError, DataError: some cannot be read as declared.
    """
    return {name: setup.inspect(setup.section(name)) for name in names}


def _openable(setup: Setup) -> Plan:
    """The setup's plan, once the scheme has parameters for it: nobody is asked for what fails."""
    _ = setup.parameters
    return setup.plan


def require_joining(approvers: Iterable[Approver]) -> None:
    """Refuse to approve records that the site could not join with.

    Raises:
        DataError: some change what is learned, and their owner does not accept it.
    """
    for approver in approvers:
        if not isinstance(approver.setup.config.data, AppData):
            approver.setup.require_joining(approver.setup.section(approver.name))


def approve(
    approvers: Sequence[Approver],
    terms: Terms,
    job: Job | None = None,
    beside: Iterable[PartyFolder] = (),
) -> dict[str, Approval]:
    """Approve a job in each folder: at a site the use of its records, at a key holder that it
    opens; at the coordinator the code alone.

    Args:
        approvers: the parties'; several only where one person acts for all of them.
        terms: the same for all; each site's approval says for whom else this person acts.
        job: the same for all, where it is known already; by default each one's own.
        beside: other sites' folders on this machine, for which the same may be decided already.

    Returns:
        The approval of each party that has something to approve.

    Raises:
        ApprovalError, BudgetExceededError: as `check_approval`, of any site; nothing was written.
        LedgerError: an owner's key is not the one that the ledger pins.
        ConfigError: a number of runs, and no site is among the parties; a file cannot be read.
    """
    sites = [approver for approver in approvers if approver.name in approver.setup.plan.names]
    if terms.runs is not None and not sites:
        raise ConfigError(
            f"a number of runs counts what sites charge, and {approvers[0].name!r} charges "
            "nothing; leave out --runs: the sites' owners say how many runs there are"
        )
    jobs = {approver.name: job or Job.of(approver.setup) for approver in approvers}
    require_joining(sites)
    for approver in sites:
        if approver.setup.job != TRAINING:
            approver.setup.rehearse()
        check_approval(approver, jobs[approver.name], terms)
    names = {approver.name for approver in sites}
    if job is not None:
        names |= {folder.party().name for folder in beside if _decided(folder, job)}
    acts = {}
    for approver in sites:
        together = [name for name in approver.setup.plan.names if name in names]
        acted_for = together if len(together) > 1 else []
        acts[approver.name] = _approve_records(approver, jobs[approver.name], terms, acted_for)
    for approver in approvers:
        if approver in sites:
            continue
        if approver.name in approver.setup.holders:
            acts[approver.name] = approve_opening(approver, jobs[approver.name], terms)
        elif code := approver.setup.factories():
            acts[approver.name] = approve_code(approver, code, terms)
    return acts


def approve_here(
    setup: Setup,
    terms: Terms,
    sites: Sequence[str] | None,
    owner: Ed25519PrivateKey | None,
    *,
    accept_findings: bool = False,
) -> dict[str, Approval]:
    """Approve a configured job for sites of a local run: one person acts for them.

    Args:
        setup: the job.
        terms: the same for all of these sites.
        sites: all where it is None.
        owner: the owner's key, where it is not kept in the sites' folders.
        accept_findings: take part with the records as they are, whatever is found in them.

    Returns:
        The approval of each site.

    Raises:
        As `approve`; ConfigError also where there is no such site.
    """
    names = [setup.section(name).name for name in sites or setup.plan.names]
    job, approvers = Job.of(setup), []  # before any folder is made
    for name in names:
        folder = make_local(setup, name)
        if accept_findings:
            accept(folder)
        kept = folder.owner_key
        key = owner or (read_owner_key(kept) if kept.exists() else make_owner_key(kept))
        approvers.append(Approver(folder, key, setup))
    beside = [local_folder(setup.output, name) for name in setup.plan.names]
    return approve(approvers, terms, job, beside)


def accept(folder: PartyFolder) -> None:
    """Note in a site's own folder that its owner takes part with the records as they are."""
    PartyFolder.create(folder.root, PartyFile(name=folder.party().name, accept_findings=True))


def _decided(folder: PartyFolder, job: Job) -> bool:
    """Whether a plan of the job is approved in a folder."""
    if not folder.ledger.exists():
        return False
    held, digests = Ledger.open(folder.ledger).approvals(), set(job.digests)
    return any(digests & set(approval.plans) for approval in held)


def check_approval(approver: Approver, job: Job, terms: Terms) -> None:
    """Refuse what a site's owner would not approve if it saw it; nothing is written.

    Args:
        approver: the site's.
        job: what is to be approved.
        terms: on which terms.

    Raises:
        ApprovalError: an infinite budget that nobody asked for; records or a unit that count
            elsewhere already.
        BudgetExceededError: the budget has no room for the whole job.
    """
    setup, key = approver.setup, job.key(approver.name)
    budget, delta = _budget(setup, terms)
    if not budget.is_finite() and not terms.without_guarantee:
        raise ApprovalError(
            f"a budget of {budget} for {approver.name!r} promises nothing to anybody; name a "
            "finite one (--budget), or say that none is meant (--without-guarantee). Nothing was "
            "spent"
        )
    if not terms.overlaps:
        _require_new_names(approver, key)
    spent, before = DpEvent(), Decimal(0)
    if key in set(approver.ledger.keys()):
        spent = approver.ledger.spent(key).event
        before = setup.accountant.epsilon(spent, delta).upper
    after = setup.accountant.epsilon(spent + job.event(approver.name), delta).upper
    if after > budget:
        if job.kind == "tune":
            raise beyond_all(len(job.plans), approver.name, before, after, budget)
        raise beyond_budgets(setup, {approver.name: Room(before, after, budget)})


def _require_new_names(approver: Approver, key: BudgetKey) -> None:
    others = sorted(k.unit for k in approver.ledger.keys() if k.dataset == key.dataset)  # noqa: SIM118
    if others and key.unit not in others:
        raise ApprovalError(
            f"data set {key.dataset!r} has a budget for the unit {', '.join(others)} and none for "
            f"{key.unit!r}; a release for one unit says something about the other too. If a second "
            'budget is right, say why: --overlap-known "..."; nothing was spent'
        )
    if approver.tags is None and approver.ledger.keys() and key not in approver.ledger.keys():  # noqa: SIM118
        known = ", ".join(sorted(k.dataset for k in approver.ledger.keys()))  # noqa: SIM118
        raise ApprovalError(
            f"data set {key.dataset!r} of {approver.name!r} is new beside {known}, and privagg "
            "does not see whether its records are others. If they are, or a second budget is "
            'right, say why: --overlap-known "..."; nothing was spent'
        )
    found = approver.known.recognise(key.dataset, approver.tags or frozenset())
    if found.elsewhere:
        raise _known_elsewhere(approver.name, key, found)


def _known_elsewhere(site: str, key: BudgetKey, found: Recognised) -> ApprovalError:
    return ApprovalError(
        f"records of data set {key.dataset!r} of {site!r} count already under "
        f"{overlaps_text(found.elsewhere)}, each with a budget of its own, so that what is known "
        "of a person would add up unseen. Have the configuration call it by that name (dataset = "
        '...), or say why a second budget is right: --overlap-known "..."; nothing was spent'
    )


def _approve_records(approver: Approver, job: Job, terms: Terms, acted_for: list[str]) -> Approval:
    """Write a site's owner's approval, once `check_approval` has nothing against it."""
    check_approval(approver, job, terms)
    epsilon, delta = _budget(approver.setup, terms)
    key = job.key(approver.name)
    act = sign_approval(
        approver.owner,
        approver.ledger.origin,
        who=terms.who,
        why=terms.why,
        until=terms.until,
        job=job.kind,
        plans=list(job.digests),
        total=approver.setup.accountant.epsilon(job.event(approver.name), delta).upper,
        dataset=key.dataset,
        unit=key.unit,
        epsilon=epsilon,
        delta=delta,
        code=code_facts(job.code),
        acted_for=acted_for,
        overlaps=terms.overlaps,
        runs=terms.runs,
    )
    if approver.tags is not None:
        overlapping = bool(terms.overlaps)
        found = approver.known.remember(key.dataset, approver.tags, overlapping=overlapping)
        if found.elsewhere and not terms.overlaps:
            raise _known_elsewhere(approver.name, key, found)
    approver.ledger.decide(act)
    return act


def approve_code(approver: Approver, code: Iterable[Factory], terms: Terms) -> Approval:
    """Write an approval of code alone: of a party whose records nobody uses, or of a site whose
    plan cannot be known before its model is built.

    Args:
        approver: the party's.
        code: factories that may be imported.
        terms: who, why and until when.

    Raises:
        LedgerError: the owner's key is not the one that the ledger pins.
    """
    return _approve_without_records(approver, code, terms, ())


def approve_opening(approver: Approver, job: Job, terms: Terms) -> Approval:
    """Write a key holder's approval: until it ends, it makes keys and opens sums for these plans.

    Args:
        approver: the key holder's.
        job: the plans, and the code that they need.
        terms: who, why and until when.

    Raises:
        LedgerError: the owner's key is not the one that the ledger pins.
    """
    return _approve_without_records(approver, job.code, terms, job.digests)


def _approve_without_records(
    approver: Approver, code: Iterable[Factory], terms: Terms, plans: Sequence[str]
) -> Approval:
    act = sign_approval(
        approver.owner, approver.ledger.origin, who=terms.who, why=terms.why, until=terms.until,
        job="open" if plans else "code", plans=list(plans), total=Decimal(0), dataset=None,
        unit=None, epsilon=None, delta=None, code=code_facts(code), acted_for=[], overlaps="",
    )  # fmt: skip
    approver.ledger.decide(act)
    return act


def withdraw(folder: PartyFolder, owner: Ed25519PrivateKey, *, who: str, why: str) -> int:
    """Withdraw every approval in force; what was charged stays charged.

    Args:
        folder: the party's.
        owner: the owner's key.
        who: the person who acts.
        why: the reason, for the ledger.

    Returns:
        How many there were.
    """
    if not folder.ledger.exists():
        return 0
    ledger = Ledger.open(folder.ledger, signing_key=folder.identity().key)
    held = ledger.approvals()
    for approval in held:
        act = sign_withdrawal(owner, ledger.origin, who=who, why=why, approval=approval.name)
        ledger.decide(act)
    return len(held)


def code_facts(code: Iterable[Factory]) -> list[dict[str, Any]]:
    """Modules with their hashes as an approval names them."""
    named: Mapping[str, str] = {each.module: each.sha256 for each in code}
    return [{"module": module, "sha256": sha256} for module, sha256 in sorted(named.items())]


def _budget(setup: Setup, terms: Terms) -> tuple[Decimal, Decimal]:
    privacy = setup.config.privacy
    return terms.epsilon or privacy.budget, privacy.delta
