"""What a site's owner says of its table in its own folder: read and kept there, told to nobody."""

from __future__ import annotations

import csv
import sqlite3
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.config.schema import load_config
from privagg.errors import ConfigError
from privagg.federation import Federation
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.open import open_federation, open_party
from privagg.party.own_data import with_own_data
from privagg.training.tablefile import Database, TableFile
from tests.approvals import approved
from tests.flower.heart import make_deployment, write_federation
from tests.mistakes.test_mistakes import HERE as MISTAKES

GERMAN = TableFile(
    encoding="latin-1",
    delimiter=";",
    decimal=",",
    missing={"ward": ("k.A.",)},
    columns={"age": "Größe", "ill": "krank"},
    aliases={"ward": {"Süd": "a", "Nord": "b"}, "ill": {"j": "yes", "n": "no"}},
)
QUESTIONS = """
[ask]
epsilon = 1

[[questions]]
name = "ages"
kind = "mean"
of = "age"
"""
QUERY = "SELECT age, ward, ill FROM clinic"


def asked_and_trained(folder: Path) -> Path:
    """Two clinics with questions besides; north's file is a German spreadsheet."""
    good = MISTAKES / "good"
    for path in good.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with (folder / "my.toml").open("a") as file:
        file.write(QUESTIONS)
    rows = list(csv.reader((good / "north.csv").open()))[1:]
    lines = ["krank;ward;Größe"]
    for age, ward, ill in rows:
        lines.append(f"{'J' if ill == 'yes' else 'N'};{'Süd' if ward == 'a' else 'nord'};{age},00")
    (folder / "north.csv").write_bytes("\n".join(lines).encode("latin-1"))
    return folder / "my.toml"


def say(folder: Path, **facts: Any) -> PartyFolder:
    return PartyFolder.create(folder, PartyFile(name=folder.name, **facts))


def all_numbers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """North's records as they are trained on, and its ages as they are asked of."""
    federation = Federation.from_toml(path)
    records = federation.setup.records_of(federation.setup.section("north"))
    return records.x.numpy(), federation.asking.lines_of("north").numbers("age")


def test_a_local_site_says_in_its_own_folder_how_its_file_is_written(tmp_path: Path) -> None:
    plain = Federation.from_toml(MISTAKES / "good" / "my.toml")
    expected = plain.setup.records_of(plain.setup.section("north")).x.numpy()
    path = asked_and_trained(tmp_path)
    held = say(tmp_path / "out/parties/north", file=GERMAN)
    assert held.party().file == GERMAN
    x, ages = all_numbers(path)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(ages, np.arange(20, 80, 5))
    approved(Federation.from_toml(path)).run()
    assert held.party().file == GERMAN  # also once the folder holds more
    predicted = Federation.from_toml(path).predict(tmp_path / "north.csv", site="north")
    assert predicted.shape == (12, 2)


def test_what_a_site_says_itself_goes_before_the_shared_file(tmp_path: Path) -> None:
    path = asked_and_trained(tmp_path)
    text = path.read_text().replace(
        'data = "north.csv"', 'data = "north.csv"\nfile = { delimiter = "|", decimal = "," }'
    )
    path.write_text(text.replace("[data.target]", '[data.file]\nthousands = "\'"\n\n[data.target]'))
    setup = Federation.from_toml(path).setup
    say(tmp_path / "out/parties/north", file=GERMAN)
    north, south = (setup.source_of(setup.section(name)).file for name in ("north", "south"))
    assert (north.delimiter, north.decimal, north.thousands) == (";", ",", "'")
    assert (south.delimiter, south.decimal, south.thousands) == (",", ".", "'")


def test_a_network_lies_where_its_owner_says(tmp_path: Path) -> None:
    path = asked_and_trained(tmp_path)
    party = PartyFile(name="north", network="own.safetensors")
    north, south = with_own_data(load_config(path), party, tmp_path / "north").sites
    assert north.network == str(tmp_path / "north" / "own.safetensors")
    assert (north.data, south.network) == ("north.csv", None)
    say(tmp_path / "out/parties/north", network="own.safetensors")
    with pytest.raises(ConfigError, match=r"party\.toml names network \(own\.safetensors\)"):
        all_numbers(path)


def database(folder: Path) -> None:
    with sqlite3.connect(folder / "clinic.sqlite") as connection:
        connection.execute("CREATE TABLE clinic (age, ward, ill)")
        rows = list(csv.reader((MISTAKES / "good" / "north.csv").open()))[1:]
        connection.executemany("INSERT INTO clinic VALUES (?, ?, ?)", rows)


def test_a_query_stays_in_its_owners_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains and answers like the file; no other file says a word of it, nor of its address."""
    path = asked_and_trained(tmp_path)
    folder = tmp_path / "out/parties/north"
    monkeypatch.setenv("CLINIC_URL", f"sqlite:///{tmp_path}/hunter2/clinic.sqlite")
    (tmp_path / "hunter2").mkdir()
    database(tmp_path / "hunter2")
    held = say(folder, database=Database(url_variable="CLINIC_URL", query=QUERY))
    assert held.party_file.stat().st_mode & 0o077 == 0
    plain = Federation.from_toml(MISTAKES / "good" / "my.toml")
    expected = plain.setup.records_of(plain.setup.section("north")).x.numpy()
    x, ages = all_numbers(path)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(ages, np.arange(20, 80, 5))
    result = approved(Federation.from_toml(path)).run()
    assert result.outcome == "finished"
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file() and file != held.party_file:
            assert b"FROM clinic" not in file.read_bytes(), file
            assert b"hunter2" not in file.read_bytes(), file


def test_a_file_with_a_password_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = asked_and_trained(tmp_path)
    url = "postgresql+psycopg://reader:hunter2@localhost:1/clinic"
    held = say(tmp_path / "out/parties/north", database=Database(url=url, query=QUERY))
    say(tmp_path / "out/parties/north", accept_findings=True)
    assert tomllib.loads(held.party_file.read_text())["database"]["url"] == url
    held.party_file.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read or changed by others") as raised:
        Federation.from_toml(path).check_ready()
    assert "hunter2" not in str(raised.value) + repr(held.party())


def test_a_wrong_setting_is_named_without_what_the_file_holds(tmp_path: Path) -> None:
    path = asked_and_trained(tmp_path)
    held = say(tmp_path / "out/parties/north")
    secret = 'url = "sqlite:///hunter2"'
    query = 'query = "SELECT 1"'
    for section, says in {
        f'[database]\n{secret}\nurl_variable = "A"\n{query}': "either url",
        f"[database]\n{secret}": "query: is missing",
        f'[database]\nurl = ["hunter2"]\n{query}': "should be text",
        '[file]\ndelimiter = "hunter2"': "should be one sign between two cells",
    }.items():
        held.party_file.write_text(f'name = "north"\n\n{section}\n')
        with pytest.raises(ConfigError, match=says) as raised:
            Federation.from_toml(path).check_ready()
        assert "party.toml" in str(raised.value)
        assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"


def test_a_deployed_sites_own_settings_are_its_own(tmp_path: Path) -> None:
    """The others' folders, the shared file and its plan say nothing of them."""
    config = write_federation(tmp_path, rounds=3, scheme="plaintext")
    trial = make_deployment(config, tmp_path / "p")
    folder = trial.parties["va"].party
    before = open_federation(folder)
    section = before.section("va")
    whole = before.records_of(section)
    table = before.base / section.data
    text = table.read_text().replace(".", "<").replace(",", ";").replace("<", ",")
    (folder.root / "va-german.csv").write_text("\ufeff" + text, "utf-8")
    own = TableFile(delimiter=";", decimal=",")
    PartyFolder.create(folder.root, PartyFile(name="va", data="va-german.csv", file=own))
    after = open_federation(folder)
    assert after.plan.digest == before.plan.digest
    assert after.records_of(after.section("va")).x.equal(whole.x)
    open_party(folder)  # its owner's memory knows them again, spelt anew
