"""Facts asked of a federation, whole: charged, proposed, written into the file, and verified."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.answered import ANSWERS, SUM
from privagg.config.jobs import job_of
from privagg.config.proposed import proposed
from privagg.errors import ConfigError
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge
from privagg.report import Report
from privagg.report.language import speaking
from privagg.report.render import render_html
from privagg.run.results import RunResult
from tests.commands import call
from tests.report.test_languages import left, visible

SITES = {"north": 300, "south": 240}
CONFIG = """\
[federation]
name = "unknown"

[privacy]
epsilon = 3
delta = 1e-4
budget_epsilon = 100

[training]
model = "logistic"
rounds = 2

[secure]
scheme = "plaintext"
custody = "authority"

[facts]
epsilon = 20

[[facts.columns]]
name = "age"
kind = "number"

[[facts.columns]]
name = "ward"
kind = "category"
longest = 16
most = 6

[[facts.columns]]
name = "sick"
kind = "category"
longest = 3
most = 4
target = true
"""
SITE = '\n[[sites]]\nname = "{name}"\ndata = "{name}.csv"\nrecords = {records}\n'
WARDS = ["Intensive Care", 'the "old" ward', "säuglinge"]


def write(folder: Path, text: str = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, count) in enumerate(SITES.items()):
        draw = np.random.default_rng(number)
        frame = pd.DataFrame(
            {
                "age": draw.normal(52, 12, count).round(1),
                "ward": draw.choice(WARDS, count, p=[0.5, 0.3, 0.2]),
                "sick": draw.choice(["yes", "no"], count, p=[0.3, 0.7]),
            }
        )
        frame.loc[draw.random(count) < 0.1, "age"] = None
        frame.to_csv(folder / f"{name}.csv", index=False)
    sites = "".join(SITE.format(name=name, records=count) for name, count in SITES.items())
    path = folder / "my.toml"
    path.write_text(text + sites, encoding="utf-8")
    return path


def federation_in(folder: Path, text: str = CONFIG) -> Federation:
    made = Federation.from_toml(write(folder, text))
    made.approve(who="Dr. Ito", why="before the study", job="facts")
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, RunResult]:
    made = federation_in(tmp_path_factory.mktemp("facts"), CONFIG.replace("plaintext", "bfv"))
    return made, made.ask(job="facts", run_id="facts-1")


def charges(federation: Federation) -> list[Charge]:
    return [
        entry.payload
        for name, ledger in local_ledgers(federation.setup.output).items()
        if name in SITES
        for entry in ledger.entries()
        if isinstance(entry.payload, Charge)
    ]


def test_what_is_proposed_declares_the_columns_near_the_truth(
    asked: tuple[Federation, RunResult],
) -> None:
    federation, result = asked
    found = tomllib.loads(federation.proposed(result))["data"]
    age, ward = found["features"]
    assert age["name"] == "age"
    assert 5 < age["range"][0] < 30
    assert 74 < age["range"][1] < 100
    assert ward == {"name": "ward", "categories": [text.casefold() for text in WARDS]}
    assert found["target"] == {"name": "sick", "positive": "== yes"}
    assert result.outcome == "finished"
    cost = federation.beside("facts").cost
    assert Decimal("19.9") < cost <= 20
    spent = charges(federation)
    assert len(spent) == 6 * len(SITES)
    assert max(charge.epsilon_after for charge in spent) == cost


def test_its_bundle_verifies_and_every_figure_is_proved(
    asked: tuple[Federation, RunResult],
) -> None:
    _, result = asked
    assert result.bundle is not None
    made = verify_file(result.bundle, Brought())
    assert made.holds
    proved = [claim.subject for claim in made.of(Verdict.PROVED)]
    assert proved.count(ANSWERS) == 1
    assert proved.count(SUM) == 6


def test_the_report_names_the_columns_in_every_language(
    asked: tuple[Federation, RunResult],
) -> None:
    _, result = asked
    assert result.report_json is not None
    report = Report.from_json(result.report_json.read_bytes())
    assert "were asked 3 questions" in report.summary[0]
    assert "“ward”" in report.summary[0]
    assert report.answers is not None
    assert report.answers.answers[0].question["about"] == "range, quantiles and gaps of age"
    page = render_html(report)
    assert "low end is about" in page
    assert "count (ward = intensive care) is about" in page
    with speaking("zh"):
        words = set(left(visible(render_html(report))))
    assert words <= {"before the study", *(text.casefold() for text in WARDS)}


def test_the_command_line_asks_and_writes_a_file_that_trains(tmp_path: Path) -> None:
    path, sections = write(tmp_path), tmp_path / "sections.toml"
    plan = call("check", path)
    assert plan.code == 0, plan.err
    assert "Facts to declare in unknown" in plan.out
    assert call("check", path, "--json").json["facts"]["program"] == "facts"
    untrained = call("run", path)
    assert untrained.code == 2
    assert "privagg ask --for" in untrained.err
    refused = call("ask", "--for", path)
    assert refused.code == 2
    assert "--all-sites --job facts" in refused.err
    assert call("approve", path, "--all-sites", "--job", "facts", "--yes").code == 0
    before = path.read_text()
    made = call("ask", "--for", path, "--apply", "--write", sections)
    assert made.code == 0, made.err
    assert "[[data.features]]" in made.out
    assert path.read_text() == f"{before.rstrip()}\n\n{sections.read_text()}"
    assert "Proposed by unknown-" in sections.read_text()
    assert "ε 19.9" in sections.read_text()
    assert call("check", path).code == 0
    again = call("ask", "--for", path, "--apply")
    assert again.code == 2
    assert "declares [[data.features]] already" in again.err
    assert call("approve", path, "--all-sites", "--yes").code == 0
    trained = call("run", path)
    assert trained.code == 0, trained.err
    ran = call("runs", path)
    assert "facts" in ran.out


@pytest.mark.usefixtures("no_page")
def test_a_proposal_that_leaves_a_file_incomplete_is_kept_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG.replace("longest = 3", "longest = 1"))  # shorter than yes and no
    assert call("approve", path, "--all-sites", "--job", "facts", "--yes").code == 0
    before = path.read_text()
    made = call("ask", "--for", path, "--apply")
    assert made.code == 2
    assert "'data.target' is missing" in made.err
    (kept,) = (tmp_path / "out" / "runs").glob("*/facts.toml")
    assert str(kept) in made.err
    assert "too few records for the noise to tell the classes" in kept.read_text()
    assert path.read_text() == before


@pytest.mark.usefixtures("no_page")
def test_a_declared_target_stays_and_its_classes_are_told(tmp_path: Path) -> None:
    text = CONFIG + '\n[data]\ntarget = { name = "sick", positive = "== yes" }\n'
    federation = federation_in(tmp_path, text)
    sections = federation.proposed(federation.ask(job="facts"))
    assert "target" not in tomllib.loads(sections)["data"]
    assert '# the classes of "sick"' in sections
    assert "#   yes: about" in sections


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("round_number", [2, 5])
def test_an_asking_cut_off_between_its_rounds_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_number: int
) -> None:
    federation = federation_in(tmp_path)
    opened = 0

    def cut(*_: Any, **__: Any) -> None:
        nonlocal opened
        opened += 1
        if opened == round_number:
            raise MemoryError("killed")

    with pytest.raises(MemoryError):
        federation.ask(job="facts", run_id="cut-1", on_round=cut)
    (left_over,) = federation.unfinished()
    assert left_over.begun.job == "facts"
    result = federation.ask(job="facts", resume="cut-1")
    assert result.outcome == "finished"
    assert len(charges(federation)) == 6 * len(SITES)
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds
    assert 'name = "ward"' in federation.proposed(result)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[facts]\nepsilon = 20", "[facts]", "'facts.epsilon' is missing"),
        ('kind = "number"', 'kind = "numbers"', "did you mean 'number'"),
        ('name = "age"\nkind = "number"', 'name = "sick"\nkind = "number"', "one name: sick"),
        ("target = true", "", "say which column is predicted"),
        ("longest = 16", "longest = 400", "64"),
        ("most = 6", 'most = 6\ntarget = true', "only one column is the target"),
        ("longest = 16\nmost = 6", "longest = 64\nmost = 256", "at most 65536"),
        ("[facts]", '[data]\nkind = "dataset"\nshape = [4]\nclasses = 2\n\n[facts]',
         "asks of the columns of tables"),
        ("[facts]", "[ask]\nepsilon = 1\n[[questions]]\nname = 'n'\nkind = 'count'\n[facts]",
         "questions are asked of the columns of tables"),
    ],
)  # fmt: skip
def test_facts_that_cannot_be_asked_are_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigError, match=told):
        Federation.from_toml(write(tmp_path, CONFIG.replace(old, new, 1)))


def test_a_column_that_is_not_there_is_told_before_anything_is_charged(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG.replace('name = "age"', 'name = "weight"'))
    federation = Federation.from_toml(path)
    with pytest.raises(Exception, match="'weight'"):
        federation.approve(who="w", why="y", job="facts")
    answer = call("ask", write(tmp_path / "other"), "--write", tmp_path / "x.toml")
    assert answer.code == 2
    assert "go with --for" in answer.err


def test_a_file_that_sections_cannot_be_added_to_is_refused_before_it_costs(
    tmp_path: Path,
) -> None:
    inline = 'data = { target = { name = "sick", positive = "== yes" } }\n' + CONFIG
    path = write(tmp_path, inline)
    assert call("approve", path, "--all-sites", "--job", "facts", "--yes").code == 0
    refused = call("ask", "--for", path, "--apply")
    assert refused.code == 2
    assert "must be a section of its own" in refused.err
    assert not charges(Federation.from_toml(path))


def test_proposals_are_toml_whatever_a_category_is_called() -> None:
    ends = {"low": 1.0, "high": 2.0}
    texts = ['a"b\\c', "1", "2.5", "1e5", "naïve = [x]", "# no", "> 3"]
    figures = [
        {"what": "count", "group": {"c": text}, "value": 5.0, "raw": 5.0, "records": ends,
         "population": ends}
        for text in texts
    ]  # fmt: skip
    question = {"name": "c", "kind": "category", "target": False}
    answers = {
        "run": "r", "epsilon": "1", "delta": "1e-5", "level": 0.95,
        "answers": [{"question": question, "figures": figures}],
    }  # fmt: skip
    (feature,) = tomllib.loads(proposed(answers, target_declared=True))["data"]["features"]
    assert feature["categories"] == ['a"b\\c', 1, 2.5, 100000.0, "naïve = [x]", "# no", "> 3"]


def test_facts_are_asked_of_a_file_as_its_site_writes_it(tmp_path: Path) -> None:
    """Also with other names of values, whose declared ones nobody knows yet."""
    plain = Federation.from_toml(write(tmp_path / "plain"))
    path = write(tmp_path / "german")
    table = pd.read_csv(path.parent / "north.csv")
    spelt = table.replace({"ward": {"säuglinge": "Säuglingsstation"}, "sick": {"yes": "Ja"}})
    spelt = spelt.rename(columns={"age": "Alter"})
    spelt.to_csv(path.parent / "north.csv", index=False, sep=";", decimal=",", encoding="latin-1")
    file = """file.encoding = "latin-1"
file.delimiter = ";"
file.decimal = ","
file.columns = { age = "Alter" }
file.aliases.ward = { "Säuglingsstation" = "säuglinge" }
file.aliases.sick = { ja = "yes" }
"""
    path.write_text(path.read_text().replace('data = "north.csv"\n', f'data = "north.csv"\n{file}'))
    german = Federation.from_toml(path)
    before, after = (job_of(each.setup, "facts").lines_of("north") for each in (plain, german))
    np.testing.assert_array_equal(after.numbers("age"), before.numbers("age"))
    for column in ("ward", "sick"):
        for one, other in zip(after.texts(column), before.texts(column), strict=True):
            np.testing.assert_array_equal(one, other)
