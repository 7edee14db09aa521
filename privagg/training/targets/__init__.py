"""What can a model predict of a record? One file for each kind of target."""

from privagg.training.targets.base import Encoded, Remark, TargetKind
from privagg.training.targets.classes import ClassKind, NumberedClasses, Target

AnyTarget = Target
"""What `[data.target]` can be."""

__all__ = ["AnyTarget", "ClassKind", "Encoded", "NumberedClasses", "Remark", "Target", "TargetKind"]
