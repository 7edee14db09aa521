"""A party opened from its folder: the same parts as in one process, with nobody else's secrets.

What the party believes comes from its own `pins.toml`. The configuration and the plan in the folder
have to match those pins, or nothing is opened.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from privagg.config.schema import load_config
from privagg.config.setup import Setup
from privagg.durable import write_whole
from privagg.errors import ApprovalError, ConfigError, PlanError
from privagg.party.approving import memory_beside, require_approved_records
from privagg.party.folder import PartyFolder, PinsFile
from privagg.party.make import make_opener, make_site
from privagg.privacy.ledger import Approval, Ledger
from privagg.privacy.plan import TrainingPlan, load_plan
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.names import KEY_HOLDER
from privagg.protocol.transport import Handler
from privagg.training.data import Records
from privagg.training.factories import ApprovedCode, code_approved_in
from privagg.training.known import Tags, record_bytes
from privagg.training.loading import load_records

PLAN_NAME = "plan.json"
"""The pinned plan, kept so that its noise need not be calibrated for every message."""

ERASING_SECONDS = 600.0
"""How often a process that holds keys looks whether the day of one is over."""


def open_party(
    folder: PartyFolder, randomness: Randomness | None = None, *, stays: bool = False
) -> Handler:
    """The handler of a site or of the key holder.

    Args:
        folder: the party's own.
        randomness: of a site; the operating system's unless a test says otherwise.
        stays: this process does; where it holds keys, it looks for those whose day is over.

    Raises:
        ConfigError: the folder is incomplete, or its parts contradict its pins.
        DataError: the site's data does not fit its declaration, or its owner approved other data.
    """
    name = folder.party().name
    setup = open_federation(folder)
    if name == KEY_HOLDER:
        return opener_in(folder, setup, stays=stays).handle
    if name not in setup.plan.names:
        raise ConfigError(f"{folder.root} is the folder of {name!r}, which answers no messages")
    identity, opens = folder.identity(), name == setup.opener
    site = make_site(
        setup,
        identity=identity,
        roster=folder.pins().pinned_roster,
        ledger=setup.open_ledger_at(folder.ledger, identity),
        records=(records := records_in(folder, setup, name)),
        randomness=randomness or SystemRandomness(),
        key_holder=opener_in(folder, setup, stays=stays) if opens else None,
        recognise=recogniser_in(folder, setup, records),
    )
    site.require_approved_records()
    return site.handle


def open_federation(folder: PartyFolder) -> Setup:
    """The federation as this party pinned it.

    Raises:
        ConfigError: the configuration is another file than the one pinned, or stands for another
            plan.
    """
    folder.require_pinned_configuration()
    path, pins = folder.federation_file, folder.pins()
    config, base = load_config(path), path.resolve().parent
    code, kept = code_in(folder), _kept_plan(folder, pins)
    if kept is not None:
        return Setup(config, base, source=path, pinned=kept, allowed=code)
    setup = Setup(config, base, source=path, allowed=code)
    if setup.plan.digest != pins.plan_digest:
        raise ConfigError(
            f"{path} stands for plan {setup.plan.digest[:16]}..., pinned is "
            f"{pins.plan_digest[:16]}...; get the configuration that was agreed on"
        )
    write_whole(folder.root / PLAN_NAME, setup.plan.canonical_json.encode())
    return setup


def code_in(folder: PartyFolder) -> ApprovedCode:
    """What the approvals in force in a party's own ledger let be imported."""
    if not folder.ledger.exists():
        return ApprovedCode()
    return code_approved_in(Ledger.open(folder.ledger))


def _kept_plan(folder: PartyFolder, pins: PinsFile) -> TrainingPlan | None:
    """The plan kept beside the pins, where it is the pinned one."""
    try:
        plan = load_plan(json.loads((folder.root / PLAN_NAME).read_bytes()))
    except (OSError, ValueError, PlanError):
        return None
    return plan if plan.digest == pins.plan_digest else None


def opener_in(folder: PartyFolder, setup: Setup, *, stays: bool = False) -> KeyHolder:
    """The part of a party that makes the runs' keys and opens, as long as its owner approves.

    Args:
        folder, setup, stays: as for `open_party`.
    """

    def until() -> str:
        if not folder.ledger.exists():
            raise ApprovalError(
                f"the owner of {folder.party().name!r} has approved nothing; the owner approves "
                "with: privagg approve"
            )
        with closing(Ledger.open(folder.ledger)) as ledger:
            return ledger.approved_until(setup.plan.digest)

    holder = make_opener(
        setup,
        identity=folder.identity(),
        roster=folder.pins().pinned_roster,
        until=until,
        store=folder.openings,
    )
    if stays:
        threading.Thread(target=_erase_as_days_end, args=(holder,), daemon=True).start()
    return holder


def _erase_as_days_end(holder: KeyHolder) -> None:
    """Erase keys also while nobody asks for anything."""
    while True:
        # Locked, a full disk, a ledger that cannot be read: it is tried again, come what may.
        with suppress(Exception):
            holder.erase_ended()
        time.sleep(ERASING_SECONDS)


def records_in(folder: PartyFolder, setup: Setup, name: str) -> Records:
    """The site's own data: where its folder says, else where the configuration says.

    Args:
        folder: the site's own.
        setup: as the folder pins it.
        name: the site's.

    Raises:
        ApprovalError: a factory makes them, and no approval names it.
        ConfigError, DataError: they cannot be read as declared.
    """
    party = folder.party()
    if party.data is None:
        section = next(site for site in setup.config.sites if site.name == name)
        return setup.records_of(section)
    return load_records(
        setup.config.data.source, folder.root, party.data, party.labels, code=setup.code
    )


def tags_in(folder: PartyFolder, setup: Setup, records: Records) -> Tags:
    """A site's records as its owner's memory, which lies beside its ledger, sees them.

    Args:
        folder: the site's own.
        setup: as the folder pins it.
        records: read from the site's data.

    Raises:
        ConfigError, DataError: they cannot be read as declared.
    """
    party, base = folder.party(), folder.root
    data = party.data
    if data is None:
        section = next(site for site in setup.config.sites if site.name == party.name)
        base, data = setup.base, section.data
    source = setup.config.data.source
    return memory_beside(folder.ledger).tags(record_bytes(source, base, data, records))


def recogniser_in(
    folder: PartyFolder, setup: Setup, records: Records
) -> Callable[[Approval], None]:
    """Refuses an approval that was given for other records than these, as they were read now.

    Args:
        folder: the site's own.
        setup: as the folder pins it.
        records: read from the site's data.
    """
    name, known = folder.party().name, memory_beside(folder.ledger)
    tags = tags_in(folder, setup, records)
    return lambda approval: require_approved_records(known, tags, approval, name)
