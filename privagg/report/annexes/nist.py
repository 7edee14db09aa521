"""The facts under the components of the differential privacy pyramid of NIST SP 800-226.

Source: NIST Special Publication 800-226, Guidelines for Evaluating Differential Privacy Guarantees
(March 2025), Figure 1; the pyramid's levels are its Sections 2, 3 and 4.
"""

from __future__ import annotations

from privagg.report.annexes import facts
from privagg.report.annexes.lines import Annex, Section, asked, other_statements
from privagg.report.model import Report


def nist_800_226(report: Report) -> Annex:
    """From the top of the pyramid to its ground; each level rests on the ones below it."""
    return Annex(
        name="nist-800-226",
        title="The recorded facts by the layers of NIST SP 800-226",
        source="the differential privacy pyramid of NIST SP 800-226 (March 2025), Figure 1 and "
        "Sections 2 to 4",
        sections=(
            Section("Top: the guarantee (Section 2)"),
            Section(
                "Privacy parameters",
                facts.charged(report)
                + facts.observers(report)
                + facts.spent(report)
                + asked(report, "nist.parameters", "nist.other-releases"),
                level=3,
            ),
            Section("Unit of privacy", facts.unit(report), level=3),
            Section("Middle: the algorithms (Section 3)"),
            Section(
                "Algorithms and correctness",
                facts.mechanism(report) + facts.accountants(report) + asked(report, "nist.review"),
                level=3,
            ),
            Section("Utility", facts.quality(report) + asked(report, "nist.utility"), level=3),
            Section("Bias", asked(report, "nist.bias"), level=3),
            Section("Ground: the deployment (Section 4)"),
            Section(
                "Trust models",
                facts.encryption(report) + facts.assumptions(report) + facts.participants(report),
                level=3,
            ),
            Section("Side channels", facts.searches(report) + facts.unprotected(report), level=3),
            Section(
                "Data security and access control",
                facts.records(report) + asked(report, "nist.access"),
                level=3,
            ),
            Section(
                "Data collection exposure",
                facts.traffic(report) + asked(report, "nist.collection"),
                level=3,
            ),
            other_statements(report),
        ),
    )
