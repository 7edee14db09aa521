"""The draft for the OpenDP Deployments Registry fits the registry's own schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privagg.report import Report
from privagg.report.model import Attestation
from privagg.report.places import PLACES
from privagg.report.registry import NOT_RECORDED, registry_yaml

GetReport = Callable[[str], Report]
SCHEMA = Path(__file__).parents[1] / "vectors" / "opendp_deployments_schema.json"
TYPES = {"string": str, "integer": int, "number": (int, float), "array": list, "object": dict}


def _read(text: str) -> Any:
    """A reader of its own for the YAML that is written: mappings, lists, texts, numbers."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    value, rest = _block(lines, 0)
    assert rest == []
    return value


def _block(lines: list[str], indent: int) -> tuple[Any, list[str]]:
    pad = " " * indent
    if lines and lines[0].startswith(pad + "- "):
        items = []
        while lines and lines[0].startswith(pad + "- "):
            items.append(json.loads(lines.pop(0)[indent + 2 :]))
        return items, lines
    found: dict[str, Any] = {}
    while lines and re.match(pad + r"[a-z_]+:", lines[0]):
        key, _, value = lines.pop(0)[indent:].partition(":")
        assert key not in found
        value = value.strip()
        if value == "|":
            literal = []
            while lines and (not lines[0] or lines[0].startswith(pad + "  ")):
                literal.append(lines.pop(0)[indent + 2 :])
            found[key] = "\n".join(literal)
        elif value:
            found[key] = json.loads(value)
        else:
            found[key], lines = _block(lines, indent + 2)
    return found, lines


def _faults(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """What the schema's keywords forbid; the ones it uses, no others."""
    wanted = schema.get("type")
    names = wanted if isinstance(wanted, list) else [wanted] if wanted else []
    if names and not any(isinstance(value, TYPES[name]) for name in names):
        yield f"{path}: {value!r} is no {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if schema.get("format") == "date":
        date.fromisoformat(value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (
            f"{path}: lacks {key}" for key in schema.get("required", ()) if key not in value
        )
        for key, item in value.items():
            if key not in known:
                yield f"{path}: {key} is unknown"
            else:
                yield from _faults(item, known[key], f"{path}/{key}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{path}: too short"
        for i, item in enumerate(value):
            yield from _faults(item, schema.get("items", {}), f"{path}/{i}")


@pytest.mark.parametrize(
    "name", ["three-hospitals", "plaintext", "seven-sites", "infinite", "weighted"]
)
def test_the_draft_fits_the_registrys_schema(report: GetReport, name: str) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))["schema"]
    record = _read(registry_yaml(report(name)))
    assert list(_faults(record, schema)) == []
    assert record["status"] == "Draft"


def test_the_validator_of_this_test_finds_faults() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))["schema"]
    bad = {"url_slug": 1, "status": "Best", "tier": 3, "deployment": {"basic": {}, "more": ""}}
    found = " ".join(_faults(bad, schema))
    for word in ("url_slug: 1 is no string", "'Best' is none of", "lacks name", "more is unknown"):
        assert word in found


def test_epsilon_is_the_charged_one_rounded_up(report: GetReport) -> None:
    made = report("weighted")
    written = _read(registry_yaml(made))["deployment"]["privacy_loss"]["privacy_parameters"]
    largest = max(site.committed.epsilon for site in made.sites)
    assert Decimal(str(written["epsilon"])) >= largest
    assert Decimal(str(written["epsilon"])) - largest < largest * Decimal("1e-6")
    assert written["delta"] == 1e-6


def test_a_run_without_guarantee_states_no_parameters(report: GetReport) -> None:
    text = registry_yaml(report("infinite"))
    loss = _read(text)["deployment"]["privacy_loss"]
    assert "privacy_parameters" not in loss
    assert "nothing is guaranteed" in loss["privacy_parameters_details"]
    assert "# privacy_parameters: no guarantee" in text


def test_what_is_not_recorded_says_so_and_statements_are_signed(report: GetReport) -> None:
    basic = _read(registry_yaml(report("smooth")))["deployment"]["basic"]
    assert basic["intended_use"].startswith(NOT_RECORDED)
    assert "data_product_sector" not in basic
    said = _read(registry_yaml(report("three-hospitals")))["deployment"]["basic"]["intended_use"]
    assert said == (
        "Second readings of \\<biopsies\\> at three \\| hospitals. (stated by Prof. A. Lindqvist)"
    )


def test_a_stated_sector_is_taken_only_where_the_registry_knows_it(report: GetReport) -> None:
    def sector(what: str) -> str | None:
        said = (Attestation(who="a", what=what, about="registry.sector"),)
        made = report("smooth").model_copy(update={"attestations": said})
        found = _read(registry_yaml(made))["deployment"]["basic"].get("data_product_sector")
        return found if isinstance(found, str) else None

    assert sector("Healthcare") == "Healthcare"
    assert sector("Astrology") is None


def test_every_question_of_the_registry_has_its_place(report: GetReport) -> None:
    places = [place for place in PLACES if place.startswith("registry.")]
    closed = {"registry.sector": "Finance", "registry.data_source": "Static"}
    said = tuple(
        Attestation(who="a", what=closed.get(place, f"answer {i}"), about=place)
        for i, place in enumerate(places)
    )
    text = registry_yaml(report("smooth").model_copy(update={"attestations": said}))
    assert all(statement.what in text for statement in said)
    assert NOT_RECORDED not in text


def test_unprintable_characters_do_not_reach_the_document(report: GetReport) -> None:
    said = (Attestation(who="a\u2028b", what='\x00\x85 "q" \\ \x7f', about="registry.region"),)
    made = report("smooth").model_copy(update={"attestations": said})
    text = registry_yaml(made)
    assert re.search("[\x00-\x08\x0b-\x1f\x7f\x85\u2028]", text) is None
    assert '"q"' in _read(text)["deployment"]["basic"]["data_product_region"]
