"""Microsoft SEAL through TenSEAL: the only file that imports it.

Residues go in and come out as numpy words. SEAL's own serialisation never leaves this file: what
it writes is read here, what it reads is written here from checked residues and known parameters,
so no byte from another party reaches SEAL's parser.

Format (SEAL 4.x, `native/src/seal/serialization.h`, `ciphertext.cpp`, `plaintext.cpp`): a 16-byte
header, then the object's members, little-endian.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.errors import CiphertextError, MissingDependencyError, ParameterError, SchemeError
from privagg.kernels.residues import Words
from privagg.secure.rns import RnsChain

try:
    import tenseal.sealapi as sealapi
except ImportError as error:
    raise MissingDependencyError(
        "this scheme needs the package 'tenseal'; install it with: pip install 'privagg[ckks]'"
    ) from error

_HEADER = struct.Struct("<HBBBBHQ")  # magic, size, major, minor, compression, reserved, total
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")  # parms_id, is_ntt, size, N, L, scale, correction
_PLAINTEXT = struct.Struct("<32sQd")  # parms_id, coefficients, scale
_ARRAY = struct.Struct("<HBBBBHQQ")  # an inner header, then the count of words
_MAGIC, _HEADER_SIZE = 0xA15E, 0x10
_NONE, _ZLIB, _ZSTD = 0, 1, 2
_LEVELS = {
    128: sealapi.SEC_LEVEL_TYPE.TC128,
    192: sealapi.SEC_LEVEL_TYPE.TC192,
    256: sealapi.SEC_LEVEL_TYPE.TC256,
}
_SCHEMES = {"ckks": sealapi.SCHEME_TYPE.CKKS, "bfv": sealapi.SCHEME_TYPE.BFV}


class SealContext:
    """SEAL set up for one chain; makes keys and the two parties' halves.

    Args:
        scheme: "ckks" or "bfv".
        chain: degree, primes and security level; SEAL checks the level again by its own table.
        plain_modulus: BFV's t, 2 <= t < 2^60; 0 for CKKS.

    Raises:
        ParameterError: SEAL refuses the parameters.
    """

    def __init__(self, scheme: str, chain: RnsChain, plain_modulus: int = 0) -> None:
        self.scheme = scheme
        self.chain = chain
        parameters = sealapi.EncryptionParameters(_SCHEMES[scheme])
        parameters.set_poly_modulus_degree(chain.ring_degree)
        parameters.set_coeff_modulus([sealapi.Modulus(prime) for prime in chain.key_primes])
        if plain_modulus:
            parameters.set_plain_modulus(plain_modulus)
        self._context = sealapi.SEALContext(parameters, True, _LEVELS[chain.security_bits])
        if not self._context.parameters_set():
            raise ParameterError(
                f"SEAL refuses the parameters: {self._context.parameters_error_message()}"
            )
        data_primes = self._context.first_context_data().parms().coeff_modulus()
        if tuple(prime.value() for prime in data_primes) != chain.primes:
            raise ParameterError("SEAL would take the last of these primes for its special one")
        self._data_id = _parms_id(self._context.first_parms_id())
        self._key_id = _parms_id(self._context.key_parms_id())
        with _channel() as path:
            sealapi.Plaintext(1).save(path)
            self._version = _HEADER.unpack(_read(path)[: _HEADER.size])[2:4]

    @property
    def ciphertext_shape(self) -> tuple[int, int, int]:
        """(polynomials, primes, N) of a ciphertext's residues."""
        return (2, len(self.chain.primes), self.chain.ring_degree)

    @property
    def public_key_shape(self) -> tuple[int, int, int]:
        """(polynomials, primes, N) of a public key's residues."""
        return (2, len(self.chain.key_primes), self.chain.ring_degree)

    @property
    def secret_key_shape(self) -> tuple[int, int]:
        """(primes, N) of a secret key's residues."""
        return (len(self.chain.key_primes), self.chain.ring_degree)

    def generate_keys(self) -> tuple[Words, Words]:
        """Fresh (public, secret) residues, drawn by SEAL from the operating system's CSPRNG."""
        generator = sealapi.KeyGenerator(self._context)
        public = sealapi.PublicKey()
        generator.create_public_key(public)
        with _channel() as path:
            public.save(path)
            public_words = self._words(path, _CIPHERTEXT, self.public_key_shape)
        with _channel() as path:
            generator.secret_key().save(path)
            secret_words = self._words(path, _PLAINTEXT, self.secret_key_shape)
        return public_words, secret_words

    def encryptor(self, public: Words) -> SealEncryptor:
        """An encryptor for public-key residues below their primes."""
        key = sealapi.PublicKey()
        head = self._ciphertext_head(self._key_id, True, self.public_key_shape, 1.0)
        self._load(key, head, public.reshape(self.public_key_shape))
        return SealEncryptor(self, sealapi.Encryptor(self._context, key))

    def decryptor(self, secret: Words) -> SealDecryptor:
        """A decryptor for secret-key residues below their primes."""
        key = sealapi.SecretKey()
        words = secret.reshape(self.secret_key_shape)
        self._load(key, _PLAINTEXT.pack(self._key_id, words.size, 1.0), words)
        return SealDecryptor(self, sealapi.Decryptor(self._context, key))

    def _ciphertext_head(
        self, parms_id: bytes, is_ntt: bool, shape: tuple[int, int, int], scale: float
    ) -> bytes:
        size, primes, degree = shape
        return _CIPHERTEXT.pack(parms_id, is_ntt, size, degree, primes, scale, 1)

    def _load(self, target: Any, head: bytes, words: Words) -> None:
        """Have SEAL read an object made of `head` and residues that were range-checked."""
        body = words.astype("<u8", copy=False).tobytes()
        inner = (_MAGIC, _HEADER_SIZE, *self._version, _NONE, 0, _ARRAY.size + len(body))
        total = _HEADER.size + len(head) + _ARRAY.size + len(body)
        outer = _HEADER.pack(_MAGIC, _HEADER_SIZE, *self._version, _NONE, 0, total)
        with _channel() as path:
            with open(path, "wb") as file:
                file.write(b"".join((outer, head, _ARRAY.pack(*inner, words.size), body)))
            try:
                target.load(self._context, path)
            except (RuntimeError, ValueError) as error:
                raise CiphertextError(f"SEAL refuses the residues: {error}") from error

    def _words(self, path: str, head: struct.Struct, shape: tuple[int, ...]) -> Words:
        """The residues of an object SEAL just saved, whose shape is known."""
        count = int(np.prod(shape))
        size = head.size + _ARRAY.size + 8 * count
        body = _body(_read(path), size)
        if len(body) != size or _ARRAY.unpack_from(body, head.size)[-1] != count:
            raise SchemeError("the installed SEAL writes a format that privagg does not know")
        words = np.frombuffer(body, dtype="<u8", offset=head.size + _ARRAY.size)
        return words.astype(np.uint64).reshape(shape)  # a copy: aligned and writable


class SealEncryptor:
    """Encrypts under one public key; made by `SealContext.encryptor`."""

    def __init__(self, context: SealContext, encryptor: Any) -> None:
        self._owner = context
        self._encryptor = encryptor
        self._encoder = sealapi.CKKSEncoder(context._context) if context.scheme == "ckks" else None

    def encrypt_slots(self, slots: NDArray[np.complex128], scale: float) -> Words:
        """Encode up to N/2 complex slots at `scale` and encrypt them under CKKS.

        Returns:
            uint64 (2, primes, N) in NTT form.
        """
        if self._encoder is None:
            raise SchemeError("slots are CKKS's; this context is not for CKKS")
        plaintext = sealapi.Plaintext()
        try:
            self._encoder.encode(slots.tolist(), scale, plaintext)
        except (RuntimeError, ValueError) as error:
            raise ParameterError(f"SEAL cannot encode at this scale: {error}") from error
        ciphertext = sealapi.Ciphertext()
        self._encryptor.encrypt(plaintext, ciphertext)
        return self._take(ciphertext)

    def encrypt_zero(self) -> Words:
        """A fresh encryption of zero; uint64 (2, primes, N), coefficients under BFV."""
        ciphertext = sealapi.Ciphertext()
        self._encryptor.encrypt_zero(ciphertext)
        return self._take(ciphertext)

    def _take(self, ciphertext: Any) -> Words:
        with _channel() as path:
            ciphertext.save(path)
            return self._owner._words(path, _CIPHERTEXT, self._owner.ciphertext_shape)


class SealDecryptor:
    """Decrypts under one secret key; made by `SealContext.decryptor`.

    Its results are raw decryptions: callers round them to the grid and never hand them on.
    """

    def __init__(self, context: SealContext, decryptor: Any) -> None:
        self._owner = context
        self._decryptor = decryptor
        self._encoder = sealapi.CKKSEncoder(context._context) if context.scheme == "ckks" else None

    def decrypt_slots(self, residues: Words, scale: float) -> NDArray[np.complex128]:
        """Decrypt a CKKS ciphertext of range-checked residues; complex128 (N/2,)."""
        if self._encoder is None:
            raise SchemeError("slots are CKKS's; this context is not for CKKS")
        plaintext = self._decrypt(residues, True, scale)
        return np.array(self._encoder.decode_complex(plaintext), dtype=np.complex128)

    def decrypt_coefficients(self, residues: Words) -> Words:
        """Decrypt a BFV ciphertext of range-checked residues; uint64 (N,) below t."""
        plaintext = self._decrypt(residues, False, 1.0)
        with _channel() as path:
            plaintext.save(path)
            found = self._owner._words(path, _PLAINTEXT, (plaintext.coeff_count(),))
        values = np.zeros(self._owner.chain.ring_degree, dtype=np.uint64)
        values[: found.size] = found  # SEAL leaves leading zero coefficients out
        return values

    def _decrypt(self, residues: Words, is_ntt: bool, scale: float) -> Any:
        owner = self._owner
        shape = owner.ciphertext_shape
        ciphertext = sealapi.Ciphertext()
        head = owner._ciphertext_head(owner._data_id, is_ntt, shape, scale)
        owner._load(ciphertext, head, residues.reshape(shape))
        plaintext = sealapi.Plaintext()
        try:
            self._decryptor.decrypt(ciphertext, plaintext)
        except (RuntimeError, ValueError) as error:
            raise CiphertextError(f"SEAL cannot decrypt the sum: {error}") from error
        return plaintext


@lru_cache(maxsize=16)
def seal_context(scheme: str, chain: RnsChain, plain_modulus: int = 0) -> SealContext:
    """The context for a chain, made once: setting one up takes SEAL tens of milliseconds.

    Args:
        scheme, chain, plain_modulus: as for `SealContext`.
    """
    return SealContext(scheme, chain, plain_modulus)


def _parms_id(words: Any) -> bytes:
    return struct.pack("<4Q", *words)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _body(data: bytes, size: int) -> bytes | memoryview:
    """What follows SEAL's outer header, uncompressed to `size` bytes.

    SEAL in this process just wrote it: never bytes of another party's. TenSEAL's calls offer no way
    to turn its compression off.
    """
    magic, header, _, _, compression, _, total = _HEADER.unpack_from(data)
    if (magic, header, total) != (_MAGIC, _HEADER_SIZE, len(data)):
        raise SchemeError("the installed SEAL writes a format that privagg does not know")
    rest = memoryview(data)[_HEADER.size :]
    if compression == _NONE:
        return rest
    if compression == _ZLIB:
        return zlib.decompress(rest)
    if compression != _ZSTD:
        raise SchemeError(f"SEAL used compression mode {compression}, which privagg does not know")
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            "SEAL's ciphertexts are Zstandard-compressed, and pyarrow, which reads that, is not "
            "installed; install it with: pip install 'privagg[ckks]'"
        ) from error
    codec = pyarrow.Codec("zstd")
    return bytes(codec.decompress(rest, decompressed_size=size, asbytes=True))


@contextmanager
def _channel() -> Iterator[str]:
    """A path that only this user can open, in memory where the system offers that (Linux).

    TenSEAL's binding saves and loads through file names alone, and secret keys should not touch a
    disk; elsewhere they do for a moment, in a folder of mode 0700.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("privagg", os.MFD_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="privagg-") as folder:
        yield os.path.join(folder, "seal")
