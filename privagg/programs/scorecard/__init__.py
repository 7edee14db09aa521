"""Points a bin from a few opened sums: a private scorecard."""

from privagg.programs.scorecard.program import Scorecard

__all__ = ["Scorecard"]
