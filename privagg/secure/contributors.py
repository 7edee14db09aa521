"""Contributor sets by name: the committed roster gives every bit of the bitmap its site."""

from __future__ import annotations

from collections.abc import Sequence

from privagg.errors import MessageError
from privagg.secure.wire import EncryptedTensor, contributor_bitmap


def bitmap_of(contributors: Sequence[str], roster: Sequence[str]) -> bytes:
    """The bitmap in which exactly `contributors` are set.

    Raises:
        MessageError: a contributor who is not on the roster, named twice, or none at all.
    """
    places = {name: place for place, name in enumerate(roster)}
    strangers = [name for name in contributors if name not in places]
    if strangers:
        raise MessageError(f"{', '.join(strangers)} not on the roster")
    return contributor_bitmap([places[name] for name in contributors], len(roster))


def contributors_of(tensor: EncryptedTensor, roster: Sequence[str]) -> tuple[str, ...]:
    """Names of a tensor's contributors in roster order.

    Raises:
        MessageError: the tensor is over a roster of another size.
    """
    if tensor.roster_size != len(roster):
        raise MessageError(
            f"the tensor is over a roster of {tensor.roster_size}, this plan has {len(roster)}"
        )
    return tuple(roster[place] for place in tensor.members)
