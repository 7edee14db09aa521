"""Secrets that others on the machine can read or exchange: only the identity key was looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from privagg.errors import ConfigError, PrivaggError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import card_of, join, renew
from privagg.flower.deploy.processes import parts_of
from privagg.identity.owner import make_owner_key, read_owner_key
from privagg.identity.secretfile import read_private, require_private
from privagg.party.certificates import SERVER_DAYS
from privagg.protocol.names import COORDINATOR
from privagg.training.known import KnownRecords
from tests.flower.deploy.conftest import AGREEMENT, Parties, parties  # noqa: F401
from tests.simulator import Simulation

SECRETS = [
    (COORDINATOR, "server.key"), (COORDINATOR, "ca.key"), (COORDINATOR, "app.secret"),
    ("north", "node.key"), ("north", "app.secret"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file"), SECRETS)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_no_part_starts_with_a_secret_that_others_can_read(
    parties: Parties,  # noqa: F811
    name: str,
    file: str,
    mode: int,
) -> None:
    """Whoever reads `node.key` speaks for the node, whoever reads `app.secret` takes its tasks."""
    folder = parties.folders[name]
    join(folder, AGREEMENT, list(parties.cards.values()))
    folder.at(file).chmod(mode)
    with pytest.raises(ConfigError, match=rf"{file} can be read or changed.*{mode:04o}.*chmod 600"):
        parts_of(folder)
    folder.at(file).chmod(0o600)
    assert parts_of(folder)


@pytest.mark.parametrize(
    ("name", "file", "use"),
    [
        ("north", "node.key", lambda folder: card_of(folder, AGREEMENT)),
        (COORDINATOR, "ca.key", lambda folder: renew(folder, days=SERVER_DAYS)),
        (COORDINATOR, "server.key", lambda folder: renew(folder, days=SERVER_DAYS)),
    ],
)
def test_nor_is_it_used_for_a_card_or_a_certificate(
    parties: Parties,  # noqa: F811
    name: str,
    file: str,
    use: Callable[[FlowerFolder], object],
) -> None:
    folder = parties.folders[name]
    assert use(folder)
    folder.at(file).chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 .*{file}"):
        use(folder)


def test_an_owners_key_and_the_memory_of_records_follow_the_same_rule(tmp_path: Path) -> None:
    owner = tmp_path / "owner.pem"
    made = make_owner_key(owner)
    assert owner.stat().st_mode & 0o777 == 0o600
    owner.chmod(0o640)
    with pytest.raises(ConfigError, match=f"the owner's key {owner} can be read"):
        read_owner_key(owner)
    owner.chmod(0o600)
    assert read_owner_key(owner).private_bytes_raw() == made.private_bytes_raw()
    known = KnownRecords(tmp_path / "ledger.records")
    tags = known.tags([b"a record"])
    known.path.chmod(0o644)
    with pytest.raises(PrivaggError, match="memory of records .* can be read"):
        known.recognise("heart", tags)


def test_the_store_of_run_keys_opens_nothing_once_others_can_read_it(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    store = tmp_path / "openings.sqlite"
    store.chmod(0o640)
    with pytest.raises(ConfigError, match="store of keys and openings .* chmod 600"):
        simulation.make_key_holder()
    store.chmod(0o600)
    assert simulation.make_key_holder()


def test_a_key_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "owner.pem"
    first = make_owner_key(path)
    with pytest.raises(ConfigError, match="exists already and is never overwritten"):
        make_owner_key(path)
    assert read_owner_key(path).private_bytes_raw() == first.private_bytes_raw()
    assert [file.name for file in tmp_path.iterdir()] == ["owner.pem"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_another_user_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(b"x")
    path.chmod(0o600)
    assert read_private(path, "the node key") == b"x"
    os.chown(path, 12345, -1)
    for use in (read_private, require_private):
        with pytest.raises(ConfigError, match="the node key .* belongs to user 12345"):
            use(path, "the node key")


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    secret, link = tmp_path / "real.key", tmp_path / "node.key"
    secret.write_bytes(b"x")
    link.symlink_to(secret)
    secret.chmod(0o644)
    for use in (read_private, require_private):
        with pytest.raises(ConfigError, match="mode 0644"):
            use(link, "the node key")
        with pytest.raises(ConfigError, match="cannot read the node key"):
            use(tmp_path / "absent.key", "the node key")
