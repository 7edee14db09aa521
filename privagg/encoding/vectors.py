"""The two kinds of vectors that a round is about: integers that add up, floats that are decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntVector = NDArray[np.int64]
"""int64 `(n,)`: contributions, noise and opened sums, on a plan's grid."""

FloatVector = NDArray[np.float64]
"""float64 `(n,)`: parameters, updates and decoded means."""
