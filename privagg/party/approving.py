"""The owner's act: what is approved, shown in words first, then signed into the owner's ledger.

Nothing here spends anything. An approval sets a data set's budget and names the plans that may use
it, the code that may run beside it, for whom or what, and until when. Whoever wrote the
configuration decides none of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.schema import tuning_candidates
from privagg.config.setup import Setup
from privagg.errors import ApprovalError, DataError
from privagg.identity.owner import make_owner_key, read_owner_key
from privagg.party.budgets import beyond_all, beyond_budget
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Approval, BudgetKey, Ledger, sign_approval, sign_withdrawal
from privagg.privacy.ledger.approvals import public_hex
from privagg.privacy.plan import TrainingPlan
from privagg.training.factories import Factory
from privagg.training.known import RECOGNISED_SHARE, KnownRecords, Overlap, Recognised, Tags

APPROVED_DAYS = 90
"""How long an approval lasts where its owner says nothing else."""


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
    plans: tuple[TrainingPlan, ...]
    code: tuple[Factory, ...] = ()

    @classmethod
    def of(cls, setup: Setup) -> Job:
        """The job that a configuration stands for: a search where it has a grid, else a run."""
        candidates = [setup.with_config(config) for _, config in tuning_candidates(setup.config)]
        plans = tuple(candidate.plan for candidate in candidates or [setup])
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
    """One owner's ledger, key and memory of records.

    Args:
        site: whose.
        ledger: its ledger, open for writing.
        owner: the owner's key.
        known: the memory of records.
        tags: its records as that memory sees them; None where privagg does not.
    """

    site: str
    ledger: Ledger
    owner: Ed25519PrivateKey
    known: KnownRecords
    tags: Tags | None


def check_approval(setup: Setup, approver: Approver, job: Job, terms: Terms) -> None:
    """Refuse what an owner would not approve if it saw it; nothing is written.

    Args:
        setup: gives accountant and privacy settings.
        approver: the owner's ledger, key and memory of records.
        job: what is to be approved.
        terms: on which terms.

    Raises:
        ApprovalError: an infinite budget that nobody asked for; records or a unit that count
            elsewhere already.
        BudgetExceededError: the budget has no room for the whole job.
    """
    budget, delta = _budget(setup, terms)
    if not budget.is_finite() and not terms.without_guarantee:
        raise ApprovalError(
            f"a budget of {budget} for {approver.site!r} promises nothing to anybody; name a "
            "finite one (--budget), or say that none is meant (--without-guarantee). Nothing was "
            "spent"
        )
    if not terms.overlaps:
        _require_new_names(approver, job.key(approver.site))
    spent, before = DpEvent(), Decimal(0)
    if job.key(approver.site) in set(approver.ledger.keys()):
        spent = approver.ledger.spent(job.key(approver.site)).event
        before = setup.accountant.epsilon(spent, delta).upper
    after = setup.accountant.epsilon(spent + job.event(approver.site), delta).upper
    if after > budget:
        if job.kind == "tune":
            raise beyond_all(len(job.plans), approver.site, before, after, budget)
        raise beyond_budget(setup, approver.site, before, after, budget)


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
            f"data set {key.dataset!r} of {approver.site!r} is new beside {known}, and privagg "
            "does not see whether its records are others. If they are, or a second budget is "
            'right, say why: --overlap-known "..."; nothing was spent'
        )
    found = approver.known.recognise(key.dataset, approver.tags or frozenset())
    if found.elsewhere:
        raise _known_elsewhere(approver.site, key, found)


def _known_elsewhere(site: str, key: BudgetKey, found: Recognised) -> ApprovalError:
    return ApprovalError(
        f"records of data set {key.dataset!r} of {site!r} count already under "
        f"{_told(found.elsewhere)}, each with a budget of its own, so that what is known of a "
        "person would add up unseen. Have the configuration call it by that name (dataset = ...), "
        'or say why a second budget is right: --overlap-known "..."; nothing was spent'
    )


def _told(found: Iterable[Overlap]) -> str:
    return ", ".join(f"{each.dataset!r} ({each.share:.0%} of the smaller)" for each in found)


def require_approved_records(
    known: KnownRecords, tags: Tags, approval: Approval, site: str
) -> None:
    """Refuse records that an approval was not given for; before anything is charged under it.

    Args:
        known: the owner's memory.
        tags: of the records that would be trained on.
        approval: that covers the plan.
        site: whose records.

    Raises:
        DataError: a hundredth of them or more were not there when their data set was approved, or
            count under another name. For the owner's eyes: nobody else is told why.
    """
    dataset = str(approval.dataset)
    found = known.recognise(dataset, tags)
    advice = "Nothing was spent; look at the data, then decide again: privagg approve"
    if found.elsewhere and not approval.overlaps:
        raise DataError(
            f"records of data set {dataset!r} of {site!r} count already under "
            f"{_told(found.elsewhere)}, and were not there when the data set was approved. {advice}"
        )
    if found.strange >= RECOGNISED_SHARE:
        raise DataError(
            f"{found.strange:.0%} of the records that lie at {site!r} were not there when its "
            f"owner approved data set {dataset!r}; the approval is not for them. {advice}"
        )


def approve_records(
    setup: Setup, approver: Approver, job: Job, terms: Terms, acted_for: Sequence[str] = ()
) -> Approval:
    """Write one owner's approval into its ledger, once `check_approval` has nothing against it.

    Args:
        setup: whose accountant and configuration.
        approver: the owner's.
        job: what is approved.
        terms: how.
        acted_for: all sites, where one person acts for several at once.

    Raises:
        ApprovalError, BudgetExceededError: as `check_approval`.
        LedgerError: the owner's key is not the one that the ledger pins.
    """
    check_approval(setup, approver, job, terms)
    epsilon, delta = _budget(setup, terms)
    key = job.key(approver.site)
    act = sign_approval(
        approver.owner,
        approver.ledger.origin,
        who=terms.who,
        why=terms.why,
        until=terms.until,
        job=job.kind,
        plans=list(job.digests),
        total=setup.accountant.epsilon(job.event(approver.site), delta).upper,
        dataset=key.dataset,
        unit=key.unit,
        epsilon=epsilon,
        delta=delta,
        code=code_facts(job.code),
        acted_for=list(acted_for),
        overlaps=terms.overlaps,
        runs=terms.runs,
    )
    if approver.tags is not None:
        found = approver.known.remember(
            key.dataset, approver.tags, overlapping=bool(terms.overlaps)
        )
        if found.elsewhere and not terms.overlaps:
            raise _known_elsewhere(approver.site, key, found)
    approver.ledger.decide(act)
    return act


def approve_here(
    setup: Setup, terms: Terms, sites: Sequence[str] | None, owner: Ed25519PrivateKey | None
) -> dict[str, Approval]:
    """Approve a configured job for sites whose ledgers lie in its own output folder.

    Args:
        setup: the job.
        terms: the same for all of these sites: one person acts for them, and each approval says so.
        sites: all where it is None.
        owner: the owner's key, where it is not kept beside the ledgers.

    Returns:
        The approval of each site.

    Raises:
        ApprovalError, BudgetExceededError, LedgerError: as `approve_records`; nothing was written
            where a check of any site fails.
        ConfigError: a file or key cannot be read.
    """
    names = tuple(sites or (site.name for site in setup.config.sites))
    job = Job.of(setup)
    approvers = [_approver_of(setup, name, owner) for name in names]
    for approver in approvers:
        check_approval(setup, approver, job, terms)
    together = _decided_here(setup, names, job)
    return {a.site: approve_records(setup, a, job, terms, together) for a in approvers}


def _decided_here(setup: Setup, names: Sequence[str], job: Job) -> tuple[str, ...]:
    """Everybody for whom the job is decided on this machine, now or before; empty for one."""
    here = {*names}
    for name in setup.plan.names:
        if setup.ledger_path(name).exists():
            held = Ledger.open(setup.ledger_path(name)).approvals()
            here |= {name for approval in held if set(approval.plans) & set(job.digests)}
    found = tuple(name for name in setup.plan.names if name in here)
    return found if len(found) > 1 else ()


def _approver_of(setup: Setup, site: str, given: Ed25519PrivateKey | None) -> Approver:
    section, path = setup.section(site), setup.ledger_path(site)
    kept = setup.owner_key_path(site)
    owner = given or (read_owner_key(kept) if kept.exists() else make_owner_key(kept))
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Ledger.create(
            path,
            owner=site,
            signing_key=setup.identity(site).key,
            owner_key=public_hex(owner),
        ).close()
    known = memory_beside(path)
    return Approver(site, setup.open_ledger(site), owner, known, setup.tags_of(section, known))


def approve_code(
    ledger: Ledger, owner: Ed25519PrivateKey, code: Iterable[Factory], terms: Terms
) -> Approval:
    """Write an approval of code alone: of a party whose records nobody uses, or of a site whose
    plan cannot be known before its model is built.

    Args:
        ledger: the party's, open for writing.
        owner: the owner's key.
        code: factories that may be imported.
        terms: who, why and until when.

    Raises:
        LedgerError: the owner's key is not the one that the ledger pins.
    """
    return _approve_without_records(ledger, owner, code, terms, ())


def approve_opening(ledger: Ledger, owner: Ed25519PrivateKey, job: Job, terms: Terms) -> Approval:
    """Write a key holder's approval: until it ends, it makes keys and opens sums for these plans.

    Args:
        ledger: the key holder's, open for writing.
        owner: the owner's key.
        job: the plans, and the code that they need.
        terms: who, why and until when.

    Raises:
        LedgerError: the owner's key is not the one that the ledger pins.
    """
    return _approve_without_records(ledger, owner, job.code, terms, job.digests)


def _approve_without_records(
    ledger: Ledger,
    owner: Ed25519PrivateKey,
    code: Iterable[Factory],
    terms: Terms,
    plans: Sequence[str],
) -> Approval:
    act = sign_approval(
        owner, ledger.origin, who=terms.who, why=terms.why, until=terms.until,
        job="open" if plans else "code", plans=list(plans), total=Decimal(0), dataset=None,
        unit=None, epsilon=None, delta=None, code=code_facts(code), acted_for=[], overlaps="",
    )  # fmt: skip
    ledger.decide(act)
    return act


def withdraw(ledger: Ledger, owner: Ed25519PrivateKey, *, who: str, why: str) -> int:
    """Withdraw every approval in force; what was charged stays charged.

    Args:
        ledger: open for writing.
        owner: the owner's key.
        who: the person who acts.
        why: the reason, for the ledger.

    Returns:
        How many there were.
    """
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


def memory_beside(ledger: Path) -> KnownRecords:
    """The memory of records that belongs to a ledger's file."""
    return KnownRecords(ledger.with_suffix(".records"))
