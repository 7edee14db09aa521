"""The container: plain unzip programs read it, and it has one spelling."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privagg.audit.container import pack, unpack
from privagg.errors import UnreadableBundleError

NAMES = st.from_regex(r"[a-z][a-z0-9.]{0,8}(/[a-z][a-z0-9.]{0,8})?", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(FILES)
def test_what_is_packed_comes_out_here_and_in_pythons_zipfile(files: dict[str, bytes]) -> None:
    data = pack(files)
    assert unpack(data) == files
    with zipfile.ZipFile(io.BytesIO(data)) as other:
        assert other.testzip() is None
        assert {name: other.read(name) for name in other.namelist()} == files


@settings(deadline=None, max_examples=100)
@given(FILES, st.data())
def test_no_other_bytes_are_taken(files: dict[str, bytes], data: st.DataObject) -> None:
    packed = bytearray(pack(files))
    place = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[place // 8] ^= 1 << place % 8
    with pytest.raises(UnreadableBundleError):
        unpack(bytes(packed))


def test_random_and_shortened_bytes_are_refused_by_name() -> None:
    rng = np.random.default_rng(3)
    whole = pack({"a": b"hello", "b/c": b"there"})
    for size in range(len(whole)):
        with pytest.raises(UnreadableBundleError):
            unpack(whole[:size])
    for _ in range(300):
        with pytest.raises(UnreadableBundleError):
            unpack(b"PK\3\4" + rng.bytes(int(rng.integers(200))))
    with pytest.raises(UnreadableBundleError):
        unpack(whole + b"\0")
