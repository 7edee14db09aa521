"""What should be declared of a table that only its records know? Asked privately, and charged."""

from privagg.programs.facts.program import Facts

__all__ = ["Facts"]
