"""Figures on public records, and none on private ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from privagg.errors import DataError, PrivacyError
from privagg.training.data import TensorRecords
from privagg.training.evaluate import evaluate, predict_logits, roc_auc
from privagg.training.models import build_model

X = np.array([[2.0], [1.0], [-1.0], [-3.0]])
RECORDS = TensorRecords.of(X, [1, 0, 0, 1])
WEIGHTS = np.array([1.0, 0.5])


def test_binary_figures_by_hand() -> None:
    found = evaluate(build_model("logistic", (1,), 2), WEIGHTS, replace(RECORDS, public=True))
    logits = X[:, 0] + 0.5
    expected = np.mean(np.log1p(np.exp(np.where([1, 0, 0, 1], -logits, logits))))
    assert found.count == 4
    assert found.accuracy == 0.5
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert found.auc == 0.5  # 2 beats both negatives, -3 beats none


def test_multiclass_figures() -> None:
    records = TensorRecords.of(np.eye(3), [0, 1, 1], public=True)
    weights = np.concatenate([10 * np.eye(3).reshape(-1), np.zeros(3)])
    found = evaluate(build_model("logistic", (3,), 3), weights, records)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.auc is None


def test_private_records_are_refused() -> None:
    with pytest.raises(PrivacyError, match="declared public"):
        evaluate(build_model("logistic", (1,), 2), WEIGHTS, RECORDS)


def test_no_record_is_named() -> None:
    empty = TensorRecords.of(np.zeros((0, 1)), [], public=True)
    with pytest.raises(DataError, match="no usable record"):
        evaluate(build_model("logistic", (1,), 2), WEIGHTS, empty)


def test_prediction_leaves_the_model_in_training_mode() -> None:
    model = build_model("logistic", (1,), 2).train()
    predict_logits(model, WEIGHTS, RECORDS.x)
    assert model.training


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    )
)
def test_auc_agrees_with_scikit_learn_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float64)
    positive = np.array([label for _, label in pairs])
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_auc_of_one_class_is_none() -> None:
    assert roc_auc(np.zeros(3), np.ones(3, dtype=np.bool_)) is None


def test_auc_of_a_model_that_diverged_is_told() -> None:
    scores = np.array([np.inf, np.inf, 1.0, -np.inf])
    assert roc_auc(scores, np.array([True, False, True, False])) == 0.625
