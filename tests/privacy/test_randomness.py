"""Streams never repeat, deterministic ones always do, and sampling rates are never exceeded."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privagg.errors import PlanError
from privagg.privacy.randomness import (
    ByteStream,
    DeterministicRandomness,
    Randomness,
    SystemRandomness,
    poisson_sample,
    public_stream,
)

labels = st.lists(st.one_of(st.text(max_size=4), st.integers(-50, 50)), max_size=4)


class Scripted:
    """A stream that hands out given words."""

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def bytes(self, n: int) -> bytes:
        return self.uint64(n // 8).astype("<u8").tobytes()

    def uint64(self, n: int) -> np.ndarray:
        taken, self.words = self.words[:n], self.words[n:]
        assert len(taken) == n
        return np.array(taken, dtype=np.uint64)


def test_system_streams_differ_even_under_equal_labels() -> None:
    source: Randomness = SystemRandomness()
    assert source.secure
    drawn = {source.stream("noise", 1).bytes(16) for _ in range(20)}
    assert len(drawn) == 20


def test_a_stream_goes_on_and_does_not_depend_on_the_size_of_the_reads() -> None:
    source = DeterministicRandomness(b"seed")
    whole = source.stream("a").bytes(300_000)
    stream = source.stream("a")
    parts = b"".join(stream.bytes(n) for n in (0, 1, 15, 16, 65_536, 70_000, 164_432))
    assert parts == whole
    words = source.stream("a").uint64(1000)
    assert words.dtype == np.uint64
    assert [int(w) for w in words[:3]] == [
        int.from_bytes(whole[8 * i : 8 * i + 8], "little") for i in range(3)
    ]


def test_the_keystream_is_aes_256_in_counter_mode() -> None:
    """Known answer: the blocks of the counter under AES-ECB, keyed as the docstring says."""
    seed, label = b"seed", "noise"
    key = hashlib.sha256(
        b"privagg deterministic stream v1"
        + (b"b" + (4).to_bytes(8, "big") + seed)
        + (b"s" + (5).to_bytes(8, "big") + label.encode())
        + (b"i" + (2).to_bytes(8, "big") + b"-7")
    ).digest()
    block = Cipher(AES(key), ECB()).encryptor()
    expected = b"".join(block.update(i.to_bytes(16, "big")) for i in range(5))
    assert DeterministicRandomness(seed).stream(label, -7).bytes(80) == expected


@settings(max_examples=60, deadline=None)
@given(labels, labels)
def test_deterministic_streams_agree_exactly_when_their_labels_do(
    one: list[str | int], other: list[str | int]
) -> None:
    source: Randomness = DeterministicRandomness(7)
    assert not source.secure
    first, second = source.stream(*one).bytes(16), source.stream(*other).bytes(16)
    same = [(type(x), x) for x in one] == [(type(x), x) for x in other]
    assert (first == second) == same


def test_labels_do_not_run_together_and_seeds_of_two_types_differ() -> None:
    source = DeterministicRandomness(1)
    assert source.stream("ab", "c").bytes(8) != source.stream("a", "bc").bytes(8)
    assert source.stream("1").bytes(8) != source.stream(1).bytes(8)
    assert source.stream().bytes(8) != DeterministicRandomness(b"1").stream().bytes(8)


def test_public_streams_are_the_same_for_everybody_and_none_of_the_test_source() -> None:
    assert public_stream(b"run", "mask", 3).bytes(32) == public_stream(b"run", "mask", 3).bytes(32)
    assert public_stream(b"run", "mask", 3).bytes(32) != public_stream(b"run", "mask", 4).bytes(32)
    assert public_stream(b"run").bytes(32) != DeterministicRandomness(b"run").stream().bytes(32)


@pytest.mark.parametrize("source", [SystemRandomness(), DeterministicRandomness(1)])
def test_a_stream_cannot_be_copied_or_pickled(source: Randomness) -> None:
    stream: ByteStream = source.stream("x")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="open a new one"):
            duplicate(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_repeat_its_parents_stream() -> None:
    stream = SystemRandomness().stream("noise")
    stream.bytes(16)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, stream.bytes(32))
        os._exit(0)
    os.waitpid(child, 0)
    childs = os.read(reader, 32)
    os.close(reader)
    os.close(writer)
    assert len(childs) == 32
    assert childs != stream.bytes(32)


def test_no_entropy_means_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(n: int) -> bytes:
        raise OSError("no entropy")

    monkeypatch.setattr(os, "urandom", broken)
    with pytest.raises(OSError, match="no entropy"):
        SystemRandomness().stream("noise")


@settings(max_examples=60, deadline=None)
@given(st.fractions(min_value=Fraction(1, 2**70), max_value=1))
def test_inclusion_is_exact_at_the_threshold_and_never_above_the_rate(rate: Fraction) -> None:
    threshold = rate.numerator * 2**64 // rate.denominator
    assert Fraction(threshold, 2**64) <= rate
    below, at = max(threshold - 1, 0), min(threshold, 2**64 - 1)
    mask = poisson_sample(Scripted(0, below, at, 2**64 - 1), 4, rate)
    if rate == 1:
        assert mask.all()
    else:
        assert mask.tolist() == [threshold > 0, below < threshold, at < threshold, False]


def test_a_third_is_below_a_third() -> None:
    third = (2**64 - 1) // 3
    mask = poisson_sample(Scripted(third - 1, third, third + 1), 3, Fraction(1, 3))
    assert mask.tolist() == [True, False, False]


def test_included_counts_are_binomial() -> None:
    """Chi-square over 2,000 draws of 50 records at q = 0.1; false alarm 1e-6, seed fixed."""
    stream = DeterministicRandomness(b"poisson").stream("sample")
    rate = Decimal("0.1")
    counts = [int(poisson_sample(stream, 50, rate).sum()) for _ in range(2000)]
    observed = np.bincount(np.minimum(counts, 11), minlength=12)
    law = stats.binom(50, float(rate))
    expected = 2000 * np.append(law.pmf(np.arange(11)), law.sf(10))
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_records_are_included_alike_and_in_pairs_independently() -> None:
    """Chi-squares over 20,000 draws of 12 records at q = 0.3; false alarm 1e-6 each, seed fixed."""
    stream = DeterministicRandomness(b"pairs").stream("sample")
    draws, n, q = 20_000, 12, 0.3
    masks = np.array([poisson_sample(stream, n, Decimal("0.3")) for _ in range(draws)])
    each = (masks.sum(axis=0) - draws * q) ** 2 / (draws * q * (1 - q))
    assert stats.chi2.sf(each.sum(), n) > 1e-6
    for first, second in ((masks, masks), (masks[:-1], masks[1:])):  # in a draw, and in the next
        together = first.T.astype(np.int64) @ second.astype(np.int64)
        moved = (together - len(first) * q * q) / np.sqrt(len(first)) / (q * q)
        apart = ~np.eye(n, dtype=np.bool_) if first is masks else np.ones((n, n), dtype=np.bool_)
        spread = np.sqrt(1 / q**2 - 1)
        limit = stats.norm.isf(1e-6 / (2 * n * n))
        assert np.abs(moved[apart] / spread).max() < limit


@pytest.mark.parametrize("rate", [Decimal(0), Decimal("1.01"), Fraction(-1, 2)])
def test_a_rate_outside_its_range_is_refused(rate: Decimal | Fraction) -> None:
    with pytest.raises(PlanError, match=r"\(0, 1\]"):
        poisson_sample(SystemRandomness().stream(), 3, rate)


def test_no_records_give_an_empty_mask() -> None:
    assert poisson_sample(SystemRandomness().stream(), 0, Decimal("0.5")).shape == (0,)
