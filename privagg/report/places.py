"""What only a person can say: the questions, each with the name under which it can be answered.

Ledgers hold what machines did. Purpose, law, organisation and judgement are people's; a statement
in the configuration answers a question where its `about` is the question's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from privagg.report.model import Attestation, Report

PLACES: Mapping[str, str] = MappingProxyType(
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
        "nist.other-releases": "Which other releases were or will be made from the same records?",
        "nist.parameters": "Why are these epsilon, delta and unit right for the people concerned?",
        "nist.utility": "Is the model good enough for its use, and who judged that?",
        "nist.bias": "For which groups is the model less accurate, and how was that measured?",
        "nist.review": "Who outside the project has reviewed or tested the implementation?",
        "nist.access": "Who has access to the records and the keys at each institution?",
        "nist.collection": "Why was each attribute collected, and what was left out?",
        "gdpr-35.purposes": "What are the purposes, and which legitimate interest is pursued?",
        "gdpr-35.controllers": "Who are the controllers, joint controllers and processors?",
        "gdpr-35.subjects": "Whose personal data are they, and of which categories?",
        "gdpr-35.legal-basis": "On which legal basis does it rest (Articles 6 and 9)?",
        "gdpr-35.retention": "How long are records, ledgers and the model kept?",
        "gdpr-35.necessity": "Why is the processing needed for the purpose, and which less "
        "intrusive ways were weighed?",
        "gdpr-35.rights": "How are data subjects informed, and how do they use their rights?",
        "gdpr-35.risk": "How likely and how severe are the risks to data subjects' rights and "
        "freedoms?",
        "gdpr-35.measures": "Which organisational measures address these risks?",
        "gdpr-35.residual": "Which risk remains, and who accepts it?",
        "gdpr-35.officer": "What did the data protection officer advise (Article 35(2))?",
        "gdpr-35.views": "Which views of data subjects were sought (Article 35(9))?",
        "gdpr-35.review": "When will this assessment be reviewed (Article 35(11))?",
        "model-risk.owner": "Who owns the model, and who uses it?",
        "model-risk.purpose": "What decisions does the model inform, and how material are they?",
        "model-risk.data": "How suitable and how good are the data for this purpose?",
        "model-risk.challenge": "Who independent of the developers has challenged the design?",
        "model-risk.benchmark": "With what was the model compared, and what came out?",
        "model-risk.outcomes": "How do the model's outputs compare with real outcomes?",
        "model-risk.monitoring": "What is monitored in use, how often, and against which limits?",
        "model-risk.limits": "For which uses is the model not fit?",
        "model-risk.approval": "Who approved the model for use, when, and on which conditions?",
        "model-risk.change": "How are changes and retraining approved?",
    }
)
"""Name of a question -> the question."""


def answers(report: Report, place: str) -> tuple[Attestation, ...]:
    """What people stated about the question `place`."""
    assert place in PLACES, place
    return tuple(said for said in report.attestations if said.about == place)


def unplaced(report: Report) -> tuple[Attestation, ...]:
    """What people stated about the run as a whole, or about something that is no question here."""
    return tuple(said for said in report.attestations if said.about not in PLACES)
