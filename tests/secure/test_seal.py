"""The SEAL adapter: residues in and out are SEAL's own, and our sums are SEAL's sums."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from privagg.errors import CiphertextError, ParameterError, SchemeError
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import BACKENDS, ResidueSum, pack_residues
from privagg.secure.rns import RnsChain, find_chain

sealapi = pytest.importorskip("tenseal.sealapi")
from privagg.secure.seal import SealContext  # noqa: E402


def chain(special: bool = True) -> RnsChain:
    found = find_chain(4096, 66, 128, special=special)
    assert found is not None
    assert len(found.primes) == 2
    return found


@pytest.fixture(scope="module")
def ckks() -> SealContext:
    return SealContext("ckks", chain())


@pytest.fixture(scope="module")
def bfv() -> SealContext:
    return SealContext("bfv", chain(), 1 << 30)


def test_parameter_ids_are_the_hash_of_the_parameters(ckks: SealContext, bfv: SealContext) -> None:
    """SEAL's parms_id is BLAKE2b-256 over scheme, N, primes and t; so none need travel."""
    for made, number, plain in ((ckks, 2, 0), (bfv, 1, 1 << 30)):
        for mine, primes in (
            (made._data_id, made.chain.primes),
            (made._key_id, made.chain.key_primes),
        ):
            words = [number, made.chain.ring_degree, *primes, plain]
            digest = hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32)
            assert mine == digest.digest()


@pytest.mark.parametrize("backend", BACKENDS)
def test_our_sum_of_residues_is_seals_sum_bit_for_bit(ckks: SealContext, backend: str) -> None:
    public, _ = ckks.generate_keys()
    encryptor = ckks.encryptor(public)
    layout = ResidueLayout(ckks.chain.primes * 2, (4096,) * 4)
    evaluator = sealapi.Evaluator(ckks._context)
    rng = np.random.default_rng(7)
    running = ResidueSum(layout, backend)
    theirs: Any = None
    for _ in range(20):
        words = encryptor.encrypt_slots(rng.normal(size=2048).astype(np.complex128), 2.0**30)
        assert running.add([pack_residues(layout, words.reshape(-1))]) == [None]
        ciphertext = sealapi.Ciphertext()
        head = ckks._ciphertext_head(ckks._data_id, True, (2, 2, 4096), 2.0**30)
        ckks._load(ciphertext, head, words)
        if theirs is None:
            theirs = ciphertext
        else:
            evaluator.add_inplace(theirs, ciphertext)
    flat = [theirs[i] for i in range(2 * 2 * 4096)]
    assert running.residues().tolist() == flat


def test_slots_come_back(ckks: SealContext) -> None:
    public, secret = ckks.generate_keys()
    whole = np.random.default_rng(8).integers(-1000, 1000, 2048)
    slots = (whole * (1 + 0.5j)).astype(np.complex128)
    words = ckks.encryptor(public).encrypt_slots(slots, 2.0**40)
    assert words.shape == ckks.ciphertext_shape
    assert (words < np.array(ckks.chain.primes, dtype=np.uint64)[None, :, None]).all()
    back = ckks.decryptor(secret).decrypt_slots(words, 2.0**40)
    assert np.abs(back - slots).max() < 1e-4


def test_an_encryption_of_zero_decrypts_to_zero_and_takes_a_message(bfv: SealContext) -> None:
    public, secret = bfv.generate_keys()
    words = bfv.encryptor(public).encrypt_zero().copy()
    decryptor = bfv.decryptor(secret)
    assert not decryptor.decrypt_coefficients(words).any()
    modulus, message = bfv.chain.modulus, 123_456_789
    for row, prime in enumerate(bfv.chain.primes):
        lifted = (modulus * message) >> 30
        words[0, row, 17] = (int(words[0, row, 17]) + lifted) % prime
    opened = decryptor.decrypt_coefficients(words)
    assert opened[17] == message
    assert np.count_nonzero(opened) == 1


def test_without_memory_files_a_private_folder_serves(
    ckks: SealContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create")
    public, secret = ckks.generate_keys()
    words = ckks.encryptor(public).encrypt_slots(np.array([7.0 + 0j]), 2.0**40)
    assert abs(ckks.decryptor(secret).decrypt_slots(words, 2.0**40)[0] - 7) < 1e-4


def test_keys_are_fresh_and_reloadable(ckks: SealContext) -> None:
    first, second = ckks.generate_keys(), ckks.generate_keys()
    assert (first[0] != second[0]).any()
    assert (first[1] != second[1]).any()
    words = ckks.encryptor(first[0].copy()).encrypt_slots(np.array([5.0 + 0j]), 2.0**40)
    wrong = ckks.decryptor(second[1]).decrypt_slots(words, 2.0**40)
    assert abs(wrong[0] - 5) > 1


def test_misuse_gets_our_own_errors(ckks: SealContext, bfv: SealContext) -> None:
    public, secret = ckks.generate_keys()
    with pytest.raises(ParameterError, match="encode"):
        ckks.encryptor(public).encrypt_slots(np.array([2.0**60 + 0j]), 2.0**40)
    bfv_public, bfv_secret = bfv.generate_keys()
    with pytest.raises(SchemeError, match="not for CKKS"):
        bfv.encryptor(bfv_public).encrypt_slots(np.zeros(1, dtype=np.complex128), 1.0)
    with pytest.raises(SchemeError, match="not for CKKS"):
        bfv.decryptor(bfv_secret).decrypt_slots(np.zeros((2, 2, 4096), np.uint64), 1.0)
    with pytest.raises(CiphertextError, match="SEAL refuses"):
        ckks.decryptor(secret).decrypt_slots(np.full((2, 2, 4096), 2**63, np.uint64), 1.0)
    with pytest.raises(ParameterError, match="SEAL refuses"):
        SealContext("bfv", chain(), chain().primes[0])


def test_an_aggregator_needs_no_seal() -> None:
    """Loading parameters, checking and adding work where TenSEAL cannot be imported."""
    code = """
import sys
for name in ("tenseal", "torch", "phe", "opacus"):
    sys.modules[name] = None
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement
from privagg.errors import CiphertextError, MissingDependencyError
for name in ("ckks", "bfv"):
    chosen = scheme(name).choose_parameters(Requirement(100, 1000, 5000, 5))
    parameters = scheme(name).load_parameters(chosen.to_dict())
    fold = parameters.fold()
    fold.add(bytes(parameters.payload_bytes))
    try:
        fold.add(b"\\xff" * parameters.payload_bytes)
    except CiphertextError:
        pass
    else:
        raise SystemExit("out-of-range residues were added")
    assert fold.payload() == bytes(parameters.payload_bytes)
    try:
        key_generator(name).generate_key(parameters)
    except MissingDependencyError as error:
        assert "privagg[ckks]" in str(error)
    else:
        raise SystemExit("keys without SEAL")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
