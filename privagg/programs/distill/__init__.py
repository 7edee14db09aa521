"""Distillation by votes: models of any kind agree on labels of public inputs, by sums alone."""

from privagg.programs.distill.program import Distill

__all__ = ["Distill"]
