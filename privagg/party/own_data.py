"""Where a site's own data lie, and who reads them; told without loading what trains."""

from __future__ import annotations

from pathlib import Path

from privagg.config.data import AppData, DatasetData
from privagg.config.schema import Config, load_config
from privagg.errors import ConfigError
from privagg.party.folder import PartyFile, PartyFolder


def with_own_data(config: Config, party: PartyFile, root: Path) -> Config:
    """The configuration, a site's data lying where its own folder says, if it says so.

    Args:
        config: as agreed.
        party: says who this is and where its data lie.
        root: its folder, which relative paths start from.
    """
    own = {key: said for key in ("data", "labels") if (said := getattr(party, key)) is not None}
    if not isinstance(config.data, DatasetData):  # of a data set it is a factory, else paths
        own = {key: str(root.resolve() / path) for key, path in own.items()}
    sites = [s.model_copy(update=own) if s.name == party.name else s for s in config.sites]
    return config.model_copy(update={"sites": tuple(sites)})


def own_data(folder: PartyFolder) -> Path | None:
    """Where a site's own data lie: as its folder says, else as the configuration does.

    Args:
        folder: any party's.

    Returns:
        None where neither names any.

    Raises:
        ConfigError: there is nothing where they should lie.
    """
    path, name = folder.federation_file, folder.party().name
    config = with_own_data(load_config(path), folder.party(), folder.root)
    named = next((site.data for site in config.sites if site.name == name), "")
    if not named:
        return None
    found = path.resolve().parent / named
    if not found.exists():
        raise ConfigError(
            f"there is no {found}, where the data of {name!r} should lie; put them there, or name "
            f"another place: privagg deploy party {name} CONFIG --folder {folder.root} --data PLACE"
        )
    return found


def an_app_trains(folder: PartyFolder) -> bool:
    """Whether the records of the federation's sites are a Flower app's to read.

    Args:
        folder: any party's.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    return isinstance(load_config(folder.federation_file).data, AppData)
