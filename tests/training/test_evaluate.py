"""Figures on public records, and none on private ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import recall_score, roc_auc_score

from privagg.errors import DataError, PrivacyError
from privagg.training.data import TensorRecords
from privagg.training.evaluate import evaluate, predict_logits
from privagg.training.measures import MOST_CLASSES, ClassFigure, by_class, flat, overall, roc_auc
from privagg.training.models import build_model

X = np.array([[2.0], [1.0], [-1.0], [-3.0]])
RECORDS = TensorRecords.of(X, [1, 0, 0, 1])
WEIGHTS = np.array([1.0, 0.5])


def test_binary_figures_by_hand() -> None:
    found = evaluate(build_model("logistic", (1,), 2), WEIGHTS, replace(RECORDS, public=True))
    logits = X[:, 0] + 0.5
    expected = np.mean(np.log1p(np.exp(np.where([1, 0, 0, 1], -logits, logits))))
    assert found.count == 4
    assert found.figures["accuracy"] == 0.5
    assert found.figures["loss"] == pytest.approx(expected, rel=1e-6)
    assert found.figures["auc"] == 0.5  # 2 beats both negatives, -3 beats none
    assert found.figures["base_rate"] == 0.5
    assert set(found.figures) == {"accuracy", "base_rate", "loss", "auc"}


def test_multiclass_figures() -> None:
    records = TensorRecords.of(np.eye(3), [0, 1, 1], public=True)
    weights = np.concatenate([10 * np.eye(3).reshape(-1), np.zeros(3)])
    found = evaluate(build_model("logistic", (3,), 3), weights, records)
    assert found.figures["accuracy"] == pytest.approx(2 / 3)
    assert "auc" not in found.figures
    assert found.figures["base_rate"] == pytest.approx(2 / 3)
    # none of class 2
    assert by_class(found.all_figures) == (ClassFigure(0, 1, 1.0), ClassFigure(1, 2, 0.5))
    assert overall(found.all_figures) == found.figures


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 2**31))
def test_figures_of_classes_agree_with_scikit_learn(labels: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(len(labels), 4))
    weights = np.concatenate([np.eye(4).reshape(-1), np.zeros(4)])
    records = TensorRecords.of(x, labels, public=True)
    found = evaluate(build_model("logistic", (4,), 4), weights, records)
    chosen = x.astype(np.float32).argmax(axis=1)
    present = sorted(set(labels))
    recalls = recall_score(labels, chosen, labels=present, average=None, zero_division=0.0)
    assert [each.recall for each in by_class(found.all_figures)] == pytest.approx(list(recalls))
    guess = DummyClassifier(strategy="most_frequent").fit(x, labels)
    assert found.figures["base_rate"] == pytest.approx(guess.score(x, labels))


def test_more_classes_than_are_recorded_leave_the_whole_alone() -> None:
    classes = tuple(ClassFigure(n, 1, 1.0) for n in range(MOST_CLASSES + 1))
    assert flat(classes) == {}
    assert len(flat(classes[:-1])) == 2 * MOST_CLASSES
    assert by_class({"class_3_recall": 0.5, "accuracy": 0.5}) == ()  # a record with half of it


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
