"""A party opened from its folder: its own data, and nothing where the folder is somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from privagg.durable import write_whole
from privagg.errors import ConfigError, DataError
from privagg.federation import Federation
from privagg.party.folder import PartyFile, PartyFolder, toml_text
from privagg.party.open import make_local, open_federation, open_party
from privagg.privacy.ledger import Ledger
from tests.attacks.test_approval import demo
from tests.flower.heart import make_deployment, write_federation


@pytest.fixture
def va(tmp_path: Path) -> PartyFolder:
    """A hospital's folder, approved for the table that the configuration names."""
    return make_deployment(write_federation(tmp_path), tmp_path / "trial").parties["va"].party


def keep_data_in(folder: PartyFolder, data: str) -> None:
    said = folder.party().model_copy(update={"data": data})
    write_whole(folder.party_file, toml_text(said.model_dump(exclude_none=True)).encode())


def test_a_site_trains_on_the_table_that_its_own_folder_names(va: PartyFolder) -> None:
    setup = open_federation(va)
    table = setup.base / setup.section("va").data
    table.rename(va.root / "mine.csv")
    with pytest.raises((ConfigError, DataError), match=r"va\.csv"):
        open_party(va)
    keep_data_in(va, "mine.csv")
    own = open_federation(va)
    assert len(own.records_of(own.section("va"))) == 24
    assert own.section("cleveland") == setup.section("cleveland")
    assert own.plan.digest == setup.plan.digest
    open_party(va)


def test_another_table_in_the_folder_is_not_the_one_that_was_approved(va: PartyFolder) -> None:
    setup = open_federation(va)
    other = setup.base / setup.section("switzerland").data
    (va.root / "other.csv").write_bytes(other.read_bytes())
    keep_data_in(va, "other.csv")
    with pytest.raises(DataError, match="100% of the records that lie at 'va' were not there"):
        open_party(va)


def test_more_records_than_declared_open_no_party_and_charge_nothing(va: PartyFolder) -> None:
    """Over Flower too a site is this: whoever starts it is told, and no round gets to it."""
    setup = open_federation(va)
    declared = setup.section("va").records
    lines = (setup.base / setup.section("va").data).read_text().splitlines(keepends=True)
    texts = set()
    for times in (2, 5):
        (va.root / "more.csv").write_text("".join([lines[0], *(times * lines[1:])]))
        keep_data_in(va, "more.csv")
        said = va.party().model_copy(update={"accept_findings": True})
        write_whole(va.party_file, toml_text(said.model_dump(exclude_none=True)).encode())
        with pytest.raises(DataError, match=f"more usable records than the {declared} it") as told:
            open_party(va)
        texts.add(str(told.value))
    assert len(texts) == 1
    ledger = Ledger.open(va.ledger)
    assert not ledger.plan_was_charged(setup.budget_key("va"), setup.plan.digest)


def test_the_folder_of_a_local_run_is_no_partys_that_answers_on_its_own(tmp_path: Path) -> None:
    """One person acts for all in a local run; nobody pinned anything there."""
    folder = make_local(Federation.from_toml(demo(tmp_path)).setup, "riverside")
    assert folder.party() == PartyFile(name="riverside")
    with pytest.raises(ConfigError, match="cannot read|is missing"):
        open_party(folder)
