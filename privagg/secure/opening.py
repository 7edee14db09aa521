"""The contract of a secure aggregation scheme, secret half: what only a key holder may touch.

`KeyGenerator` makes and reads the keys that open sums; `DecryptionKey` is such a key. The public
half, `privagg.secure.scheme`, does not lead here, and import rules keep this module out of
aggregator, kernels, round and coordinator: what they hold has no way to a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from privagg.encoding.vectors import IntVector
from privagg.secure.registry import registered
from privagg.secure.scheme import Buffer, EncryptionKey, Occasion, Parameters

GROUP = "privagg.key_generators"


class SecretKey(ABC):
    """What a party keeps to itself of a run.

    Attributes:
        encryption_key: the matching public key, as the party states it.
    """

    encryption_key: EncryptionKey

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The secret, for the owner's own protected storage. Never sent in a message."""


@dataclass(frozen=True)
class Masked:
    """A contribution under masks.

    Args:
        payload: `parameters.payload_bytes` bytes.
        attachments: what leaves with it; `parameters.attachment_bytes` bytes.
        kept: what the site keeps, to release with the others'.
    """

    payload: bytes
    attachments: bytes
    kept: bytes


class MaskingKey(SecretKey):
    """A site's own secret where nobody holds a key that opens sums."""

    @abstractmethod
    def mask(
        self, values: IntVector, site: str, stated: EncryptionKey, occasion: Occasion
    ) -> Masked:
        """Mask one contribution; each call draws a seed of its own.

        Args:
            values: int64 (d,), every coordinate within +-upload_bound.
            site: whose it is, a member.
            stated: what all members stated.
            occasion: what it is for.

        Raises:
            CapacityError: wrong length, or a coordinate beyond the bound.
        """

    @abstractmethod
    def release(
        self,
        site: str,
        stated: EncryptionKey,
        occasion: Occasion,
        listed: Sequence[str],
        packets: Buffer,
        kept: bytes,
    ) -> bytes:
        """What takes the masks off the sum of exactly the listed sites.

        Never both a share of a site's own seed and one of a seed that it has with a listed site.

        Args:
            site, stated, occasion: as for `mask`.
            listed: whose payloads are in the sum, in roster order; `site` is one of them.
            packets: `Recovery.packets` for this site. One that does not open gives no share.
            kept: of this occasion's `mask`.

        Raises:
            CiphertextError: `packets` is malformed.
        """


class DecryptionKey(SecretKey):
    """A key holder's secret (or its share of one).

    Attributes:
        encryption_key: the matching key that sites encrypt under.
    """

    @abstractmethod
    def open_share(self, payload: Buffer, count: int) -> bytes:
        """This holder's share of the opening of a fold of `count` contributions.

        An approximate scheme rounds to the grid in here: no raw decryption ever leaves
        (Li & Micciancio, Eurocrypt 2021).

        Args:
            payload: `parameters.payload_bytes` bytes.
            count: contributions in the fold, 1 <= count <= requirement.addends.

        Returns:
            Bytes for `Scheme.combine`; where one party holds the key, the packed integers.

        Raises:
            CiphertextError: malformed, out of range, or a value outside the proven range.
        """


class KeyGenerator(ABC):
    """The secret half of a scheme. Stateless; found by name through `key_generator`.

    Attributes:
        name: that of the scheme.
    """

    name: ClassVar[str]

    @abstractmethod
    def generate_key(self, parameters: Parameters) -> SecretKey:
        """A fresh key from the operating system's CSPRNG; its public half is `.encryption_key`.

        Args:
            parameters: the scheme's; a scheme whose modulus is its key completes them in
                `.encryption_key.parameters`.

        Raises:
            ParameterError: parameters of another scheme.
            MissingDependencyError: what makes the scheme's keys is not installed.
        """

    @abstractmethod
    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> SecretKey:
        """Read a decryption key from its owner's own storage.

        Args:
            parameters: the scheme's.
            data: what `DecryptionKey.to_bytes` wrote.

        Raises:
            KeyMismatchError, CiphertextError: the bytes are not a key for these parameters.
        """


@cache
def key_generator(name: str) -> KeyGenerator:
    """What makes and reads the keys of the scheme called `name`; for key holders alone.

    Raises:
        SchemeError, MissingDependencyError: as `registry.scheme`.
    """
    return registered(GROUP, name, KeyGenerator)  # type: ignore[type-abstract]
