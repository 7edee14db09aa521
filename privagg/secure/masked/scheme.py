"""The masked scheme by its name, both halves: `masked` in a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from privagg.encoding.vectors import IntVector
from privagg.errors import ParameterError
from privagg.secure import facts as fact
from privagg.secure.masked.parameters import JointKey, MaskedParameters, SiteCard
from privagg.secure.masked.rule import Rule
from privagg.secure.scheme import Buffer, EncryptionKey, Parameters, Phase, Requirement, Scheme

_OPTIONS: Mapping[str, Any] = {"minimum_survivors": None, "colluders": 0, "always_consents": False}


class MaskedScheme(Scheme):
    """Sums that nobody holds a key to.

    Options of `choose_parameters`: `minimum_survivors` (fewest sites in a sum; None for all that
    are asked), `colluders` (sites that may collude with the aggregator; 0), `always_consents`
    (False; a plan of more than 32 sites has it).
    """

    name = "masked"
    phases = (Phase.UPLOAD, Phase.CONSENT, Phase.RELEASE)
    by_tail = True

    def choose_parameters(self, requirement: Requirement, **options: Any) -> MaskedParameters:
        """The bits of the sum's range, and the rule with the fewest neighbours."""
        fact.check_requirement(requirement)
        chosen = fact.require_options(options, _OPTIONS)
        least = chosen["minimum_survivors"]
        rule = Rule.choose(
            requirement.addends,
            requirement.addends if least is None else least,
            chosen["colluders"],
            always_consents=chosen["always_consents"],
        )
        return MaskedParameters(requirement, rule)

    def load_parameters(self, facts: Mapping[str, Any]) -> MaskedParameters:
        """Rebuild parameters from their facts (untrusted input); the rule is checked again."""
        fact.require_keys(facts, {"scheme", "requirement", "rule"}, "masked parameters")
        if facts["scheme"] != self.name:
            raise ParameterError(f"parameters are of scheme {facts['scheme']!r}, not {self.name!r}")
        requirement = fact.requirement_from_dict(facts["requirement"])
        return MaskedParameters(requirement, Rule.from_dict(facts["rule"]))

    def load_encryption_key(self, parameters: Parameters, data: Buffer) -> EncryptionKey:
        """Read a site's card: 32 bytes. What all cards are together is `joint_key`."""
        return SiteCard(fact.own(parameters, MaskedParameters), bytes(data))

    def joint_key(
        self, parameters: Parameters, *, epoch: str, roster: str, cards: Mapping[str, bytes]
    ) -> JointKey:
        """All cards of an epoch; see `JointKey`."""
        own = fact.own(parameters, MaskedParameters)
        return JointKey(own, epoch=epoch, roster=roster, cards=cards)

    def combine(self, parameters: Parameters, shares: Sequence[bytes], count: int) -> IntVector:
        """The one share is the sum that releases opened (`MaskedParameters.recovery`)."""
        return fact.sum_of_one(shares, fact.own(parameters, MaskedParameters).requirement, count)
