"""The accountants: the certified one, which proves its figure, and dp-accounting's two as peers.

All of them read the same `DpEvent` and fold its total-variation distance in the same way.
"""

from privagg.privacy.accountant import Accountant
from privagg.privacy.accountants.floats import distribution as laplace_distribution
from privagg.privacy.accountants.folding import check_delta, float_down, float_up, fold_distance
from privagg.privacy.accountants.peers import PldAccountant, RdpAccountant
from privagg.privacy.accountants.proven import (
    CertifiedAccountant,
    ball_arithmetic,
    proven_composition,
)

__all__ = [
    "CertifiedAccountant",
    "PldAccountant",
    "RdpAccountant",
    "ball_arithmetic",
    "check_delta",
    "default_accountant",
    "float_down",
    "float_up",
    "fold_distance",
    "laplace_distribution",
    "proven_composition",
]


def default_accountant() -> Accountant:
    """The accountant that budgets are held against: the certified one."""
    return CertifiedAccountant()
