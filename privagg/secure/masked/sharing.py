"""Seeds in shares, of which any t give the seed and fewer nothing (Shamir, "How to share a secret",
CACM 22, 1979).

Byte by byte over GF(2^8) with the polynomial of AES, x^8 + x^4 + x^3 + x + 1: holder h, from 1 to
255, holds the value at h of a random polynomial of degree t - 1 whose constant term is the byte.
Any t - 1 values are uniform whatever the byte is. What is secret is only ever multiplied by public
points and factors, in eight steps of shifts and exclusive ors on whole arrays: no table is looked
up at a secret place, and no branch hangs on a secret. (Python and numpy keep copies in memory that
nobody can wipe.)
"""

from __future__ import annotations

import secrets
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SEED_BYTES = 32
_TOP, _REDUCED = np.uint8(7), np.uint8(0x1B)
"""The place of a byte's top bit, and x^8 modulo the polynomial."""


def deal(seeds: Bytes, threshold: int, holders: int) -> Bytes:
    """Shares of several seeds for every holder, from the operating system's CSPRNG.

    Args:
        seeds: uint8 (seeds, 32).
        threshold: t, shares that give a seed, 1 <= t <= holders.
        holders: at most 255; holder number h, from 0, gets the value at h + 1.

    Returns:
        uint8 (holders, seeds, 32).
    """
    if not 1 <= threshold <= holders <= 255:
        raise ValueError(f"{threshold} of {holders} holders cannot be dealt to")
    points = np.arange(1, holders + 1, dtype=np.uint8)[:, None]
    size = seeds.size
    drawn = np.frombuffer(secrets.token_bytes((threshold - 1) * size), dtype=np.uint8)
    coefficients = [seeds.reshape(-1), *drawn.reshape(threshold - 1, size)]
    shares: Bytes = np.repeat(coefficients[-1][None, :], holders, axis=0)
    for coefficient in coefficients[-2::-1]:
        shares = times(shares, points) ^ coefficient
    return shares.reshape(holders, *seeds.shape)


@lru_cache(maxsize=256)  # a run's rounds mostly open at the same points
def factors_at_zero(points: tuple[int, ...]) -> Bytes:
    """Lagrange's factors: the shares at these points, times these, add up to the seed.

    Args:
        points: different, each from 1 to 255; they are public.

    Returns:
        uint8 (points,), read-only.
    """
    if len(set(points)) != len(points) or not all(1 <= point <= 255 for point in points):
        raise ValueError(f"shares must be at different points from 1 to 255, not {points}")
    at = np.array(points)
    logs = _LOGS[at]
    differences = _LOGS[at[:, None] ^ at[None, :]]  # the log of 0, on the diagonal, is taken as 0
    factors: Bytes = _POWERS[(logs.sum() - logs - differences.sum(axis=1)) % 255]
    factors.setflags(write=False)
    return factors


def combine(shares: Bytes, factors: Bytes) -> Bytes:
    """The seeds that shares give.

    Args:
        shares: uint8 (t, ..., 32).
        factors: uint8 (t,) where all were dealt to the same points, or (t, ..., 1).

    Returns:
        uint8 (..., 32).
    """
    shaped = factors.reshape(factors.shape + (1,) * (shares.ndim - factors.ndim))
    total: Bytes = np.bitwise_xor.reduce(times(shares, shaped), axis=0)
    return total


def times(secret: Bytes, public: Bytes) -> Bytes:
    """Products in GF(2^8), in a time that does not depend on `secret`.

    Args:
        secret: uint8, any shape.
        public: uint8, broadcast to it.
    """
    masks = -np.unpackbits(public[..., None], axis=-1, bitorder="little")  # 0 or 0xFF, bit by bit
    product, power = secret & masks[..., 0], secret
    for bit in range(1, 8):
        power = (power + power) ^ (_REDUCED & -(power >> _TOP))
        product ^= power & masks[..., bit]
    return product


def _tables() -> tuple[Bytes, NDArray[np.int64]]:
    """Powers of the generator 3, and their logs; for public elements only."""
    powers, logs = np.ones(255, dtype=np.uint8), np.zeros(256, dtype=np.int64)
    for log in range(1, 255):
        powers[log] = times(powers[log - 1 : log], np.array([3], dtype=np.uint8))[0]
    logs[powers] = np.arange(255)
    return powers, logs


_POWERS, _LOGS = _tables()
