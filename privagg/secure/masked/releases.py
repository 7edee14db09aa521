"""What a listed site releases: shares of the listed sites' own seeds, and of the seeds between them
and those that are gone.

Bytes: for each listed site whose shares the sender holds, in order, a byte that says what follows:
0 nothing, 1 its shares, 2 the sealing key that shows that the shares do not fit its tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from privagg.errors import CiphertextError
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.sharing import SEED_BYTES
from privagg.secure.scheme import Buffer

_NOTHING, _SHARES, _COMPLAINT = 0, 1, 2
_KEY_BYTES = 32


class Held(NamedTuple):
    """What a site releases of one site's seeds.

    Args:
        kind: 0, 1 or 2, see above.
        data: the shares, own seed first; or the key.
    """

    kind: int
    data: bytes = b""

    @classmethod
    def nothing(cls) -> Held:
        """The packet did not open."""
        return cls(_NOTHING)

    @classmethod
    def complaint(cls, key: bytes) -> Held:
        """The packet opens to shares that its author did not tag."""
        return cls(_COMPLAINT, key)

    @classmethod
    def shares(cls, piece: bytes, graph: Graph, dealer: int, listed: set[int]) -> Held:
        """The shares that take the dealer's masks off the sum of the listed.

        Never one of a seed between two listed sites.

        Args:
            piece: all shares that the releasing site holds of the dealer's seeds.
            graph: the occasion's.
            dealer: place of a listed site.
            listed: places of all of them.

        Raises:
            CiphertextError: a piece of another size.
        """
        neighbours = graph.neighbours[dealer]
        if len(piece) != SEED_BYTES * (len(neighbours) + 1):
            raise CiphertextError(f"shares of {len(piece)} bytes are not of this occasion")
        wanted = wanted_seeds(graph, dealer, listed)
        return cls(_SHARES, b"".join(piece[SEED_BYTES * i : SEED_BYTES * (i + 1)] for i in wanted))

    @property
    def complains(self) -> bool:
        """Whether it is a key that convicts the dealer."""
        return self.kind == _COMPLAINT


def write_release(held: Mapping[int, Held]) -> bytes:
    """A release, from what is released of each dealer, by place."""
    return b"".join(bytes([held[dealer].kind]) + held[dealer].data for dealer in sorted(held))


def read_release(
    data: Buffer, graph: Graph, site: int, wanted: Mapping[int, Sequence[int]]
) -> dict[int, Held]:
    """Read a release (untrusted input).

    Args:
        data: what the site sent.
        graph: the occasion's.
        site: its place.
        wanted: place of each listed site -> `wanted_seeds` of it.

    Returns:
        Dealer's place -> what is released of its seeds.

    Raises:
        CiphertextError: no release of this site for this list.
    """
    whole, at, held = bytes(data), 0, {}
    for dealer in graph.dealers(site, wanted):
        kind = whole[at] if at < len(whole) else -1
        if kind == _SHARES:
            size = SEED_BYTES * len(wanted[dealer])
        elif kind in (_NOTHING, _COMPLAINT):
            size = _KEY_BYTES * (kind == _COMPLAINT)
        else:
            raise CiphertextError("a release breaks off or holds an unknown kind of entry")
        at += 1 + size
        held[dealer] = Held(kind, whole[at - size : at])
    if len(whole) != at:
        raise CiphertextError(f"a release has {len(whole)} bytes instead of {at}")
    return held


def wanted_seeds(graph: Graph, dealer: int, listed: set[int]) -> list[int]:
    """Numbers of a listed dealer's seeds that are opened, in order: 0, its own, and i + 1 for its
    neighbour number i where that one is gone.

    Args:
        graph: the occasion's.
        dealer: place of a listed site.
        listed: places of all of them.
    """
    neighbours = graph.neighbours[dealer]
    return [0, *(i + 1 for i, other in enumerate(neighbours) if other not in listed)]
