"""Which epsilon is proven for these rounds? Enclosures in ball arithmetic, never a float's figure.

The mathematics, with every error term, is in proofs/certified-epsilon.md. Read `mechanism` first
(what is composed, and the interval that comes back), then `accountant` (which method answers), then
one method: `gaussian`, `single`, `contour` with `transform`, `participations`, `mirror`, `renyi`,
`convolution`; `mixed` answers where `laplace` is among the rounds (proofs/laplace.md). `planning`,
`profile`, `sampling`, `splitting`, `windowing` and `mirroring` choose in floating point what those
compute with; nothing depends on their being right.
"""

from privagg.privacy.certified.accountant import delta_interval, epsilon_interval
from privagg.privacy.certified.laplace import LaplaceRound
from privagg.privacy.certified.mechanism import (
    Composition,
    Interval,
    Mechanism,
    round_down,
    round_up,
)
from privagg.privacy.certified.mixed import Convolved, mixed_epsilon_interval
from privagg.privacy.certified.planning import Effort
from privagg.privacy.certified.renyi import epsilon_from_renyi, renyi_divergences
from privagg.privacy.certified.state import ContourState

__all__ = [
    "Composition",
    "ContourState",
    "Convolved",
    "Effort",
    "Interval",
    "LaplaceRound",
    "Mechanism",
    "delta_interval",
    "epsilon_from_renyi",
    "epsilon_interval",
    "mixed_epsilon_interval",
    "renyi_divergences",
    "round_down",
    "round_up",
]
