"""scikit-learn's door: a whole run behind `fit`, charged once, and refused where it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from privagg.audit import Brought, verify_file
from privagg.errors import BudgetExceededError, ConfigError, DataError
from privagg.federation.estimators import PrivateScorecard
from tests.programs.test_scorecard import table

DECLARED: dict[str, Any] = {
    "ranges": {"age": (20, 80), "paid": (0, 10_000)},
    "categories": {"delay": [-1, 0, 1, 2], "town": ["a", "b"]},
}
SITES = {"north": table(1500, 1), "south": table(1000, 2)}
NEW = table(500, 3)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> PrivateScorecard:
    folder = tmp_path_factory.mktemp("fit") / "out"
    made = PrivateScorecard(**DECLARED, epsilon=2, delta=1e-4, folder=folder, budget=2.5)
    return made.fit(SITES, "late")


def test_a_fit_is_a_whole_run_that_anybody_verifies(fitted: PrivateScorecard) -> None:
    assert roc_auc_score(NEW["late"], fitted.predict_proba(NEW)[:, 1]) > 0.7
    assert fitted.score(NEW, NEW["late"]) > 0.6
    (bundle,) = Path(fitted.folder).glob("runs/*/bundle.privagg.zip")
    assert verify_file(bundle, Brought()).holds
    answers = json.loads(Path(fitted.result_.answers or "").read_bytes())
    assert answers["model"]["plan_digest"] == fitted.card_.plan_digest
    assert float(answers["epsilon"]) <= 2
    assert not list(Path(fitted.folder).glob(".fit-*"))  # the tables were there meanwhile


def test_a_second_fit_beyond_the_budget_is_refused_and_costs_nothing(
    fitted: PrivateScorecard,
) -> None:
    before = fitted.card_
    with pytest.raises(BudgetExceededError):
        fitted.fit(SITES, "late")
    assert fitted.card_ is before


def test_columns_go_by_their_names(fitted: PrivateScorecard) -> None:
    turned = NEW[NEW.columns[::-1]]
    np.testing.assert_array_equal(fitted.predict_proba(turned), fitted.predict_proba(NEW))
    with pytest.raises(DataError, match="'town' of the card are not there"):
        fitted.predict(NEW.drop(columns="town"))


def test_parameters_clone_and_refusals(tmp_path: Path) -> None:
    made = PrivateScorecard(**DECLARED, folder=tmp_path, settings={"bins": 4})
    other = clone(made)
    assert other.get_params() == made.get_params()
    assert other.set_params(epsilon=3).epsilon == 3
    with pytest.raises(NotFittedError):
        made.predict(NEW)
    with pytest.raises(ConfigError, match="declare the columns from public knowledge"):
        PrivateScorecard(folder=tmp_path).fit(SITES, "late")
    with pytest.raises(DataError, match="'town' are not in the table of 'south'"):
        made.fit({**SITES, "south": SITES["south"].drop(columns="town")}, "late")
    with pytest.raises(ConfigError, match="name of a column"):
        made.fit(SITES, NEW["late"])
    with pytest.raises(ConfigError, match="strange"):
        clone(made).set_params(settings={"strange": 1}).fit(SITES, "late")
    assert not list(tmp_path.glob("runs/*"))
