"""Masked sums in public: how wide a value is, who must agree, and what a site states of its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privagg.digest import canonical_json
from privagg.encoding.vectors import IntVector
from privagg.errors import CiphertextError, KeyMismatchError, ParameterError, SchemeError
from privagg.kernels.packed_sums import PackedLayout, PackedSum
from privagg.secure import facts as fact
from privagg.secure.folding import KernelFold
from privagg.secure.masked import attachments
from privagg.secure.masked.recovery import MaskedRecovery
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.widths import layout_of
from privagg.secure.scheme import EncryptionKey, Occasion, Parameters, Requirement

SECURITY_BITS = 128
"""Of X25519, the weakest part: its best attack takes some 2^126 steps; AES-256 and SHA-256 more."""

KEY_BYTES = 32


@dataclass(frozen=True)
class MaskedParameters(Parameters):
    """One packed integer of `width` bits a value, under masks that cancel in the sum.

    Args:
        requirement: what the parameters were chosen for.
        rule: who must agree before a sum opens.

    Raises:
        ParameterError: the rule is for another number of sites, or more security is asked for.
    """

    requirement: Requirement
    rule: Rule
    scheme = "masked"
    security_bits = SECURITY_BITS
    compiled_kernels = ("packed_sums",)

    def __post_init__(self) -> None:
        fact.check_requirement(self.requirement)
        if self.requirement.security_bits > SECURITY_BITS:
            raise ParameterError(
                f"masked sums have {SECURITY_BITS} bits of security, not "
                f"{self.requirement.security_bits}; lower secure.security_bits or take bfv"
            )
        if not isinstance(self.rule, Rule) or self.rule.asked != self.requirement.addends:
            raise ParameterError(
                f"a rule for {self.requirement.addends} sites is needed, not {self.rule!r}"
            )

    @cached_property
    def layout(self) -> PackedLayout:
        """Where values lie in a payload."""
        return layout_of(self.requirement)

    @property
    def payload_bytes(self) -> int:
        """The packed integer in whole 32-bit words."""
        return self.layout.payload_bytes

    @property
    def attachment_bytes(self) -> int:
        """Commitments, shares' tags and sealed shares; see `attachments`."""
        return attachments.size(self.rule.neighbours)

    @property
    def least_releases(self) -> int:
        """Releases that always suffice where every site holds shares of every other's seeds."""
        return self.rule.threshold

    @property
    def binds_by_consent(self) -> bool:
        """Where c + 1 shares open a seed, one honest site that releases is enough for that."""
        return self.rule.always_consents

    def for_roster(self, asked: int) -> MaskedParameters:
        """See `Parameters.for_roster`: another number of sites has another rule."""
        if asked == self.rule.asked:
            return self
        rule = Rule.choose(
            asked,
            self.rule.least - (self.rule.asked - asked),
            self.rule.colluders,
            always_consents=self.rule.always_consents,
        )
        return MaskedParameters(replace(self.requirement, addends=asked), rule)

    @property
    def packing(self) -> str:
        """How values sit in the payload."""
        return f"masked integer, {self.layout.width}bit"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "scheme": self.scheme,
            "requirement": fact.requirement_to_dict(self.requirement),
            "rule": self.rule.to_dict(),
        }

    def explain(self) -> str:
        """Why these parameters; plain text."""
        rule, length, missing = self.rule, self.requirement.length, self.rule.may_be_missing()
        reach = "every other site" if rule.is_full else f"{rule.neighbours} sites on a ring"
        return "\n".join(
            (
                f"masked: nobody holds a key; {SECURITY_BITS} bits of security (X25519, AES-256, "
                "SHA-256)",
                f"sums within +-{fact.sum_bound(self.requirement)} take {self.layout.width} bits a "
                f"value: {self.payload_bytes} bytes for {length} values, and "
                f"{self.attachment_bytes} bytes to open the sum with",
                f"each site has masks in common with {reach}; {rule.threshold} shares open a seed",
                f"a sum opens where {rule.least} of {rule.asked} sites agree on one list of "
                "contributors",
                f"may be missing, in all: {missing['list']} when that list is made, "
                f"{missing['consent']} when sites consent to it, {missing['release']} when they "
                "release",
                f"{rule.readers} would have to collude with the aggregator to read an upload; one "
                "that uploads noise spoils a sum and is not named",
            )
        )

    def fold(self) -> KernelFold:
        """An empty running sum; any bits of a payload but the unused top ones may be set."""
        return KernelFold(PackedSum(self.layout), self.requirement.addends)

    def recovery(self, occasion: Occasion) -> MaskedRecovery:
        """What unmasks a round's sum by the sites' releases.

        Raises:
            CohortError: a number of members that the rule is not for.
        """
        return MaskedRecovery(self.requirement, self.rule, occasion)


class SiteCard(EncryptionKey):
    """What one site states of its key: 32 bytes of X25519 (RFC 7748)."""

    def __init__(self, parameters: MaskedParameters, public: bytes) -> None:
        self.parameters = parameters
        self.public = check_public(public)

    def to_bytes(self) -> bytes:
        """The public key."""
        return self.public

    def encrypt(self, values: IntVector) -> bytes:
        """Refused: nothing is masked for one site alone."""
        raise SchemeError(
            "a contribution is masked with the keys of all sites: use MaskingKey.mask"
        )


class JointKey(EncryptionKey):
    """All cards of an epoch; its `key_id` covers parameters, rule, epoch, roster and every card.

    Two views of the cards are two key ids, which stop before anything is uploaded.

    Args:
        parameters: with the rule.
        epoch: names the run, or the rounds of one between two changes of the roster.
        roster: digest of who is who, as every party pins it.
        cards: site -> X25519 public key, in roster order.

    Raises:
        KeyMismatchError: too few cards for the rule.
        CiphertextError: bytes that are no public key.
    """

    def __init__(
        self,
        parameters: MaskedParameters,
        *,
        epoch: str,
        roster: str,
        cards: Mapping[str, bytes],
    ) -> None:
        self.parameters: MaskedParameters = parameters
        self.epoch, self.roster = epoch, roster
        self.cards = {name: check_public(card) for name, card in cards.items()}
        if len(self.cards) < parameters.rule.least:
            raise KeyMismatchError(
                f"{len(self.cards)} sites stated a key; at least {parameters.rule.least} must be "
                "in a sum"
            )

    def to_bytes(self) -> bytes:
        """Epoch, roster and cards as canonical JSON."""
        cards = [[name, card.hex()] for name, card in self.cards.items()]
        return canonical_json({"cards": cards, "epoch": self.epoch, "roster": self.roster})

    def encrypt(self, values: IntVector) -> bytes:
        """Refused: a mask takes a site's own secret."""
        raise SchemeError("a contribution is masked with a site's own secret: use MaskingKey.mask")


@lru_cache(maxsize=4096)
def check_public(public: bytes) -> bytes:
    """The key itself where pair seeds under it are secret.

    What was found good is remembered: it follows from the bytes alone, which are public, and every
    message of a round reads every card of its run again.

    Raises:
        CiphertextError: not 32 bytes, or a point of small order, with which everybody agrees on
            the same secret.
    """
    if len(public) != KEY_BYTES:
        raise CiphertextError(f"an X25519 key has {KEY_BYTES} bytes, not {len(public)}")
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise CiphertextError("the key is a point of small order: it hides nothing") from error
    return bytes(public)


_PROBE = X25519PrivateKey.generate()
