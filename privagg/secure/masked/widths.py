"""How many bits a value takes in a masked sum."""

from __future__ import annotations

from privagg.kernels.packed_sums import PackedLayout
from privagg.secure import facts as fact
from privagg.secure.scheme import Requirement


def layout_of(requirement: Requirement) -> PackedLayout:
    """The packed integer whose fields just hold every sum within the requirement's bound.

    A field takes the bits of the sum's range; or those of one upload's, in the odd case that this
    is wider.
    """
    width = (2 * fact.sum_bound(requirement)).bit_length()
    return PackedLayout(requirement.length, max(width, requirement.upload_bound.bit_length() + 1))
