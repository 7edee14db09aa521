"""Annexes: the recorded facts of a run under the headings of others, with blanks for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from privagg.report.annexes.gdpr import gdpr_35
from privagg.report.annexes.lines import Annex, markdown
from privagg.report.annexes.model_risk import model_risk
from privagg.report.annexes.nist import nist_800_226
from privagg.report.model import Report

ANNEXES: Mapping[str, Callable[[Report], Annex]] = MappingProxyType(
    {"nist-800-226": nist_800_226, "gdpr-35": gdpr_35, "model-risk": model_risk}
)

__all__ = ["ANNEXES", "Annex", "gdpr_35", "markdown", "model_risk", "nist_800_226"]
