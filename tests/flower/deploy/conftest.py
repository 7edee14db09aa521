"""Four parties of a small federation, each in its own folder, with the cards they hand out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import Agreement, card_of, make_party
from privagg.party.cards import Card
from privagg.protocol.names import COORDINATOR, KEY_HOLDER

AGREEMENT = Agreement(
    federation="trial",
    configuration="1" * 64,
    plan_digest="2" * 64,
    sites=("north", "south"),
    opener=KEY_HOLDER,
)
SUPERLINK = "superlink.example.org:9443"


@dataclass
class Parties:
    """Folders and cards by party."""

    folders: dict[str, FlowerFolder]
    cards: dict[str, Card]


def make(root: Path, name: str, agreement: Agreement = AGREEMENT) -> tuple[FlowerFolder, Card]:
    root.mkdir(exist_ok=True)
    config = root / "federation.toml"
    config.touch()
    superlink = SUPERLINK if name == COORDINATOR else None
    folder = make_party(root / name, name, agreement, config, superlink=superlink)
    return folder, card_of(folder, agreement)


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    made = {name: make(tmp_path, name) for name in AGREEMENT.parties}
    return Parties({n: f for n, (f, _) in made.items()}, {n: c for n, (_, c) in made.items()})
