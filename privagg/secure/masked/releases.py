"""What a listed site releases: shares of the listed sites' own seeds, and of the seeds between them
and those that are gone; and its own seeds with the latter.

Bytes: for each listed site whose shares the sender holds, in order, a byte that says what follows:
0 nothing, 1 its shares, 2 the sealing key that shows that the shares do not fit its tags. Then
the sender's seeds with its neighbours that are gone, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from privagg.errors import CiphertextError
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.sharing import SEED_BYTES
from privagg.secure.scheme import Buffer

_NOTHING, _SHARES, _COMPLAINT = 0, 1, 2
_KEY_BYTES = 32


@dataclass(frozen=True)
class Held:
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
    def found(self) -> list[bytes]:
        """The shares, own seed first; none where there are none."""
        if self.kind != _SHARES:
            return []
        return [self.data[at : at + SEED_BYTES] for at in range(0, len(self.data), SEED_BYTES)]

    @property
    def complains(self) -> bool:
        """Whether it is a key that convicts the dealer."""
        return self.kind == _COMPLAINT


@dataclass(frozen=True)
class Release:
    """One site's release for one list.

    Args:
        held: dealer's place -> what is released of its seeds.
        seeds: place of a neighbour that is gone -> the seed in common with it.
    """

    held: dict[int, Held]
    seeds: dict[int, bytes]

    def to_bytes(self) -> bytes:
        """The release, dealers and neighbours in order of their places."""
        held = (bytes([self.held[d].kind]) + self.held[d].data for d in sorted(self.held))
        return b"".join((*held, *(self.seeds[place] for place in sorted(self.seeds))))

    @classmethod
    def from_bytes(cls, data: Buffer, graph: Graph, site: int, listed: set[int]) -> Release:
        """Read a release (untrusted input).

        Args:
            data: what the site sent.
            graph: the occasion's.
            site: its place.
            listed: places of the list that it released for.

        Raises:
            CiphertextError: no release of this site for this list.
        """
        whole, at = bytes(data), 0
        held = {}
        for dealer in graph.dealers(site, listed):
            kind = whole[at] if at < len(whole) else -1
            sizes = {
                _NOTHING: 0,
                _SHARES: SEED_BYTES * len(wanted_seeds(graph, dealer, listed)),
                _COMPLAINT: _KEY_BYTES,
            }
            if kind not in sizes:
                raise CiphertextError("a release breaks off or holds an unknown kind of entry")
            at += 1
            held[dealer] = Held(kind, whole[at : at + sizes[kind]])
            at += sizes[kind]
        gone = graph.gone(site, listed)
        if len(whole) != at + SEED_BYTES * len(gone):
            raise CiphertextError(
                f"a release has {len(whole)} bytes instead of {at + SEED_BYTES * len(gone)}"
            )
        ends = range(at, len(whole), SEED_BYTES)
        seeds = {place: whole[e : e + SEED_BYTES] for place, e in zip(gone, ends, strict=True)}
        return cls(held, seeds)


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
