"""Verifying a report with its ledgers, or without them as far as that goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privagg.audit import bare
from privagg.audit.answered import are_decided, check_answers, leave_answers
from privagg.audit.approved import attest_approval
from privagg.audit.bundle import (
    PUBLISHED_BEFORE,
    ReportBundle,
    fixed_files,
    is_published,
    read_bounded,
)
from privagg.audit.chains import LEDGER, check_history, check_ledgers, check_owners, facts_by_party
from privagg.audit.charges import check_epsilons, check_events
from privagg.audit.claims import Findings, Verdict, Verification
from privagg.audit.compare import compare
from privagg.audit.continued import check_continued
from privagg.audit.methods import Methods
from privagg.audit.parties import check_parties
from privagg.audit.planned import check_charges, check_rosters, check_security
from privagg.audit.recorded import attest_record
from privagg.audit.replayed import ReplayedLedger
from privagg.audit.second import check_second
from privagg.audit.selected import check_selection
from privagg.audit.signed import SignedRun, check_opened_once
from privagg.audit.statements import STATEMENTS, unpack_statements
from privagg.audit.times import check_generated, check_times
from privagg.audit.untrusted import check_numbers
from privagg.errors import UnreadableBundleError, VerificationError
from privagg.privacy.plan import Plan, load_plan
from privagg.protocol.names import COORDINATOR
from privagg.report.accounting import AttemptId
from privagg.report.build import build_report
from privagg.report.language import ENGLISH, speaking
from privagg.report.model import Report
from privagg.report.sentences import distinct_assumptions, summarise, unprotected


@dataclass
class Brought:
    """What a verifier has from elsewhere, and how thorough to be.

    Attributes:
        checkpoints: signed checkpoints of the parties' ledgers, kept earlier.
        keys: party -> identity key, 64 hex digits.
        model_sha256: digest of the released model's file, 64 hex digits.
        every_charge: recompute epsilon after each single charge, however many there are.
        methods: accountants and how much they may compute, renewed for each verification; share
            them among verifications to save time.
    """

    checkpoints: Sequence[str] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    model_sha256: str | None = None
    every_charge: bool = False
    methods: Methods = field(default_factory=Methods)


def verify_file(path: Path, brought: Brought) -> Verification:
    """Verify a bundle, or a `report.json` alone.

    Raises:
        UnreadableBundleError: it is neither.
    """
    if path.is_dir():
        raise UnreadableBundleError(
            f"{path} is a folder; name a run's bundle.privagg.zip in it, or its report.json"
        )
    data = read_bounded(path)
    if data[:4] == b"PK\3\4":
        return verify_bundle(ReportBundle.parse(data), brought)
    return verify_report(data, brought)


@speaking(ENGLISH)
def verify_bundle(bundle: ReportBundle, brought: Brought) -> Verification:
    """Recompute everything in a bundle's report from the bundle's ledgers.

    Raises:
        UnreadableBundleError: its report is none of this format.
    """
    report = read_report(bundle.files["report.json"])
    brought.methods.work.spent = 0
    findings = Findings()
    _check_attestation(findings, bundle, report)
    facts = facts_by_party(report, COORDINATOR)
    _check_names(findings, bundle, facts)
    with brought.methods.work.portion(2):
        ledgers = check_ledgers(findings, bundle.ledgers, facts, brought.methods)
    check_owners(findings, ledgers, report.parties, brought.keys)
    check_history(findings, ledgers, brought.checkpoints)
    check_generated(findings, report)
    work = brought.methods.work
    # Half of the work for what is left to others, and an equal share for each party's ledger.
    with work.portion(2):
        for place, (party, ledger) in enumerate(ledgers.items()):
            check_times(findings, party, ledger, report)
            findings.section = party
            with work.portion(len(ledgers) - place):
                check_epsilons(findings, ledger, brought.methods, every_charge=brought.every_charge)
    _check_plan_followed(findings, report, ledgers)
    _check_run(findings, bundle, report, ledgers, brought)
    with work.portion(2):
        _check_rebuilt(findings, report, ledgers, brought.methods)
    _consult_others(findings, report, brought.methods)
    _check_model(findings, report, brought.model_sha256)
    return Verification("bundle", report.run, report.federation, findings.ordered())


@speaking(ENGLISH)
def verify_report(data: bytes, brought: Brought) -> Verification:
    """Recompute what follows from a report alone, and say where that ends.

    Raises:
        UnreadableBundleError: it is no report of this format.
    """
    report = read_report(data)
    brought.methods.work.spent = 0
    findings = Findings(section="report")
    findings.undecided("who made this report", report.federation, "a report alone is not signed")
    findings.undecided("the charges, rounds and survivors", report.run, bare.FROM_LEDGERS)
    for party, facts in facts_by_party(report, COORDINATOR).items():
        bare.check_own_checkpoint(findings, party, facts)
    findings.section = "run"
    with findings.guarded("figures that follow from the plan", report.plan_digest[:16]):
        plan = load_plan(report.plan)
        _check_settings(findings, report, plan)
        check_rosters(findings, report, plan)
        findings.section = "run"
        alone = bare.BareReport(report, plan, brought.methods)
        expected = _with_sentences(alone.expected(), report).model_copy(update={"answers": None})
        unanswered = leave_answers(findings, report)
        compare(findings, _values(_own_figures(unanswered)), _values(expected))
        alone.check_histories(findings)
    _consult_others(findings, report, brought.methods)
    _check_model(findings, report, brought.model_sha256)
    return Verification("report", report.run, report.federation, findings.ordered())


def read_report(data: bytes) -> Report:
    """A report from untrusted JSON in which no name stands twice.

    Raises:
        UnreadableBundleError: it is none.
    """
    try:
        json.loads(check_numbers(data, what="the report"), object_pairs_hook=_once)
        return Report.from_json(data)
    except UnreadableBundleError:
        raise
    except (VerificationError, ValueError, RecursionError) as error:
        why = "it is no JSON" if isinstance(error, json.JSONDecodeError) else error
        raise UnreadableBundleError(
            f"neither a bundle nor a report: {why}; name a run's bundle.privagg.zip or its "
            "report.json"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return found


def _check_attestation(findings: Findings, bundle: ReportBundle, report: Report) -> None:
    """The coordinator's signature, the digest of every file, and what the statement names."""
    findings.section = "bundle"
    said = bundle.attestation.statement
    key = report.parties.get(said.predicate.signer, "")
    subject = f"signed by the {COORDINATOR}"
    with findings.guarded(subject, f"key {bundle.attestation.key[:16]}"):
        bundle.attestation.check(key)
        signer = said.predicate.signer
        findings.check(
            subject, f"key {bundle.attestation.key[:16]}", f"key {key[:16]}", signer == COORDINATOR
        )
    stated = {each.name: each.digest.sha256 for each in said.subject}
    found = {name: hashlib.sha256(data).hexdigest() for name, data in bundle.files.items()}
    wrong = [
        name for name in dict.fromkeys((*stated, *found)) if stated.get(name) != found.get(name)
    ]
    for name in wrong:
        findings.check(f"digest of {name}", stated.get(name, "not covered")[:16],
                       found.get(name, "missing")[:16], False, "changed after signing")  # fmt: skip
    if not wrong and len(stated) == len(said.subject):
        findings.check("digests of files", f"{len(stated)} files", f"{len(found)} files", True,
                       compared=len(found))  # fmt: skip
    elif not wrong:
        findings.contradicted("digests of files", f"{len(stated)} files", "a file is named twice")
    run = said.predicate
    named = (run.federation, run.run, run.plan_digest)
    actual = (report.federation, report.run, report.plan_digest)
    findings.check("run that the statement names", run.run, report.run, named == actual)


def _check_names(findings: Findings, bundle: ReportBundle, facts: Mapping[str, Any]) -> None:
    """Nothing in the bundle that nobody asked for."""
    expected = {"README.txt", "report.json", "schema.json", STATEMENTS}
    expected |= {f"ledgers/{party}.jsonl" for party in facts}
    extra = sorted(set(bundle.files) - expected)
    if extra:
        findings.contradicted("files", ", ".join(extra)[:200], "these do not belong to the report")
    for name in fixed_files():
        known = is_published(name, bundle.files.get(name, b""))
        if not known and not _was_published(name, bundle):
            findings.contradicted(
                name, "as published", "missing, or not what this format's bundles hold"
            )


def _was_published(name: str, bundle: ReportBundle) -> bool:
    """Whether the file is that of an earlier form of bundle, which held no statements."""
    digest = hashlib.sha256(bundle.files.get(name, b"")).hexdigest()
    return STATEMENTS not in bundle.files and digest in PUBLISHED_BEFORE[name]


def _check_run(
    findings: Findings,
    bundle: ReportBundle,
    report: Report,
    ledgers: Mapping[str, ReplayedLedger],
    brought: Brought,
) -> None:
    """Parties, rounds, charges and signed statements: who did what, by whose word."""
    findings.section = "run"
    with findings.guarded("parties, rounds and charges", report.run):
        plan = load_plan(report.plan)
        check_parties(findings, report, plan, COORDINATOR, brought.keys)
        check_opened_once(findings, report.rounds)
        check_rosters(findings, report, plan)
        check_security(findings, report)
        attest_record(findings, report, COORDINATOR)
        for site in plan.names:
            findings.section = site
            if site in ledgers:
                with findings.guarded("charges of this run", site):
                    check_charges(findings, ledgers[site], site, plan, report)
                    attest_approval(findings, ledgers[site], site, plan, report.run)
        findings.section = "run"
        sums: Mapping[AttemptId, str] = {}
        with findings.guarded("signed statements", report.run):
            signed = SignedRun(report, plan, ledgers)
            sums = signed.sums
            if STATEMENTS in bundle.files:
                signed.read(unpack_statements(bundle.files[STATEMENTS]))
            signed.report_on(findings)
        with brought.methods.work.portion(2):
            check_answers(findings, report, plan, ledgers, sums, brought.methods.work)
        check_selection(findings, report, plan, ledgers)
        check_continued(findings, report, ledgers)


def _check_settings(findings: Findings, report: Report, plan: Plan) -> None:
    """What the run is said to have used is what its plan, and so every guarantee, assumes."""
    stated = (report.scheme.name, report.scheme.protects, report.custody, report.custody_plainly)
    agreed = (plan.scheme, plan.hides, plan.custody, plan.custody_plainly)
    findings.check(
        "scheme and custody are the plan's", f"{report.scheme.name}, {report.custody.value}",
        f"{plan.scheme}, {plan.custody.value}", stated == agreed, compared=len(agreed),
    )  # fmt: skip


def _check_plan_followed(
    findings: Findings, report: Report, ledgers: Mapping[str, ReplayedLedger]
) -> None:
    findings.section = "run"
    with findings.guarded("plan", report.plan_digest[:16]):
        plan = load_plan(report.plan)
        _check_settings(findings, report, plan)
        for site in plan.names:
            findings.section = site
            if site in ledgers:
                with findings.guarded("events of this run", site):
                    check_events(findings, ledgers[site], site, plan, report.run, report.opener)


def _check_rebuilt(
    findings: Findings, report: Report, ledgers: Mapping[str, ReplayedLedger], methods: Methods
) -> None:
    """Make the report again from the ledgers and compare every value."""
    findings.section = "run"
    subject = "report made again from the ledgers"
    if COORDINATOR not in ledgers or any(site.name not in ledgers for site in report.sites):
        if any(c.subject == LEDGER and c.verdict is Verdict.UNDECIDED for c in findings.claims):
            findings.undecided(subject, report.run, "a ledger is beyond the work limit")
        else:
            findings.contradicted(
                subject, report.run, "not possible: a ledger is missing or does not hold"
            )
        return
    with findings.guarded(subject, report.run):
        accountant = methods.certified
        names = {site.accountants[0].name for site in report.sites if site.accountants}
        if len(names) == 1:
            accountant = methods.named(names.pop()) or accountant
        answered = are_decided(findings)
        rebuilt = build_report(
            run=report.run,
            coordinator=ledgers[COORDINATOR],
            sites={name: ledger for name, ledger in ledgers.items() if name != COORDINATOR},
            accountant=accountant,
            peers=(),
            generated=report.generated,
            answered=answered,
        )
        own = report if answered else report.model_copy(update={"answers": None})
        compare(findings, _values(_own_figures(own)), _values(_with_sentences(rebuilt, report)))


def _consult_others(findings: Findings, report: Report, methods: Methods) -> None:
    """The independent methods, once the figures are those of events that really took place."""
    if any(claim.verdict is Verdict.CONTRADICTED for claim in findings.claims):
        findings.section = "run"
        findings.undecided("second methods", "", "not consulted: claims fail already")
        return
    check_second(findings, report, methods)


def _with_sentences(expected: Report, report: Report) -> Report:
    """Sentences must follow from the figures beside them; those are compared one by one."""
    changed = {
        "summary": summarise(report),
        "unprotected": unprotected(report),
        "assumptions": distinct_assumptions(report.sites),
    }
    return expected.model_copy(update=changed)


def _own_figures(report: Report) -> Report:
    """The report without peers' figures, which `check_second` holds against their own methods."""
    sites = tuple(
        site.model_copy(update={"accountants": site.accountants[:1]}) for site in report.sites
    )
    return report.model_copy(update={"sites": sites})


def _values(report: Report) -> dict[str, Any]:
    return report.model_dump(mode="json")


def _check_model(findings: Findings, report: Report, found: str | None) -> None:
    findings.section = "run"
    stated = report.model.sha256 if report.model else "none"
    if found is not None:
        findings.check("the model file itself", f"SHA-256 {stated[:16]}", f"SHA-256 {found[:16]}",
                       stated == found)  # fmt: skip
    elif report.model is not None:
        findings.undecided(
            "the model file itself", f"SHA-256 {stated[:16]}", "give it with --model FILE"
        )
