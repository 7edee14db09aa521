"""Paillier against phe, against its own definition, and against hostile bytes."""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
import pytest
from phe import paillier as phe

from privagg.encoding.vectors import IntVector
from privagg.errors import (
    CapacityError,
    CiphertextError,
    KeyMismatchError,
    MissingDependencyError,
    ParameterError,
    SchemeError,
)
from privagg.secure import paillier as adapter
from privagg.secure.paillier import PaillierScheme
from privagg.secure.paillier_keys import (
    PaillierDecryptionKey,
    PaillierEncryptionKey,
    PaillierKeyGenerator,
)
from privagg.secure.paillier_parameters import PaillierParameters, rated_security
from privagg.secure.paillier_primes import blum_prime, prime_pair
from privagg.secure.scheme import Requirement

SCHEME, KEYS = PaillierScheme(), PaillierKeyGenerator()
# 22-bit sums in slots of 24 bits: 85 values in a 2048-bit plaintext.
REQUIREMENT = Requirement(100, 32_767, 64 * 32_767, 64, security_bits=112)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "paillier_phe_2048.json").read_text())


@pytest.fixture(scope="module")
def key() -> PaillierDecryptionKey:
    return KEYS.generate_key(SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048))


@pytest.fixture(scope="module")
def phe_key() -> PaillierDecryptionKey:
    """The key of the vectors, made by phe: not of the form that short exponents ask for."""
    public = phe.PaillierPublicKey(number(VECTORS["n"]))
    private = phe.PaillierPrivateKey(public, number(VECTORS["p"]), number(VECTORS["q"]))
    parameters = SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048)
    return adapter.from_phe_private(parameters, private)


@pytest.fixture(scope="module", params=[100, 700], ids=["2 ciphertexts", "9 ciphertexts"])
def any_key(request: pytest.FixtureRequest, key: PaillierDecryptionKey) -> PaillierDecryptionKey:
    """The same key for uploads below and above the size from which compiled kernels work."""
    requirement = replace(REQUIREMENT, length=request.param)
    parameters = SCHEME.choose_parameters(requirement, modulus_bits=2048)
    return KEYS.load_decryption_key(parameters, key.to_bytes())


def number(text: str) -> int:
    return int(text, 16)


def ciphertexts(key: PaillierDecryptionKey, payload: bytes) -> list[int]:
    size = key.encryption_key.parameters.ciphertext_bytes
    return [
        int.from_bytes(payload[at : at + size], "little") for at in range(0, len(payload), size)
    ]


def payload_of(key: PaillierDecryptionKey, numbers: list[int]) -> bytes:
    size = key.encryption_key.parameters.ciphertext_bytes
    return b"".join(c.to_bytes(size, "little") for c in numbers)


def opened(key: PaillierDecryptionKey, payload: bytes, count: int) -> list[int]:
    parameters = key.encryption_key.parameters
    return SCHEME.combine(parameters, [key.open_share(payload, count)], count).tolist()


def draw(seed: int, count: int = 1, length: int = REQUIREMENT.length) -> IntVector:
    return np.random.default_rng(seed).integers(-32_767, 32_768, (count, length))


def draw_for(key: PaillierDecryptionKey, seed: int, count: int = 1) -> IntVector:
    return draw(seed, count, key.encryption_key.parameters.requirement.length)


# --- known answers from phe ----------------------------------------------------------------------


def test_vectors_of_phe_pack_fold_and_open(phe_key: PaillierDecryptionKey) -> None:
    parameters = phe_key.encryption_key.parameters
    assert (parameters.slots.slots, parameters.slots.slot_bits) == (85, 24)
    fold = parameters.fold()
    for upload in VECTORS["uploads"]:
        values = np.array(upload["values"], dtype=np.int64)
        packed = [m % phe_key.encryption_key.modulus for m in parameters.slots.pack(values)]
        assert packed == [number(c["plaintext"]) for c in upload["ciphertexts"]]
        payload = payload_of(phe_key, [number(c["ciphertext"]) for c in upload["ciphertexts"]])
        assert opened(phe_key, payload, 1) == upload["values"]
        fold.add(payload)
    assert ciphertexts(phe_key, fold.payload()) == [number(c) for c in VECTORS["sum"]]
    assert opened(phe_key, fold.payload(), 3) == VECTORS["opened"]


def test_our_ciphertexts_are_those_of_phe_for_the_same_randomness(
    phe_key: PaillierDecryptionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = VECTORS["uploads"][0]
    roots = iter([number(c["r"]) for c in upload["ciphertexts"]])
    monkeypatch.setattr("privagg.secure.paillier_keys.random_below", lambda bound: next(roots))
    payload = phe_key.encryption_key.encrypt(np.array(upload["values"], dtype=np.int64))
    expected = [number(c["ciphertext"]) for c in upload["ciphertexts"]]
    assert ciphertexts(phe_key, payload) == expected


def test_phe_decrypts_what_we_encrypt(any_key: PaillierDecryptionKey) -> None:
    values = draw_for(any_key, 1)[0]
    payload = any_key.encryption_key.encrypt(values)
    private = adapter.to_phe_private(any_key)
    packed = any_key.encryption_key.parameters.slots.pack(values)
    found = [private.raw_decrypt(c) for c in ciphertexts(any_key, payload)]
    assert found == [m % private.public_key.n for m in packed]


def test_we_decrypt_what_phe_encrypts(any_key: PaillierDecryptionKey) -> None:
    values = draw_for(any_key, 2)[0]
    public = adapter.to_phe_public(any_key.encryption_key)
    packed = any_key.encryption_key.parameters.slots.pack(values)
    numbers = [public.raw_encrypt(m % public.n) for m in packed]
    assert opened(any_key, payload_of(any_key, numbers), 1) == values.tolist()


def test_phe_adds_to_the_same_bytes(any_key: PaillierDecryptionKey) -> None:
    uploads = draw_for(any_key, 3, 5)
    public = adapter.to_phe_public(any_key.encryption_key)
    payloads = [any_key.encryption_key.encrypt(values) for values in uploads]
    fold = any_key.encryption_key.parameters.fold()
    for payload in payloads:
        fold.add(payload)
    sums = [phe.EncryptedNumber(public, c) for c in ciphertexts(any_key, payloads[0])]
    for payload in payloads[1:]:
        numbers = ciphertexts(any_key, payload)
        sums = [s + phe.EncryptedNumber(public, c) for s, c in zip(sums, numbers, strict=True)]
    assert fold.payload() == payload_of(any_key, [s.ciphertext(be_secure=False) for s in sums])
    assert opened(any_key, fold.payload(), 5) == uploads.sum(axis=0).tolist()


def test_phe_keys_come_back_as_they_were(key: PaillierDecryptionKey) -> None:
    private = adapter.to_phe_private(key)
    incomplete = SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048)
    again = adapter.from_phe_private(incomplete, private)
    assert again.encryption_key.modulus == key.encryption_key.modulus
    assert sorted(again.primes) == sorted(key.primes)
    assert again.encryption_key.base is None
    values = draw(4)[0]
    assert opened(again, key.encryption_key.encrypt(values), 1) == values.tolist()
    assert opened(key, again.encryption_key.encrypt(values), 1) == values.tolist()


def test_a_phe_key_of_another_size_is_refused() -> None:
    public, _ = phe.generate_paillier_keypair(n_length=1024)
    with pytest.raises(ParameterError, match="exactly 2048 bits"):
        adapter.from_phe_public(SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048), public)


# --- the encryption, against its definition ------------------------------------------------------


def test_encryption_is_the_formula_of_damgard_jurik_nielsen(
    any_key: PaillierDecryptionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = any_key.encryption_key
    drawn: list[bytes] = []

    def record(size: int) -> bytes:
        drawn.append(np.random.default_rng(5).bytes(size))
        return drawn[-1]

    monkeypatch.setattr(secrets, "token_bytes", record)
    values = draw_for(any_key, 6)[0]
    found = ciphertexts(any_key, public.encrypt(values))
    table = public._fixed_base()
    n, base = public.modulus, public.base
    assert base is not None
    n_squared, to_the_n = n * n, pow(base, n, n * n)
    rows = np.frombuffer(drawn[0], "<u2").reshape(len(found), table.windows)
    for c, plaintext, row in zip(found, public.parameters.slots.pack(values), rows, strict=True):
        exponent = sum(
            (int(digit) % (1 << table.window_bits)) << (table.window_bits * j)
            for j, digit in enumerate(row)
        )
        noise = pow(to_the_n, exponent, n_squared)
        assert c == pow(1 + n, plaintext, n_squared) * noise % n_squared


def test_short_exponents_have_half_the_bits_of_the_modulus(key: PaillierDecryptionKey) -> None:
    table = key.encryption_key._fixed_base()
    assert table.windows * table.window_bits >= 1024


def test_a_foreign_key_never_uses_short_exponents(phe_key: PaillierDecryptionKey) -> None:
    public = phe_key.encryption_key
    public.encrypt(draw(7)[0])
    assert public.base is None
    assert public._table is None


def test_every_encryption_draws_fresh_randomness(key: PaillierDecryptionKey) -> None:
    values = np.zeros(REQUIREMENT.length, dtype=np.int64)
    seen = {c for _ in range(6) for c in ciphertexts(key, key.encryption_key.encrypt(values))}
    assert len(seen) == 12


@pytest.mark.parametrize("bits", [64, 192])
def test_primes_have_the_form_that_short_exponents_ask_for(bits: int) -> None:
    small = math.prod(int(p) for p in range(3, 2000, 2) if gmpy2.is_prime(p))
    for _ in range(20):
        p = blum_prime(bits)
        assert p.bit_length() == bits
        assert p % 4 == 3
        assert p >> (bits - 2) == 0b11
        assert gmpy2.is_prime(p)
        assert math.gcd(p // 2, small) == 1


def test_prime_pairs_make_moduli_of_exact_size() -> None:
    for _ in range(5):
        p, q = prime_pair(256)
        assert (p * q).bit_length() == 256
        assert math.gcd(p - 1, q - 1) == 2
        assert math.gcd(p * q, (p - 1) * (q - 1)) == 1


def test_the_base_is_minus_a_square(key: PaillierDecryptionKey) -> None:
    base = key.encryption_key.base
    assert base is not None
    assert key.encryption_key.parameters.modulus_bits == key.encryption_key.modulus.bit_length()
    for prime in key.primes:
        assert prime % 4 == 3
        assert gmpy2.legendre(-base % prime, prime) == 1


# --- hostile ciphertexts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda n, c: 0, "is zero"),
        (lambda n, c: n * n, "not below n\\^2"),
        (lambda n, c: n * n + 1, "not below n\\^2"),
        (lambda n, c: (1 << 4096) - 1, "not below n\\^2"),
        (lambda n, c: n, "multiple of n"),
        (lambda n, c: n * (n - 1), "multiple of n"),
        (lambda n, c: n * (c % n), "multiple of n"),
    ],
)
@pytest.mark.parametrize("index", [0, -1])
def test_numbers_that_are_no_ciphertexts_are_refused(
    any_key: PaillierDecryptionKey, spoil: Callable[[int, int], int], reason: str, index: int
) -> None:
    parameters = any_key.encryption_key.parameters
    first, second = draw_for(any_key, 8, 2)
    fold = parameters.fold()
    fold.add(any_key.encryption_key.encrypt(first))
    before = fold.payload()
    numbers = ciphertexts(any_key, any_key.encryption_key.encrypt(second))
    position = index % len(numbers)
    numbers[index] = spoil(any_key.encryption_key.modulus, numbers[index])
    bad = payload_of(any_key, numbers)
    for refuse in (fold.add, lambda p: any_key.open_share(p, 1)):
        with pytest.raises(CiphertextError, match=f"ciphertext {position} .*{reason}"):
            refuse(bad)
    assert fold.payload() == before
    assert fold.count == 1
    good = any_key.encryption_key.encrypt(second)
    assert [str(e) for e in fold.add_many([bad, good])][1] == "None"
    assert opened(any_key, fold.payload(), 2) == (first + second).tolist()


def test_refusals_do_not_print_the_ciphertext(key: PaillierDecryptionKey) -> None:
    numbers = ciphertexts(key, key.encryption_key.encrypt(draw(9)[0]))
    numbers[1] = (1 << 4096) - 1
    with pytest.raises(CiphertextError) as caught:
        key.encryption_key.parameters.fold().add(payload_of(key, numbers))
    assert len(str(caught.value)) < 200


def test_values_smuggled_past_the_bound_are_refused_at_opening(
    key: PaillierDecryptionKey,
) -> None:
    """A site that ignores its bound: caught by the guard bits, the range, or the spare slots."""
    parameters, n = key.encryption_key.parameters, key.encryption_key.modulus
    public = adapter.to_phe_public(key.encryption_key)
    bound = 64 * 32_767
    honest = public.raw_encrypt(0)
    for plaintext in (bound + 1, -bound - 1, 4 * bound, (bound + 1) << 24, 1 << 2040, n // 2):
        payload = payload_of(key, [public.raw_encrypt(plaintext % n), honest])
        with pytest.raises(CiphertextError):
            key.open_share(payload, 64)
    spare = payload_of(key, [honest, public.raw_encrypt(1 << (24 * 15))])
    with pytest.raises(CiphertextError, match="unused slots"):
        key.open_share(spare, 64)
    assert parameters.slots.slots == 85


def test_another_key_does_not_open(
    key: PaillierDecryptionKey, phe_key: PaillierDecryptionKey
) -> None:
    payload = key.encryption_key.encrypt(draw(10)[0])
    with pytest.raises(CiphertextError):
        phe_key.open_share(payload, 1)


def test_more_contributions_than_proved_for_are_refused(key: PaillierDecryptionKey) -> None:
    fold = key.encryption_key.parameters.fold()
    payload = key.encryption_key.encrypt(draw(11)[0])
    fold.add(payload, addends=64)
    with pytest.raises(CapacityError):
        fold.add(payload)
    assert fold.count == 64


# --- parameters ----------------------------------------------------------------------------------


def test_sizes_follow_the_security_level() -> None:
    assert [rated_security(b) for b in (1024, 2048, 3008, 3072, 7616, 7680)] == [
        0, 112, 112, 128, 128, 192,
    ]  # fmt: skip
    for level, bits in ((112, 2048), (113, 3072), (128, 3072), (129, 7680), (192, 7680)):
        requirement = Requirement(10, 10, 100, 10, security_bits=level)
        assert SCHEME.choose_parameters(requirement).modulus_bits == bits
    with pytest.raises(ParameterError, match="256-bit security"):
        SCHEME.choose_parameters(Requirement(10, 10, 100, 10, security_bits=256))


def test_a_2048_bit_modulus_is_refused_where_128_bits_are_asked_for() -> None:
    with pytest.raises(ParameterError, match="112-bit security, and 128 are required"):
        SCHEME.choose_parameters(Requirement(10, 10, 100, 10), modulus_bits=2048)
    assert "112-bit" in SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048).explain()


@pytest.mark.parametrize("bits", [0, 1024, 2040, 8256, 2048.0, "2048", True])
def test_unusable_modulus_sizes_are_refused(bits: Any) -> None:
    with pytest.raises(ParameterError, match="modulus_bits"):
        SCHEME.choose_parameters(REQUIREMENT, modulus_bits=bits)


def test_parameters_without_a_modulus_say_where_to_get_one() -> None:
    parameters = SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048)
    assert SCHEME.load_parameters(parameters.to_dict()) == parameters
    with pytest.raises(SchemeError, match=r"key\.encryption_key\.parameters"):
        parameters.fold()


def _hostile_moduli(n: int) -> list[tuple[Any, str]]:
    top = 1 << 2047
    prime = int(gmpy2.next_prime(top))
    root = int(gmpy2.next_prime(math.isqrt(3 * top // 2)))
    return [
        (f"{n + 1:x}", "small factor"),
        (f"{(top // 30 + 1) * 30 + 15:x}", "small factor"),
        (f"{n >> 1:x}", "exactly 2048 bits"),
        (f"{n << 1 | 1:x}", "exactly 2048 bits"),
        (f"{prime:x}", "prime"),
        (f"{root * root:x}", "square"),
        (f"{n:X}", "hexadecimal"),
        (f"0x{n:x}", "hexadecimal"),
        (f" {n:x}", "hexadecimal"),
        ("", "hexadecimal"),
        ("f" * 100_000, "hexadecimal"),
        (n, "hexadecimal"),
        ({}, "hexadecimal"),
    ]


def test_hostile_moduli_are_refused(key: PaillierDecryptionKey) -> None:
    facts = key.encryption_key.parameters.to_dict()
    for hostile, reason in _hostile_moduli(key.encryption_key.modulus):
        with pytest.raises(ParameterError, match=reason):
            SCHEME.load_parameters({**facts, "public_modulus": hostile})
    for slot_bits in (23, 25, None, "24", 24.5):
        with pytest.raises(ParameterError, match="slot_bits"):
            SCHEME.load_parameters({**facts, "slot_bits": slot_bits})


def test_the_widest_sums_fit() -> None:
    requirement = Requirement(70, 1 << 61, (1 << 62) - 1, 2, security_bits=112)
    made = KEYS.generate_key(SCHEME.choose_parameters(requirement, modulus_bits=2048))
    assert made.encryption_key.parameters.slots.slot_bits == 64
    half = (1 << 61) - 1
    values = np.resize(np.array([half, -half, 1, -1, 0], dtype=np.int64), 70)
    fold = made.encryption_key.parameters.fold()
    for _ in range(2):
        fold.add(made.encryption_key.encrypt(values))
    assert opened(made, fold.payload(), 2) == (2 * values).tolist()


# --- keys ----------------------------------------------------------------------------------------


def test_key_bytes_of_others_are_refused(
    key: PaillierDecryptionKey, phe_key: PaillierDecryptionKey
) -> None:
    parameters = key.encryption_key.parameters
    with pytest.raises(KeyMismatchError):
        SCHEME.load_encryption_key(parameters, phe_key.encryption_key.to_bytes())
    with pytest.raises(KeyMismatchError):
        KEYS.load_decryption_key(parameters, phe_key.to_bytes())
    public = key.encryption_key.to_bytes()
    stolen = phe_key.to_bytes()[: 4 + 2 * 256] + public
    with pytest.raises(KeyMismatchError, match="do not multiply"):
        KEYS.load_decryption_key(parameters, stolen)
    for bad in (b"XXXX" + public[4:], public[:-1], public + b"\0", b""):
        with pytest.raises(CiphertextError, match="not a Paillier key"):
            SCHEME.load_encryption_key(parameters, bad)


def test_bases_that_hide_nothing_are_refused(key: PaillierDecryptionKey) -> None:
    parameters, n = key.encryption_key.parameters, key.encryption_key.modulus
    p, q = key.primes
    one_at_p = q * int(gmpy2.invert(q, p)) % n  # 1 mod p, 0 mod q
    root_of_one = (one_at_p - p * int(gmpy2.invert(p, q))) % n
    not_jacobi = next(b for b in range(2, 100) if gmpy2.jacobi(b, n) == -1)
    for base in (1, n - 1, n, n + 5, root_of_one, not_jacobi, p, one_at_p):
        with pytest.raises(CiphertextError, match="base"):
            PaillierEncryptionKey(parameters, n, base)


def test_a_key_carries_its_own_modulus_into_incomplete_parameters(
    key: PaillierDecryptionKey,
) -> None:
    incomplete = SCHEME.choose_parameters(REQUIREMENT, modulus_bits=2048)
    public = SCHEME.load_encryption_key(incomplete, key.encryption_key.to_bytes())
    assert public.parameters == key.encryption_key.parameters
    assert public.key_id == key.encryption_key.key_id


# --- what an aggregator needs --------------------------------------------------------------------

_AGGREGATOR = """
import json, sys
for name in {absent!r}:
    sys.modules[name] = None
from privagg.secure.paillier import PaillierScheme
facts, payloads = json.load(sys.stdin)
fold = PaillierScheme().load_parameters(facts).fold()
for payload in payloads:
    fold.add(bytes.fromhex(payload))
print(fold.payload().hex())
"""


@pytest.mark.parametrize("absent", [["phe", "gmpy2"], ["phe", "gmpy2", "numba"]])
def test_an_aggregator_adds_without_phe_and_gmpy2(
    any_key: PaillierDecryptionKey, absent: list[str]
) -> None:
    parameters = any_key.encryption_key.parameters
    uploads = draw_for(any_key, 12, 3)
    payloads = [any_key.encryption_key.encrypt(values) for values in uploads]
    answer = subprocess.run(
        [sys.executable, "-c", _AGGREGATOR.format(absent=absent)],
        input=json.dumps([parameters.to_dict(), [p.hex() for p in payloads]]),
        capture_output=True,
        text=True,
        check=True,
    )
    total = bytes.fromhex(answer.stdout)
    assert opened(any_key, total, 3) == uploads.sum(axis=0).tolist()


def test_missing_packages_are_named(
    key: PaillierDecryptionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "phe", None)
    with pytest.raises(MissingDependencyError, match="phe"):
        adapter.to_phe_public(key.encryption_key)
    monkeypatch.delitem(sys.modules, "privagg.secure.paillier_keys")
    monkeypatch.delattr("privagg.secure.paillier_keys", raising=False)
    monkeypatch.setitem(sys.modules, "gmpy2", None)
    monkeypatch.delitem(sys.modules, "privagg.secure.paillier_primes")
    with pytest.raises(MissingDependencyError, match=r"privagg\[paillier\]"):
        SCHEME.load_encryption_key(PaillierParameters(REQUIREMENT, 2048), b"")
