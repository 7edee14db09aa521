"""Whether a site's own data can be used as declared, looked at before it takes part."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from privagg.config.data import AppData, DatasetData
from privagg.config.sections import SiteSection
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ConfigError, DataError
from privagg.party.folder import PartyFile
from privagg.party.own_data import own_table, with_own_data
from privagg.training.factories import look_at
from privagg.training.inspection import Finding


def require_usable(setup: Setup, party: PartyFile, root: Path) -> list[Finding]:
    """Look at a site's data before it takes part; for its owner's eyes only.

    Args:
        setup: as agreed; code that it names is looked at, and imported only where it may be.
        party: as for `with_own_data`.
        root: as for `with_own_data`.

    Returns:
        What its owner should know; none of it forbids the data.

    Raises:
        ConfigError: there is nothing of the kind, or it is another site's.
        DataError: it does not fit its declaration.
    """
    if isinstance(setup.config.data, AppData):
        if party.data is not None and not (root / party.data).exists():
            raise ConfigError(f"there is no {party.data}, which the app should read; correct it")
        return []  # what lies there is the app's business
    config = with_own_data(setup.config, party, root)
    pinned = setup.training_plan if setup.job == TRAINING else None
    own = replace(setup, config=config, pinned=pinned, own=lambda _: own_table(party, root))
    section = own.section(party.name)
    _require_no_other_sites(setup, section)
    if isinstance(config.data, DatasetData) and not setup.code.allows(look_at(section.data)):
        return []
    found = own.inspect(section)
    wrong = own.stopping(section)
    if wrong:
        column = f"column {wrong[0].column!r}: " if wrong[0].column else ""
        raise DataError(f"{section.data}: {column}{wrong[0].message}")
    return found


def _require_no_other_sites(setup: Setup, section: SiteSection) -> None:
    agreed = setup.section(section.name)
    for other in setup.config.sites:
        if other.name == section.name or _same(setup, agreed.data, section.data):
            continue
        if _same(setup, other.data, section.data):
            raise ConfigError(
                f"{section.data} is what the configuration names as the data of {other.name!r}, "
                f"not of {section.name!r}; name this site's own"
            )


def _same(setup: Setup, one: str, other: str) -> bool:
    """Whether two texts name the same data: one factory, or one file."""
    if isinstance(setup.config.data, DatasetData):
        return one == other
    with suppress(OSError):
        return (setup.base / one).samefile(setup.base / other)
    return False
