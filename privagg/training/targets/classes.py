"""Classes: yes or no by a public rule, or one of several public values."""

from __future__ import annotations

import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from pydantic import model_validator as after_model

from privagg.training.features import (
    BoolArray,
    Category,
    FloatArray,
    as_number,
    equal_categories,
    numeric_values,
    require_distinct,
)
from privagg.training.measures import BASE_RATE, ClassFigure, flat, roc_auc
from privagg.training.targets.base import Encoded, Remark, Spent, TargetKind, by_share
from privagg.training.targets.weights import CountedWeights, Weights, counted

if TYPE_CHECKING:
    import pandas as pd
    import torch

ClassNumbers = npt.NDArray[np.int64]

_RULE = re.compile(r"^\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Grouped(TargetKind):
    """Classes, numbered from 0, with or without an order.

    Args:
        class_weights: what a record of each class counts in the loss, in the order of the class
            numbers (a `positive` rule: no, yes), or the charged count that they follow from. A
            record's gradient is clipped after it was weighted. All count alike by default.
    """

    class_weights: Weights = None

    @model_serializer(mode="wrap")
    def _equal_weights_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans pin what a configuration says: weights only where there are some."""
        facts: dict[str, Any] = dump(self)
        weighted = self.class_weights is not None
        return facts if weighted else {k: facts[k] for k in facts if k != "class_weights"}

    @after_model(mode="after")
    def _a_weight_for_each(self) -> Self:
        weights = self.class_weights
        if isinstance(weights, tuple) and len(weights) != self.class_count:
            raise ValueError(
                f"class_weights of {self.name!r} has {len(weights)} numbers for "
                f"{self.class_count} classes; give one for each, in the order of the classes"
            )
        return self

    @property
    @abstractmethod
    def class_count(self) -> int:
        """Number of classes."""

    @property
    def settled_by(self) -> str | None:
        """See `TargetKind.settled_by`: of the answers that the class weights follow from."""
        weights = self.class_weights
        return weights.sha256 if isinstance(weights, CountedWeights) else None

    def spent(self, base: Path) -> Spent | None:
        """See `TargetKind.spent`: for counts that the class weights follow from."""
        if not isinstance(self.class_weights, CountedWeights):
            return None
        return counted(self.class_weights, base, self.name, self.categories(self.name))[1]

    def settled(self, base: Path) -> Self:
        """See `TargetKind.settled`: the class weights as numbers."""
        if not isinstance(self.class_weights, CountedWeights):
            return self
        weights, _ = counted(self.class_weights, base, self.name, self.categories(self.name))
        return self.model_copy(update={"class_weights": weights})

    def weighted(self, losses: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Losses, or their slopes, times their classes' weights.

        Args:
            losses: `(B,)`, or slopes `(B, k)`.
            encoded: class numbers, int64 `(B,)`.
        """
        weights = self.class_weights
        assert not isinstance(weights, CountedWeights)  # settled before anything is learned
        if weights is None:
            return losses
        rows = losses.new_tensor(weights)[encoded]
        return losses * rows.view(-1, *(1,) * (losses.dim() - 1))

    @property
    def prediction_names(self) -> tuple[str, ...]:
        """See `TargetKind.prediction_names`: the chance of each class."""
        return tuple(
            f"chance_{name}"
            for name in self.categories(self.name) or map(str, range(self.class_count))
        )

    def examples(self, draw: np.random.Generator, count: int) -> Encoded:
        """See `TargetKind.examples`: every class as likely."""
        return draw.integers(0, self.class_count, count)

    def require_telling(self, encoded: Encoded) -> None:
        """See `TargetKind.require_telling`: there are two classes at least."""
        if len(np.unique(encoded)) < 2:
            raise ValueError(
                f"of the public table's {len(encoded)} usable records none has another class than "
                "the rest, so that any model would seem right; check the rule of the target "
                "(`positive`, `classes`, `first_label`), or use a table with several classes"
            )


class ClassKind(Grouped):
    """Classes without an order: one output for two, else one a class."""

    @property
    def outputs(self) -> int:
        """See `TargetKind.outputs`: one logit for two classes, else a logit a class."""
        return 1 if self.class_count == 2 else self.class_count

    def per_record_loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """See `TargetKind.per_record_loss`: logistic or cross-entropy."""
        from privagg.training.losses import class_loss

        return self.weighted(class_loss(outputs, encoded), encoded)

    @property
    def exact_slope(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """See `TargetKind.exact_slope`."""

        def slope(outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
            from privagg.training.slopes import class_slope

            return self.weighted(class_slope(outputs, encoded), encoded)

        return slope

    @property
    def measures(self) -> tuple[str, ...]:
        """See `TargetKind.measures`."""
        return ("accuracy", "auc") if self.class_count == 2 else ("accuracy",)

    @property
    def predicted(self) -> str:
        """See `TargetKind.predicted`."""
        return "class probabilities"

    def predictions(self, outputs: FloatArray) -> FloatArray:
        """See `TargetKind.predictions`: probabilities of all classes, `(n, classes)`."""
        if outputs.shape[1] == 1:  # the logit of the positive class
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def figures(self, outputs: FloatArray, encoded: Encoded) -> dict[str, float]:
        """See `TargetKind.figures`: accuracy beside the largest class's share, AUC of two classes.

        Also the recall of each class of which there is a record.
        """
        two = outputs.shape[1] == 1
        chosen = (outputs[:, 0] > 0).astype(np.int64) if two else outputs.argmax(axis=1)
        found = class_figures(chosen, np.asarray(encoded, np.int64))
        scores = outputs[:, 0] if two else outputs[:, 1] - outputs[:, 0]
        area = roc_auc(scores, encoded == 1) if outputs.shape[1] <= 2 else None
        return found if area is None else {**found, "auc": area}


def class_figures(chosen: ClassNumbers, classes: ClassNumbers) -> dict[str, float]:
    """Accuracy, the share of the largest class, and each class's records and recall.

    Args:
        chosen: the class that the model gives each record, int64 `(n,)`, n >= 1.
        classes: the classes they have.
    """
    right = chosen == classes
    each = tuple(
        ClassFigure(int(number), int(there.sum()), float(right[there].mean()))
        for number in np.unique(classes)
        for there in [classes == number]
    )
    largest = max(one.count for one in each) / len(classes)
    return {"accuracy": float(right.mean()), BASE_RATE: largest, **flat(each)}


def encode_classes(column: pd.Series, classes: Sequence[Category]) -> ClassNumbers:
    """Where each cell stands among the declared classes, int64 `(n,)`; -1: it is none of them.

    Args:
        column: cells.
        classes: in the order of their numbers.
    """
    numbers = np.full(len(column), -1, dtype=np.int64)
    for number, equal in enumerate(equal_categories(column, classes)):
        numbers[equal] = number
    return numbers


def class_remarks(numbers: ClassNumbers, column: pd.Series, name: str) -> Iterator[Remark]:
    """Cells of no class, and whether all are of one.

    Args:
        numbers: the cells' class numbers, -1 where there is none.
        column: the cells.
        name: of the column.
    """
    strange = int(((numbers < 0) & ~column.isna().to_numpy(dtype=bool)).sum())
    if strange:
        cells = f"{strange} {'cell holds' if strange == 1 else 'cells hold'}"
        severity = by_share(strange, int(column.notna().sum()))
        yield Remark(name, severity, f"{cells} no declared class (left out)", strange)
    yield from of_one_class(numbers[numbers >= 0], name, column.dropna().iloc[:1].tolist())


def of_one_class(numbers: ClassNumbers, column: str, example: Sequence[object]) -> Iterator[Remark]:
    """Whether all records are of one class, which a site may be but a rule hardly means.

    Args:
        numbers: the records' class numbers, int64 `(n,)`.
        column: where they stand.
        example: a cell, if there is one to show.
    """
    present = np.unique(numbers)
    if len(present) != 1:
        return
    cells = f" (a cell is {example[0]!r})" if example else ""
    message = (
        f"all records have class {int(present[0])}{cells}, so that nothing here tells the classes "
        "apart; check the rule of the target, or accept it where it is so"
    )
    yield Remark(column, "error", message, len(numbers), of_model=True)


class NumberedClasses(ClassKind):
    """Classes that are whole numbers already: labels of images and of torch data sets.

    Args:
        count: how many classes there are.
    """

    name: str = "label"
    count: int = Field(ge=2)

    @property
    def class_count(self) -> int:
        """See `ClassKind.class_count`."""
        return self.count

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`; labels of records that lie in a table."""
        values = numeric_values(frame[self.name])
        known = (values >= 0) & (values < self.count) & (values == np.floor(values))
        return np.where(known, values, -1).astype(np.int64)

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`."""
        numbers = np.asarray(self.read(frame), np.int64)
        return of_one_class(numbers[numbers >= 0], self.name, [])


class Target(ClassKind):
    """What the model predicts: yes or no by a public rule, or one of several public classes.

    Args:
        name: the column.
        kind: `binary` or `multiclass`; by default what the number of `classes` says.
        positive: for `binary`: a rule such as `">0"`, `"==yes"`, `"!=0"`, or the value(s) that
            count as positive. A cell that the rule can be applied to is 0 or 1.
        classes: for `multiclass`: the values in the order of the class numbers. For `binary`
            optional: the only two values allowed, negative first, instead of `positive`.
    """

    kind: Literal["binary", "multiclass"] = "binary"
    positive: Category | tuple[Category, ...] | None = None
    classes: tuple[Category, ...] | None = None

    @after_model(mode="before")
    @classmethod
    def _kind_of_classes(cls, values: Any) -> Any:
        classes = values.get("classes") if isinstance(values, Mapping) else None
        if isinstance(classes, list | tuple) and len(classes) > 2:
            return {"kind": "multiclass", **values}
        return values

    @after_model(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "multiclass":
            if self.positive is not None or self.classes is None or len(self.classes) < 3:
                raise ValueError(
                    f"multiclass target {self.name!r} takes `classes` with at least 3 values and "
                    "no `positive`; with two values use kind 'binary'"
                )
        elif (self.positive is None) == (self.classes is None):
            raise ValueError(
                f"binary target {self.name!r} takes either `positive` (a rule such as '>0', or the "
                "positive values) or `classes` (negative value, positive value); for several "
                "classes list them all: classes = ['mild', 'moderate', 'severe']"
            )
        elif self.classes is not None and len(self.classes) != 2:
            raise ValueError(
                f"binary target {self.name!r} takes 2 classes, got {self.classes}; with more than "
                "two write kind = 'multiclass' or leave `kind` out"
            )
        if self.classes is not None:
            require_distinct(self.classes, f"classes of {self.name!r}")
        self._ordering_rule()
        return self

    @property
    def class_count(self) -> int:
        """Number of classes; 2 for `binary`."""
        return 2 if self.kind == "binary" or self.classes is None else len(self.classes)

    def encode(self, column: pd.Series) -> npt.NDArray[np.int64]:
        """The class numbers, int64 `(n,)`; -1 where the cell is missing or no class at all."""
        if self.classes is not None:
            return encode_classes(column, self.classes)
        present = ~column.isna().to_numpy(dtype=np.bool_)
        rule = self._ordering_rule()
        if rule is not None:
            sign, threshold = rule
            values = numeric_values(column)
            present = ~np.isnan(values)
            positive = np.asarray(_COMPARE[sign](np.where(present, values, 0.0), threshold))
        else:
            positive = self._equality(column)
        return np.where(present, positive.astype(np.int64), np.int64(-1))

    def _equality(self, column: pd.Series) -> BoolArray:
        if isinstance(self.positive, str) and (rule := _RULE.match(self.positive)):
            (found,) = equal_categories(column, (rule[2],))
            return ~found if rule[1] == "!=" else found
        values = self.positive if isinstance(self.positive, tuple) else (self.positive,)
        given = [value for value in values if value is not None]
        return np.asarray(np.any(equal_categories(column, given), axis=0), dtype=np.bool_)

    def _ordering_rule(self) -> tuple[str, float] | None:
        if not isinstance(self.positive, str):
            return None
        rule = _RULE.match(self.positive)
        if rule is None or rule[1] not in _COMPARE:
            return None
        threshold = as_number(rule[2])
        if threshold is None:
            raise ValueError(
                f"rule {self.positive!r} of {self.name!r} needs a number after {rule[1]}; if "
                f"{self.positive!r} is itself a value of the column, write '== {self.positive}'"
            )
        return rule[1], threshold

    def read(self, frame: pd.DataFrame) -> Encoded:
        """See `TargetKind.read`: class numbers, int64 `(n,)`."""
        return self.encode(frame[self.name])

    def categories(self, column: str) -> tuple[str, ...]:
        """See `TargetKind.categories`."""
        return tuple(map(str, self.classes)) if self.classes else ("no", "yes")

    def remarks(self, frame: pd.DataFrame) -> Iterator[Remark]:
        """See `TargetKind.remarks`: cells of no class, and whether all are of one."""
        column = frame[self.name]
        return class_remarks(self.encode(column), column, self.name)
