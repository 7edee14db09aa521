"""The secret half of the masked scheme by its name."""

from __future__ import annotations

from privagg.secure import facts as fact
from privagg.secure.masked.parameters import MaskedParameters
from privagg.secure.masked.site import MaskedSite
from privagg.secure.opening import KeyGenerator
from privagg.secure.scheme import Buffer, Parameters


class MaskedKeyGenerator(KeyGenerator):
    """Makes and reads a site's key of one epoch."""

    name = "masked"

    def generate_key(self, parameters: Parameters) -> MaskedSite:
        """A fresh key; its public half is the site's card."""
        return MaskedSite.generate(fact.own(parameters, MaskedParameters))

    def load_decryption_key(self, parameters: Parameters, data: Buffer) -> MaskedSite:
        """Read what `MaskedSite.to_bytes` wrote."""
        return MaskedSite(fact.own(parameters, MaskedParameters), bytes(data))
