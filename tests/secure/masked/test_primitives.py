"""Shares, streams and seals against straightforward second implementations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privagg.errors import CiphertextError
from privagg.secure.masked import streams
from privagg.secure.masked.sealing import seal, unseal
from privagg.secure.masked.sharing import combine, deal, factors_at_zero, times
from privagg.secure.masked.streams import add_masks


def product(left: int, right: int) -> int:
    """FIPS 197, section 4.2: polynomials over GF(2) modulo x^8 + x^4 + x^3 + x + 1."""
    whole = 0
    for place in range(8):
        whole ^= (left << place) * (right >> place & 1)
    for place in range(14, 7, -1):
        whole ^= (0x11B << (place - 8)) * (whole >> place & 1)
    return whole


def array(*values: int) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


def test_products_are_those_of_the_field() -> None:
    every = np.arange(256, dtype=np.uint8)
    found = times(every[:, None], every[None, :])
    assert found.tolist() == [[product(a, b) for b in range(256)] for a in range(256)]
    assert times(array(0x57), array(0x83))[0] == 0xC1  # FIPS 197's own example


def test_any_t_shares_give_the_seed_and_fewer_fit_every_seed() -> None:
    seeds = np.frombuffer(bytes(range(96)), dtype=np.uint8).reshape(3, 32)
    shares = deal(seeds, 3, 6)
    for held in combinations(range(6), 3):
        factors = factors_at_zero(tuple(h + 1 for h in held))
        assert (combine(shares[list(held)], factors) == seeds).all()
        assert [int(f) for f in factors] == _lagrange([h + 1 for h in held])
    # With the third share free, every byte is possible: its factor is not 0.
    assert all(factors_at_zero((1, 2, other))[2] for other in range(3, 256))
    assert not (combine(shares[:2], factors_at_zero((1, 2))) == seeds).all()


def _lagrange(points: list[int]) -> list[int]:
    def inverse(element: int) -> int:
        return next(other for other in range(1, 256) if product(element, other) == 1)

    found = []
    for point in points:
        factor = 1
        for other in points:
            if other != point:
                factor = product(factor, product(other, inverse(other ^ point)))
        found.append(factor)
    return found


def test_shares_of_one_seed_are_fresh_each_time() -> None:
    seed = np.zeros((1, 32), dtype=np.uint8)
    assert not (deal(seed, 2, 3) == deal(seed, 2, 3)).all()
    assert (deal(seed, 1, 3) == 0).all()


@pytest.mark.parametrize("points", [(1, 1), (0, 1), (1, 256)])
def test_points_are_different_and_not_zero(points: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="points"):
        factors_at_zero(points)


def test_no_more_holders_than_the_field_has_points() -> None:
    seed = np.zeros((1, 32), dtype=np.uint8)
    assert deal(seed, 2, 255).shape == (255, 1, 32)
    for threshold, holders in ((0, 3), (4, 3), (2, 256)):
        with pytest.raises(ValueError, match="dealt"):
            deal(seed, threshold, holders)


@pytest.mark.parametrize("words", [1, 5, 4096, streams._PIECE + 3])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_masks_are_counter_mode_whatever_the_pieces(
    words: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVAGG_THREADS", threads)
    monkeypatch.setattr("privagg.threads._MIN_BYTES_A_THREAD", 1)
    masks = [(bytes([7]) * 32, 1), (bytes(range(32)), -1), (bytes([9]) * 32, 1)]
    lanes = np.full(words, 5, dtype=np.int64)
    add_masks(lanes, masks)
    want = np.full(words, 5, dtype=np.int64)
    for seed, sign in masks:
        blocks = b"".join(number.to_bytes(16, "big") for number in range(-(-words // 4)))
        made = Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(blocks)
        want += sign * np.frombuffer(made, dtype="<u4")[:words].astype(np.int64)
    assert lanes.tolist() == want.tolist()


def test_a_seal_opens_with_its_key_and_tags_alone() -> None:
    key, other = bytes(32), bytes([1]) * 32
    sealed = seal(key, b"shares", b"tags")
    assert unseal(key, sealed, b"tags") == b"shares"
    assert seal(key, b"shares", b"tags") != sealed
    for bad in ((other, sealed, b"tags"), (key, sealed, b"tagz"), (key, sealed[:-1], b"tags")):
        with pytest.raises(CiphertextError, match="do not open"):
            unseal(*bad)
