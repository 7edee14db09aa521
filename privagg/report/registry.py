"""A run as a draft for the OpenDP Deployments Registry.

The record has the fields of the registry's `deployments-schema.yaml` (opendp/
deployments-registry-data). What the ledgers do not record is either answered by a named person's
statement, or says so and stays for a person to fill. The draft's status is `Draft`; only people
submit it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from privagg.privacy.accountant import round_up
from privagg.report.annexes import facts
from privagg.report.annexes.lines import Fact, plain
from privagg.report.figures import count_text, joined
from privagg.report.language import ENGLISH, speaking
from privagg.report.model import Report
from privagg.report.places import PLACES, answers, unplaced
from privagg.report.yaml import Missing, Value, to_yaml

SECTORS = ("Technology", "Healthcare", "Education", "Government", "Energy", "Finance")
SOURCES = ("Static", "Dynamic")
NOT_RECORDED = "Not recorded in the ledgers; to be filled by a person."

HEADER = """\
# Draft for the OpenDP Deployments Registry, arranged from the ledgers of a run.
# A field that says "not recorded" has to be filled by a person before it is submitted.
"""


@speaking(ENGLISH)
def registry_yaml(report: Report) -> str:
    """The draft record as YAML; the registry is in English."""
    record: dict[str, Value] = {
        "url_slug": _slug(report),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": _basic(report),
            "dp_variant": _variant(report),
            "privacy_loss": _loss(report),
            "deployment_model": _deployment(report),
            "accounting": _accounting(report),
            "implementation": _implementation(report),
            "administrative": _administrative(report),
        },
    }
    return HEADER + to_yaml(record)


def _slug(report: Report) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{report.federation} {report.run}".lower())
    return words.strip("-")[:80] or "run"


def _text(text: str) -> str:
    """One line that the registry's page, which reads Markdown and LaTeX, shows as it is."""
    return plain(text.replace("\\", "/"))


def _lines(*groups: Sequence[Fact]) -> str:
    return "\n".join(f"- {_text(fact.text)}" for group in groups for fact in group)


def _asked(report: Report, place: str) -> str:
    given = answers(report, place)
    if not given:
        return f"{NOT_RECORDED} {PLACES[place]}"
    return "\n".join(f"{_text(said.what)} (stated by {_text(said.who)})" for said in given)


def _chosen(report: Report, place: str, known: Sequence[str]) -> str | Missing:
    """What a person stated, where it is one of the values that the registry knows."""
    said = [a.what.strip() for a in answers(report, place)]
    found = [word for word in said if word in known]
    return found[0] if found else Missing(f"not recorded; one of {', '.join(known)}")


def _basic(report: Report) -> dict[str, Value]:
    day = report.model.day if report.model and report.model.day else None
    return {
        "name": _text(f"{report.federation}, model of run {report.run}"),
        "data_curators": [_text(site.name) for site in report.sites] or [NOT_RECORDED],
        "intended_use": _asked(report, "registry.intended_use"),
        "data_product_type": "Machine learning model",
        "data_product_region": _asked(report, "registry.region"),
        "description": "\n".join(_text(sentence) for sentence in report.summary[:3]),
        "publication_date": day or report.generated.date().isoformat(),
        "data_product_sector": _chosen(report, "registry.sector", SECTORS),
    }


def _variant(report: Report) -> dict[str, Value]:
    return {
        "variant_name": "Approximate DP",
        "data_domain": _lines(
            facts.institutions(report), facts.keys(report), facts.attributes(report)
        ),
        "unprotected_quantities": "\n".join(f"- {_text(item)}" for item in report.unprotected),
    }


def _loss(report: Report) -> dict[str, Value]:
    units = sorted({site.unit.value for site in report.sites})
    bounds = [site.committed for site in report.sites]
    worst = max(bounds, key=lambda bound: bound.epsilon, default=None)
    parameters: Value = Missing("no guarantee: epsilon is infinite")
    if worst is not None and worst.epsilon.is_finite():
        parameters = {
            "epsilon": round_up(worst.epsilon, 9),
            "delta": worst.delta,
        }
    return {
        "privacy_unit": joined(units),
        "privacy_unit_details": _lines(facts.unit(report)),
        "privacy_parameters": parameters,
        "privacy_parameters_details": _lines(facts.charged(report), facts.spent(report)),
    }


def _deployment(report: Report) -> dict[str, Value]:
    runs = {point.run for site in report.sites for point in site.history}
    return {
        "model_name": "Federated",
        "model_name_details": _lines(facts.contribution(report), facts.encryption(report)),
        "actors": _lines(facts.observers(report), facts.assumptions(report)),
        "release_type": "One release",
        "release_type_details": (
            f"{count_text(len(report.rounds), 'attempt')} at a round were charged for this model; "
            f"{count_text(len(runs), 'run was', 'runs were')} charged to these data sets so far. "
            "Plans for further uses are not recorded."
        ),
        "data_source_type": _chosen(report, "registry.data_source", SOURCES),
        "access_type": "Non-interactive",
    }


def _accounting(report: Report) -> dict[str, Value]:
    return {
        "post_processing": _lines(facts.model(report)),
        "composition": _lines(facts.events(report), facts.accountants(report)),
    }


def _implementation(report: Report) -> dict[str, Value]:
    return {
        "preprocessing_and_hyperparameter_tuning": _lines(facts.searches(report)),
        "mechanisms": _lines(
            facts.contribution(report),
            facts.noise(report),
            facts.encryption(report),
            facts.ledgers(report),
            facts.agreement(report),
            facts.software(report),
        ),
        "justification": _asked(report, "registry.justification"),
    }


def _administrative(report: Report) -> dict[str, Value]:
    said = [f"- {_text(a.who)} states: “{_text(a.what)}”" for a in unplaced(report)]
    dated = (
        "the day on which the model's release was recorded"
        if report.model and report.model.day
        else "the day on which this report was made; no release is recorded"
    )
    notes = [
        f"- Arranged from the ledgers of run {_text(report.run)}; the report of that run carries "
        "the event behind every figure.",
        f"- The publication date is {dated}.",
        *said,
    ]
    authors = [_text(a.what) for a in answers(report, "registry.author")]
    return {
        "sources": _asked(report, "registry.sources"),
        "notes": "\n".join(notes),
        "registry_authors": authors or [NOT_RECORDED],
    }
