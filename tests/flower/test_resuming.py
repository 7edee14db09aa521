"""A killed or failed coordinator is resumed: what it has signed already is not contradicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from privagg.audit.verify import Brought, verify_file
from privagg.errors import ConfigError, OpeningRefusedError, RunInProgressError
from privagg.flower import lead as leading
from privagg.protocol.messages import OpenRequest
from privagg.protocol.transport import Handler, Reply
from privagg.run.results import RoundReport, RunResult
from tests.faults import Killed
from tests.flower.conftest import RUN, World
from tests.flower.heart import make_deployment, write_federation

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture
def retrying(tmp_path: Path) -> World:
    """Three rounds, each with one retry."""
    config = write_federation(tmp_path, rounds=3, scheme="plaintext")
    config.write_text(config.read_text().replace("rounds = 3", "rounds = 3\nretries = 1"))
    return World(make_deployment(config, tmp_path / "parties"), config)


def rounds_of(world: World) -> list[tuple[int, int, str]]:
    report = world.trial.coordinator.party.run_folder(RUN) / "report.json"
    told = json.loads(report.read_text())["rounds"]
    return [(each["round"], each["attempt"], each["outcome"]) for each in told]


def require_evidence(result: RunResult) -> None:
    assert result.missing == {}
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def down_while(switch: dict[str, bool]) -> Callable[[Handler], Handler]:
    def meddle(honest: Handler) -> Handler:
        def answer(frame: bytes) -> bytes:
            if switch["down"]:
                raise OSError("the machine is down")
            return honest(frame)

        return answer

    return meddle


def killed_once_told(monkeypatch: pytest.MonkeyPatch, ended: tuple[int, int]) -> None:
    """Kill the coordinator right after it has recorded how this attempt ended."""

    def tell(output: Path, report: RoundReport) -> None:
        if (report.outcome.round, report.outcome.attempt) == ended:
            raise Killed

    monkeypatch.setattr(leading, "report_round", tell)


def test_an_attempt_recorded_as_stopped_is_not_made_again(
    retrying: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = {"down": False}
    for name in ("va", "switzerland"):
        retrying.meddle[name] = down_while(switch)

    def goes_down(output: Path, report: RoundReport) -> None:
        if report.outcome.outcome == "stopped":
            raise Killed
        switch["down"] = report.outcome.round == 1

    monkeypatch.setattr(leading, "report_round", goes_down)
    with pytest.raises(Killed):
        retrying.lead()
    monkeypatch.undo()
    switch["down"] = False
    result = retrying.lead()
    assert result.outcome == "finished"
    require_evidence(result)
    assert rounds_of(retrying) == [
        (1, 1, "opened"),
        (2, 1, "stopped"),
        (2, 2, "opened"),
        (3, 1, "opened"),
    ]


def test_a_round_recorded_as_never_opened_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def silent_at_first(honest: Handler) -> Handler:
        def answer(frame: bytes) -> bytes:
            asked.append(frame)
            if 3 <= len(asked) <= 5:  # after challenge and key, every request to open round 1
                raise OSError("the machine is down")
            return honest(frame)

        return answer

    world.meddle["key-holder"] = silent_at_first
    killed_once_told(monkeypatch, (1, 1))
    with pytest.raises(Killed):
        world.lead()
    monkeypatch.undo()
    result = world.lead()
    assert result.outcome == "stopped"
    require_evidence(result)
    assert rounds_of(world) == [(1, 1, "stopped")]


class Failing:
    """A transport under which the coordinator fails once, by an error of our own."""

    def __init__(self, world: World, lives: int) -> None:
        self.inner, self.lives = world.transport(), lives
        self.directory = self.inner.directory

    def meet(self, parties: Any) -> dict[str, str]:
        return self.inner.meet(parties)

    def post(self, frames: Mapping[str, bytes]) -> None:
        self.inner.post(frames)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        if self.lives == 0:
            raise ConfigError("cannot write the journal: no space left on device")
        self.lives -= 1
        return self.inner.exchange(requests)


def test_a_round_recorded_as_opened_is_not_told_to_have_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key holder does not answer the coordinator that resumes: it will, later."""
    killed_once_told(monkeypatch, (1, 1))
    with pytest.raises(Killed):
        world.lead()
    monkeypatch.undo()

    def silent(honest: Handler) -> Handler:
        def answer(frame: bytes) -> bytes:
            if frame[5] == OpenRequest.kind:
                raise OSError("the machine is down")
            return honest(frame)

        return answer

    world.meddle["key-holder"] = silent
    with pytest.raises(OpeningRefusedError, match="did not open"):
        world.lead()
    del world.meddle["key-holder"]
    result = world.lead()
    assert result.outcome == "finished"
    require_evidence(result)
    assert [outcome for _, _, outcome in rounds_of(world)] == ["opened"] * len(rounds_of(world))


def test_a_run_that_failed_and_went_on_has_one_ending(world: World) -> None:
    with pytest.raises(ConfigError):
        world.lead(transport=Failing(world, 3))
    result = world.lead()
    assert result.outcome == "finished"
    require_evidence(result)
    assert rounds_of(world) == [(number, 1, "opened") for number in (1, 2, 3)]


def test_a_run_is_driven_by_one_coordinator_at_a_time(world: World) -> None:
    inside: list[type[Exception]] = []

    class Nested(Failing):
        def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
            if not inside:
                with pytest.raises(RunInProgressError) as refused:
                    world.lead()
                inside.append(refused.type)
            return self.inner.exchange(requests)

    result = world.lead(transport=Nested(world, 0))
    assert inside == [RunInProgressError]
    assert result.outcome == "finished"
    require_evidence(result)


def test_what_an_opener_says_is_recorded_on_one_line(world: World) -> None:
    """Control characters in its words would be refused by the ledger, and end the run for all."""
    asked: list[bytes] = []

    def rude(honest: Handler) -> Handler:
        def answer(frame: bytes) -> bytes:
            asked.append(frame)
            if 3 <= len(asked) <= 5:
                raise ConfigError("no\nsuch \x1b[31mround")
            return honest(frame)

        return answer

    world.meddle["key-holder"] = rude
    result = world.lead()
    assert result.outcome == "stopped"
    assert "no such  [31mround" in result.reason
    require_evidence(result)
