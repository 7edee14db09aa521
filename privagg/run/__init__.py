"""A job from its start to its report, as its coordinator drives it."""
