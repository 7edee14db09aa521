"""A third party's program, whole: installed, asked, reported, verified; and verified without it."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg import Federation
from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.answered import ANSWERS, SUM
from privagg.errors import ConfigError, ProgramMissingError
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs import registry
from privagg.programs.questions.columns import Columns
from privagg.programs.rehearsal import made_up
from privagg.programs.sums_program import NoisySum, SumsProgram
from privagg.report import Report
from privagg.training.table import TableSchema
from tests.commands import call
from tests.programs.contract import Case, ProgramContract
from tests.run.small import write_small

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "own_program"
ASK = """
[ask]
epsilon = 2
program = "diversity"

[ask.settings]
column = "sick"
"""


def install(package: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A package as an installer leaves it: on the path, with the entry points it registers."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"][registry.GROUP]
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
    patch.syspath_prepend(str(folder))
    patch.syspath_prepend(str(package))


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Undone, the package is not installed any more."""
    with pytest.MonkeyPatch.context() as patch:
        install(PACKAGE, tmp_path_factory.mktemp("site-packages"), patch)
        registry.program.cache_clear()
        yield patch
    registry.program.cache_clear()
    sys.modules.pop("privagg_diversity", None)


SCHEMA = TableSchema.model_validate(
    {
        "features": [{"name": "ward", "categories": ["a", "b", "c"]}],
        "target": {"name": "ill", "positive": 1},
    }
)


def diversity(level: float = 0.9) -> SumsProgram:
    asked = {"data": SCHEMA.model_dump(mode="json"), "level": level, "column": "ward"}
    return registry.program("diversity").of(asked)


@pytest.mark.usefixtures("installed")
class TestDiversity(ProgramContract):
    @pytest.fixture
    def case(self) -> Case:
        frame = pd.DataFrame({"ward": ["a", "b", None, "x", " C "], "ill": [1, 0, None, "?", 1]})
        return Case(
            program=diversity,
            openings=diversity().openings(Decimal(0)),
            records=frame,
            take=lambda table, places: Columns.read(table.iloc[places], SCHEMA),
        )


@pytest.mark.usefixtures("installed")
def test_its_figures_are_those_of_the_formulas_and_their_intervals_hold() -> None:
    """At 90 %: of 400 tries fewer than 320 hits have a probability below 10^-8."""
    program, shares = diversity(), np.array([0.6, 0.3, 0.1])
    truth = {"entropy": -sum(p * log(p) for p in shares), "Gini-Simpson": 1 - sum(shares**2)}
    counts = np.round(2000 * shares).astype(np.int64)
    facts = {
        "sites": [SiteTerms(name="n", records=2000)], "delta": "1e-6", "colluders": 0,
        "custody": "authority", "scheme": "bfv", "recipe": program.recipe,
        "openings": program.openings(Decimal(20)),
    }  # fmt: skip
    plan, draw = SumsPlan.model_validate(facts), np.random.default_rng(5)
    exact = counts * plan.openings[0].sensitivity_grid
    stddev = NoisySum.of(plan, 1, exact, "n").stddev
    held = dict.fromkeys(truth, 0)
    for _ in range(400):
        noise = np.rint(draw.normal(0, stddev, 3)).astype(np.int64)
        (answer,) = program.answers([NoisySum.of(plan, 1, exact + noise, "n")])
        for figure in answer.figures[:2]:
            held[figure.what] += figure.records.low <= truth[figure.what] <= figure.records.high
            assert figure.population.low <= figure.records.low
    assert min(held.values()) >= 320, held
    assert max(held.values()) <= 395, held


def ask(folder: Path, settings: str = ASK) -> Path:
    path = write_small(folder, scheme="bfv")
    text = path.read_text().replace("budget_epsilon = inf", "budget_epsilon = 60")
    path.write_text(text + settings)
    return path


@pytest.mark.usefixtures("no_page")
def test_it_is_asked_reported_and_verified_and_without_it_nothing_is_decided(
    tmp_path: Path, installed: pytest.MonkeyPatch
) -> None:
    path = ask(tmp_path)
    assert "level 0.95" in (told := call("check", path).out)
    assert "sick" in told
    assert call("approve", path, "--all-sites", "--job", "questions", "--yes").code == 0
    answer = call("ask", path, "--json")
    assert answer.code == 0, answer.err
    bundle = Path(answer.json["bundle"])
    report = Report.from_json(Path(answer.json["report_json"]).read_bytes())
    assert "diversity" in report.summary[0]
    figures = answer.json["answers"]["answers"][0]["figures"]
    assert [figure["what"] for figure in figures] == ["entropy", "Gini-Simpson", "count", "count"]
    made = verify_file(bundle, Brought())
    assert made.holds
    assert {claim.subject for claim in made.of(Verdict.PROVED)} >= {ANSWERS, SUM}

    installed.undo()
    registry.program.cache_clear()
    sys.modules.pop("privagg_diversity", None)
    without = verify_file(bundle, Brought())
    assert without.holds, without.of(Verdict.CONTRADICTED)
    (claim,) = [claim for claim in without.claims if claim.subject == ANSWERS]
    assert claim.verdict is Verdict.UNDECIDED
    assert "no program is called 'diversity'" in claim.settle
    assert SUM in {claim.subject for claim in without.of(Verdict.PROVED)}
    others = [
        {(c.subject, c.verdict) for c in each.claims if "answers" not in c.subject}
        for each in (made, without)
    ]
    assert others[0] == others[1]
    assert call("verify", bundle, "--require", f"proved:{claim.name}").code == 3
    assert call("check", path).code == 2


@pytest.mark.usefixtures("installed", "no_page")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('column = "sick"', 'column = "age"', "'age', which has no declared categories"),
        ('column = "sick"', 'colum = "sick"', "of 'diversity': column: is missing"),
        ('column = "sick"', 'column = "sick"\nlevel = 0.5', "may not say"),
        ('program = "diversity"', 'program = "diverse"', "no program is called 'diverse'"),
        ('program = "diversity"', 'program = "facts"', "write [facts], and remove ask.program"),
    ],
)
def test_what_it_cannot_be_asked_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    refused = call("check", ask(tmp_path, ASK.replace(old, new)))
    assert refused.code == 2
    assert told in refused.err


def test_a_broken_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: Any
) -> None:
    installed.setattr(sys, "path", [each for each in sys.path if each != str(PACKAGE)])
    registry.program.cache_clear()
    sys.modules.pop("privagg_diversity", None)
    with pytest.raises(ProgramMissingError, match="registered but broken"):
        registry.program("diversity")
    with pytest.raises(ConfigError, match="registered but broken"):
        diversity()


def test_the_example_is_the_package_that_is_tested() -> None:
    """Its configuration names what `pyproject.toml` registers, and no other file is in the way."""
    config = tomllib.loads((PACKAGE / "ask" / "diversity.toml").read_text())
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    (name,) = project["project"]["entry-points"][registry.GROUP]
    assert config["ask"]["program"] == name
    (module,) = project["tool"]["setuptools"]["py-modules"]
    lines = (PACKAGE / f"{module}.py").read_text().splitlines()
    assert len(lines) <= 100
    assert json.dumps(config["ask"]["settings"]) == '{"column": "malignant"}'


@pytest.mark.parametrize("broken", ["raises", "floats", "too wide"])
def test_one_that_fails_on_every_record_is_refused_by_name_before_any_charge(
    tmp_path: Path, installed: pytest.MonkeyPatch, broken: str
) -> None:
    path, program = ask(tmp_path), registry.program("diversity")
    assert call("approve", path, "--all-sites", "--job", "questions", "--yes").code == 0
    honest = program.integers

    def integers(self: Any, number: int, state: Any, records: Any) -> Any:
        rows = honest(self, number, state, records)
        if broken == "raises":
            raise KeyError("no such column")
        return rows.astype(float) if broken == "floats" else np.concatenate([rows, rows], axis=1)

    installed.setattr(program, "integers", integers)
    approve = ("approve", path, "--all-sites", "--job", "questions", "--yes")
    for command in (("check", path), approve, ("ask", path)):
        refused = call(*command)
        assert refused.code not in (0, None)
        assert "'diversity' fails on made-up records" in refused.err
        assert "round 1 of 1" in refused.err
    with pytest.raises(ConfigError, match="'diversity' fails"):  # as a site's own process opens
        Federation.from_toml(path).asking.rehearse()
    for ledger in local_ledgers(path.parent / "out").values():
        assert not any(isinstance(entry.payload, Charge) for entry in ledger.entries())


def test_made_up_records_reach_every_category_and_both_ends_of_a_range() -> None:
    schema = TableSchema.model_validate(
        {**SCHEMA.model_dump(), "features": [
            {"name": "ward", "categories": ["a", "b", "c"]}, {"name": "age", "range": [18, 100]},
        ]}
    )  # fmt: skip
    records = made_up(schema)
    assert set(records.codes("ward")) == {0, 1, 2}
    assert set(records.codes("ill")) == {0, 1}
    assert {18.0, 100.0} <= set(records.numbers("age"))
