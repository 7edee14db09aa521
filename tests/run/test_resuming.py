"""A local run that was cut off: resumed as it would have gone on, given up, or refused by name."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from privagg import Federation
from privagg.errors import (
    ApprovalError,
    ConfigError,
    LedgerTamperedError,
    PrivaggError,
    ResumeError,
    RunInProgressError,
)
from privagg.party.local import local_folder
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.protocol.in_memory import LocalTransport
from privagg.run import local, tuning
from privagg.run.journal import alone
from privagg.run.results import RoundReport
from privagg.run.unfinished import journal_folder
from tests.approvals import approved
from tests.faults import Fragile, Killed
from tests.run.small import (
    RUN,
    SEED,
    SITES,
    ledgers_of,
    make_small,
    opened,
    require_evidence,
    run_small,
    told,
    write_small,
)

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture
def small(tmp_path: Path) -> Federation:
    return make_small(tmp_path, rounds=3)


def cut_off(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, lives: int = 4, *, before: bool = True
) -> None:
    """Begin the run, and kill it at an exchange: after key and roll two a round, then ledgers."""

    def dying(handlers: Mapping[str, Any]) -> Any:
        return Fragile(LocalTransport(handlers), lives, before=before)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        run_small(federation)


def secrets_of(federation: Federation) -> list[tuple[str, bool]]:
    """Each run that ever had a key, and whether it still does."""
    store = local_folder(federation.setup.output, federation.setup.opener).openings
    with closing(sqlite3.connect(store)) as database:
        return database.execute("SELECT run, secret IS NOT NULL FROM run_key").fetchall()


def again(federation: Federation, **changes: Any) -> Federation:
    """The federation as another process reads it, with some text of its file changed."""
    path = federation.setup.source
    assert path is not None
    text = path.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return Federation.from_toml(path)


# --- resumed --------------------------------------------------------------------------------------


def test_a_run_goes_on_at_the_round_that_was_under_way(
    small: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(small, monkeypatch, 4, before=False)
    assert secrets_of(small) == [(RUN, True)]
    (left,) = small.unfinished()
    assert (left.begun.run, left.round, left.begun.rounds) == (RUN, 1, 3)
    seen: list[int] = []
    resumed = again(small)
    result = run_small(resumed, resume=RUN, on_round=lambda r: seen.append(r.outcome.round))
    assert seen == [2, 3]
    require_evidence(result)
    whole = make_small(tmp_path / "whole", rounds=3)
    assert told(result) == told(run_small(whole))
    assert {n: ledgers_of(resumed)[n] for n in SITES} == {n: ledgers_of(whole)[n] for n in SITES}
    assert opened(resumed) == [(RUN, 1, 1), (RUN, 2, 1), (RUN, 3, 1)]
    assert resumed.unfinished() == []
    assert not journal_folder(resumed.setup.output, RUN).exists()
    assert secrets_of(resumed) == [(RUN, False)]


def test_an_interruption_within_a_round_leaves_the_run_to_be_resumed(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("privagg.protocol.site.Site._encrypt", interrupted)
        run_small(small)
    assert [each.round for each in small.unfinished()] == [0]
    result = run_small(small, resume=RUN)
    assert result.outcome == "finished"
    kinds = [kind for kind, _ in ledgers_of(small)["north"]]
    assert [kinds.count(kind) for kind in ("charge", "consumed", "upload")] == [3, 3, 3]


def test_an_interruption_between_rounds_ends_the_run(small: Federation) -> None:
    def stop(report: RoundReport) -> None:
        raise KeyboardInterrupt

    result = run_small(small, on_round=stop)
    assert (result.outcome, small.unfinished()) == ("stopped", [])
    assert secrets_of(small) == [(RUN, False)]
    require_evidence(result)


def test_a_run_that_does_not_begin_leaves_nothing(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ConfigError("no journal")

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="no journal"):
        patch.setattr("privagg.run.journal.Journal.keep_key", broken)
        run_small(small)
    assert (small.unfinished(), secrets_of(small)) == ([], [(RUN, False)])


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The disk is full from the journal's third write of a model on, until it is called."""
    from privagg.run import journal

    write, left = journal.write_whole, [5]

    def writing(path: Path, data: bytes, **named: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ConfigError(f"cannot write {path}: No space left on device")
        write(path, data, **named)

    monkeypatch.setattr(journal, "write_whole", writing)
    return lambda: left.__setitem__(0, 10**6)


def test_a_run_goes_on_once_the_disk_has_room(
    small: Federation, full_disk: Callable[[], None]
) -> None:
    with pytest.raises(ConfigError, match="No space left"):
        run_small(small)
    full_disk()
    result = run_small(small, resume=RUN)
    assert result.outcome == "finished"
    require_evidence(result)
    assert opened(small) == [(RUN, 1, 1), (RUN, 2, 1), (RUN, 3, 1)]


# --- the next run, and giving one up --------------------------------------------------------------


def test_the_next_run_names_the_one_that_was_cut_off(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(small, monkeypatch)
    before = ledgers_of(small)
    with pytest.raises(ResumeError) as refused:
        run_small(small, run_id="small-2")
    for words in (f"{RUN} (after round 1 of 3)", f"--resume {RUN}", f"--abandon {RUN}"):
        assert words in str(refused.value)
    with pytest.raises(ResumeError):
        small.check_ready()
    assert ledgers_of(small) == before
    assert run_small(small, resume=RUN).outcome == "finished"
    assert run_small(small, run_id="small-2").outcome == "finished"


@pytest.mark.parametrize(
    ("lives", "before", "rounds"),
    [(1, True, 0), (4, True, 1), (4, False, 1), (5, False, 2), (7, False, 3)],
)
def test_what_was_given_up_keeps_what_was_paid_for(
    small: Federation, monkeypatch: pytest.MonkeyPatch, lives: int, before: bool, rounds: int
) -> None:
    """Also the round whose sum had been asked for."""
    cut_off(small, monkeypatch, lives, before=before)
    result = small.give_up(RUN, randomness=DeterministicRandomness(SEED))
    assert len(opened(small)) == rounds
    assert result.model is not None
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    assert [each["outcome"] for each in report["rounds"]] == ["opened"] * rounds
    finished = rounds == 3
    assert result.outcome == ("finished" if finished else "stopped")
    assert result.reason == ("" if finished else local.GIVEN_UP)
    require_evidence(result)
    assert (small.unfinished(), secrets_of(small)) == ([], [(RUN, False)])
    assert run_small(small, run_id="small-2").outcome == "finished"


def test_a_run_can_be_given_up_without_an_approval(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(small, monkeypatch)
    small.withdraw(who="tester", why="a test")
    with pytest.raises(ApprovalError):
        run_small(small, resume=RUN)
    result = small.give_up(RUN, randomness=DeterministicRandomness(SEED))
    assert (result.outcome, len(opened(small))) == ("stopped", 1)
    require_evidence(result)


# --- refused by name ------------------------------------------------------------------------------


def test_other_settings_are_refused(small: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(small, monkeypatch)
    before = ledgers_of(small)
    other = again(small, **{"learning_rate = 0.1": "learning_rate = 0.2"})
    with pytest.raises(
        ResumeError, match=r"training\.optimizer\.learning_rate: 0\.1 then, 0\.2 now"
    ):
        run_small(approved(other), resume=RUN)
    assert {n: ledgers_of(other)[n][-1] for n in ("coordinator",)} == {
        "coordinator": before["coordinator"][-1]
    }
    result = other.give_up(RUN, randomness=DeterministicRandomness(SEED))
    require_evidence(result)
    assert run_small(other, run_id="small-2").outcome == "finished"


def test_other_randomness_is_refused(small: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(small, monkeypatch)
    with pytest.raises(ResumeError, match="source of randomness"):
        small.run(resume=RUN, randomness=SystemRandomness())


def test_another_name_is_refused_and_those_that_can_be_resumed_are_listed(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResumeError, match="cut off there: none"):
        run_small(small, resume="small-0")
    cut_off(small, monkeypatch)
    with pytest.raises(ResumeError, match=rf"{RUN} \(after round 1 of 3\)"):
        run_small(small, resume="small-0")
    run_small(small, resume=RUN)
    with pytest.raises(ResumeError, match="it has ended"):
        run_small(small, resume=RUN)
    with pytest.raises(ConfigError, match="no run can be called"):
        run_small(small, resume="../small-1")


def test_a_run_is_resumed_by_one_process_at_a_time(
    small: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(small, monkeypatch)

    def nested(report: RoundReport) -> None:
        assert small.unfinished() == []  # it is not cut off any more
        with pytest.raises(RunInProgressError):
            run_small(small, resume=RUN)
        with pytest.raises(RunInProgressError):
            small.give_up(RUN, randomness=DeterministicRandomness(SEED))

    assert run_small(small, resume=RUN, on_round=nested).outcome == "finished"


@pytest.mark.parametrize("name", ["state.json", "begun.json", "attempt.json", "key.frame"])
def test_a_damaged_journal_is_refused(
    small: Federation, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cut_off(small, monkeypatch, 4, before=False)
    path = journal_folder(small.setup.output, RUN) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    before = ledgers_of(small)
    with pytest.raises(PrivaggError, match=r"journal|resumed"):
        run_small(small, resume=RUN)
    assert {n: ledgers_of(small)[n] for n in SITES} == {n: before[n] for n in SITES}
    path.write_bytes(whole)
    assert run_small(small, resume=RUN).outcome == "finished"


@pytest.mark.parametrize("party", ["north", "coordinator"])
def test_an_older_ledger_is_refused(
    small: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, party: str
) -> None:
    folder = local_folder(small.setup.output, party).root
    if party == "north":
        shutil.copytree(folder, tmp_path / "older")
    else:
        cut_off(small, monkeypatch, 1)
        shutil.copytree(folder, tmp_path / "older")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(
                local, "LocalTransport", lambda h: Fragile(LocalTransport(h), 4, before=True)
            )
            run_small(small, resume=RUN)
    if party == "north":
        cut_off(small, monkeypatch)
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()
    for path in (tmp_path / "older").glob("ledger.sqlite*"):
        shutil.copy(path, folder)
    before = ledgers_of(small)
    with pytest.raises((LedgerTamperedError, ResumeError), match="restored from an older copy"):
        run_small(small, resume=RUN)
    assert {n: ledgers_of(small)[n] for n in SITES} == {n: before[n] for n in SITES}


# --- a search that was cut off --------------------------------------------------------------------

GRID = (
    '\n[tuning]\nmetric = "accuracy"\ngrid = { "training.optimizer.learning_rate" = [0.1, 0.3] }\n'
)


def searching(folder: Path) -> Federation:
    path = write_small(folder)
    path.write_text(path.read_text() + GRID)
    return approved(Federation.from_toml(path))


def tune(federation: Federation, **facts: Any) -> Any:
    """A search whose name is the same each time, as its runs' known randomness goes by theirs."""
    return federation.tune(randomness=DeterministicRandomness(SEED), **facts)


@pytest.mark.parametrize(
    "lives",
    [1, *(pytest.param(lives, marks=pytest.mark.nightly) for lives in (4, 7)), 11],
    ids=lambda lives: f"at exchange {lives}",
)
def test_a_search_goes_on_with_the_candidate_that_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    monkeypatch.setattr(tuning, "secrets", SimpleNamespace(token_hex=lambda size: "0" * size))
    names: list[str] = []
    cut, left = searching(tmp_path / "cut"), [lives]

    def dying(handlers: Mapping[str, Any]) -> Any:
        fragile = Fragile(LocalTransport(handlers), left[0], before=True)
        left[0] = max(1, left[0] - 7)  # a candidate's two rounds, roll and ledgers
        return fragile

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        tune(cut, on_begin=lambda search: names.append(search.name))
    heard: list[str] = []
    resumed = again(cut)
    result = tune(resumed, resume=names[0], on_candidate=lambda c: heard.append(c.run))
    assert result.name == names[0]
    assert heard == [f"{names[0]}-1", f"{names[0]}-2"]
    whole = tune(searching(tmp_path / "whole"))
    for mine, other in zip(result.candidates, whole.candidates, strict=True):
        assert mine.result is not None
        assert other.result is not None
        assert mine.result.metrics == other.result.metrics
        assert mine.result.model.read_bytes() == other.result.model.read_bytes()
    for name in SITES:
        kinds = [kind for kind, _ in ledgers_of(resumed)[name]]
        assert kinds.count("charge") == 2 * 2
        assert kinds.count("tuning") == 1
    require_evidence(result.best.result)
    assert resumed.unfinished() == []


def test_a_search_is_resumed_by_its_name_and_with_its_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = searching(tmp_path)
    names: list[str] = []

    def dying(handlers: Mapping[str, Any]) -> Any:
        return Fragile(LocalTransport(handlers), 3, before=True)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        tune(cut, on_begin=lambda search: names.append(search.name))
    with pytest.raises(ResumeError, match=f"privagg tune .* --resume {names[0]}"):
        tune(again(cut))
    with pytest.raises(ResumeError, match="was cut off"):
        tune(again(cut), resume="another")
    with pytest.raises((ResumeError, ApprovalError), match="begun with other candidates|approved"):
        tune(again(cut, **{"[0.1, 0.3]": "[0.1, 0.5]"}), resume=names[0])
    finished = again(cut, **{"[0.1, 0.5]": "[0.1, 0.3]"})
    tune(finished, resume=names[0])
    with pytest.raises(ResumeError, match="has ended, and selected"):
        tune(again(finished), resume=names[0])


def test_a_search_that_is_resumed_twice_at_once_takes_no_run_from_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = searching(tmp_path)
    names: list[str] = []

    def dying(handlers: Mapping[str, Any]) -> Any:
        return Fragile(LocalTransport(handlers), 3, before=True)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        tune(cut, on_begin=lambda search: names.append(search.name))
    resumed = again(cut)
    folder = journal_folder(resumed.setup.output, f"{names[0]}-2")
    folder.mkdir()
    with alone(folder, "the other process"), pytest.raises(RunInProgressError):
        tune(resumed, resume=names[0])
    assert folder.is_dir()
    tune(again(cut), resume=names[0])
