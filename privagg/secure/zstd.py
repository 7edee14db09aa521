"""Zstandard decompression of what SEAL in this process just wrote; never of untrusted bytes.

TenSEAL's calls offer no way to turn SEAL's compression off, so residues must be unpacked once.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from privagg.errors import MissingDependencyError


def decompress(data: bytes | memoryview, size: int) -> bytes:
    """Decompress one Zstandard frame that holds exactly `size` bytes.

    Raises:
        MissingDependencyError: no installed package can read Zstandard.
    """
    name, codec = _codec()
    if name == "pyarrow":
        return bytes(codec.decompress(data, decompressed_size=size, asbytes=True))
    if name == "zstandard":
        return bytes(codec.decompress(bytes(data), max_output_size=size))
    return bytes(codec.decompress(bytes(data)))


@cache
def _codec() -> tuple[str, Any]:
    for name in ("compression.zstd", "zstandard", "pyarrow"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "pyarrow":
            return name, module.Codec("zstd")
        return name, module.ZstdDecompressor() if name == "zstandard" else module
    raise MissingDependencyError(
        "SEAL's ciphertexts are Zstandard-compressed and no package here reads that; "
        "install it with: pip install 'privagg[ckks]'"
    )
