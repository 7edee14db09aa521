"""The starter: one process a task, which knows of no other; refusals; nothing outlives anything."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResultStatus

from privagg.flower.bridge import starter
from privagg.flower.bridge.starter import ForkingExecutor

SECONDS = 60.0

APP = """\
import atexit, json, os, sys, time
from pathlib import Path
from privagg.flower.bridge.starter import forked

seen = []
arguments = forked(["numpy"])
if arguments is None:
    sys.exit()
import numpy
seen.append(arguments)
facts = {
    "arguments": arguments, "seen": len(seen), "parent": os.getppid(), "pid": os.getpid(),
    "line": Path(f"/proc/{os.getpid()}/cmdline").read_text(), "input": sys.stdin.read(),
    "draw": numpy.random.random(), "outputs": [os.readlink(f"/proc/self/fd/{n}") for n in (1, 2)],
}
folder = Path(sys.argv[1])
token, new = arguments[arguments.index("--token") + 1], folder / f"{os.getpid()}.new"
new.write_text(json.dumps(facts))
new.rename(folder / token)
atexit.register((folder / f"{token}.ended").touch)
while (folder / "stay").exists():
    time.sleep(0.05)
sys.exit(3)
"""


def task(token: str, kind: TaskType = TaskType.CLIENT_APP, *, quiet: bool = False) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=kind,
        runtime_api_address="127.0.0.1:9",
        token=token,
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=os.getpid(),
        suppress_output=quiet,
        task_id=7,
    )


def told(path: Path) -> dict[str, Any]:
    """What an app's process wrote down, once it has."""
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended, whoever has to hear of it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[ForkingExecutor]:
    found = ForkingExecutor("clientapp", [sys.executable, "-c", APP, str(tmp_path)])
    yield found
    found.close()
    assert found._starter.wait(SECONDS) == 0


def test_each_task_has_a_process_that_knows_of_no_other(
    executor: ForkingExecutor, tmp_path: Path
) -> None:
    for token in ("one", "two"):
        assert executor.launch(task(token)).status == LaunchResultStatus.ACCEPTED
    one, two = told(tmp_path / "one"), told(tmp_path / "two")
    assert one["parent"] == two["parent"] == executor._starter.pid
    assert one["pid"] != two["pid"]
    assert (one["seen"], two["seen"]) == (1, 1)
    assert one["draw"] != two["draw"]
    assert one["arguments"] == [
        "--runtime-api-address", "127.0.0.1:9", "--token", "one", "--insecure",
        "--parent-pid", str(os.getpid()),
    ]  # fmt: skip


def test_a_token_is_on_no_command_line_and_in_no_other_process(
    executor: ForkingExecutor, tmp_path: Path
) -> None:
    # Both are in the pipe before the first is read: what is left in it is not the first's to read.
    executor.launch(task("one"))
    executor.launch(task("two"))
    for token in ("one", "two"):
        facts = told(tmp_path / token)
        assert token not in facts["line"].split("\0")
        assert facts["input"] == ""


def test_what_flower_would_silence_is_silent(executor: ForkingExecutor, tmp_path: Path) -> None:
    executor.launch(task("loud"))
    executor.launch(task("quiet", quiet=True))
    assert os.devnull not in told(tmp_path / "loud")["outputs"]
    assert told(tmp_path / "quiet")["outputs"] == [os.devnull, os.devnull]


def test_another_app_than_the_partys_own_is_refused(
    executor: ForkingExecutor, tmp_path: Path
) -> None:
    for kind in set(TaskType) - {TaskType.CLIENT_APP}:
        result = executor.launch(task("other", kind))
        assert result.status == LaunchResultStatus.FAILED
        assert f"no {kind} runs at this party" in str(result.message)
    executor.launch(task("own"))
    told(tmp_path / "own")
    assert not (tmp_path / "other").exists()


def test_a_starter_that_was_killed_ends_the_superexec(tmp_path: Path) -> None:
    executor = ForkingExecutor("clientapp", [sys.executable, "-c", APP, str(tmp_path)])
    executor.reconcile()
    executor._starter.kill()
    executor._starter.wait(SECONDS)
    assert executor.launch(task("late")).status == LaunchResultStatus.FAILED
    with pytest.raises(SystemExit, match="the starter of apps ended"):
        executor.reconcile()
    executor.close()


def test_the_starter_ends_with_its_superexec_and_an_app_may_finish(tmp_path: Path) -> None:
    (tmp_path / "stay").touch()
    executor = ForkingExecutor("clientapp", [sys.executable, "-c", APP, str(tmp_path)])
    executor.launch(task("last"))
    facts = told(tmp_path / "last")
    executor.close()
    assert executor._starter.wait(SECONDS) == 0
    assert not gone(facts["pid"])
    (tmp_path / "stay").unlink()
    until = time.monotonic() + SECONDS
    while not gone(facts["pid"]):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (tmp_path / "last.ended").exists()  # what it registered was done


def test_a_release_of_flower_without_the_hook_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_superexec, "run_superexec", lambda: None)
    with pytest.raises(SystemExit, match="no hook for privagg's starter"):
        starter.install("clientapp", ["false"])
