"""Where randomness comes from: the operating system's generator, or a source fit for tests only.

Everything that protects anybody (who is sampled, what noise is added) is drawn from a `Randomness`
that the caller passes in. There are two. `SystemRandomness` has no fallback: if the operating
system cannot give entropy, its exception goes up and nothing is drawn. `DeterministicRandomness`
says `secure = False`, and a round that ran with it is recorded as epsilon = infinity.
"""

from __future__ import annotations

import hashlib
import os
from decimal import Decimal
from fractions import Fraction
from typing import NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from privagg.errors import PlanError

Label = str | int
"""Part of a stream's name. The text "1" and the number 1 are different labels."""

_KEY_BYTES = 32
_ZEROS = bytes(1 << 18)  # what a block of noise draws at once


class ByteStream(Protocol):
    """An endless stream of uniformly distributed bytes; what was read once never comes again."""

    def bytes(self, n: int) -> bytes:
        """The next `n` bytes."""
        ...

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """The next `8 n` bytes as `n` words, little-endian, shape (n,)."""
        ...


class Randomness(Protocol):
    """A source of independent byte streams.

    Attributes:
        secure: True where the streams are unpredictable to everybody but this process.
        name: what a report says about the source.
    """

    @property
    def secure(self) -> bool: ...

    @property
    def name(self) -> str: ...

    def stream(self, *labels: Label) -> ByteStream:
        """A stream for the purpose that `labels` name, say ("noise", run, round, attempt)."""
        ...


class _AesCtrStream:
    """The AES-256 keystream in counter mode under one key: NIST SP 800-38A, section 6.5."""

    def __init__(self, key: bytes) -> None:
        self._keystream: CipherContext = Cipher(AES(key), CTR(bytes(16))).encryptor()

    def bytes(self, n: int) -> bytes:
        """The next `n` bytes."""
        if n <= len(_ZEROS):
            return self._keystream.update(_ZEROS[:n])
        return self._keystream.update(bytes(n))

    def uint64(self, n: int) -> NDArray[np.uint64]:
        """The next `8 n` bytes as `n` words, little-endian, shape (n,)."""
        return np.frombuffer(self.bytes(8 * n), dtype="<u8").astype(np.uint64, copy=False)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a second copy would repeat the first one's bytes."""
        raise TypeError("a random stream cannot be copied or pickled; open a new one instead")


class _SystemStream(_AesCtrStream):
    """An AES-256-CTR keystream under a key of the operating system's, renewed after a fork."""

    def __init__(self) -> None:
        self._take_key()

    def _take_key(self) -> None:
        super().__init__(os.urandom(_KEY_BYTES))
        self._process = os.getpid()

    def bytes(self, n: int) -> bytes:
        """The next `n` bytes; a forked child takes a key of its own before its first byte."""
        if os.getpid() != self._process:
            self._take_key()
        return super().bytes(n)


class SystemRandomness:
    """The operating system's generator, stretched by AES-256 in counter mode.

    Every stream gets 32 fresh bytes of `os.urandom` as its key (on Linux the `getrandom` call,
    which waits until the kernel's pool is initialised; PEP 524), so no key is ever used twice and
    labels do not matter for secrecy. That the keystream looks uniform to whoever does not hold the
    key is a computational assumption (AES-256 is a pseudo-random permutation).
    """

    secure = True
    name = "os-csprng/aes-256-ctr"

    def stream(self, *labels: Label) -> ByteStream:
        """A stream under a fresh key; `labels` are accepted so that sources are interchangeable.

        Raises:
            NotImplementedError, OSError: the operating system cannot give entropy; there is no
                weaker generator to fall back to.
        """
        return _SystemStream()


class DeterministicRandomness:
    """For tests only: streams that follow from a seed and their labels. Protects nobody.

    The key of a stream is SHA-256 over the seed and the labels, each with its type and length in
    front, so a stream's bytes do not depend on the order in which streams are opened; the same
    labels give the same bytes again. Rounds that ran with it are recorded as epsilon = infinity.

    Args:
        seed: bytes of any length, or an integer.
    """

    secure = False
    name = "deterministic (tests only)"

    def __init__(self, seed: bytes | int) -> None:
        self._seed = _tagged(seed)

    def stream(self, *labels: Label) -> ByteStream:
        """The stream that belongs to the seed and `labels`, from its first byte."""
        return _keyed_stream(b"privagg deterministic stream v1", self._seed, labels)


def public_stream(seed: bytes, *labels: Label) -> ByteStream:
    """A stream that everybody recomputes from a public seed, for choices that hide nothing.

    For rotations and masks that all parties must agree on; never for sampling or noise.

    Args:
        seed: public, the same at every party.
        labels: what the stream is for, say ("mask", round).
    """
    return _keyed_stream(b"privagg public stream v1", _tagged(seed), labels)


def _keyed_stream(domain: bytes, seed: bytes, labels: tuple[Label, ...]) -> ByteStream:
    """AES-256-CTR under SHA-256 of the domain, the tagged seed and the tagged labels."""
    digest = hashlib.sha256(domain + seed)
    for label in labels:
        digest.update(_tagged(label))
    return _AesCtrStream(digest.digest())


def _tagged(part: bytes | str | int) -> bytes:
    """`part` as type, length and content, so that no two lists of parts run together."""
    if isinstance(part, bytes):
        kind, body = b"b", part
    elif isinstance(part, str):
        kind, body = b"s", part.encode()
    else:
        kind, body = b"i", str(int(part)).encode()
    return kind + len(body).to_bytes(8, "big") + body


def poisson_sample(
    stream: ByteStream, count: int, sampling_rate: Decimal | Fraction
) -> NDArray[np.bool_]:
    """Include each of `count` records independently with probability `sampling_rate`.

    Args:
        stream: where the randomness comes from; 8 bytes a record are used at every rate.
        count: records, at least 0.
        sampling_rate: q in (0, 1], exact.

    Returns:
        Boolean mask, shape (count,). Each record is included with probability
        floor(q * 2^64) / 2^64, never above q, so accounting with q bounds what really ran; the
        Poisson-subsampled Gaussian's divergence grows with the rate. At q = 1 all are included.

    Raises:
        PlanError: the rate lies outside (0, 1].

    Source: Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, section 3.1 (lots
        drawn by independent inclusion); Chua et al., "How Private are DP-SGD Implementations?",
        ICML 2024 (why a shuffled batch is something else).
    """
    rate = Fraction(sampling_rate)
    if not 0 < rate <= 1:
        raise PlanError(f"sampling_rate must lie in (0, 1], got {sampling_rate}")
    words = stream.uint64(count)  # also at rate 1: what comes after them then stays the same
    if rate == 1:
        return np.ones(count, dtype=np.bool_)
    threshold = np.uint64(rate.numerator * 2**64 // rate.denominator)
    return np.asarray(words < threshold, dtype=np.bool_)
