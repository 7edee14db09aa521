"""A federation of four invented hospitals, every party in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from privagg.config.setup import TRAINING
from privagg.flower.bridge.apps import make_client_app
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.inprocess import InProcessGrid
from privagg.flower.bridge.transport import FlowerTransport, Patience
from privagg.flower.deploy.trial import Trial
from privagg.flower.lead import lead
from privagg.party.open import open_federation, open_party
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.transport import Handler
from privagg.run.results import RunResult
from tests.flower.heart import SEED, make_deployment, write_federation

RUN = "heart-1"


@dataclass
class World:
    """A deployment whose nodes run in this process, each opened anew for every message."""

    trial: Trial
    config: Path
    meddle: dict[str, Callable[[Handler], Handler]] = field(default_factory=dict)
    patience: Patience = field(default_factory=lambda: Patience(20, 2, 0.01))

    def __post_init__(self) -> None:
        names = [name for name in self.trial.parties if name != "coordinator"]
        self.nodes = {name: number for number, name in enumerate(names, start=11)}
        self.grid = InProcessGrid({node: self.app(name) for name, node in self.nodes.items()})

    def app(self, name: str) -> Callable[..., Message]:
        def opened(context: Any) -> Handler:
            folder = self.trial.parties[name].party
            handler = open_party(folder, DeterministicRandomness(SEED))
            return self.meddle.get(name, lambda honest: honest)(handler)

        return make_client_app(opened)

    def transport(self, run: str = RUN, job: str = TRAINING) -> FlowerTransport:
        folder = self.trial.coordinator.party
        roster, plan = folder.pins().pinned_roster, open_federation(folder, job).plan
        directory = Directory(folder.identity(), roster, run, plan.digest)
        return FlowerTransport(self.grid, directory, patience=self.patience)

    def lead(self, run: str = RUN, transport: Any = None, job: str = TRAINING) -> RunResult:
        carrier = transport or self.transport(run, job)
        problems = carrier.meet(tuple(self.nodes))
        said = carrier.directory.presences
        return lead(
            self.trial.coordinator.party,
            carrier,
            run,
            problems,
            kept={party: presence.kept_sizes for party, presence in said.items()},
            generator=DeterministicRandomness(SEED).name,
            job=job,
        )


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """Under the plaintext scheme, unless a test names another."""
    scheme = getattr(request, "param", "plaintext")
    custody = "every-site" if scheme == "masked" else "authority"
    config = write_federation(tmp_path, rounds=3, scheme=scheme, custody=custody)
    return World(make_deployment(config, tmp_path / "parties"), config)
