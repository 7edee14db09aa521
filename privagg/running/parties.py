"""One party made from the federation's configuration and what is its own, and nobody else's.

A site gets its records, its ledger and the encryption key; the key holder its decryption key. All
of them pin the same roster, plan and key. The same functions make the parties of a run in one
process and each single one on its own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from privagg.client.data import Records
from privagg.client.site import Pins, Site
from privagg.client.training import make_learner
from privagg.identity import Identity, Roster
from privagg.privacy.ledger import Approval, Ledger
from privagg.privacy.randomness import Randomness
from privagg.running.holding import make_key_holder
from privagg.running.names import COORDINATOR
from privagg.secure.opening import DecryptionKey
from privagg.secure.scheme import EncryptionKey

if TYPE_CHECKING:
    from privagg.federation import Federation


def make_site(
    federation: Federation,
    *,
    identity: Identity,
    roster: Roster,
    key: EncryptionKey,
    ledger: Ledger,
    records: Records,
    randomness: Randomness,
    decryption: tuple[DecryptionKey, Path] | None = None,
    recognise: Callable[[Approval], None] | None = None,
) -> Site:
    """One site, with a model of its own; every site starts from the same public seed.

    Args:
        federation: the agreed configuration and its plan.
        identity: the site's own.
        roster: identity keys that the site pins.
        key: the encryption key that it pins.
        ledger: its own, with a budget for its data set.
        records: its own.
        randomness: source of its sampling and noise.
        decryption: under custody `sites`, at the site that opens: its decryption key and the
            store of what was opened.
        recognise: as for `Site`.
    """
    plan, training = federation.plan, federation.config.training
    pins = Pins(
        roster=roster,
        coordinator=COORDINATOR,
        plan_digest=plan.digest,
        key_id=key.key_id,
        opener=federation.opener,
    )
    apart = federation.rehearse()
    learner = make_learner(
        plan,
        identity.name,
        model=federation.fresh_model(),
        records=records,
        rule=training.client_rule,
        tested=apart,
    )
    key_holder = None
    if decryption is not None:
        secret, store = decryption
        key_holder = make_key_holder(
            plan, identity=identity, roster=roster, key=secret, store=store
        )
    return Site(
        identity=identity,
        pins=pins,
        plan=plan,
        learner=learner,
        key=key,
        ledger=ledger,
        randomness=randomness,
        key_holder=key_holder,
        records_apart=apart.facts() if apart else None,
        recognise=recognise,
    )
