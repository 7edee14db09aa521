"""Weights of an ensemble of public predictors, learned from opened sums: FedBoost."""

from privagg.programs.fedboost.program import FedBoost

__all__ = ["FedBoost"]
