"""Identity keys: kept private on disk, pinned by name, known vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import ConfigError, SignatureError, UnknownPartyError
from privagg.identity import keys as identity
from privagg.identity.keys import Identity, Roster, forget_signatures, verify_signature


def test_stored_keys_are_private_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "north.pem"
    first = Identity.load_or_create("north", path)
    assert path.stat().st_mode & 0o077 == 0
    assert Identity.load_or_create("north", path).public_hex == first.public_hex


def test_rfc_8032_vector() -> None:
    """RFC 8032, section 7.1, test 2."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signer = Identity("a", Ed25519PrivateKey.from_private_bytes(secret))
    assert signer.public_hex == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_roster_names_what_is_wrong() -> None:
    north, south = Identity.generate("north"), Identity.generate("south")
    roster = Roster.of(north)
    roster.verify("north", b"m", north.sign(b"m"))
    with pytest.raises(SignatureError, match="north"):
        roster.verify("north", b"m", south.sign(b"m"))
    with pytest.raises(UnknownPartyError, match="south"):
        roster.verify("south", b"m", south.sign(b"m"))
    with pytest.raises(ConfigError):
        Roster({"north": "zz"}).verify("north", b"m", b"")


def test_a_good_signature_is_computed_once_and_vouches_for_nothing_else() -> None:
    north, south = Identity.generate("north"), Identity.generate("south")
    key, other = bytes.fromhex(north.public_hex), bytes.fromhex(south.public_hex)
    good = north.sign(b"m")
    before = identity._remembered.cache_info()
    for _ in range(3):
        verify_signature(key, b"m", good)
    after = identity._remembered.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    flipped = bytes([good[0] ^ 1]) + good[1:]
    for wrong in ((other, b"m", good), (key, b"n", good), (key, b"m", flipped), (key, b"m", b"")):
        for _ in range(2):  # what failed once must fail again
            with pytest.raises(InvalidSignature):
                verify_signature(*wrong)
    verify_signature(key, b"m", good)
    forget_signatures()
    assert identity._remembered.cache_info().currsize == 0


def test_a_long_message_is_verified_and_not_kept() -> None:
    north = Identity.generate("north")
    key, long = bytes.fromhex(north.public_hex), bytes(identity._REMEMBERED_BYTES + 1)
    size = identity._remembered.cache_info().currsize
    verify_signature(key, long, north.sign(long))
    with pytest.raises(InvalidSignature):
        verify_signature(key, long, north.sign(long[1:]))
    assert identity._remembered.cache_info().currsize == size


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_an_unreadable_key_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        Identity.load_or_create("north", path)
    assert path.read_bytes() == content


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder, dangling = tmp_path / "folder.pem", tmp_path / "dangling.pem"
    folder.mkdir()
    dangling.symlink_to(tmp_path / "nowhere.pem")
    for path in (folder, dangling):
        with pytest.raises(ConfigError, match=path.name):
            Identity.load_or_create("north", path)
