"""A strategy resumes after its coordinator was killed: the same model, and no charge twice."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from privagg.errors import ConfigError, ProtocolError, ResumeError
from privagg.flower.bridge.grid import PrivateGrid
from privagg.flower.bridge.inprocess import Faults
from privagg.flower.bridge.transport import FlowerTransport
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.transport import Reply
from privagg.run.journal import Journal
from privagg.run.results import outcome_facts
from tests.faults import Fragile, Killed
from tests.flower.bridge.doors import NAMES, Doors, initial_arrays

ROUNDS = 3
STRATEGIES = {"FedAvg": FedAvg, "FedAdam": FedAdam}


class World(Doors):
    """Four hospitals with known noise, and a coordinator that keeps a journal."""

    def __init__(self, folder: Path, **plan: Any) -> None:
        folder.mkdir(exist_ok=True)
        source = DeterministicRandomness(b"the test's source of randomness")
        facts: dict[str, Any] = {"noise_multiplier": 1, "rounds": ROUNDS}
        super().__init__(folder, randomness=source, **facts | plan)
        self.run_folder = folder / "run"

    def opened(self, *, lives: int | None = None, before: bool = True, **more: Any) -> PrivateGrid:
        """The server's door as a coordinator opens it that has just been started."""
        journal = Journal(self.run_folder)
        journal.keep_for_replay()
        if lives is not None:
            more["wrap"] = lambda inner: Fragile(inner, lives, before=before)
        return self.private_grid(journal=journal, **more)

    def train(self, grid: PrivateGrid, name: str = "FedAdam", **asked: Any) -> ArrayRecord:
        given = {"initial_arrays": initial_arrays(), "num_rounds": ROUNDS, **asked}
        return make(name).start(grid, **given).arrays

    @property
    def messages(self) -> int:
        return sum(traffic.messages for traffic in self.grid.traffic.values())


def make(name: str) -> Strategy:
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 4, "min_available_nodes": 4}
    return STRATEGIES[name](**options)


def raw(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in arrays.items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "killed")


@pytest.fixture(scope="module", params=STRATEGIES)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    """A strategy, and the model of its run that nothing interrupts."""
    world = World(tmp_path_factory.mktemp("whole"))
    return request.param, raw(world.train(world.opened(), request.param))


@pytest.mark.parametrize(
    ("lives", "before", "where"),
    [
        (0, True, "before anything was sent"),
        (2, True, "before round 2 was asked"),
        (2, False, "after the uploads of round 2"),
        (3, True, "before the opening of round 2 was asked"),
        (3, False, "after the key holder answered"),
        (5, False, "after the key holder answered in the last round"),
    ],
)
def test_a_killed_strategy_goes_on_to_the_same_model(
    world: World, whole: tuple[str, dict[str, bytes]], lives: int, before: bool, where: str
) -> None:
    name, model = whole
    with pytest.raises(Killed):
        world.train(world.opened(lives=lives, before=before), name)
    grid = world.opened()
    assert raw(world.train(grid, name)) == model, where
    assert [world.charges(site) for site in NAMES] == [ROUNDS] * 4
    assert len(world.counting.trained) == ROUNDS * 4
    for site in NAMES:  # how the last round ended travels with the question for the ledgers
        kinds = [entry.kind for entry in world.ledgers[site].entries()]
        assert kinds.count("realised") == ROUNDS - 1, where
    told = [(o.round, o.attempt, o.outcome, o.survivors) for o in grid.outcomes]
    assert told == [(number, 1, "opened", NAMES) for number in range(1, ROUNDS + 1)]


def test_rounds_that_are_over_are_told_again_without_asking_anybody(world: World) -> None:
    first = world.opened()
    model = raw(world.train(first))
    again = world.opened(lives=0)
    before = world.messages
    assert raw(world.train(again)) == model
    assert world.messages == before
    assert [outcome_facts(o) for o in again.outcomes] == [outcome_facts(o) for o in first.outcomes]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another initial model": (
        {
            "initial_arrays": ArrayRecord(
                {n: Array(a.numpy() * 2) for n, a in initial_arrays().items()}
            )
        },
        r"round 1 is asked .* another the initial model",
    ),
    "another shape": (
        {"initial_arrays": ArrayRecord({"weight": Array(np.zeros(7, np.float32))})},
        r"round 1 is asked .* layout",
    ),
    "another setting": (
        {"train_config": ConfigRecord({"rate": 0.5})},
        r"configs\.config\.rate: nothing then, 0\.5 now",
    ),
    "another strategy": ({"name": "FedAvg"}, r"round 2 is asked .* another strategy"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_the_run_that_was_begun_is_refused_and_costs_nothing(
    world: World, what: str
) -> None:
    asked, text = OTHERS[what]
    with pytest.raises(Killed):
        world.train(world.opened(lives=2, before=False))
    grid = world.opened()
    messages, charges = world.messages, [world.charges(site) for site in NAMES]
    with pytest.raises(ResumeError, match=text) as refused:
        world.train(grid, **asked)
    assert "nothing was spent" in str(refused.value)
    assert world.messages == messages
    assert [world.charges(site) for site in NAMES] == charges
    assert len(world.train(world.opened())) == 2  # as it was begun, it can still be resumed


def test_another_plan_or_key_is_not_gone_on_with(world: World, tmp_path: Path) -> None:
    world.train(world.opened(), num_rounds=1)
    other = World(tmp_path / "other", rounds=ROUNDS + 1)
    shutil.copytree(world.run_folder, other.run_folder)
    with pytest.raises(ResumeError, match="cannot be resumed: the statement of its key"):
        other.train(other.opened())
    assert not other.counting.trained


def test_a_journal_is_believed_only_with_the_key_holders_signature(world: World) -> None:
    world.train(world.opened())
    rounds = world.run_folder / "rounds"
    kept = {path.name: path.read_bytes() for path in rounds.iterdir()}
    altered = bytearray(zlib.decompress(kept["2.opening"]))
    altered[-1] ^= 1
    for data in (kept["1.opening"], zlib.compress(bytes(altered))):
        (rounds / "2.opening").write_bytes(data)
        with pytest.raises(ProtocolError):
            world.train(world.opened())
    for damage in (lambda path: path.write_bytes(kept["2.opening"][:-9]), Path.unlink):
        damage(rounds / "2.opening")
        with pytest.raises(ConfigError, match="cannot be used"):
            world.train(world.opened())
    assert len(world.counting.trained) == ROUNDS * 4


def test_a_stopped_round_is_tried_again_as_often_as_is_agreed(tmp_path: Path) -> None:
    world = World(tmp_path / "retrying", rounds=2)
    fails = iter([True, True])

    def flaky(transport: FlowerTransport) -> Any:
        exchange = transport.exchange

        def once(requests: Mapping[str, bytes]) -> Iterator[Reply]:
            silent = len(requests) > 1 and next(fails, False)
            world.grid.faults[world.nodes["west"]] = Faults(silent=silent)
            return exchange(requests)

        transport.exchange = once  # type: ignore[method-assign]
        return transport

    grid = world.opened(attempts=3, wrap=flaky)
    world.train(grid, num_rounds=2)
    assert [(o.round, o.attempt, o.outcome) for o in grid.outcomes] == [
        (1, 3, "opened"),
        (2, 1, "opened"),
    ]
    assert [world.charges(site) for site in NAMES] == [4, 4, 4, 2]


def test_a_round_that_stopped_is_told_again_as_stopped(tmp_path: Path) -> None:
    world = World(tmp_path / "stopping", rounds=2)
    first = world.opened()
    world.grid.faults[world.nodes["west"]] = Faults(silent=True)
    world.train(first, num_rounds=1)
    assert [o.outcome for o in first.outcomes] == ["stopped"]
    world.grid.faults.clear()
    again = world.opened()
    assert len(world.train(again, num_rounds=2)) == 2
    assert [o.outcome for o in again.outcomes] == ["stopped", "opened"]
    assert [world.charges(site) for site in NAMES] == [2, 2, 2, 1]


def test_a_run_that_has_ended_makes_no_further_round(world: World) -> None:
    model = raw(world.train(world.opened(), num_rounds=2))
    messages = world.messages + len(world.nodes)  # the introductions of the next coordinator
    over = world.opened(over=True)
    assert raw(world.train(over, num_rounds=2)) == model
    with pytest.raises(ResumeError, match="has ended before round 3"):
        world.train(world.opened(over=True))
    assert world.messages == messages + len(world.nodes)
