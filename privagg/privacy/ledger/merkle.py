"""The Merkle hash tree of RFC 6962 with its inclusion and consistency proofs.

Pure functions on bytes. A tree of n leaves is a frontier (the roots of its complete subtrees,
largest first); appending touches O(log n) hashes. Proofs are read from stored subtree roots and
checked without them.

Source: RFC 6962, section 2.1; the checking algorithms are those of RFC 9162, sections 2.1.3.2 and
2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privagg.errors import LedgerError, LedgerTamperedError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = tuple[int, int]
"""(level, index): the complete subtree over leaves index * 2^level … (index + 1) * 2^level - 1."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """A tree's complete subtrees: all that is needed to append and to know the root.

    Attributes:
        size: number of leaves.
        nodes: subtree roots, largest first; one for each bit set in `size`.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.nodes) != self.size.bit_count():
            raise LedgerTamperedError(
                f"a tree of {self.size} entries has {self.size.bit_count()} complete subtrees, "
                f"found {len(self.nodes)}"
            )

    def append(self, leaf: bytes) -> tuple[Frontier, dict[Node, bytes]]:
        """The frontier with one leaf more, and every subtree root completed by it."""
        nodes = list(self.nodes)
        completed: dict[Node, bytes] = {(0, self.size): leaf}
        carry, level, index = leaf, 0, self.size
        while index & 1:
            carry = node_hash(nodes.pop(), carry)
            level, index = level + 1, index >> 1
            completed[(level, index)] = carry
        return Frontier(self.size + 1, (*nodes, carry)), completed

    def root(self) -> bytes:
        """The Merkle tree head over all leaves."""
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1]
        for node in reversed(self.nodes[:-1]):
            root = node_hash(node, root)
        return root

    def path_of_next(self) -> tuple[bytes, ...]:
        """Inclusion proof of leaf number `size` in the tree that holds it as its last leaf."""
        return tuple(reversed(self.nodes))

    def to_bytes(self) -> bytes:
        """The subtree roots, one after the other."""
        return b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """The frontier of a tree of `size` leaves from `to_bytes`."""
        pieces = range(0, len(data), HASH_BYTES)
        return cls(size, tuple(data[i : i + HASH_BYTES] for i in pieces))


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (size >= 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _subtree(start: int, stop: int, node: Callable[[Node], bytes]) -> bytes:
    """MTH(D[start:stop]) from complete subtree roots."""
    size = stop - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node((level, start >> level))
    middle = start + _split(size)
    return node_hash(_subtree(start, middle, node), _subtree(middle, stop, node))


def inclusion_proof(index: int, size: int, node: Callable[[Node], bytes]) -> list[bytes]:
    """PATH(index, D[size]), RFC 6962 section 2.1.1, leaf's sibling first.

    Args:
        index: of the leaf, from 0.
        size: how many leaves the tree has.
        node: the root of a complete subtree, 32 bytes.

    Raises:
        LedgerError: there is no leaf `index` in a tree of `size` leaves.
    """
    if not 0 <= index < size:
        raise LedgerError(f"there is no entry {index} among the first {size}")
    path: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_subtree(middle, stop, node))
            stop = middle
        else:
            path.append(_subtree(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: Callable[[Node], bytes]) -> list[bytes]:
    """PROOF(old, D[new]), RFC 6962 section 2.1.2.

    Args:
        old, new: numbers of leaves.
        node: the root of a complete subtree, 32 bytes.

    Raises:
        LedgerError: not 0 < old <= new (the empty tree is consistent with every tree).
    """
    if not 0 < old <= new:
        raise LedgerError(f"no consistency proof from size {old} to size {new}")
    path: list[bytes] = []
    start, stop, whole = 0, new, True
    while stop != old:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_subtree(middle, stop, node))
            stop = middle
        else:
            path.append(_subtree(start, middle, node))
            start, whole = middle, False
    if not whole:
        path.append(_subtree(start, stop, node))
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` (a leaf hash) stands at `index` in the tree of `size` leaves under `root`.

    Args:
        leaf, root: 32 bytes each.
        index, size: place from 0, and number of leaves.
        path: of `inclusion_proof`; from anybody, not believed.

    Raises:
        LedgerTamperedError: the proof does not lead from the leaf to the root.
    """
    fault = LedgerTamperedError(f"entry {index} is not proved to be in the tree of {size} entries")
    if not 0 <= index < size or any(len(x) != HASH_BYTES for x in (leaf, root, *path)):
        raise fault
    first, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise fault
        if first & 1 or first == last:
            value = node_hash(sibling, value)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        first, last = first >> 1, last >> 1
    if last != 0 or value != root:
        raise fault


def verify_consistency(
    old_size: int, new_size: int, path: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree under `new_root` only appends to the tree under `old_root`.

    Args:
        old_size, new_size: numbers of leaves.
        path: of `consistency_proof`; from anybody, not believed.
        old_root, new_root: 32 bytes each.

    Raises:
        LedgerTamperedError: the proof does not show that; history was rewritten, or it is no proof.
    """
    fault = LedgerTamperedError(
        f"the tree of {new_size} entries is not proved to extend the tree of {old_size} entries"
    )
    if any(len(x) != HASH_BYTES for x in (old_root, new_root, *path)):
        raise fault
    if old_size == new_size:
        if path or old_root != new_root:
            raise fault
        return
    if not 0 < old_size < new_size:
        raise fault  # every tree extends the empty one: such a proof would say nothing
    proof = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not proof:
        raise fault
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_value = new_value = proof[0]
    for sibling in proof[1:]:
        if last == 0:
            raise fault
        if first & 1 or first == last:
            old_value = node_hash(sibling, old_value)
            new_value = node_hash(sibling, new_value)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            new_value = node_hash(new_value, sibling)
        first, last = first >> 1, last >> 1
    if last != 0 or old_value != old_root or new_value != new_root:
        raise fault
