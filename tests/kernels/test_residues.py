"""Residue sums against Python's own integers, on every backend."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import (
    BACKENDS,
    ResidueSum,
    default_backend,
    pack_residues,
    unpack_residues,
)
from privagg.kernels.running_sum import Fault

Words = NDArray[np.uint64]
backends = pytest.mark.parametrize("backend", BACKENDS)


def draw(layout: ResidueLayout, rng: np.random.Generator) -> Words:
    rows = [
        rng.integers(0, q, n, dtype=np.uint64)
        for q, n in zip(layout.moduli, layout.counts, strict=True)
    ]
    return np.concatenate(rows)


def exact_sum(layout: ResidueLayout, inputs: list[Words]) -> list[int]:
    moduli = np.repeat(np.array(layout.moduli, dtype=object), layout.counts)
    total = sum(words.astype(object) for words in inputs)
    return list(total % moduli)


def by_hand(layout: ResidueLayout, words: Words) -> bytes:
    """The payload from its definition: row after row, lowest bit first."""
    out, at = b"", 0
    for modulus, count in zip(layout.moduli, layout.counts, strict=True):
        bits = modulus.bit_length() if layout.packed else 64
        number = sum(int(words[at + j]) << (j * bits) for j in range(count))
        out += number.to_bytes(count * bits // 8, "little")
        at += count
    return out


layouts = st.builds(
    lambda rows, packed: ResidueLayout(
        tuple(q for q, _ in rows), tuple(8 * n for _, n in rows), packed
    ),
    st.lists(
        st.tuples(
            st.integers(1, 60).flatmap(
                lambda bits: st.integers(max(2, 1 << (bits - 1)), max(2, (1 << bits) - 1))
            ),
            st.integers(1, 12),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)


@backends
@settings(max_examples=60, deadline=None)
@given(layout=layouts, seed=st.integers(0, 2**32))
def test_payloads_are_what_the_layout_says(backend: str, layout: ResidueLayout, seed: int) -> None:
    words = draw(layout, np.random.default_rng(seed))
    payload = pack_residues(layout, words, backend)
    assert payload == by_hand(layout, words)
    assert len(payload) == layout.payload_bytes
    back = unpack_residues(layout, payload, backend)
    assert not isinstance(back, Fault)
    assert back.tolist() == words.tolist()


@backends
@settings(max_examples=40, deadline=None)
@given(layout=layouts, count=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_sums_are_exact_beyond_lazy_capacity(
    backend: str, layout: ResidueLayout, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs = [draw(layout, rng) for _ in range(3)]
    greatest = np.repeat(np.array(layout.moduli, dtype=np.uint64) - np.uint64(1), layout.counts)
    inputs += [greatest] * (count - 1)
    payloads = [pack_residues(layout, words) for words in inputs]
    running = ResidueSum(layout, backend)
    split = count // 2
    assert running.add(payloads[:split]) == [None] * split
    assert running.add(payloads[split:]) == [None] * (len(payloads) - split)
    assert running.residues().tolist() == exact_sum(layout, inputs)
    assert running.to_bytes() == pack_residues(layout, running.residues())


@backends
@pytest.mark.parametrize("packed", [True, False])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_bad_inputs_are_named_and_leave_no_trace(
    backend: str, packed: bool, data: st.DataObject
) -> None:
    layout = ResidueLayout(((1 << 43) - 57, (1 << 17) + 3, (1 << 58) + 9), (2048, 8, 1032), packed)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    inputs = [draw(layout, rng) for _ in range(5)]
    payloads = [pack_residues(layout, words) for words in inputs]
    expected: list[Fault | None] = [None] * 5
    for bad in data.draw(st.sets(st.integers(0, 4), max_size=4)):
        place = data.draw(st.integers(0, layout.residues - 1))
        modulus = layout.moduli[layout.locate(place)[0]]
        limit = 1 << (modulus.bit_length() if packed else 64)
        words = inputs[bad].copy()
        words[place] = data.draw(st.sampled_from([modulus, limit - 1]))
        payloads[bad] = by_hand(layout, words)
        expected[bad] = Fault(place, int(words[place]), modulus)
    running = ResidueSum(layout, backend)
    assert running.add(payloads) == expected
    found = [unpack_residues(layout, payload, backend) for payload in payloads]
    assert [each if isinstance(each, Fault) else None for each in found] == expected
    good = [words for words, fault in zip(inputs, expected, strict=True) if fault is None]
    assert running.residues().tolist() == exact_sum(layout, good)


def test_backends_agree_word_for_word_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVAGG_THREADS", "3")
    layout = ResidueLayout(((1 << 50) - 27,) * 7, (65_536,) * 7)
    rng = np.random.default_rng(3)
    inputs = [draw(layout, rng) for _ in range(3)]
    payloads = [bytearray(pack_residues(layout, words, "numpy")) for words in inputs]
    payloads[1][-1] = 0xFF  # the last residue of the last row: threads before it must undo
    payloads[1][-2] = 0xFF
    payloads[1][-3:] = b"\xff\xff\xff"
    payloads[1][-7:] = b"\xff" * 7
    sums = [ResidueSum(layout, backend) for backend in BACKENDS]
    faults = [running.add(payloads) for running in sums]
    assert faults[0] == faults[1]
    assert [fault is None for fault in faults[0]] == [True, False, True]
    assert sums[0].to_bytes() == sums[1].to_bytes()
    assert sums[0].residues().tolist() == exact_sum(layout, [inputs[0], inputs[2]])


@backends
def test_payloads_may_start_anywhere_in_a_message(backend: str) -> None:
    layout = ResidueLayout(((1 << 45) - 229,), (2048,))
    words = draw(layout, np.random.default_rng(4))
    payload = pack_residues(layout, words)
    for offset in range(1, 9):
        message = b"\xff" * offset + payload + b"\xff" * 3
        view = memoryview(message)[offset : offset + len(payload)]
        running = ResidueSum(layout, backend)
        assert running.add([view]) == [None]
        assert running.residues().tolist() == words.tolist()


@backends
@pytest.mark.parametrize("size", [0, 1, 7])
def test_inputs_of_another_size_are_refused_before_anything_is_added(
    backend: str, size: int
) -> None:
    layout = ResidueLayout((97,), (8,))
    good = pack_residues(layout, np.arange(8, dtype=np.uint64))
    running = ResidueSum(layout, backend)
    for bad in (good[:size] if size < len(good) else good + b"\0", good + b"\0"):
        with pytest.raises(ValueError, match="bytes instead of"):
            running.add([good, bad])
        with pytest.raises(ValueError, match="bytes instead of"):
            unpack_residues(layout, bad, backend)
    assert running.residues().tolist() == [0] * 8


GUARDED = """
import ctypes, mmap
import numpy as np
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import ResidueSum, pack_residues, unpack_residues

page = mmap.PAGESIZE
pages = mmap.mmap(-1, 17 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
assert libc.mprotect(start + 16 * page, page, 0) == 0
rng = np.random.default_rng(7)
for bits in (2, 3, 20, 45, 57, 58, 59, 60):
    for counts in ((2048, 8), (8, 8), (1024, 1032)):
        moduli = ((1 << bits) - 1, 3)[: len(counts)]
        layout = ResidueLayout(moduli, counts)
        words = [rng.integers(0, q, n, dtype=np.uint64) for q, n in zip(moduli, counts)]
        words = np.concatenate(words)
        first = 16 * page - layout.payload_bytes
        pages[first : 16 * page] = pack_residues(layout, words)
        view = memoryview(pages)[first : 16 * page]
        for uploads in (1, 4, 5):
            running = ResidueSum(layout, "numba")
            assert running.add([view] * uploads) == [None] * uploads
            assert (unpack_residues(layout, view, "numba") == words).all()
            assert running.to_bytes() == pack_residues(
                layout, words * np.uint64(uploads) % np.repeat(np.array(moduli, np.uint64), counts)
            )
        del view
print("read no byte too many")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page through Linux's libc")
def test_nothing_beyond_a_payload_is_read() -> None:
    # A page that may not be read follows the payload: one byte too many kills the process.
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "read no byte too many" in done.stdout


def test_layouts_that_cannot_be_read_uniquely_are_refused() -> None:
    for moduli, counts in (((), ()), ((7,), (4,)), ((7,), (0,)), ((1,), (8,)), ((1 << 60,), (8,))):
        with pytest.raises(ValueError, match=r"row|moduli"):
            ResidueLayout(moduli, counts)
    with pytest.raises(ValueError, match="count for each modulus"):
        ResidueLayout((7, 11), (8,))


def test_the_backend_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVAGG_KERNELS", "numpy")
    assert default_backend() == "numpy"
    assert ResidueSum(ResidueLayout((97,), (8,))).backend == "numpy"
    with pytest.raises(ValueError, match="backend"):
        ResidueSum(ResidueLayout((97,), (8,)), "fortran")
