"""CKKS: the proof of exactness, at its bound and beyond it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from privagg.errors import CiphertextError, ParameterError
from privagg.kernels.residues import pack_residues
from privagg.secure.ckks import CkksDecryptionKey, CkksKeyGenerator, CkksParameters, CkksScheme
from privagg.secure.ckks_bounds import modulus_bits
from privagg.secure.scheme import Requirement

SCHEME, KEYS = CkksScheme(), CkksKeyGenerator()
REQUIREMENT = Requirement(3000, 32_767, 16 * 32_767, 16)
DEGREES = [2048, 4096, 8192, 16384]


def made(degree: int | None = None, **options: Any) -> tuple[CkksParameters, CkksDecryptionKey]:
    parameters = SCHEME.choose_parameters(REQUIREMENT, ring_degree=degree, **options)
    key = KEYS.generate_key(parameters)
    assert isinstance(key, CkksDecryptionKey)
    return parameters, key


def shifted(parameters: CkksParameters, payload: bytes, error: int) -> bytes:
    """The payload with `error` added to every slot's real part: a constant polynomial in c0.

    In NTT form a constant is the same residue everywhere, and it evaluates to itself at any root.
    """
    words = parameters.read(payload).reshape(parameters.ciphertexts, 2, -1, 1).copy()
    primes = parameters.chain.primes
    words = words.reshape(parameters.ciphertexts, 2, len(primes), parameters.chain.ring_degree)
    for row, prime in enumerate(primes):
        words[:, 0, row] = (words[:, 0, row] + np.uint64(error % prime)) % np.uint64(prime)
    return pack_residues(parameters.layout, words.reshape(-1))


@pytest.mark.parametrize("degree", DEGREES)
def test_measured_errors_keep_to_the_proven_bound(degree: int) -> None:
    parameters, key = made(degree)
    rng = np.random.default_rng(degree)
    fold = parameters.fold()
    total = np.zeros(3000, dtype=np.int64)
    for _ in range(16):
        values = rng.integers(-32_767, 32_767, 3000, endpoint=True)
        total += values
        fold.add(key.encryption_key.encrypt(values))
    residues = parameters.read(fold.payload()).reshape(
        parameters.ciphertexts, 2, len(parameters.chain.primes), degree
    )
    raw = [key.decryptor.decrypt_slots(r, 2.0**parameters.scale_bits) for r in residues]
    parts = np.concatenate([np.concatenate((r.real, r.imag)) for r in raw])
    measured = float(np.abs(parts - np.rint(parts)).max())
    bound = parameters.error.relative(parameters.scale_bits)
    assert measured < bound <= 0.25
    assert measured > bound / 2000  # the bound is not so loose that nothing could test it
    assert parameters.packing_rule.unpack(
        np.rint(parts).astype(np.int64)[: parameters.packing_rule.words]
    ).tolist() == total.tolist()  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_as_large_as_the_room_left_still_opens_exactly(sign: int) -> None:
    parameters, key = made(4096)
    values = np.arange(3000, dtype=np.int64) - 1500
    scale = 2.0**parameters.scale_bits
    room = 0.375 - parameters.error.relative(parameters.scale_bits)
    payload = shifted(parameters, key.encryption_key.encrypt(values), sign * int(room * scale))
    opened = SCHEME.combine(parameters, [key.open_share(payload, 1)], 1)
    assert opened.tolist() == values.tolist()


@pytest.mark.parametrize("part", [0.5, -0.5])
def test_a_larger_error_is_refused_rather_than_rounded(part: float) -> None:
    parameters, key = made(4096)
    payload = key.encryption_key.encrypt(np.zeros(3000, dtype=np.int64))
    bad = shifted(parameters, payload, int(part * 2.0**parameters.scale_bits))
    with pytest.raises(CiphertextError, match="whole numbers"):
        key.open_share(bad, 1)


def test_a_sum_outside_the_words_range_is_refused() -> None:
    parameters, key = made(4096)
    payload = key.encryption_key.encrypt(np.zeros(3000, dtype=np.int64))
    step = 1 << parameters.scale_bits
    beyond = parameters.packing_rule.word_sum_bound + 1
    with pytest.raises(CiphertextError, match="words that no honest"):
        key.open_share(shifted(parameters, payload, beyond * step), 1)
    # Within the words' range, but more than one contribution can reach.
    with pytest.raises(CiphertextError, match="cannot reach|no honest"):
        key.open_share(shifted(parameters, payload, 40_000 * step), 1)


@pytest.mark.parametrize("degree", DEGREES)
def test_the_scale_and_modulus_are_the_least_that_are_proved(degree: int) -> None:
    parameters = SCHEME.choose_parameters(REQUIREMENT, ring_degree=degree)
    with pytest.raises(ParameterError, match="at most 1/4"):
        dataclasses.replace(parameters, scale_bits=parameters.scale_bits - 1)
    with pytest.raises(ParameterError, match="no room"):
        dataclasses.replace(parameters, scale_bits=parameters.scale_bits + 3)
    needed = modulus_bits(parameters.packing_rule, parameters.scale_bits)
    assert needed <= parameters.modulus_bits < needed + 2


def test_parameters_for_other_promises_are_refused() -> None:
    parameters = SCHEME.choose_parameters(REQUIREMENT)
    with pytest.raises(ParameterError, match="another requirement"):
        dataclasses.replace(parameters, requirement=Requirement(3000, 32_767, 17 * 32_767, 17))
    with pytest.raises(ParameterError, match="bits of security"):
        dataclasses.replace(
            parameters, requirement=dataclasses.replace(REQUIREMENT, security_bits=192)
        )


@pytest.mark.parametrize(
    "requirement",
    [
        Requirement(1787, 10_551, 10_551, 1),
        Requirement(5401, 5485, 5485, 1, 256),
        Requirement(100, 3_000, 3_500, 2),
    ],
)
def test_the_largest_contribution_encodes_whatever_its_values(requirement: Requirement) -> None:
    # SEAL refuses coefficients near the modulus; whether it does must not depend on private values.
    bound = requirement.upload_bound
    parameters = SCHEME.choose_parameters(requirement)
    key = KEYS.generate_key(parameters)
    for values in (np.full(requirement.length, bound), np.full(requirement.length, -bound)):
        payload = key.encryption_key.encrypt(values)
        opened = SCHEME.combine(parameters, [key.open_share(payload, 1)], 1)
        assert opened.tolist() == values.tolist()


@pytest.mark.parametrize("level", [128, 192, 256])
def test_every_security_level_has_parameters(level: int) -> None:
    parameters = SCHEME.choose_parameters(Requirement(10, 100, 1000, 10, security_bits=level))
    assert parameters.security_bits >= level
    with pytest.raises(ParameterError, match="300 bits of security|security_bits"):
        SCHEME.choose_parameters(Requirement(10, 100, 1000, 10, security_bits=300))


def test_wide_sums_take_limbs_and_narrow_ones_share_a_slot() -> None:
    wide = SCHEME.choose_parameters(Requirement(50_000, 1 << 40, 1 << 44, 16))
    narrow = SCHEME.choose_parameters(Requirement(50_000, 31, 16 * 31, 16))
    assert wide.packing_rule.limbs > 1
    assert narrow.packing_rule.per_word > 1
    assert narrow.payload_bytes < wide.payload_bytes / 4


def test_a_quarter_of_the_usual_upload() -> None:
    """TenSEAL's default chain takes 57 bytes a value; 22-bit sums of 64 sites take under 12."""
    parameters = SCHEME.choose_parameters(Requirement(1_000_000, 32_767, 64 * 32_767, 64))
    assert parameters.payload_bytes / 1_000_000 < 12


def test_smudging_reserves_room() -> None:
    plain, smudged = (
        SCHEME.choose_parameters(REQUIREMENT, ring_degree=8192, smudging_bits=bits)
        for bits in (0, 20)
    )
    assert 19 <= smudged.modulus_bits - plain.modulus_bits <= 22
    for bad in (-1, 1.5, 1000, None):
        with pytest.raises(ParameterError, match="smudging_bits"):
            SCHEME.choose_parameters(REQUIREMENT, smudging_bits=bad)


@pytest.mark.parametrize("degree", [1000, "4096", 2.5])
def test_unknown_ring_degrees_are_refused(degree: Any) -> None:
    with pytest.raises(ParameterError, match="ring degree"):
        SCHEME.choose_parameters(REQUIREMENT, ring_degree=degree)


def test_nothing_fits_is_said_with_what_to_lower() -> None:
    with pytest.raises(ParameterError, match="lower sum_bound, addends or security_bits"):
        SCHEME.choose_parameters(REQUIREMENT, ring_degree=2048, smudging_bits=100)


def test_unpacked_residues_work_too() -> None:
    parameters, key = made(4096, packed=False)
    values = np.arange(3000, dtype=np.int64)
    payload = key.encryption_key.encrypt(values)
    assert len(payload) == 8 * parameters.layout.residues
    assert SCHEME.combine(parameters, [key.open_share(payload, 1)], 1).tolist() == values.tolist()


def test_the_explanation_names_what_matters() -> None:
    text = SCHEME.choose_parameters(REQUIREMENT).explain()
    for word in ("ring degree", "128 bits", "2^-64", "grid steps", "bytes", "word"):
        assert word in text
    assert math.isfinite(SCHEME.choose_parameters(REQUIREMENT).modulus_bits)
