"""One party made from the federation's configuration and what is its own, and nobody else's.

A site gets its records and its ledger; whoever opens, the place of its keys. All of them pin the
same roster and plan. The same functions make the parties of a run in one process and each single
one on its own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from privagg.config.setup import Setup
from privagg.identity.keys import Identity, Roster
from privagg.party.holding import make_key_holder
from privagg.privacy.ledger import Approval, Ledger
from privagg.privacy.randomness import Randomness
from privagg.programs.training import make_learner
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.key_statement import KeyTerms
from privagg.protocol.names import COORDINATOR
from privagg.protocol.site import Pins, Site
from privagg.training.data import Records


def make_pins(setup: Setup, roster: Roster) -> Pins:
    """What a site of a federation believes.

    Args:
        setup: the agreed configuration and its plan.
        roster: identity keys that it pins.
    """
    return Pins(
        roster=roster,
        coordinator=COORDINATOR,
        plan_digest=setup.plan.digest,
        opener=setup.opener,
    )


def make_opener(
    setup: Setup,
    *,
    identity: Identity,
    roster: Roster,
    until: Callable[[], str],
    store: Path,
) -> KeyHolder:
    """The party that makes the runs' keys and opens under them.

    Args:
        setup: the agreed configuration and its plan.
        identity, roster, until, store: as for `make_key_holder`.
    """
    return make_key_holder(
        setup.plan,
        identity=identity,
        roster=roster,
        parameters=setup.parameters,
        until=until,
        store=store,
    )


def make_terms(setup: Setup, roster: Roster) -> KeyTerms:
    """What a statement of a run's key is held against; as `make_pins`."""
    return KeyTerms(
        roster=roster,
        coordinator=COORDINATOR,
        opener=setup.opener,
        plan_digest=setup.plan.digest,
        scheme=setup.scheme,
        parameters=setup.parameters,
    )


def make_site(
    setup: Setup,
    *,
    identity: Identity,
    roster: Roster,
    ledger: Ledger,
    records: Records,
    randomness: Randomness,
    key_holder: KeyHolder | None = None,
    recognise: Callable[[Approval], None] | None = None,
) -> Site:
    """One site, with a model of its own; every site starts from the same public seed.

    Args:
        setup: the agreed configuration and its plan.
        identity: the site's own.
        roster: identity keys that the site pins.
        ledger: its own, with a budget for its data set.
        records: its own.
        randomness: source of its sampling and noise.
        key_holder: under custody `sites`, at the site that opens.
        recognise: as for `Site`.
    """
    plan, training = setup.plan, setup.config.training
    apart = setup.rehearse()
    learner = make_learner(
        plan,
        identity.name,
        model=setup.fresh_model(),
        records=records,
        rule=training.client_rule,
        tested=apart,
    )
    return Site(
        identity=identity,
        pins=make_pins(setup, roster),
        plan=plan,
        learner=learner,
        scheme=setup.scheme,
        parameters=setup.parameters,
        ledger=ledger,
        randomness=randomness,
        key_holder=key_holder,
        records_apart=apart.facts() if apart else None,
        recognise=recognise,
    )
