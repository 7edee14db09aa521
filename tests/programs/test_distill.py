"""Distillation by votes: bounds under any teacher, a site's own kind, students, what is refused."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from privagg.audit import Brought, Verdict, verify_file
from privagg.audit.answered import ANSWERS, SUM
from privagg.errors import ConfigError, ProgramMissingError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.distill import Distill, teachers
from privagg.programs.distill.labels import Labels
from privagg.programs.distill.program import VOTE
from privagg.programs.questions.columns import Columns
from privagg.programs.shards import part_of
from privagg.programs.sums_program import NoisySum
from privagg.training.table import TableSchema
from tests.commands import call
from tests.programs.contract import Case, ShardsContract
from tests.run.test_own_program import ask

SCHEMA = TableSchema.model_validate(
    {
        "features": [
            {"name": "x", "range": [-1, 1]},
            {"name": "ward", "categories": ["north", "south"]},
        ],
        "target": {"name": "grade", "classes": ["a", "b", "c"]},
    }
)
QUERIES = [[-0.9, "north"], [0.0, "south"], ["", " South"], [0.8, ""]]


def distill(**changes: Any) -> Distill:
    settings = {"queries": QUERIES, "shards": 3, **changes}
    return Distill.of({"data": SCHEMA.model_dump(mode="json"), **settings})


def records() -> pd.DataFrame:
    """Among them gaps, unknown classes and categories, and neighbours by one bit."""
    x = np.array([-0.9, -0.5, 0.1, 0.7, np.nan, 5.0])
    wards = ["north", "south", "south", "north", "west", None]
    frame = pd.DataFrame({"x": x, "ward": wards, "grade": ["a", "b", "c", "c", None, "?"]})
    return pd.concat([frame, frame.assign(x=np.nextafter(x, 0))], ignore_index=True)


def shard(count: int, seed: int = 3) -> Columns:
    draw = np.random.default_rng(seed)
    x, ward = draw.uniform(-1, 1, count), draw.choice(["north", "south"], count)
    sum_ = x + (ward == "south") * 0.5 + draw.normal(0, 0.3, count)
    grade = np.array(["a", "b", "c"])[np.digitize(sum_, [-0.3, 0.6])]
    return Columns.read(pd.DataFrame({"x": x, "ward": ward, "grade": grade}), SCHEMA)


class TestDistill(ShardsContract):
    @pytest.fixture
    def case(self) -> Case:
        return Case(
            program=distill,
            openings=distill().openings(Decimal(0)),
            records=records(),
            take=lambda table, places: Columns.read(table.iloc[places], SCHEMA),
        )


def test_votes_that_are_shared_out_are_bounded_alike() -> None:
    program, some = distill(votes="shared", teachers="forest"), shard(80)
    (terms,) = program.openings(Decimal(1))
    votes = program.votes(1, np.zeros(0), some, DeterministicRandomness(0).stream("s"))
    assert votes.min() >= 0
    assert 2 * sum(int(z) ** 2 for z in votes) <= terms.sensitivity_grid**2
    assert ((votes > 0) & (votes < VOTE)).any()
    np.testing.assert_allclose(votes.reshape(4, 3).sum(axis=1), VOTE, atol=4)


@pytest.mark.parametrize("kind", ["logistic", "forest", "network"])
def test_a_shard_votes_once_a_query_for_what_its_own_model_says(kind: str) -> None:
    program, stream = distill(teachers={"n": kind}).at("n"), DeterministicRandomness(0)
    some = shard(80)
    votes = program.votes(1, np.zeros(0), some, stream.stream("s")).reshape(4, 3)
    np.testing.assert_array_equal(np.sort(votes, axis=1), [[0, 0, VOTE]] * 4)
    assert votes[0].argmax() == 0
    assert votes[3].argmax() == 2
    seed = int(stream.stream("s").uint64(1)[0] >> 32)
    inputs = np.stack(
        [some.numbers("x"), *(some.codes("ward") == c for c in (0, 1))], axis=1
    ).astype(float)
    model = {
        "logistic": LogisticRegression(max_iter=200),
        "forest": RandomForestClassifier(random_state=seed),
    }.get(kind)
    if model is not None:
        asked = [[-0.9, 1, 0], [0, 0, 1], [0, 0, 1], [0.8, 0, 0]]
        expected = model.fit(inputs, some.codes("grade")).predict(asked)
        np.testing.assert_array_equal(votes.argmax(axis=1), expected)
    alone = program.votes(1, np.zeros(0), some[np.flatnonzero(some.codes("grade") == 1).tolist()],
                          stream.stream("s"))  # fmt: skip
    np.testing.assert_array_equal(alone.reshape(4, 3), [[0, VOTE, 0]] * 4)
    assert not program.votes(1, np.zeros(0), some[[]], stream.stream("s")).any()


class _Hostile:
    """Whatever it says, its shard's part is within the bound: it cannot vote twice."""

    said: Any = None

    def __init__(self, seed: int) -> None:
        pass

    def fit(self, inputs: Any, classes: Any) -> _Hostile:
        return self

    def predict(self, inputs: Any) -> Any:
        return self.said


@pytest.mark.parametrize("said", [[0, 1, 2, 99], [0.5] * 4, ["a"] * 4, [-1] * 4, [True], None])
def test_no_teacher_moves_more_than_its_shards_votes(
    said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Hostile, "said", said)
    monkeypatch.setattr("privagg.programs.distill.teachers.teacher", lambda kind: _Hostile)
    program = distill()
    (terms,) = program.openings(Decimal(1))
    stream = DeterministicRandomness(0).stream("s")
    part = part_of(program, 1, np.zeros(0), shard(20), stream, terms)
    assert part.shape == (12,)
    assert part.min() >= 0
    assert 2 * sum(int(z) ** 2 for z in part) <= terms.sensitivity_grid**2
    assert terms.sensitivity_grid**2 < 2 * 4 * VOTE**2 + 2 * terms.sensitivity_grid


class _InPlace:
    """As a scaler with `copy=False` does, it writes to what it is handed."""

    def __init__(self, seed: int) -> None:
        pass

    def fit(self, inputs: Any, classes: Any) -> _InPlace:
        self.middle = inputs.mean(axis=0)
        return self

    def predict(self, inputs: Any) -> Any:
        inputs -= self.middle
        return (inputs[:, 0] > 0).astype(int)


def test_what_one_teacher_writes_to_the_queries_no_other_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else one record, by its own teacher, would change the votes of every later shard."""
    monkeypatch.setattr("privagg.programs.distill.program.teacher", lambda kind: _InPlace)
    monkeypatch.setattr("privagg.programs.distill.teachers.teacher", lambda kind: _InPlace)
    program, stream = distill(), DeterministicRandomness(0).stream("s")
    alone = program.votes(1, np.zeros(0), shard(9, 8), stream)
    for number in range(20):
        program.votes(1, np.zeros(0), shard(3, number), stream)
    np.testing.assert_array_equal(program.votes(1, np.zeros(0), shard(9, 8), stream), alone)
    with pytest.raises(ConfigError, match="'own' cannot say how likely each class is"):
        distill(votes="shared", teachers="own").at("n")
    with pytest.raises(ConfigError, match="a _InPlace cannot say"):
        teachers.chances(_InPlace(0), np.zeros((1, 3)), 3)


def test_a_kind_of_ones_own_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "own"

        def load(self) -> Any:
            return teachers.forest

    def found(group: str) -> list[Any]:
        assert group == "privagg.teachers"
        return [Point()]

    monkeypatch.setattr(teachers, "entry_points", found)
    assert teachers.teacher.__wrapped__("own") is teachers.forest
    with pytest.raises(ProgramMissingError, match="'forests'; installed: own"):
        teachers.teacher.__wrapped__("forests")


def test_students_of_any_kind_learn_from_labels_alone(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    asked = [[float(x), str(draw.choice(["north", "south"]))] for x in draw.uniform(-1, 1, 60)]
    program = distill(queries=asked, shards=2, student="forest")
    stream, total = DeterministicRandomness(0), np.zeros(180, dtype=np.int64)
    for number in range(6):
        some = shard(60, number)
        total += program.votes(1, np.zeros(0), some, stream.stream("s", number))
    noise = draw.normal(0, VOTE / 2, 180).astype(np.int64)
    found = program.model([NoisySum(total + noise, VOTE / 2, ("n", "e", "s"))])
    path, table = tmp_path / "answers.json", tmp_path / "new.csv"
    path.write_text(json.dumps({"answers": [], "model": {**found, "run": "r"}}))
    held = shard(300, 99)
    wards = np.array(["north", "south"])[held.codes("ward")]
    pd.DataFrame({"x": held.numbers("x"), "ward": wards}).to_csv(table, index=False)
    for more in ((), ("--student", "network")):
        told = call("predict", path, table, *more)
        assert told.code == 0, told.err
        names, *rows = csv.reader(io.StringIO(told.out))
        assert names == ["chance_a", "chance_b", "chance_c"]
        said = np.array(rows, float)
        np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-4)
        assert (said.argmax(axis=1) == held.codes("grade")).mean() > 0.65
    refused = call("predict", path, table, "--student", "oak")
    assert refused.code == 2
    assert "no kind of teacher is called 'oak'" in refused.err
    for strange in ({**found, "votes": []}, {**found, "queries": [["x"]] * 60}, [], None):
        with pytest.raises(ConfigError):
            Labels.read(strange)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"queries": [[0.1]]}, "query 1 has 1 cells, and the declared columns are 2: x, ward"),
        ({"queries": [*QUERIES, ["x", "north"]]}, "query 5: 'x' is no number for 'x'"),
        ({"queries": [[1, "nroth"]]}, "'nroth' is no declared category of 'ward'"),
        ({"queries": []}, "at least 1"),
        ({"shards": 0}, "greater than or equal to 1"),
        ({"teacher": "forest"}, "Extra inputs"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=says):
        distill(**changes)


def test_amounts_have_no_classes_to_vote_for() -> None:
    data = {**SCHEMA.model_dump(mode="json"), "target": {"name": "cost", "range": [0, 9]}}
    with pytest.raises((ConfigError, ValidationError), match=r"has none|target"):
        Distill.of({"data": data, "queries": QUERIES, "shards": 2})


ASK = """
[ask]
epsilon = 4
program = "distill"

[ask.settings]
queries = [[30, 20], [70, 41], ["", 22.5]]
shards = 4
teachers = { north = "forest", south = "logistic" }
student = "network"
"""


@pytest.mark.usefixtures("no_page")
def test_it_is_asked_reported_verified_and_predicted_by(tmp_path: Path) -> None:
    path = ask(tmp_path, ASK)
    assert call("approve", path, "--all-sites", "--job", "questions", "--yes").code == 0
    answer = call("ask", path, "--json")
    assert answer.code == 0, answer.err
    (found,) = answer.json["answers"]["answers"]
    assert [each["what"] for each in found["figures"]] == ["share of the votes"] * 2
    made = verify_file(Path(answer.json["bundle"]), Brought())
    assert made.holds, made.of(Verdict.CONTRADICTED)
    assert {claim.subject for claim in made.of(Verdict.PROVED)} >= {ANSWERS, SUM}
    told = call("predict", answer.json["answers_json"], tmp_path / "public.csv", "--student",
                "logistic")  # fmt: skip
    assert told.code == 0, told.err
    assert len(told.out.splitlines()) == 1 + len(pd.read_csv(tmp_path / "public.csv"))


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("south = ", "souht = ", "name one kind for each"),
        ('"logistic"', '"linear"', "no kind of teacher is called 'linear'; installed: forest"),
    ],
)
def test_sites_teachers_are_refused_before_a_charge(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    refused = call("check", ask(tmp_path, ASK.replace(old, new)))
    assert refused.code == 2
    assert told in refused.err
