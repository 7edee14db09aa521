"""What comes with a masked payload, to open the sum by: commitments, and shares under seal.

A site has k neighbours; it and they hold shares of its own seed and of the k seeds that it has in
common with them: k + 1 seeds, dealt to k + 1 holders in roster order (`holders`). Bytes:

* SHA-256 of the own seed;
* for each neighbour, SHA-256 of the common seed: both ends must commit to the same;
* for each holder, k + 1 tags: the first 16 bytes of SHA-256 of each of its shares, so that a wrong
  share is the holder's own, and told at once;
* for each neighbour, its k + 1 shares under AES-256-GCM, the tags as associated data: what the
  seal opens to either fits the tags or convicts the site that sealed it.

The whole is covered by the upload's signature. Where fewer sites are asked than the rule is for,
places of missing neighbours are zeros, so that the size is always the same.

A tag is no commitment against its author, who gains nothing by two shares of one tag. For a holder
a second share of its tag takes 2^128 work. Seeds and shares are uniform 256-bit strings to whoever
sees only their hashes (random oracle).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from privagg.errors import CiphertextError
from privagg.secure.masked.sealing import OVERHEAD_BYTES, unseal
from privagg.secure.masked.sharing import SEED_BYTES
from privagg.secure.scheme import Buffer

COMMITMENT_BYTES = 32
TAG_BYTES = 16


def commit(seed: bytes) -> bytes:
    """The commitment to a seed."""
    return hashlib.sha256(b"privagg/masked/seed/1\0" + seed).digest()


def tag(share: bytes) -> bytes:
    """The tag of a share."""
    return hashlib.sha256(b"privagg/masked/share/1\0" + share).digest()[:TAG_BYTES]


def tags_of(piece: bytes) -> bytes:
    """The tags of a holder's shares of one site's seeds, joined."""
    if len(piece) == SEED_BYTES:  # all that is released of most sites
        return tag(piece)
    shares = range(0, len(piece), SEED_BYTES)
    return b"".join([tag(piece[at : at + SEED_BYTES]) for at in shares])


def holders(place: int, neighbours: Sequence[int]) -> list[int]:
    """Who holds a site's shares, in order; holder number h has the shares at h + 1."""
    return sorted((place, *neighbours))


def size(neighbours: int) -> int:
    """Bytes of attachments with so many neighbours."""
    seeds = neighbours + 1
    return COMMITMENT_BYTES * seeds + TAG_BYTES * seeds * seeds + neighbours * sealed_size(seeds)


def sealed_size(seeds: int) -> int:
    """Bytes of shares of so many seeds, under seal."""
    return OVERHEAD_BYTES + SEED_BYTES * seeds


def packet_size(seeds: int) -> int:
    """Bytes that a holder is sent of one site: the tags, and the shares under seal."""
    return TAG_BYTES * seeds + sealed_size(seeds)


def write_attachments(
    own: bytes,
    pairs: Mapping[int, bytes],
    tags: Mapping[int, bytes],
    sealed: Mapping[int, bytes],
    total: int,
) -> bytes:
    """Attachments as bytes, padded with zeros; see `Attachments` for the parts.

    Args:
        own, pairs, tags, sealed: by place, in order.
        total: bytes to pad to.
    """
    return b"".join((own, *pairs.values(), *tags.values(), *sealed.values())).ljust(total, b"\0")


@dataclass(frozen=True)
class Attachments:
    """One upload's attachments, cut where they are looked at: whoever adds uploads looks at the
    commitments alone, and whoever opens the sum at no seal.

    Args:
        whole: all bytes.
        place: of the site that they are from.
        neighbours: its neighbours' places, in order.
    """

    whole: bytes
    place: int
    neighbours: Sequence[int]

    @classmethod
    def from_bytes(
        cls, data: Buffer, place: int, neighbours: Sequence[int], total: int
    ) -> Attachments:
        """Read attachments (untrusted input).

        Args:
            data: `total` bytes.
            place, neighbours: see above.
            total: size that they must have.

        Raises:
            CiphertextError: another size, or padding that is not zero.
        """
        whole = bytes(data)
        if len(whole) != total:
            raise CiphertextError(f"attachments have {len(whole)} bytes instead of {total}")
        if any(whole[size(len(neighbours)) :]):
            raise CiphertextError("attachments end in bytes that are not zero")
        return cls(whole, place, neighbours)

    @property
    def own(self) -> bytes:
        """Commitment to the own seed."""
        return self.whole[:COMMITMENT_BYTES]

    @cached_property
    def pairs(self) -> dict[int, bytes]:
        """Neighbour's place -> commitment to the common seed."""
        return self._cut(COMMITMENT_BYTES, self.neighbours, COMMITMENT_BYTES)

    @cached_property
    def tags(self) -> dict[int, bytes]:
        """Holder's place -> the tags of its shares, joined; the own seed's first, then the
        neighbours' in order."""
        held = holders(self.place, self.neighbours)
        return self._cut(COMMITMENT_BYTES * len(held), held, TAG_BYTES * len(held))

    @cached_property
    def sealed(self) -> dict[int, bytes]:
        """Neighbour's place -> its shares under seal."""
        seeds = len(self.neighbours) + 1
        start = COMMITMENT_BYTES * seeds + TAG_BYTES * seeds * seeds
        return self._cut(start, self.neighbours, sealed_size(seeds))

    def _cut(self, start: int, places: Sequence[int], each: int) -> dict[int, bytes]:
        """As many pieces of `each` bytes as there are places, from `start` on."""
        whole, ends = self.whole, range(start + each, start + each * len(places) + 1, each)
        return {place: whole[end - each : end] for place, end in zip(places, ends, strict=True)}

    def convicts(self, holder: int, key: bytes) -> bool:
        """Whether a sealing key shows that a holder was sealed other shares than are tagged.

        Args:
            holder: place of a neighbour.
            key: what the holder says it was sealed under.
        """
        if holder not in self.sealed:
            return False
        try:
            return tags_of(unseal(key, self.sealed[holder], self.tags[holder])) != self.tags[holder]
        except CiphertextError:
            return False
