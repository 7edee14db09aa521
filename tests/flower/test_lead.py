"""Parties from their own folders: the same model and ledgers as in one process; kills survived."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.errors import CohortError, ConfigError
from privagg.flower.bridge.inprocess import Faults
from privagg.identity.owner import read_owner_key
from privagg.party.approving import withdraw
from privagg.party.open import has_begun, ledger_here, open_federation, open_party
from privagg.privacy.ledger import Ledger
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.transport import Handler
from privagg.run.listing import runs_at
from privagg.run.results import RunResult
from tests.approvals import approved, approved_trial
from tests.faults import Fragile, Killed
from tests.flower.conftest import RUN, World
from tests.flower.heart import SEED, SITES, write_federation
from tests.flower.story import story
from tests.models import but_for_its_plan

pytestmark = pytest.mark.usefixtures("no_page")


def ledger_of(world: World, name: str) -> Ledger:
    folder = world.trial.parties[name].party
    return Ledger.open(folder.ledger, signing_key=folder.identity().key)


@dataclass(frozen=True)
class Local:
    """The same run in one process."""

    federation: Federation
    result: RunResult

    @property
    def model(self) -> bytes:
        return but_for_its_plan(self.result)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("local")
    path = write_federation(folder, rounds=3, scheme="plaintext")
    federation = approved(Federation.from_toml(path))
    return Local(federation, federation.run(randomness=DeterministicRandomness(SEED), run_id=RUN))


def test_the_same_model_and_ledgers_as_in_one_process(world: World, local: Local) -> None:
    result = world.lead()
    assert (result.outcome, result.missing) == ("finished", {})
    assert [report.outcome.exchanges for report in result.rounds] == [2, 2, 2]
    assert but_for_its_plan(result) == local.model
    assert result.metrics == local.result.metrics
    for name in SITES:
        assert story(ledger_of(world, name)) == story(ledger_here(local.federation.setup, name))
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


@pytest.mark.parametrize(
    ("lives", "before", "where"),
    [
        (0, False, "after the key was stated, before it was kept"),
        (1, True, "before round 1 was asked"),
        (3, True, "before round 2 was asked"),
        (3, False, "after the uploads of round 2"),
        (4, True, "before the opening of round 2 was asked"),
        (4, False, "after the key holder answered"),
        (6, False, "after the last opening, which took the key along"),
        (7, False, "after the last round, before the report"),
    ],
)
def test_a_killed_coordinator_goes_on_where_it_was(
    world: World, local: Local, lives: int, before: bool, where: str
) -> None:
    with pytest.raises(Killed):
        world.lead(transport=Fragile(world.transport(), lives, before=before))
    place = world.trial.coordinator.party.root
    cut_off = [(each.ending, each.resumed, each.is_gone) for each in runs_at(place)]
    assert cut_off in ([], [("interrupted", "run", False)], [("finished", "run", False)])
    result = world.lead()
    assert (result.outcome, result.missing) == ("finished", {}), where
    (row,) = runs_at(place)
    assert (row.name, row.ending, row.opened, row.resumed) == (RUN, "finished", 3, "")
    assert row.files["bundle"] == result.bundle
    assert {site for site, charged in row.charged.items() if charged.by_ledger} == set(SITES)
    assert but_for_its_plan(result) == local.model
    for name in SITES:
        kinds = [entry.kind for entry in ledger_of(world, name).entries()]
        assert kinds.count("charge") == kinds.count("upload") == kinds.count("realised") == 3
    report = json.loads((world.trial.coordinator.party.run_folder(RUN) / "report.json").read_text())
    assert [r["outcome"] for r in report["rounds"]] == ["opened"] * 3


@pytest.mark.parametrize("world", ["masked"], indirect=True)
@pytest.mark.parametrize(
    ("lives", "before"),
    [
        (0, False),  # after the sites' cards, before they were kept
        (3, False),  # after the uploads of round 2
        (4, True),  # before the releases of round 2 are asked for
        (6, False),  # after the last releases, which took the sites' keys along
    ],
)
def test_sites_that_open_together_end_with_the_same_model_though_the_coordinator_is_killed(
    world: World, local: Local, lives: int, before: bool
) -> None:
    with pytest.raises(Killed):
        world.lead(transport=Fragile(world.transport(), lives, before=before))
    result = world.lead()
    assert (result.outcome, result.missing) == ("finished", {})
    assert but_for_its_plan(result) == local.model
    for name in SITES:
        kinds = [entry.kind for entry in ledger_of(world, name).entries()]
        assert kinds.count("charge") == kinds.count("upload") == kinds.count("realised") == 3
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def test_a_site_that_dies_is_left_out_and_comes_back(world: World) -> None:
    asked: list[bytes] = []

    def dies_once(honest: Handler) -> Handler:
        def answer(frame: bytes) -> bytes:
            asked.append(frame)
            if len(asked) == 2:
                raise OSError("the machine went down")
            return honest(frame)

        return answer

    world.meddle["va"] = dies_once
    result = world.lead()
    assert [r.outcome.survivors for r in result.rounds][1:] == [tuple(SITES)] * 2
    assert result.rounds[0].outcome.survivors == ("cleveland", "hungarian", "switzerland")
    assert result.rounds[0].outcome.refusals == {"va": "failed: OSError"}
    assert result.report_json is not None
    told = json.loads(result.report_json.read_text())["rounds"][0]["refusals"]
    assert told == [{"site": "va", "message": "failed: OSError"}]


def test_too_many_dead_sites_stop_the_run_by_the_plans_rule(world: World) -> None:
    transport = world.transport()
    transport.meet(tuple(world.nodes))
    for name in ("va", "hungarian"):
        world.grid.faults[world.nodes[name]] = Faults(silent=True)
    world.patience = type(world.patience)(1, 1, 0.01)
    transport.patience = world.patience
    result = world.lead(transport=_Met(transport))
    assert result.outcome == "stopped"
    assert "the plan opens 3 or more" in result.reason
    assert set(result.missing) == {"va", "hungarian"}
    assert result.report_json is None
    world.grid.faults.clear()
    world.patience = type(world.patience)(20, 2, 0.01)
    again = world.lead()
    assert (again.outcome, again.missing) == ("stopped", {})
    assert again.report_json is not None


class _Met:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def meet(self, parties: Any) -> dict[str, str]:
        return {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_nothing_starts_without_enough_sites_or_the_key_holder(world: World) -> None:
    world.grid._apps.pop(world.nodes["key-holder"])
    with pytest.raises(CohortError, match="'key-holder' to open; nothing was spent"):
        world.lead()
    written = world.trial.coordinator.party.run_folder(RUN) / "result.json"
    assert json.loads(written.read_text())["outcome"] == "failed"
    assert [e.kind for e in ledger_of(world, "va").entries()].count("charge") == 0


def test_nothing_starts_where_the_key_holders_owner_does_not_approve(world: World) -> None:
    folder = world.trial.parties["key-holder"].party
    owner = read_owner_key(folder.owner_key)
    assert withdraw(folder, owner, who="tester", why="a test") == 1
    with pytest.raises(CohortError, match="'key-holder' has not approved plan"):
        world.lead()
    assert [e.kind for e in ledger_of(world, "va").entries()].count("charge") == 0
    approved_trial(world.trial)
    assert world.lead().outcome == "finished"


def test_a_folder_whose_parts_contradict_its_pins_is_not_opened(world: World) -> None:
    folder = world.trial.parties["va"].party
    open_party(folder)
    pins = folder.pins()
    folder.pin(pins.model_copy(update={"plan_digest": "0" * 64}))
    with pytest.raises(ConfigError, match="stands for plan"):
        open_party(folder)
    folder.pin(pins)
    with pytest.raises(ConfigError, match="answers no messages"):
        open_party(world.trial.coordinator.party)


def test_a_journal_of_another_key_is_not_gone_on_with(world: World) -> None:
    with pytest.raises(Killed):
        world.lead(transport=Fragile(world.transport(), 4, before=False))
    state = world.trial.coordinator.party.run_folder(RUN) / "state.json"
    facts = json.loads(state.read_text())
    state.write_text(json.dumps({**facts, "key_id": "0" * 64}))
    with pytest.raises(ConfigError, match="another plan or key"):
        world.lead()
    state.write_text("{")
    with pytest.raises(ConfigError, match="cannot be used"):
        world.lead()
    assert np.isfinite(facts["round"])


def test_a_site_opened_anew_goes_on_with_a_run_whatever_its_records_are_by_then(
    world: World,
) -> None:
    """A database in use changes while a run goes on: whether it goes on must not tell how."""
    folder = world.trial.parties["va"].party
    table = world.config.parent / "data" / "va.csv"

    def changing(honest: Handler) -> Handler:
        def handler(data: bytes) -> bytes:
            answer = honest(data)
            if has_begun(open_federation(folder), folder):
                pd.read_csv(table).assign(num=0, age=99).to_csv(table, index=False)
            return answer

        return handler

    world.meddle["va"] = changing
    result = world.lead()
    assert "va" in result.rounds[-1].outcome.survivors
    assert [e.kind for e in ledger_of(world, "va").entries()].count("charge") == 3
    again = world.lead("heart-2")
    assert all("va" not in report.outcome.survivors for report in again.rounds)
    assert [e.kind for e in ledger_of(world, "va").entries()].count("charge") == 3
