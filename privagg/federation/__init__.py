"""How does a Python program reach privagg: by a whole configuration, or as scikit-learn has it?

`federation.py` has the whole configuration, checked, approved, run and reported; `estimators.py` a
scorecard whose `fit` takes the sites' tables.
"""

from privagg.federation.federation import Federation

__all__ = ["Federation"]
