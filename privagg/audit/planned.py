"""Every fact that a run's charges state, held against the plan, the record and the scheme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from privagg.audit.claims import Findings
from privagg.audit.replayed import Charged, ReplayedLedger
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.ledger.entries import Charge, Consumed, UploadStored
from privagg.privacy.plan import Plan
from privagg.privacy.randomness import SystemRandomness
from privagg.protocol.cohorts import drawn_cohort, draws_cohorts
from privagg.report.accounting import AttemptId
from privagg.report.model import Report, RoundReport, SchemeFacts
from privagg.secure.masked import parameters as masked
from privagg.secure.paillier_parameters import SECURITY_BITS, rated_security
from privagg.secure.rns import MAX_MODULUS_BITS_BY_SECURITY

SECURE_GENERATORS = frozenset({SystemRandomness.name})
"""The sources of randomness that this version knows to protect anybody."""

ATTESTED_FACTS = ("python", "numpy", "records_apart")
"""What a charge states of the site's own machine, which nothing elsewhere shows."""


def check_charges(
    findings: Findings, ledger: ReplayedLedger, site: str, plan: Plan, report: Report
) -> None:
    """Hold one site's charges of this run against the plan, and what follows each.

    Args:
        findings: gets the claims.
        ledger: the site's, replayed.
        site: its name.
        plan: the run's.
        report: gives the run's name, its rounds and its scheme.
    """
    findings.section = site
    key = BudgetKey.of(plan, site)
    of_run = [c for c in ledger.charged if c.charge.run == report.run and c.charge.key == key]
    rounds = {(r.round, r.attempt): r for r in report.rounds}
    _check_facts(findings, of_run, site, plan, report, rounds)
    _check_trained(findings, ledger, of_run, site, report.run, rounds)
    _check_never_free(findings, ledger, report.run)


def check_rosters(findings: Findings, report: Report, plan: Plan) -> None:
    """Hold who is said to have joined, left and been asked against the plan's schedule.

    Args:
        findings: gets the claim, where the schedule or the record has a change.
        report: of the run.
        plan: the run's.
    """
    later = plan.epochs[1:]
    if not later and not report.rosters:
        return
    findings.section = "run"
    reached = max((ended.round for ended in report.rounds), default=0)
    due = [
        (
            now.first,
            tuple(name for name in now.names if name not in before.names),
            tuple(name for name in before.names if name not in now.names),
            now.names,
        )
        for before, now in pairwise(plan.epochs)
    ]
    told = [(each.round, each.joined, each.left, each.sites) for each in report.rosters]
    # A change is recorded before its first round is begun, so one may stand there without a round.
    as_planned = told == due[: len(told)] and all(first <= reached + 1 for first, *_ in told)
    missing = [first for first, *_ in due[len(told) :] if first <= reached]
    strangers = [
        ended.round
        for ended in report.rounds
        if not plan.in_round(ended.round).is_cohort(ended.cohort)
    ]
    note = f"round {strangers[0]} asked others than the plan's" if strangers else ""
    findings.check(
        "who joined, left and was asked: as the plan says", f"{len(told)} changes",
        f"{len(due)} planned", as_planned and not missing and not strangers, note,
        compared=len(told) + len(report.rounds),
    )  # fmt: skip


def _check_facts(
    findings: Findings,
    charges: Sequence[Charged],
    site: str,
    plan: Plan,
    report: Report,
    rounds: Mapping[AttemptId, RoundReport],
) -> None:
    subject, claimed = "facts of charges: the plan's and the scheme's", f"{len(charges)} charges"
    absent: dict[str, None] = {}
    for each in charges:
        if each.charge.round > plan.rounds:
            note = f"entry {each.index} is of round {each.charge.round}"
            findings.check(subject, claimed, f"rounds 1 to {plan.rounds}", False, note)
            return
        facts, expected = each.charge.facts, _expected(plan, report, each.charge.round)
        attempt = (each.charge.round, each.charge.attempt)
        wrong = [n for n, value in expected.items() if n in facts and facts[n] != value]
        ended = rounds.get(attempt)
        if "cohort" in facts and not _cohort_fits(each.charge, site, plan, report, ended):
            wrong.append("cohort")
        if each.charge.event.is_private and not _is_secure(facts, report):
            wrong.append("generator")
        if wrong:
            name = wrong[0]
            found = f"{name} {str(facts.get(name, report.generator))[:80]}"
            due = f"{name} {str(expected.get(name, 'another'))[:80]}"
            findings.check(subject, claimed, due, False, f"entry {each.index} states {found}")
            return
        absent |= dict.fromkeys(n for n in (*expected, "cohort", "generator") if n not in facts)
    if absent:
        findings.attested(
            "facts that charges leave out", ", ".join(absent)[:200], by=site,
            settle="the site's signed uploads, or its charges made by a newer version",
        )  # fmt: skip
    count = len(_expected(plan, report, 1)) + 2 - len(absent)
    findings.check(subject, claimed, f"{count} facts each as they follow", True,
                   compared=max(1, count * len(charges)))  # fmt: skip
    told = [c.charge.facts for c in charges]
    stated = sorted(
        {f"{n} {_told(facts[n])}" for facts in told for n in ATTESTED_FACTS if n in facts}
    )
    findings.attested(
        "training, clipping and noise as charged", ", ".join(stated)[:200] or "not stated", by=site,
        settle="nothing that leaves a site shows what it computed; look at its machine and code",
    )  # fmt: skip


def _told(fact: Any) -> str:
    """A fact of a charge as a sentence has it; a table of facts stands in brackets."""
    if not isinstance(fact, dict):
        return str(fact)
    return f"({', '.join(f'{name} {value}' for name, value in fact.items())})"


def _expected(plan: Plan, report: Report, number: int) -> dict[str, Any]:
    return {
        **plan.in_round(number).charge_facts,
        "key_id": report.key_id_of(number),
        "security_bits": report.scheme.security_bits,
    }


def _cohort_fits(
    charge: Charge, site: str, plan: Plan, report: Report, ended: RoundReport | None
) -> bool:
    """A cohort is the plan's number of its sites, in order, this one among them, as recorded.

    Where sites open together it is the one that is drawn for its round.
    """
    names = tuple(charge.facts["cohort"])
    recorded = ended is None or ended.cohort == names
    number = charge.round
    drawn = not draws_cohorts(plan, number) or names == drawn_cohort(plan, charge.run, number)
    return plan.in_round(number).is_cohort(names) and site in names and recorded and drawn


def _is_secure(facts: Mapping[str, Any], report: Report) -> bool:
    """Whether noise from the source that is stated protects anybody, as a finite ε says."""
    stated = facts.get("generator", report.generator)
    return stated in SECURE_GENERATORS and stated == report.generator


def _check_trained(
    findings: Findings,
    ledger: ReplayedLedger,
    charges: Sequence[Charged],
    site: str,
    run: str,
    rounds: Mapping[AttemptId, RoundReport],
) -> None:
    """A site whose share is in an opened sum used its receipt once, and stored what it sent."""
    payloads = [entry.payload for entry in ledger.entries()]
    used = {p.charge for p in payloads if isinstance(p, Consumed) and p.run == run}
    stored = {p.charge: p for p in payloads if isinstance(p, UploadStored) and p.run == run}
    shares = [
        (each, rounds[attempt])
        for each in charges
        if (attempt := (each.charge.round, each.charge.attempt)) in rounds
        and site in rounds[attempt].survivors
    ]
    problem = next(_trained_problems(shares, used, stored, site), "")
    findings.check(
        "shares: each used its receipt and was stored", f"{len(shares)} shares in opened sums",
        "not so" if problem else f"{len(shares)} used and stored", not problem, problem,
        compared=max(1, 2 * len(shares)),
    )  # fmt: skip


def _trained_problems(
    shares: Iterable[tuple[Charged, RoundReport]],
    used: set[int],
    stored: Mapping[int, UploadStored],
    site: str,
) -> Iterator[str]:
    for each, ended in shares:
        received = ended.bytes_up if ended.upload_bytes is None else ended.upload_bytes
        where = f"round {ended.round}, attempt {ended.attempt}"
        if each.index not in used:
            yield f"{where}: the ledger holds no `consumed` entry of charge {each.index}"
        elif each.index not in stored:
            yield f"{where}: the ledger holds no `upload` entry of charge {each.index}"
        elif received.get(site) not in (None, stored[each.index].length_bytes):
            yield (
                f"{where}: the ledger stored {stored[each.index].length_bytes} bytes, the "
                f"coordinator received {received[site]}"
            )


def _check_never_free(findings: Findings, ledger: ReplayedLedger, run: str) -> None:
    """No charge of any run costs nothing; what other runs planned is not in this bundle."""
    free = [c.index for c in ledger.charged if not c.charge.event.terms]
    others = sorted({c.charge.run for c in ledger.charged if c.charge.run != run})
    if free:
        findings.contradicted("every charge costs something", f"{len(ledger.charged)} charges",
                       f"entry {free[0]} charges nothing at all")  # fmt: skip
    elif others:
        findings.attested(
            "events of other runs", f"{len(others)} runs", by=ledger.owner,
            settle=f"the bundles of {', '.join(others)[:160]} hold their plans",
        )  # fmt: skip


def check_security(findings: Findings, report: Report) -> None:
    """The security level against what the scheme's recorded parameters can reach."""
    findings.section = "run"
    scheme = report.scheme
    reached = _reached(scheme)
    stated = f"{scheme.name}, {scheme.security_bits} bits"
    if reached is not None:
        findings.check(
            "security level is within what the parameters reach", stated, f"at most {reached} bits",
            (scheme.security_bits or 0) <= reached,
        )  # fmt: skip
    known = _levels(scheme.name)
    if known is not None and scheme.security_bits not in known:
        findings.contradicted("security level is one of the scheme's", stated,
                       f"the scheme's levels are {', '.join(map(str, known))}")  # fmt: skip


def _levels(scheme: str) -> tuple[int, ...] | None:
    levels = {
        "ckks": tuple(MAX_MODULUS_BITS_BY_SECURITY),
        "bfv": tuple(MAX_MODULUS_BITS_BY_SECURITY),
        "paillier": tuple(SECURITY_BITS.values()),
        "masked": (masked.SECURITY_BITS,),
        "plaintext": (0,),
    }
    return levels.get(scheme)


def _reached(scheme: SchemeFacts) -> int | None:
    """Bits of security by the tables that the schemes use; None where no parameters are stated."""
    facts: Any = scheme.parameters
    if scheme.name == "paillier" and "modulus_bits" in facts:
        return rated_security(int(facts["modulus_bits"]))
    if scheme.name == "masked":
        return masked.SECURITY_BITS
    chain = facts.get("chain")
    if scheme.name not in ("ckks", "bfv") or chain is None:
        return None
    primes = [*chain["primes"], *([] if chain["special"] is None else [chain["special"]])]
    bits = math.prod(map(int, primes)).bit_length()
    return max(
        (level for level, table in MAX_MODULUS_BITS_BY_SECURITY.items()
         if bits <= table.get(chain["ring_degree"], 0)),
        default=0,
    )  # fmt: skip
