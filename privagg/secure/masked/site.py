"""A site's own half of masked sums: masking a contribution, and releasing what unmasks a sum."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, KeyMismatchError
from privagg.secure import facts as fact
from privagg.secure.masked import attachments as attached
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.parameters import KEY_BYTES, JointKey, MaskedParameters, SiteCard
from privagg.secure.masked.releases import Held, write_release
from privagg.secure.masked.sealing import seal, unseal
from privagg.secure.masked.seeds import occasion_digest, pair_root, pair_seed, sealing_key
from privagg.secure.masked.sharing import SEED_BYTES, deal
from privagg.secure.masked.streams import add_masks
from privagg.secure.opening import Masked, MaskingKey
from privagg.secure.scheme import Buffer, EncryptionKey, Occasion


class MaskedSite(MaskingKey):
    """A site's X25519 key of one epoch.

    Seeds are secret while X25519 and AES-256 hold: security level and caveats are in
    `proofs/masking.md`.

    Args:
        parameters: of the plan.
        data: the private key, 32 bytes.

    Raises:
        CiphertextError: another number of bytes.
    """

    def __init__(self, parameters: MaskedParameters, data: bytes) -> None:
        if len(data) != KEY_BYTES:
            raise CiphertextError(f"a masking key has {KEY_BYTES} bytes, not {len(data)}")
        self._parameters = parameters
        self._secret = X25519PrivateKey.from_private_bytes(data)
        self._roots: dict[tuple[str, str, str], bytes] = {}
        public = self._secret.public_key().public_bytes_raw()
        self.encryption_key = SiteCard(parameters, public)

    @classmethod
    def generate(cls, parameters: MaskedParameters) -> MaskedSite:
        """A fresh key from the operating system's CSPRNG."""
        return cls(parameters, X25519PrivateKey.generate().private_bytes_raw())

    def to_bytes(self) -> bytes:
        """The private key."""
        return self._secret.private_bytes_raw()

    def mask(
        self, values: IntVector, site: str, stated: EncryptionKey, occasion: Occasion
    ) -> Masked:
        """Mask one contribution; see `MaskingKey.mask`.

        The own mask is added; that in common with a neighbour is added by the one that stands
        first among the members, and taken off by the other.
        """
        checked = fact.check_contribution(values, self._parameters.requirement)
        pairs = self._pairs(site, stated, occasion)
        own = secrets.token_bytes(SEED_BYTES)
        signs = [1 if pairs.place < other else -1 for other in pairs.seeds]
        lanes = self._parameters.layout.pack(checked)
        add_masks(lanes, [(own, 1), *zip(pairs.seeds.values(), signs, strict=True)])
        kept, made = self._attachments(own, pairs)
        return Masked(self._parameters.layout.to_bytes(lanes), made, kept)

    def release(
        self,
        site: str,
        stated: EncryptionKey,
        occasion: Occasion,
        listed: Sequence[str],
        packets: Buffer,
        kept: bytes,
    ) -> bytes:
        """What takes the masks off the sum of the listed sites; see `MaskingKey.release`.

        Raises:
            CohortError: a list that the rule does not allow, or that this site is not on.
            CiphertextError: `packets` or `kept` is malformed.
        """
        pairs = self._pairs(site, stated, occasion)
        graph, place = pairs.graph, pairs.place
        places = graph.require_list(listed)
        if place not in places:
            raise CiphertextError(f"{site!r} is not on the list that it is to release for")
        dealers = [dealer for dealer in graph.dealers(place, places) if dealer != place]
        held = {place: Held.shares(kept, graph, place, places)}
        for dealer, packet in zip(dealers, _packets(packets, graph, dealers), strict=True):
            held[dealer] = pairs.opened(dealer, packet, places)
        return write_release(held)

    def _pairs(self, site: str, stated: EncryptionKey, occasion: Occasion) -> _Pairs:
        if not isinstance(stated, JointKey) or stated.parameters != self._parameters:
            raise KeyMismatchError("masks need the joint key of all sites, for the same parameters")
        if stated.cards.get(site) != self.encryption_key.to_bytes():
            raise KeyMismatchError(f"the card under {site!r} is not that of the key held here")
        missing = [name for name in occasion.members if name not in stated.cards]
        if missing:
            raise KeyMismatchError(f"{missing[0]!r} is asked and has stated no key")
        graph = Graph(self._parameters.rule, occasion)
        place = graph.place(site)
        roots = {
            other: self._root(site, occasion.members[other], stated)
            for other in graph.neighbours[place]
        }
        return _Pairs.of(graph, place, roots)

    def _root(self, site: str, other: str, stated: JointKey) -> bytes:
        """The root in common with another site, computed once."""
        place = stated.key_id, site, other
        if place not in self._roots:
            card = stated.cards[other]
            self._roots[place] = pair_root(self._secret, (site, other), card, stated.key_id)
        return self._roots[place]

    def _attachments(self, own: bytes, pairs: _Pairs) -> tuple[bytes, bytes]:
        """What the site keeps, and what leaves with the payload."""
        graph, place = pairs.graph, pairs.place
        seeds = np.frombuffer(b"".join((own, *pairs.seeds.values())), dtype=np.uint8)
        holders = attached.holders(place, graph.neighbours[place])
        dealt = deal(seeds.reshape(-1, SEED_BYTES), graph.rule.threshold, len(holders))
        shares = {holder: dealt[number] for number, holder in enumerate(holders)}
        tags = {holder: attached.tags_of(some.tobytes()) for holder, some in shares.items()}
        made = attached.write_attachments(
            own=attached.commit(own),
            pairs={other: attached.commit(seed) for other, seed in pairs.seeds.items()},
            tags=tags,
            sealed={
                other: seal(pairs.key(place, other), shares[other].tobytes(), tags[other])
                for other in pairs.seeds
            },
            total=self._parameters.attachment_bytes,
        )
        return shares[place].tobytes(), made


@dataclass(frozen=True)
class _Pairs:
    """What a site has in common with its neighbours on one occasion."""

    graph: Graph
    place: int
    occasion: bytes
    roots: dict[int, bytes]
    seeds: dict[int, bytes]

    @classmethod
    def of(cls, graph: Graph, place: int, roots: dict[int, bytes]) -> _Pairs:
        occasion = occasion_digest(graph.occasion)
        seeds = {other: pair_seed(root, occasion) for other, root in roots.items()}
        return cls(graph, place, occasion, roots, seeds)

    def key(self, sender: int, receiver: int) -> bytes:
        """The sealing key of one direction."""
        members = self.graph.occasion.members
        other = receiver if sender == self.place else sender
        return sealing_key(self.roots[other], self.occasion, members[sender], members[receiver])

    def opened(self, dealer: int, packet: bytes, listed: set[int]) -> Held:
        """A dealer's shares for the list; its sealing key where they are not what it tagged.

        The seal opens only with the tags that the dealer sealed with, so that nobody can have the
        key by showing others. It shows shares of a dealer that has broken the protocol.
        """
        seeds = len(self.graph.neighbours[dealer]) + 1
        tags, sealed = packet[: attached.TAG_BYTES * seeds], packet[attached.TAG_BYTES * seeds :]
        key = self.key(dealer, self.place)
        try:
            piece = unseal(key, sealed, tags)
        except CiphertextError:
            return Held.nothing()
        if attached.tags_of(piece) != tags:
            return Held.complaint(key)
        return Held.shares(piece, self.graph, dealer, listed)


def _packets(data: Buffer, graph: Graph, dealers: Sequence[int]) -> list[bytes]:
    """Split `Recovery.packets`."""
    sizes = [attached.packet_size(len(graph.neighbours[dealer]) + 1) for dealer in dealers]
    whole = bytes(data)
    if len(whole) != sum(sizes):
        raise CiphertextError(f"packets have {len(whole)} bytes instead of {sum(sizes)}")
    ends = np.cumsum(sizes).tolist()
    return [whole[end - size : end] for end, size in zip(ends, sizes, strict=True)]
