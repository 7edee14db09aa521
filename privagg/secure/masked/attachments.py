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
from collections.abc import Sequence
from dataclasses import dataclass

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
    shares = range(0, len(piece), SEED_BYTES)
    return b"".join(tag(piece[at : at + SEED_BYTES]) for at in shares)


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


@dataclass(frozen=True)
class Attachments:
    """One upload's attachments.

    Args:
        own: commitment to the own seed.
        pairs: neighbour's place -> commitment to the common seed.
        tags: holder's place -> the tags of its shares, joined; the own seed's first, then the
            neighbours' in order.
        sealed: neighbour's place -> its shares under seal.
    """

    own: bytes
    pairs: dict[int, bytes]
    tags: dict[int, bytes]
    sealed: dict[int, bytes]

    def to_bytes(self, total: int) -> bytes:
        """The attachments, padded with zeros to `total` bytes."""
        joined = b"".join(
            (self.own, *self.pairs.values(), *self.tags.values(), *self.sealed.values())
        )
        return joined + bytes(total - len(joined))

    @classmethod
    def from_bytes(
        cls, data: Buffer, place: int, neighbours: Sequence[int], total: int
    ) -> Attachments:
        """Read attachments (untrusted input).

        Args:
            data: `total` bytes.
            place: of the site that they are from.
            neighbours: its neighbours' places, in order.
            total: size that they must have.

        Raises:
            CiphertextError: another size, or padding that is not zero.
        """
        whole, seeds = bytes(data), len(neighbours) + 1
        if len(whole) != total:
            raise CiphertextError(f"attachments have {len(whole)} bytes instead of {total}")
        at = COMMITMENT_BYTES

        def cut(places: Sequence[int], size: int) -> dict[int, bytes]:
            nonlocal at
            start, at = at, at + size * len(places)
            return {
                place: whole[start + size * i : start + size * (i + 1)]
                for i, place in enumerate(places)
            }

        made = cls(
            own=whole[:at],
            pairs=cut(neighbours, COMMITMENT_BYTES),
            tags=cut(holders(place, neighbours), TAG_BYTES * seeds),
            sealed=cut(neighbours, sealed_size(seeds)),
        )
        if any(whole[at:]):
            raise CiphertextError("attachments end in bytes that are not zero")
        return made

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
