"""Which measure fits which kind of target."""

from __future__ import annotations

from privagg.errors import ConfigError
from privagg.programs.evaluation.amounts import AmountMeasure
from privagg.programs.evaluation.binary import BinaryMeasure
from privagg.programs.evaluation.classes import ClassesMeasure
from privagg.programs.evaluation.grades import GradesMeasure
from privagg.programs.evaluation.labels import LabelsMeasure
from privagg.programs.evaluation.measure import Measure
from privagg.programs.evaluation.survival import SurvivalMeasure
from privagg.training.targets import (
    ClassKind,
    MultiLabel,
    Ordinal,
    Regression,
    TargetKind,
    TimeToEvent,
)


def measure_of(target: TargetKind, *, threshold: float, bins: int) -> Measure:
    """How a model of this target is measured.

    Args:
        target: what it predicts.
        threshold, bins: as `BinaryMeasure` has them; kinds without scores of two classes need none.

    Raises:
        ConfigError: nothing measures this kind yet.
    """
    if isinstance(target, ClassKind):
        if target.class_count == 2:
            return BinaryMeasure(threshold, bins)
        return ClassesMeasure(target.class_count)
    if isinstance(target, Regression):
        return AmountMeasure(target)
    if isinstance(target, Ordinal):
        return GradesMeasure(target)
    if isinstance(target, MultiLabel):
        return LabelsMeasure(target, threshold, bins)
    if isinstance(target, TimeToEvent):
        return SurvivalMeasure(target, bins)
    raise ConfigError(
        f"a model of {target.name!r} cannot be evaluated on held-out records: one of classes, "
        "grades, labels, an amount or the time to an event can (data.target.kind binary, "
        "multiclass, ordinal, multi-label, regression or time-to-event). Nothing was spent"
    )
