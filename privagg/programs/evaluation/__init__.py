"""How well does an opened model do on records that nobody may publish? Histograms of its scores."""

from privagg.programs.evaluation.held import OpenedModel
from privagg.programs.evaluation.program import Evaluated, Evaluation
from privagg.programs.evaluation.rounds import Schedule

__all__ = ["Evaluated", "Evaluation", "OpenedModel", "Schedule"]
