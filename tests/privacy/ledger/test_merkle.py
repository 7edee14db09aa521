"""RFC 6962 trees against the reference values of Certificate Transparency.

The eight leaves and their hashes are the well-known test tree of Certificate Transparency's
reference implementation (google/certificate-transparency, merkletree tests; the same values stand
in transparency-dev/merkle, testonly/constants.go).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import merkle
from privagg.privacy.ledger.merkle import Frontier, Node

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def tree(leaves: list[bytes]) -> tuple[list[Frontier], Callable[[Node], bytes]]:
    """Every frontier from size 0 on, and a reader of subtree roots."""
    nodes: dict[Node, bytes] = {}
    frontiers = [Frontier()]
    for leaf in leaves:
        frontier, completed = frontiers[-1].append(merkle.leaf_hash(leaf))
        nodes.update(completed)
        frontiers.append(frontier)
    return frontiers, nodes.__getitem__


def hex_of(proof: list[bytes]) -> list[str]:
    return [step.hex() for step in proof]


def test_roots_are_those_of_certificate_transparency() -> None:
    frontiers, _ = tree(LEAVES)
    assert [frontier.root().hex() for frontier in frontiers] == ROOTS


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    _, node = tree(LEAVES)
    assert hex_of(merkle.inclusion_proof(index, size, node)) == INCLUSION[index, size]


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_are_those_of_certificate_transparency(old: int, new: int) -> None:
    _, node = tree(LEAVES)
    assert hex_of(merkle.consistency_proof(old, new, node)) == CONSISTENCY[old, new]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proved_and_no_other(size: int, data: st.DataObject) -> None:
    leaves = [bytes([i]) for i in range(size)]
    frontiers, node = tree(leaves)
    root = frontiers[size].root()
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, node)
    leaf = merkle.leaf_hash(leaves[index])
    merkle.verify_inclusion(leaf, index, size, proof, root)
    wrong = [
        (merkle.leaf_hash(b"other"), index, size, proof, root),
        (leaf, index, size, proof, merkle.leaf_hash(b"other")),
        (leaf, index, size, [*proof, root], root),
        (leaf, index - 1, size, proof, root),
        (leaf, size, size, proof, root),
    ]
    if size > 1:
        wrong.append((leaf, index, size, proof[:-1], root))
        wrong.append((leaf, index ^ 1, size, proof, root))
    for arguments in wrong:
        with pytest.raises(LedgerTamperedError):
            merkle.verify_inclusion(*arguments)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_every_prefix_is_proved_and_no_other(new: int, data: st.DataObject) -> None:
    leaves = [bytes([i]) for i in range(new)]
    frontiers, node = tree(leaves)
    old = data.draw(st.integers(1, new))
    proof = merkle.consistency_proof(old, new, node)
    roots = frontiers[old].root(), frontiers[new].root()
    merkle.verify_consistency(old, new, proof, *roots)
    other = merkle.leaf_hash(b"other")
    wrong = [
        (old, new, proof, other, roots[1]),
        (old, new, proof, roots[0], other),
        (old, new, [*proof, other], *roots),
        (0, new, proof, *roots),
        (new + 1, new, proof, *roots),
    ]
    if old < new:
        wrong += [(old, new, proof[:-1], *roots), (old, new, [other, *proof[1:]], *roots)]
    for arguments in wrong:
        with pytest.raises(LedgerTamperedError):
            merkle.verify_consistency(*arguments)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200))
def test_the_last_leafs_proof_is_the_frontier_before_it(size: int) -> None:
    frontiers, node = tree([bytes([i]) for i in range(size + 1)])
    assert list(frontiers[size].path_of_next()) == merkle.inclusion_proof(size, size + 1, node)
    assert Frontier.from_bytes(size, frontiers[size].to_bytes()) == frontiers[size]


def test_proofs_that_cannot_be_are_refused() -> None:
    _, node = tree(LEAVES)
    for index, size in ((8, 8), (-1, 8), (0, 0)):
        with pytest.raises(LedgerError, match="no entry"):
            merkle.inclusion_proof(index, size, node)
    for old, new in ((0, 8), (9, 8)):
        with pytest.raises(LedgerError, match="no consistency proof"):
            merkle.consistency_proof(old, new, node)
    with pytest.raises(LedgerTamperedError, match="complete subtrees"):
        Frontier.from_bytes(3, b"\x00" * 32)
