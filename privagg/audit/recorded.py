"""What a run's record says that nobody but its coordinator vouches for."""

from __future__ import annotations

from privagg.audit.claims import Findings
from privagg.report.model import Report


def attest_record(findings: Findings, report: Report, coordinator: str) -> None:
    """Name every claim that equals the record and is proved by nothing else.

    Args:
        findings: gets the claims.
        report: the record as the report repeats it.
        coordinator: the name of the party whose ledger the record is.
    """
    findings.section = "run"
    for subject, claimed, settle in _claims(report):
        findings.attested(subject, claimed, by=coordinator, settle=settle)


def _claims(report: Report) -> list[tuple[str, str, str]]:
    table = report.public_table
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    measured = sum(r.metrics is not None for r in report.rounds)
    refused = sum(len(r.refusals) for r in report.rounds)
    found = [
        ("versions of the software", versions[:160], "the parties' own installations"),
        (
            "sizes and times of messages",
            f"{len(report.rounds)} attempts",
            "nothing but the uploads' sizes stands in another ledger too",
        ),
    ]
    if table is not None:
        rows = "" if table.rows is None else f", {table.rows} rows"
        found.append(("table declared public", f"{table.name}{rows}"[:160], "the table itself"))
    if measured:
        found.append(
            (
                "metrics",
                f"of {measured} rounds",
                "the public table and each round's model, to measure again",
            )
        )
    if refused:
        found.append(
            (
                "refusals and absences",
                f"{refused} recorded",
                "the sites' signed refusals, where they sent any",
            )
        )
    stopped = sum(r.outcome == "stopped" for r in report.rounds)
    if stopped:
        found.append(
            (
                "attempts that stopped",
                f"{stopped} recorded",
                "a signed opening of one of them would contradict it",
            )
        )
    return found
