"""Models that vote, and models that learn from votes: any that fit and predict, found by name.

A kind is a function that makes one, registered in the entry points' group `privagg.teachers`; a
package of one's own adds more. What it makes has `fit(inputs, classes)` and `predict(inputs)`, as
scikit-learn's have, and to be a student `predict_proba`. Its random numbers come from the seed
alone. Votes are bounded whatever it does, so that no kind changes what a record costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import numpy.typing as npt

from privagg.errors import ConfigError, ProgramMissingError
from privagg.programs.questions.columns import Columns, FloatArray
from privagg.training.features import NumericFeature
from privagg.training.table import TableSchema

GROUP = "privagg.teachers"

Classes = npt.NDArray[np.int64]

Teacher = Callable[[int], Any]
"""A seed below 2^32 in, a model that is not fitted out."""


@cache
def teacher(kind: str) -> Teacher:
    """What makes models of a kind.

    Args:
        kind: as its package registers it.

    Raises:
        ProgramMissingError: no installed package registers it, or what it names is gone.
    """
    there = entry_points(group=GROUP)
    found = [each for each in there if each.name == kind]
    if len(found) != 1:
        known = ", ".join(sorted({each.name for each in there}))
        what = "no kind of teacher" if not found else "more than one kind of teacher"
        raise ProgramMissingError(
            f"{what} is called {kind!r}; installed: {known or 'none'}. A package registers its own "
            f"in the entry points' group {GROUP!r}. Nothing was spent"
        )
    try:
        made: Teacher = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ProgramMissingError(
            f"teachers of kind {kind!r} cannot be made here: {error}. privagg's own need "
            "`pip install privagg[train]`. Nothing was spent"
        ) from error
    return made


def logistic(seed: int) -> Any:
    """Logistic regression, one weight for each input and class."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200, random_state=seed)


def forest(seed: int) -> Any:
    """A random forest (Breiman 2001)."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=seed)


def network(seed: int) -> Any:
    """A network of one hidden layer."""
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((64,), solver="lbfgs", alpha=0.1, max_iter=200, random_state=seed)


def inputs_of(records: Columns, data: TableSchema) -> FloatArray:
    """Records as models read them: numbers from -1 to 1 within their public ranges, a 0 or 1 for
    each category; float64 (r, width).

    Args:
        records: of the declared table.
        data: the declaration.
    """
    found = list[FloatArray]()
    for feature in data.features:
        if isinstance(feature, NumericFeature):
            values = records.numbers(feature.name)
            gaps = np.isnan(values)
            there = feature.position(np.where(gaps, feature.range[0], values))
            found.append(np.where(gaps, feature.filled, there)[:, None])
        else:
            codes = records.codes(feature.name)[:, None]
            found.append((codes == np.arange(len(feature.categories))).astype(np.float64))
    return np.concatenate(found, axis=1)


def fitted(kind: str, seed: int, inputs: FloatArray, classes: Classes) -> Any:
    """A model of some records; where all are of one class, what says that class of everything.

    Args:
        kind: of the model.
        seed: below 2^32.
        inputs: float64 (r, width).
        classes: int64 (r,), r at least 1.

    Raises:
        ConfigError: there are no records.
    """
    if len(classes) == 0:
        raise ConfigError("a model needs records to be fitted to, and there are none")
    with _in_silence():
        return (_One() if (classes == classes[0]).all() else teacher(kind)(seed)).fit(
            inputs, classes
        )


def chances(model: Any, inputs: FloatArray, count: int) -> FloatArray:
    """How likely a fitted model finds each class, float64 (r, count).

    Args:
        model: of `fitted`.
        inputs: float64 (r, width).
        count: of all classes, those without a record among them.

    Raises:
        ConfigError: as `require_chances`.
    """
    require_chances(model, f"a {type(model).__name__}")
    found = np.zeros((len(inputs), count))
    found[:, model.classes_] = model.predict_proba(inputs)
    return found


def require_chances(model: Any, who: str) -> None:
    """Refuse a model that says which class, and not how likely each is.

    Args:
        model: fitted or not.
        who: it is, for the message.

    Raises:
        ConfigError: it has no `predict_proba`.
    """
    if not hasattr(model, "predict_proba"):
        raise ConfigError(
            f"{who} cannot say how likely each class is (it has no predict_proba), which shared "
            "votes and students are made of; ask for votes = 'whole' and for another student"
        )


class _One:
    """What says one class of everything."""

    def fit(self, inputs: FloatArray, classes: Classes) -> _One:
        self.classes_ = classes[:1]
        return self

    def predict(self, inputs: FloatArray) -> Classes:
        return np.repeat(self.classes_, len(inputs))

    def predict_proba(self, inputs: FloatArray) -> FloatArray:
        return np.ones((len(inputs), 1))


@contextmanager
def _in_silence() -> Iterator[None]:
    """What a library says of a fit depends on records."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
