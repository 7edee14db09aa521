"""Where a site's own data lie, and who reads them; told without loading what trains."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from privagg.config.data import AppData, DatasetData
from privagg.config.schema import Config, load_config
from privagg.errors import ConfigError
from privagg.identity.secretfile import require_private
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.local import local_folder
from privagg.training.declared import DeviceName
from privagg.training.tablefile import OwnTable, TableFile


def with_own_data(config: Config, party: PartyFile, root: Path) -> Config:
    """The configuration, a site's data lying where its own folder says, if it says so.

    Args:
        config: as agreed.
        party: says who this is and where its data lie.
        root: its folder, which relative paths start from.
    """
    places = ("data", "labels", "network")
    own = {key: said for key in places if (said := getattr(party, key)) is not None}
    names = {"data"} if isinstance(config.data, DatasetData) else set[str]()
    names |= {"network"} if config.training.algorithm.kind == "class-logits" else set()
    own = {
        key: said if key in names else str(root.resolve() / said) for key, said in own.items()
    }  # fmt: skip
    sites = [s.model_copy(update=own) if s.name == party.name else s for s in config.sites]
    return config.model_copy(update={"sites": tuple(sites)})


def own_table(party: PartyFile, root: Path) -> OwnTable:
    """What a site's owner says of its table, on its own machine.

    Args:
        party: as it stands in `party.toml`.
        root: its folder.

    Raises:
        ConfigError: the file holds a password, and others can read it.
    """
    if party.database is not None and _holds_a_password(party.database.url):
        require_private(PartyFolder(root).party_file, "the file with the database's password,")
    return OwnTable(
        party.file or TableFile(), party.database, root.resolve(), party.accept_findings
    )


def own_table_here(output: Path, site: str) -> OwnTable:
    """The same in a local run, where a site's folder lies in the output folder, if it is there.

    Args:
        output: of the run.
        site: whose.

    Raises:
        ConfigError: as `own_table`; or its `party.toml` is none, or names a file in place of the
            configuration's, which a local run would not read.
    """
    folder = local_folder(output, site)
    if not folder.party_file.exists():
        return OwnTable()
    party = folder.party()
    for key, else_do in (("data", ", or give a [database] section"), ("network", "")):
        if (said := getattr(party, key)) is not None:
            raise ConfigError(
                f"{folder.party_file} names {key} ({said}), and a local run reads what the "
                f"configuration names for {site!r}; remove it there{else_do}"
            )
    return own_table(party, folder.root)


def device_here(output: Path, site: str) -> DeviceName:
    """Where a site of a local run trains, as its own folder says.

    Args:
        output: of the run.
        site: whose.

    Raises:
        ConfigError: its `party.toml` is none.
    """
    folder = local_folder(output, site)
    return folder.party().device if folder.party_file.exists() else "auto"


def _holds_a_password(url: str) -> bool:
    try:
        return bool(url) and make_url(url).password is not None
    except (SQLAlchemyError, ValueError):
        return True  # who knows what it holds


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
