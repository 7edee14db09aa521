"""How well does an opened model do on records that nobody may publish? Histograms of its scores."""

from privagg.programs.evaluation.held import OpenedModel
from privagg.programs.evaluation.program import Evaluated, Evaluation

__all__ = ["Evaluated", "Evaluation", "OpenedModel"]
