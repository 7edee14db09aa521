"""Votes of shards, whole: the example's program, asked, reported and verified."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from privagg.audit import Brought, Methods, Verdict, Work, verify_file
from privagg.audit.answered import ANSWERS, SUM
from privagg.programs import registry
from privagg.programs.questions.columns import Columns
from privagg.programs.sums_program import NoisySum
from privagg.report import Report
from privagg.training.datasets import breast_cancer_tables
from privagg.training.table import TableSchema
from tests.commands import call
from tests.programs.contract import Case, ShardsContract
from tests.run.test_own_program import ask, install

PACKAGE = Path(__file__).resolve().parents[2] / "examples" / "votes"
SCHEMA = TableSchema.model_validate(
    {
        "features": [{"name": "x", "range": [-1, 1]}, {"name": "z", "range": [0, 9]}],
        "target": {"name": "grade", "classes": ["a", "b", "c"]},
    }
)


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Undone, the package is not installed any more."""
    with pytest.MonkeyPatch.context() as patch:
        install(PACKAGE, tmp_path_factory.mktemp("site-packages"), patch)
        registry.program.cache_clear()
        yield patch
    registry.program.cache_clear()
    sys.modules.pop("privagg_votes", None)


def votes(**changes: Any) -> Any:
    asked = {
        "data": SCHEMA.model_dump(mode="json"), "level": 0.9, "columns": ["x", "z"], "shards": 3,
        "queries": [[-0.9, 1], [0.0, 4.5], [0.8, 8]],
    } | changes  # fmt: skip
    return registry.program("votes").of(asked)


def records() -> pd.DataFrame:
    """Among them gaps, unknown classes, values beyond the range, and neighbours by one bit."""
    x = np.array([-0.9, -0.5, 0.1, 0.7, np.nan, 5.0])
    frame = pd.DataFrame(
        {"x": x, "z": [0.0, 3.0, 4.5, 9.0, -0.0, 1e300], "grade": ["a", "b", "c", "c", None, "?"]}
    )
    return pd.concat([frame, frame.assign(x=np.nextafter(x, 0))], ignore_index=True)


@pytest.mark.usefixtures("installed")
class TestVotes(ShardsContract):
    @pytest.fixture
    def case(self) -> Case:
        return Case(
            program=votes,
            openings=votes().openings(Decimal(0)),
            records=records(),
            take=lambda table, places: Columns.read(table.iloc[places], SCHEMA),
        )


@pytest.mark.usefixtures("installed")
def test_a_shard_votes_once_a_query_for_what_its_own_model_says() -> None:
    """Against scikit-learn's logistic regression; a class that is not there gets no vote."""
    draw, program = np.random.default_rng(3), votes()
    x, z = draw.uniform(-1, 1, 60), draw.uniform(0, 9, 60)
    labels = np.where(x + z / 9 + draw.normal(0, 0.3, 60) > 0.5, "b", "a")
    shard = Columns.read(pd.DataFrame({"x": x, "z": z, "grade": labels}), SCHEMA)
    cast = program.votes(1, np.zeros(0), shard, None).reshape(3, 3) // 2**10
    np.testing.assert_array_equal(cast.sum(axis=1), 1)
    inputs = np.stack([x, 2 * z / 9 - 1, np.ones(60)], axis=1)
    model = LogisticRegression(C=1 / 0.01, fit_intercept=False, tol=1e-10).fit(inputs, labels)
    expected = model.predict(program.inputs)
    assert [program.classes[c] for c in cast.argmax(axis=1)] == expected.tolist()
    alone = program.votes(1, np.zeros(0), shard[np.flatnonzero(labels == "a").tolist()], None)
    np.testing.assert_array_equal(alone.reshape(3, 3) // 2**10, [[1, 0, 0]] * 3)
    assert not program.votes(1, np.zeros(0), shard[[]], None).any()


@pytest.mark.usefixtures("installed")
def test_the_shares_intervals_hold_what_the_shards_said() -> None:
    """At 90 %: of 400 tries fewer than 320 hits have a probability below 10^-8."""
    program, true = votes(), np.array([40, 30, 20, 90, 0, 0, 1, 44, 45])
    draw, hits = np.random.default_rng(4), np.zeros(3)
    for _ in range(400):
        total = (true + draw.normal(0, 8, 9)) * 2**10
        found = NoisySum(total.astype(np.int64), 8 * 2**10, tuple("abcdefghijklmnopqrstuvwxyz1234"))
        for query, answer in enumerate(program.answers([found])):
            first = next(f for f in answer.figures if f.group["grade"] == "b").records
            hits[query] += first.low <= true[3 * query + 1] / 90 <= first.high
            values = [figure.raw for figure in answer.figures]
            assert values == sorted(values, reverse=True)
    assert hits.min() >= 320, hits


ASK = """
[ask]
epsilon = 2
program = "votes"

[ask.settings]
columns = ["age"]
shards = 5
queries = [[30], [70]]
"""


@pytest.mark.usefixtures("no_page")
def test_it_is_asked_reported_and_verified(tmp_path: Path, installed: pytest.MonkeyPatch) -> None:
    path = ask(tmp_path, ASK)
    assert call("approve", path, "--all-sites", "--job", "questions", "--yes").code == 0
    answer = call("ask", path, "--json")
    assert answer.code == 0, answer.err
    bundle = Path(answer.json["bundle"])
    report = Report.from_json(Path(answer.json["report_json"]).read_bytes())
    assert report.plan["openings"][0]["shards"] == 5
    assert [len(each["figures"]) for each in answer.json["answers"]["answers"]] == [2, 2]
    assert "shards' bounded votes" in " ".join(report.summary)
    made = verify_file(bundle, Brought())
    assert made.holds, made.of(Verdict.CONTRADICTED)
    assert {claim.subject for claim in made.of(Verdict.PROVED)} >= {ANSWERS, SUM}
    installed.setattr(registry.program("votes"), "work", lambda self: 20_000_000)
    short = verify_file(bundle, Brought())
    assert short.holds, short.of(Verdict.CONTRADICTED)
    (claim,) = [claim for claim in short.claims if claim.subject == ANSWERS]
    assert claim.verdict is Verdict.UNDECIDED
    assert "`privagg verify --work 600` computes more" in claim.settle
    longer = verify_file(bundle, Brought(methods=Methods(work=Work(600))))
    assert ANSWERS in {claim.subject for claim in longer.of(Verdict.PROVED)}


@pytest.mark.usefixtures("installed", "no_page")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("shards = 5", "shards = 0", "shards: should be at least 1 (got 0)"),
        ("shards = 5", "shards = 5.5", "shards"),
        ("[[30], [70]]", "[[30], [70, 1]]", "every query has 1 numbers, one for each of age"),
        ("[[30], [70]]", "[[nan]]", "finite"),
        ("[[30], [70]]", "[]", "queries"),
        ('["age"]', '["sick"]', "'sick', which has no declared range"),
    ],
)
def test_what_it_cannot_be_asked_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    refused = call("check", ask(tmp_path, ASK.replace(old, new)))
    assert refused.code == 2
    assert told in refused.err


def test_the_example_is_the_package_that_is_tested() -> None:
    """Its configuration names what is registered, and its cases are those of the public table."""
    config = tomllib.loads((PACKAGE / "ask" / "votes.toml").read_text())
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    assert [*project["project"]["entry-points"][registry.GROUP]] == [config["ask"]["program"]]
    settings = config["ask"]["settings"]
    public = breast_cancer_tables()[1][settings["columns"]][:16]
    np.testing.assert_allclose(settings["queries"], public, rtol=1e-5)
    assert len((PACKAGE / "privagg_votes.py").read_text().splitlines()) <= 150
