"""Who took part: every party its own key, and an opener that the custody allows."""

from __future__ import annotations

from collections.abc import Mapping

from privagg.audit.claims import Findings
from privagg.identity.keys import check_public_hex
from privagg.privacy.plan import Plan
from privagg.privacy.unit import Custody
from privagg.report.model import Report


def check_parties(
    findings: Findings,
    report: Report,
    plan: Plan,
    coordinator: str,
    pinned: Mapping[str, str],
) -> None:
    """Hold the roster against itself, and the opener against the custody.

    Args:
        findings: gets the claims.
        report: names parties, keys and opener.
        plan: names sites and custody.
        coordinator: the name that the run's coordinator has.
        pinned: party -> key, from a source other than the bundle.
    """
    findings.section = "run"
    parties = report.parties
    held: dict[str, str] = {}
    for name, key in parties.items():
        held.setdefault(key, name)
    shared = [f"{held[key]} and {name}" for name, key in parties.items() if held[key] != name]
    note = f"one key for {', '.join(shared)[:200]}: one party acts for both" if shared else ""
    findings.check(
        "every party has a key of its own", f"{len(parties)} parties", f"{len(held)} keys",
        not shared, note,
    )  # fmt: skip
    for name, key in (*parties.items(), *pinned.items()):
        try:
            check_public_hex(key)
        except ValueError as error:
            findings.contradicted(f"key of {name}", key[:16], str(error))
    missing = sorted({coordinator, *plan.names} - set(parties))
    if missing:
        findings.contradicted("parties of the roster", f"{len(parties)} parties",
                       f"no key of {', '.join(missing)[:200]}")  # fmt: skip
    problem = _opener_problem(report.opener, parties, plan, coordinator)
    findings.check(
        "who opens is whom the custody names", f"custody: {plan.custody.value}",
        f"opener: {report.opener}", not problem, problem,
    )  # fmt: skip


def _opener_problem(
    opener: str | None, parties: Mapping[str, str], plan: Plan, coordinator: str
) -> str:
    if opener is None:
        return "the record names nobody who opened"
    if opener not in parties:
        return f"{opener!r} is not in the roster: no key shows what it signed"
    if plan.custody is Custody.EVERY_SITE:
        wrong = f"{opener!r} puts together what sites release; that is the coordinator's part"
        return "" if opener == coordinator else wrong
    if opener == coordinator:
        return "the coordinator itself opened: it could read every single contribution"
    if plan.custody is Custody.AUTHORITY and opener in plan.names:
        return f"custody names an authority apart from the sites; {opener!r} is a site"
    if plan.custody is Custody.SITES and opener not in plan.names:
        return f"custody names the sites; {opener!r} is none of them"
    return ""
