"""Boosted trees whose structure is public and whose leaves are opened sums."""

from privagg.programs.trees.program import BoostedTrees

__all__ = ["BoostedTrees"]
