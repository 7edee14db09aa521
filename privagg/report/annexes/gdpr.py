"""The facts under the headings that Article 35(7) of the GDPR has for an assessment.

Source: Regulation (EU) 2016/679, Article 35(2), (7), (9) and (11). Most of such an assessment is a
controller's own judgement; what is recorded here is the smaller part of it.
"""

from __future__ import annotations

from privagg.report.annexes import facts
from privagg.report.annexes.lines import Annex, Section, asked, other_statements
from privagg.report.model import Report


def gdpr_35(report: Report) -> Annex:
    """Points (a) to (d) of Article 35(7), then advice, views and review."""
    return Annex(
        name="gdpr-35",
        title="The recorded facts by the points of Article 35(7) GDPR",
        source="Article 35(7)(a) to (d) of Regulation (EU) 2016/679, with 35(2), (9) and (11)",
        sections=(
            Section(
                "(a) The processing operations and their purposes",
                facts.participants(report)
                + facts.model(report)
                + facts.traffic(report)
                + facts.rounds(report)
                + facts.released(report)
                + asked(
                    report,
                    "gdpr-35.purposes",
                    "gdpr-35.controllers",
                    "gdpr-35.subjects",
                    "gdpr-35.legal-basis",
                    "gdpr-35.retention",
                ),
            ),
            Section(
                "(b) Necessity and proportionality",
                facts.mechanism(report)
                + facts.spent(report)
                + facts.quality(report)
                + asked(report, "gdpr-35.necessity", "gdpr-35.rights"),
            ),
            Section(
                "(c) Risks to the rights and freedoms of data subjects",
                facts.unit(report)
                + facts.observers(report)
                + facts.unprotected(report)
                + asked(report, "gdpr-35.risk"),
            ),
            Section(
                "(d) Measures, safeguards and security",
                facts.charged(report)
                + facts.encryption(report)
                + facts.records(report)
                + facts.searches(report)
                + asked(report, "gdpr-35.measures", "gdpr-35.residual"),
            ),
            Section("What the measures rest on", facts.assumptions(report), level=3),
            Section(
                "Advice, views and review",
                asked(report, "gdpr-35.officer", "gdpr-35.views", "gdpr-35.review"),
            ),
            other_statements(report),
        ),
    )
