"""What only a person can say: the questions, each with the name under which it can be answered.

Ledgers hold what machines did. Purpose, law, organisation and judgement are people's; a statement
in the configuration answers a question where its `about` is the question's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from privagg.report.forms import FORMS
from privagg.report.model import Attestation, Report

REGISTRY: Mapping[str, str] = MappingProxyType(
    {
        "registry.intended_use": "What is the model to be used for?",
        "registry.region": "Which region do the records describe, and whose law applies?",
        "registry.sector": "Which sector is it (Technology, Healthcare, Education, Government, "
        "Energy, Finance)?",
        "registry.data_source": "Is new data added to the data sets over time (Static, Dynamic)?",
        "registry.justification": "Why were these parameters and mechanisms chosen, and by what "
        "process?",
        "registry.sources": "Where is the deployment described in public?",
        "registry.author": "Who answers for this record of the registry?",
    }
)
"""The questions of the registry's draft."""

PLACES: Mapping[str, str] = MappingProxyType(
    {
        **REGISTRY,
        **{
            place: question
            for form in FORMS.values()
            for section in form.sections
            for place, question in section.asked.items()
        },
    }
)
"""Name of a question -> the question, of the registry and of all annexes."""


def answers(report: Report, place: str) -> tuple[Attestation, ...]:
    """What people stated about the question `place`."""
    assert place in PLACES, place
    return tuple(said for said in report.attestations if said.about == place)


def unplaced(report: Report) -> tuple[Attestation, ...]:
    """What people stated about the run as a whole, or about something that is no question here."""
    return tuple(said for said in report.attestations if said.about not in PLACES)
