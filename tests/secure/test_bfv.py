"""BFV with packed coefficients: the proof of exactness, at its bound and beyond it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal.sealapi")

from privagg.errors import CiphertextError, ParameterError
from privagg.kernels.residues import pack_residues
from privagg.secure.bfv import (
    GUARD_BITS,
    BfvDecryptionKey,
    BfvKeyGenerator,
    BfvParameters,
    BfvScheme,
    coefficient_error,
    needed_modulus_bits,
)
from privagg.secure.rns import find_chain
from privagg.secure.scheme import Requirement
from privagg.secure.seal import SealContext

SCHEME, KEYS = BfvScheme(), BfvKeyGenerator()
REQUIREMENT = Requirement(3000, 32_767, 16 * 32_767, 16)
DEGREES = [2048, 4096, 8192, 16384]


def made(degree: int | None = None, **options: Any) -> tuple[BfvParameters, BfvDecryptionKey]:
    parameters = SCHEME.choose_parameters(REQUIREMENT, ring_degree=degree, **options)
    key = KEYS.generate_key(parameters)
    assert isinstance(key, BfvDecryptionKey)
    return parameters, key


def error_bound(parameters: BfvParameters) -> float:
    return coefficient_error(
        parameters.requirement,
        parameters.chain.ring_degree,
        parameters.fields,
        has_special=parameters.chain.special is not None,
        smudging_bits=0,
    )


def shifted(parameters: BfvParameters, payload: bytes, error: int) -> bytes:
    """The payload with `error` added to every sent coefficient of c0."""
    words = parameters.read(payload).copy()
    rows = parameters.layout.rows
    primes = len(parameters.chain.primes)
    for row in range(len(parameters.layout.moduli)):
        if row // primes % 2 == 0:  # a row of c0
            start, count = int(rows.target[row]), int(rows.count[row])
            prime = parameters.layout.moduli[row]
            part = words[start : start + count]
            part[:] = (part + np.uint64(error % prime)) % np.uint64(prime)
    return pack_residues(parameters.layout, words)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_as_large_as_the_room_left_still_opens_exactly(degree: int, sign: int) -> None:
    """e of a fresh sum is within the bound, so up to q / 2^(K+1) minus it may come on top."""
    parameters, key = made(degree)
    rng = np.random.default_rng(degree)
    fold = parameters.fold()
    total = np.zeros(3000, dtype=np.int64)
    for _ in range(16):
        values = rng.integers(-32_767, 32_767, 3000, endpoint=True)
        total += values
        fold.add(key.encryption_key.encrypt(values))
    half_step = parameters.chain.modulus >> (parameters.field_layout.bits + 1)
    room = half_step - math.ceil(error_bound(parameters))
    assert room > 0
    payload = shifted(parameters, fold.payload(), sign * room)
    opened = SCHEME.combine(parameters, [key.open_share(payload, 16)], 16)
    assert opened.tolist() == total.tolist()


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_larger_error_is_refused_rather_than_rounded(degree: int, sign: int) -> None:
    parameters, key = made(degree)
    payload = key.encryption_key.encrypt(np.zeros(3000, dtype=np.int64))
    half_step = parameters.chain.modulus >> (parameters.field_layout.bits + 1)
    for error in (half_step + math.ceil(error_bound(parameters)), 4 * half_step):
        with pytest.raises(CiphertextError, match="whole values"):
            key.open_share(shifted(parameters, payload, sign * error), 1)


@pytest.mark.parametrize("degree", DEGREES)
def test_measured_errors_keep_to_the_proven_bound(degree: int) -> None:
    """The residue that error leaves in c0 + c1 s is found by bisection on a planted error."""
    parameters, key = made(degree)
    fold = parameters.fold()
    for _ in range(16):
        fold.add(key.encryption_key.encrypt(np.zeros(3000, dtype=np.int64)))
    payload, bound = fold.payload(), error_bound(parameters)
    half_step = parameters.chain.modulus >> (parameters.field_layout.bits + 1)

    def opens(error: int) -> bool:
        try:
            key.open_share(shifted(parameters, payload, error), 16)
        except CiphertextError:
            return False
        return True

    low, high = half_step - math.ceil(bound), half_step + math.ceil(bound)
    for _ in range(10):
        middle = (low + high) // 2
        low, high = (middle, high) if opens(middle) else (low, middle)
    measured = half_step - low  # the greatest error among the coefficients
    assert bound / 100 < measured <= bound


def test_the_modulus_is_the_least_that_is_proved() -> None:
    for degree in DEGREES:
        parameters = SCHEME.choose_parameters(REQUIREMENT, ring_degree=degree)
        needed = needed_modulus_bits(
            REQUIREMENT,
            degree,
            parameters.fields,
            has_special=parameters.chain.special is not None,
            smudging_bits=0,
        )
        assert needed <= parameters.modulus_bits < needed + 2
        with pytest.raises(ParameterError, match="no room"):
            dataclasses.replace(parameters, fields=parameters.fields + 1)
        with pytest.raises(ParameterError, match="no room"):
            dataclasses.replace(parameters, smudging_bits=3)
        wrong: list[Any] = [0, -1, 10_000, 1.5, None, True]
        for bad in wrong:
            with pytest.raises(ParameterError, match="fields"):
                dataclasses.replace(parameters, fields=bad)


def test_the_upload_meets_its_target() -> None:
    """22-bit sums of 64 sites, noise included, under a public key: at most 6.5 bytes each."""
    for length in (1_000_000, 25_600_000):
        requirement = Requirement(length, 32_767, (1 << 21) - 1, 64)
        parameters = SCHEME.choose_parameters(requirement)
        assert parameters.security_bits >= 128
        assert parameters.payload_bytes / length <= 6.5


@pytest.mark.parametrize(
    ("requirement", "options"),
    [
        (Requirement(20_000, 272_566_348, 272_566_348, 1), {"ring_degree": 16384}),
        (Requirement(9130, 4012, 1_580_728, 394, 192), {"ring_degree": 8192, "smudging_bits": 60}),
        (Requirement(591, 2_309_677, 6_929_031, 3), {"smudging_bits": 60}),
    ],
)
def test_no_prime_of_a_ciphertext_is_taken_for_the_special_one(
    requirement: Requirement, options: dict[str, Any]
) -> None:
    # Without a special prime these chains would be the smaller ones, but SEAL would make one.
    parameters = SCHEME.choose_parameters(requirement, **options)
    key = KEYS.generate_key(parameters)
    bound = requirement.upload_bound
    values = np.random.default_rng(5).integers(-bound, bound, requirement.length)
    payload = key.encryption_key.encrypt(values)
    assert SCHEME.combine(parameters, [key.open_share(payload, 1)], 1).tolist() == values.tolist()


def test_primes_that_seal_would_set_apart_are_refused() -> None:
    requirement = Requirement(24, 1, 34, 34)
    chain = find_chain(4096, 85, 128, special=False)
    assert chain is not None
    assert len(chain.primes) == 2
    assert not chain.suits(1 << 30)
    with pytest.raises(ParameterError, match="special"):
        BfvParameters(requirement, chain, 0, True, 1)
    with pytest.raises(ParameterError, match="special"):
        SealContext("bfv", chain, 1 << 30)
    assert chain.suits(1 << 59)
    SealContext("bfv", chain, 1 << 59)
    with pytest.raises(ParameterError, match="special"):
        SealContext("ckks", chain)


def test_unused_coefficients_of_c0_are_not_sent() -> None:
    few = SCHEME.choose_parameters(Requirement(8, 1, 2, 2), ring_degree=2048)
    assert few.payload_bytes == (8 + 2048) * few.chain.primes[0].bit_length() // 8
    key = KEYS.generate_key(few)
    values = np.array([1, -1, 0, 1, 1, -1, 0, 1])
    share = key.open_share(key.encryption_key.encrypt(values), 1)
    assert SCHEME.combine(few, [share], 1).tolist() == values.tolist()


def test_coefficients_of_many_digits_come_back() -> None:
    """More than 59 bits a coefficient take several decryptions, more than 64 several words."""
    requirement = Requirement(57_000, 1 << 20, (1 << 22) - 1, 4)
    parameters = SCHEME.choose_parameters(requirement, ring_degree=8192)
    assert parameters.field_layout.bits > 2 * 59
    assert parameters.field_layout.shift == GUARD_BITS
    key = KEYS.generate_key(parameters)
    values = np.random.default_rng(1).integers(-(1 << 20), 1 << 20, 57_000, endpoint=True)
    share = key.open_share(key.encryption_key.encrypt(values), 1)
    assert SCHEME.combine(parameters, [share], 1).tolist() == values.tolist()


def test_a_made_up_ciphertext_opens_to_the_secret() -> None:
    """What is not guaranteed: adding (0, q/2^K) adds s to the sum. Only honest uploads are safe."""
    requirement = Requirement(2048, 100, 200, 2)
    parameters = SCHEME.choose_parameters(requirement, ring_degree=2048)
    assert parameters.fields == 1
    key = KEYS.generate_key(parameters)
    zeros = np.zeros(2048, dtype=np.int64)
    words = parameters.read(key.encryption_key.encrypt(zeros)).copy()
    (prime,) = parameters.chain.primes
    step = prime >> (parameters.field_layout.bits - GUARD_BITS)
    words[2048] = (int(words[2048]) + step) % prime  # the constant coefficient of c1
    payload = pack_residues(parameters.layout, words)
    opened = SCHEME.combine(parameters, [key.open_share(payload, 1)], 1)
    assert set(opened.tolist()) <= {-1, 0, 1}
    assert 500 < np.count_nonzero(opened == 1) < 900  # a third of 2048


def test_smudging_reserves_room() -> None:
    plain, smudged = (
        SCHEME.choose_parameters(REQUIREMENT, ring_degree=8192, smudging_bits=bits)
        for bits in (0, 30)
    )
    assert smudged.fields == plain.fields == 1
    assert 29 <= smudged.modulus_bits - plain.modulus_bits <= 32
    for bad in (-1, 1.5, 1000, None):
        with pytest.raises(ParameterError, match="smudging_bits"):
            SCHEME.choose_parameters(REQUIREMENT, smudging_bits=bad)
    with pytest.raises(ParameterError, match="lower sum_bound"):
        SCHEME.choose_parameters(REQUIREMENT, ring_degree=2048, smudging_bits=200)


def test_the_numpy_fallback_opens_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, key = made(4096)
    values = np.arange(3000, dtype=np.int64) - 1500
    payload = key.encryption_key.encrypt(values)
    monkeypatch.setenv("PRIVAGG_KERNELS", "numpy")
    for sent in (payload, key.encryption_key.encrypt(values)):
        share = key.open_share(sent, 1)
        assert SCHEME.combine(parameters, [share], 1).tolist() == values.tolist()


def test_the_explanation_names_what_matters() -> None:
    text = SCHEME.choose_parameters(REQUIREMENT).explain()
    for word in ("ring degree", "128 bits", "2^-64", "fields", "bytes"):
        assert word in text
