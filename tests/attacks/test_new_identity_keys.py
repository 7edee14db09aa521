"""A new key on a card: peers believed it, and were not shown what the ledger notes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privagg.cli.app import app
from privagg.errors import DeploymentError, LedgerTamperedError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import card_of, join
from privagg.identity.keys import Identity
from privagg.party.cards import Card
from privagg.party.rotations import new_keys
from privagg.privacy.ledger import Bundle, CheckpointKeeper, Ledger
from privagg.privacy.ledger.checkpoint import Checkpoint, Note
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from privagg.protocol.names import COORDINATOR
from tests.flower.deploy.conftest import AGREEMENT, Parties, parties  # noqa: F401

WHY = ("--who", "Dr. Ito", "--why", "an administrator left")


@pytest.fixture
def joined(parties: Parties) -> Parties:  # noqa: F811
    """Four parties that believe each other."""
    for folder in parties.folders.values():
        join(folder, AGREEMENT, list(parties.cards.values()))
    return parties


def _rotate(folder: FlowerFolder) -> None:
    """What north's owner types, and puts in the old key's place."""
    party = folder.party
    fresh = party.root / "identity.new.pem"
    words = ["ledger", "rotate", str(party.ledger), "--key", str(party.identity_key)]
    done = CliRunner().invoke(app, [*words, "--new-key", str(fresh), *WHY])
    assert done.exit_code == 0, done.output
    fresh.replace(party.identity_key)


def _export(folder: FlowerFolder, name: str) -> Path:
    path = folder.party.root / name
    done = CliRunner().invoke(app, ["ledger", "export", str(folder.party.ledger), str(path)])
    assert done.exit_code == 0, done.output
    return path


def _cards(parties: Parties, card: Card) -> list[Card]:  # noqa: F811
    return list({**parties.cards, card.party: card}.values())


def test_a_rotation_is_shown_with_who_and_why(joined: Parties) -> None:
    north, south = joined.folders["north"], joined.folders["south"]
    for _ in range(2):
        _rotate(north)
    cards = _cards(joined, card_of(north, AGREEMENT))
    (found,) = new_keys(south.party, cards, [_export(north, "two.ledger")])
    assert len(found.entries) == 2
    assert "under the old key's signature" in found.words
    assert "'Dr. Ito': 'an administrator left'" in found.words
    assert new_keys(south.party, list(joined.cards.values())) == ()


def test_a_swapped_card_is_told_apart_from_a_rotation(joined: Parties, tmp_path: Path) -> None:
    """Somebody else's key on north's card; its ledger is made up under that key."""
    south, thief = joined.folders["south"], Identity.generate("north")
    swapped = joined.cards["north"].model_copy(update={"identity": thief.public_hex})
    (found,) = new_keys(south.party, _cards(joined, swapped))
    assert "nothing that the old key's holder agreed" in found.words
    made_up = tmp_path / "made-up.ledger"
    Ledger.create(tmp_path / "x.sqlite", "north", signing_key=thief.key).export(made_up)
    with pytest.raises(DeploymentError, match="does not lead from the key believed so far"):
        new_keys(south.party, _cards(joined, swapped), [made_up])


def test_a_signature_added_to_an_old_checkpoint_names_no_key(
    joined: Parties, tmp_path: Path
) -> None:
    """Old and new key sign one checkpoint, and no entry under it speaks of a new key."""
    north, south = joined.folders["north"], joined.folders["south"]
    thief = Identity.generate("north")
    swapped = joined.cards["north"].model_copy(update={"identity": thief.public_hex})
    honest = Bundle.read(_export(north, "honest.ledger"))
    both = Note.parse(honest.notes[-1]).signed_by(ORIGIN_PREFIX + "north", thief.key).render()
    forged = replace(honest, notes=(*honest.notes[:-1], both))
    forged.write(tmp_path / "forged.ledger")
    with pytest.raises(DeploymentError, match="does not lead"):
        new_keys(south.party, _cards(joined, swapped), [tmp_path / "forged.ledger"])


def test_an_entry_that_the_new_key_alone_signed_is_no_rotation(
    joined: Parties, tmp_path: Path
) -> None:
    north, south = joined.folders["north"], joined.folders["south"]
    _rotate(north)
    card = card_of(north, AGREEMENT)
    honest = Bundle.read(_export(north, "honest.ledger"))
    new = north.party.identity()
    alone = Checkpoint.parse(honest.notes[-1]).sign(new.key)
    replace(honest, notes=(*honest.notes[:-1], alone)).write(tmp_path / "alone.ledger")
    with pytest.raises(LedgerTamperedError):
        new_keys(south.party, _cards(joined, card), [tmp_path / "alone.ledger"])


@pytest.mark.parametrize("kept", ["checkpoints", "opener_checkpoints"])
def test_a_rotation_does_not_hide_a_history_that_was_rewritten(joined: Parties, kept: str) -> None:
    """South kept a checkpoint of another history of north's, signed by the same old key."""
    north, south = joined.folders["north"], joined.folders["south"]
    origin = ORIGIN_PREFIX + "north"
    other = Checkpoint(origin, 1, bytes(32)).sign(north.party.identity().key)
    verifier = Ledger.open(north.party.ledger).verifier
    _rotate(north)
    cards, export = _cards(joined, card_of(north, AGREEMENT)), _export(north, "n.ledger")
    (found,) = new_keys(south.party, cards, [export])
    assert found.kept == 0
    CheckpointKeeper.open(getattr(south.party, kept)).keep(origin, other, verifier=verifier)
    with pytest.raises(LedgerTamperedError, match="forked"):
        new_keys(south.party, cards, [export])


def test_a_ledger_of_a_party_whose_key_stays_is_not_taken_for_another(joined: Parties) -> None:
    north, coordinator = joined.folders["north"], joined.folders[COORDINATOR]
    export = _export(north, "n.ledger")
    with pytest.raises(DeploymentError, match="key is the same on its card; it is needed for nob"):
        new_keys(coordinator.party, list(joined.cards.values()), [export])
