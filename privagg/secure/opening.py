"""The contract of a secure aggregation scheme, secret side: what only a key holder may touch.

An import rule keeps this module out of `privagg.server` and `privagg.kernels`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from privagg.secure.scheme import Buffer, EncryptionKey


class DecryptionKey(ABC):
    """A key holder's secret (or its share of one).

    Attributes:
        encryption_key: the matching key that sites encrypt under.
    """

    encryption_key: EncryptionKey

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The secret, for the owner's own protected storage. Never sent in a message."""

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
