"""Who let a run use each data set, as the sites' ledgers show it, and where several are one person.

A ledger that pins an owner's key takes no charge without an approval. Which one covered a run's
charges follows from the entries; whose key signed it, and which person acted, is that site's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from privagg.privacy.ledger import Approval, BudgetKey, Entry, Verifier
from privagg.privacy.ledger.entries import (
    Charge,
    Created,
    KeyRotated,
    OwnerKeyChanged,
    Withdrawal,
)
from privagg.report.figures import joined
from privagg.report.language import say
from privagg.report.model import OwnersApproval, SiteReport


def approvals_of(
    entries: Iterable[Entry], key: BudgetKey, plan_digest: str, run: str
) -> tuple[OwnersApproval, ...]:
    """The approvals that covered a run's charges, each once; one given later covers nothing.

    Args:
        entries: of a site's ledger, from the first on.
        key: the budget that the run was charged to.
        plan_digest: of its plan.
        run: its name.
    """
    in_force: dict[str, Approval] = {}
    signers: set[str] = set()
    unvouched: set[str] = set()
    used: dict[str, set[str]] = {}
    found: dict[str, Approval] = {}
    for entry in entries:
        payload, day = entry.payload, entry.time[:10]
        if isinstance(payload, Created):
            signers.add(Verifier.parse(payload.verifier).public_key.hex())
        elif isinstance(payload, KeyRotated):
            signers.add(Verifier.parse(payload.new_verifier).public_key.hex())
        elif isinstance(payload, Approval):
            in_force[payload.name] = payload
        elif isinstance(payload, Withdrawal):
            in_force.pop(payload.approval, None)
        elif isinstance(payload, OwnerKeyChanged):
            in_force = in_force if payload.keeps else {}
            unvouched |= set() if payload.old_signature else {payload.owner_key}
        elif isinstance(payload, Charge):
            standing = [
                a for a in in_force.values()
                if a.covers(payload.key, payload.plan_digest, day)
                and a.has_room(used.get(a.name, ()), payload.run)
            ]  # fmt: skip
            for covering in standing[-1:]:
                used[covering.name] = {*used.get(covering.name, ()), payload.run}
                if (payload.run, payload.key, payload.plan_digest) == (run, key, plan_digest):
                    found[covering.name] = covering
    return tuple(
        OwnersApproval(
            who=a.who, why=a.why, until=a.until, acted_for=a.acted_for, owner_key=a.owner_key,
            own_key=a.owner_key not in signers, for_lost_key=a.owner_key in unvouched,
        )
        for a in found.values()
    )  # fmt: skip


def together(sites: Sequence[SiteReport]) -> tuple[tuple[str, ...], ...]:
    """Groups of sites that one person decided for, as far as their approvals show it.

    Two sites belong together where an approval of either says so, or names the other's owner's key
    or person; leaving `acted_for` out, or approving one after the other, hides nothing.
    """
    leads = {site.name: site.name for site in sites}

    def lead(name: str) -> str:
        while leads[name] != name:
            name = leads[name]
        return name

    first: dict[str, str] = {}
    for site in sites:
        for approval in site.approvals:
            alike = [first.setdefault(m, site.name) for m in (approval.owner_key, approval.who)]
            for other in (*alike, *approval.acted_for):
                if other in leads:
                    leads[lead(other)] = lead(site.name)
    groups: dict[str, list[str]] = {}
    for site in sites:
        groups.setdefault(lead(site.name), []).append(site.name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def approval_text(sites: Sequence[SiteReport]) -> str:
    """Who approved this use of the data; empty where no ledger says anything."""
    given = [site for site in sites if site.approvals]
    if not given:
        return ""
    groups = together(sites)
    sentences = []
    for group in groups:
        whom = joined([*group])
        if len(group) == len(sites):
            whom = say("all {n} institutions", n=len(sites))
        sentences.append(
            say(
                "One person ({people}) approved the use of the data of {whom}; by the approvals, "
                "none of them decided for itself.",
                people=_people(site for site in sites if site.name in group),
                whom=whom,
            )
        )
    apart = [site for site in given if not any(site.name in group for group in groups)]
    if apart:
        each = [say("{site} ({people})", site=s.name, people=_people([s])) for s in apart]
        sentence = (
            "Each institution's owner approved the use of its own data: {each}."
            if len(apart) == len(sites) > 1
            else "One owner each approved the use of its own data: {each}."
        )
        sentences.append(say(sentence, each=joined(each, most=4)))
    missing = [site.name for site in sites if not site.approvals]
    if missing:
        sentences.append(say("No owner's approval is recorded for {sites}.", sites=joined(missing)))
    return say(" ").join(sentences)


def _people(sites: Iterable[SiteReport]) -> str:
    return joined(list(dict.fromkeys(a.who[:60] for site in sites for a in site.approvals)), most=3)
