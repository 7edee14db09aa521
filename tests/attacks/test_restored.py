"""An owner who goes back to yesterday's ledger, or on under another key."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from privagg.cli.app import app
from privagg.errors import LedgerTamperedError
from privagg.identity.keys import Identity, Roster
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from tests.simulator import ACCOUNTANT, NAMES, Simulation

REASON = ("--who", "officer", "--why", "disk failed")


def keys(simulation: Simulation, folder: Path) -> Path:
    """North's identity key as a file, as its owner has it."""
    path = folder / "north.pem"
    simulation.identities["north"]._store(path)
    return path


def test_a_copy_older_than_what_peers_keep_is_not_restored(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    simulation.round(1)
    simulation.ledgers["north"].backup(tmp_path / "yesterday")
    simulation.round(2)
    kept = simulation.ledgers["east"].keeper.latest(ORIGIN_PREFIX + "north")
    assert kept is not None
    (tmp_path / "from-east").write_text(kept)
    arguments = ["ledger", "restore", str(tmp_path / "yesterday"), str(tmp_path / "again.sqlite")]
    arguments += ["--key", str(keys(simulation, tmp_path)), *REASON]
    alone = CliRunner().invoke(app, arguments)
    assert alone.exit_code != 0
    told = CliRunner().invoke(app, [*arguments, "--checkpoint", str(tmp_path / "from-east")])
    assert told.exit_code != 0
    assert isinstance(told.exception, LedgerTamperedError)
    simulation.ledgers["north"].backup(tmp_path / "today")
    arguments[2] = str(tmp_path / "today")
    done = CliRunner().invoke(app, [*arguments, "--checkpoint", str(tmp_path / "from-east")])
    assert done.exit_code == 0, done.output
    restored = Ledger.open(tmp_path / "again.sqlite")
    assert restored.stored_upload("run-1", 2, 1) is None
    assert [entry.kind for entry in restored.entries()][-1] == "restored"


def rotated(simulation: Simulation, folder: Path) -> Identity:
    """North's new identity, once its ledger names it."""
    new = folder / "north.new.pem"
    arguments = ["ledger", "rotate", str(folder / "north.sqlite"), "--new-key", str(new)]
    arguments += ["--key", str(keys(simulation, folder)), *REASON]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, arguments)
    assert "already" in str(again.exception)
    return Identity.load_or_create("north", new)


def under(simulation: Simulation, identity: Identity, pins: Identity) -> None:
    """North serves under `identity`; everybody pins the key of `pins` for it."""
    simulation.roster = Roster.of(
        *(pins if name == "north" else each for name, each in simulation.identities.items())
    )
    simulation.identities["north"] = identity
    simulation.ledgers["north"] = Ledger.open(
        simulation.folder / "north.sqlite", signing_key=identity.key, accountant=ACCOUNTANT
    )
    simulation.sites = {name: simulation.site(name) for name in NAMES}
    simulation.key_holder = simulation.make_key_holder()
    simulation.wire.handlers |= {name: site.handle for name, site in simulation.sites.items()}
    # Runs and their keys are of a federation: under another identity key it is another one.
    simulation.begin("run-2" if pins is identity else "run-1")


def test_a_rotated_key_goes_on_with_the_same_history_once_all_pin_it(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    assert simulation.round(1).survivors == NAMES
    identity = rotated(simulation, tmp_path)
    under(simulation, identity, pins=identity)
    assert simulation.round(2).survivors == NAMES
    assert simulation.charges("north") == 2
    replayed = simulation.ledgers["north"].bundle().replay()
    assert len(replayed.verifiers) == 2
    for note in simulation.watch.notes("north"):
        assert replayed.check_history(note) == []


def test_until_then_nothing_that_the_new_key_signs_counts(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    simulation.round(1)
    before = simulation.identities["north"]
    under(simulation, rotated(simulation, tmp_path), pins=before)
    outcome = simulation.round(2)
    assert "north" not in outcome.survivors
    assert "north" in outcome.refusals


def test_a_ledger_is_not_opened_with_a_key_that_it_never_named(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    with pytest.raises(Exception, match="signed by key"):
        Ledger.open(tmp_path / "north.sqlite", signing_key=Identity.generate("north").key)
    assert simulation.charges("north") == 0
