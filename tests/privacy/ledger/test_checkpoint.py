"""Signed notes and checkpoints against vectors of others.

The notes of `PeterNeumann` and `EnochRoot` and their keys are those of Go's documentation
(golang.org/x/mod/sumdb/note, examples of Sign and Open); `example.com/foo` is the example of the
C2SP signed-note specification; `example.com/behind-the-sofa` that of C2SP tlog-checkpoint, with a
witness's cosignature beside the log's, published without its keys.
"""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.errors import LedgerError, LedgerTamperedError
from privagg.privacy.ledger import merkle
from privagg.privacy.ledger.checkpoint import (
    Checkpoint,
    Note,
    Verifier,
    open_checkpoint,
    require_extends,
)

NEUMANN_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NEUMANN_LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
FOO_VERIFIER = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIU"
    "BkBIfZ+qnA==\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ORIGIN = "example.org/log"
OWN = Verifier.of(ORIGIN, KEY)


def test_signing_gives_the_bytes_of_gos_example() -> None:
    secret = base64.b64decode(NEUMANN_SECRET)
    assert secret[0] == 1
    key = Ed25519PrivateKey.from_private_bytes(secret[1:])
    note = Note(NEUMANN_TEXT).signed_by("PeterNeumann", key)
    assert note.render() == f"{NEUMANN_TEXT}\n{NEUMANN_LINE}"
    assert Verifier.of("PeterNeumann", key).encode() == NEUMANN_VERIFIER


def test_a_second_signature_gives_the_bytes_of_gos_example() -> None:
    # Go's example draws the second key from a reader of zeros.
    note = Note.parse(f"{NEUMANN_TEXT}\n{NEUMANN_LINE}").signed_by("EnochRoot", KEY)
    assert note.render() == f"{NEUMANN_TEXT}\n{NEUMANN_LINE}{ENOCH_LINE}"


@pytest.mark.parametrize(
    ("verifier", "note"),
    [(NEUMANN_VERIFIER, f"{NEUMANN_TEXT}\n{NEUMANN_LINE}"), (FOO_VERIFIER, FOO_NOTE)],
)
def test_known_notes_verify_and_no_altered_one_does(verifier: str, note: str) -> None:
    known = Verifier.parse(verifier)
    assert known.encode() == verifier
    Note.parse(note).require([known])
    for position in range(len(note)):
        altered = note[:position] + chr(ord(note[position]) ^ 1) + note[position + 1 :]
        with pytest.raises(LedgerTamperedError):
            Note.parse(altered).require([known])


def test_mangled_verifier_keys_are_refused() -> None:
    for start in range(len(NEUMANN_VERIFIER)):
        for text in (NEUMANN_VERIFIER[start + 1 :], NEUMANN_VERIFIER[:start]):
            with pytest.raises(LedgerError):
                Verifier.parse(text)
    # A key of the wrong length and one of an unknown algorithm, each under a fitting key id.
    for text in (
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        with pytest.raises(LedgerError):
            Verifier.parse(text)


def test_the_specifications_checkpoint_is_read_and_written_alike() -> None:
    checkpoint = Checkpoint.parse(SOFA)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert Note.parse(SOFA).render() == SOFA
    assert SOFA.startswith(checkpoint.body())
    names = [signature.name for signature in Note.parse(SOFA).signatures]
    assert names == ["example.com/behind-the-sofa", "witness.example.com/w1"]


def test_a_checkpoint_opens_with_its_key_only() -> None:
    checkpoint = Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)
    text = checkpoint.sign(KEY)
    assert open_checkpoint(text, OWN) == checkpoint
    other = Verifier.of(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    with pytest.raises(LedgerTamperedError, match="no signature by key"):
        open_checkpoint(text, other)
    with pytest.raises(LedgerTamperedError, match="no signature by key"):
        open_checkpoint(text, OWN, other)


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "body",
    [
        f"{ORIGIN}\n01\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n{2**53}\n{ROOT}\n",
        f"{ORIGIN}\n{2**63}\n{ROOT}\n",
        f"{ORIGIN}\n{10**19 - 1}\n{ROOT}\n",
        f"{ORIGIN}\n1\n{ROOT[:-4]}\n",
        f"{ORIGIN}\n1\n{ROOT[:-2]}B=\n",
        f"{ORIGIN}\n1\n{ROOT}\nextension\n",
        f"\n1\n{ROOT}\n",
        f"{ORIGIN}\n1\n",
    ],
)
def test_malformed_checkpoints_are_refused_though_signed(body: str) -> None:
    text = Note(body).signed_by(ORIGIN, KEY).render()
    with pytest.raises(LedgerTamperedError):
        open_checkpoint(text, OWN)


@pytest.mark.parametrize(
    "note",
    [
        *("", "text\n", "text\n\n", "text\n\nno dash\n", "a\tb\n\n— k AAAAAAA=\n"),
        *("a\n\n— k ====\n", "a\n\n— k AAAAAAA=", "a\n\n—  AAAAAAA=\n", "a" * 70000),
        "a\n\n" + "— k AAAAAAA=\n" * 65,
    ],
)
def test_text_that_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(LedgerTamperedError):
        Note.parse(note)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_arbitrary_text_gives_a_named_error_or_a_note(text: str) -> None:
    try:
        assert Note.parse(text).render() == text
    except LedgerTamperedError:
        return


def test_a_log_may_grow_but_neither_shrink_nor_fork_nor_change_its_name() -> None:
    frontiers = [merkle.Frontier()]
    nodes: dict[merkle.Node, bytes] = {}
    for i in range(6):
        frontier, completed = frontiers[-1].append(merkle.leaf_hash(bytes([i])))
        nodes.update(completed)
        frontiers.append(frontier)
    heads = [Checkpoint(ORIGIN, i, frontier.root()) for i, frontier in enumerate(frontiers)]
    proof = merkle.consistency_proof(3, 6, nodes.__getitem__)
    require_extends(heads[3], heads[6], proof)
    require_extends(heads[0], heads[6], ())
    require_extends(heads[6], heads[6], ())
    with pytest.raises(LedgerTamperedError, match="rolled back"):
        require_extends(heads[6], heads[3], proof)
    with pytest.raises(LedgerTamperedError, match="forked"):
        require_extends(heads[6], Checkpoint(ORIGIN, 6, bytes(32)), ())
    with pytest.raises(LedgerTamperedError, match="not proved"):
        require_extends(heads[3], Checkpoint(ORIGIN, 6, bytes(32)), proof)
    with pytest.raises(LedgerTamperedError, match="two logs"):
        require_extends(heads[3], Checkpoint("other", 6, heads[6].root), proof)
