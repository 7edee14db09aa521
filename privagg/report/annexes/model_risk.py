"""The facts as a file for model risk management.

The headings are the elements that supervisory guidance on model risk names: development and use;
validation by conceptual soundness, outcomes analysis and ongoing monitoring; governance. Source:
Board of Governors of the Federal Reserve System and OCC, SR 11-7 / OCC 2011-12 (2011), revised as
SR 26-2 / OCC 2026-13 (2026).
"""

from __future__ import annotations

from privagg.report.annexes import facts
from privagg.report.annexes.lines import Annex, Section, asked, other_statements
from privagg.report.model import Report


def model_risk(report: Report) -> Annex:
    """Identification, development, validation, limits, governance."""
    return Annex(
        name="model-risk",
        title="The recorded facts as a model-risk file",
        source="supervisory guidance on model risk management: SR 11-7 / OCC 2011-12 (2011), whose "
        "elements its revision SR 26-2 / OCC 2026-13 (2026) keeps",
        sections=(
            Section(
                "Identification",
                facts.released(report)
                + facts.participants(report)[:1]
                + facts.records(report)[1:]
                + asked(report, "model-risk.owner", "model-risk.purpose"),
            ),
            Section(
                "Development",
                facts.model(report)
                + facts.participants(report)[2:]
                + facts.rounds(report)
                + facts.searches(report)
                + asked(report, "model-risk.data"),
            ),
            Section("Validation"),
            Section(
                "Conceptual soundness",
                facts.mechanism(report)
                + facts.accountants(report)
                + asked(report, "model-risk.challenge"),
                level=3,
            ),
            Section(
                "Outcomes analysis",
                facts.quality(report)
                + asked(report, "model-risk.benchmark", "model-risk.outcomes"),
                level=3,
            ),
            Section("Ongoing monitoring", asked(report, "model-risk.monitoring"), level=3),
            Section(
                "Limitations and assumptions",
                facts.charged(report)
                + facts.unit(report)
                + facts.assumptions(report)
                + facts.unprotected(report)
                + asked(report, "model-risk.limits"),
            ),
            Section(
                "Governance",
                facts.encryption(report)
                + facts.spent(report)
                + facts.records(report)[:1]
                + asked(report, "model-risk.approval", "model-risk.change"),
            ),
            other_statements(report),
        ),
    )
