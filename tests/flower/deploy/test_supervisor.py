"""The supervisor: parts come up, come back, are told of in plain words, and leave in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from privagg.errors import DeploymentError
from privagg.flower.deploy import supervisor as module
from privagg.flower.deploy.processes import Part
from privagg.flower.deploy.supervisor import READY, Supervisor, asked_to_stop

SECONDS = 30.0


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def watched(heard: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(heard.append)
    yield made
    made.stop()


def _part(folder: Path, name: str, program: str, *, ready: str = "", last: bool = False) -> Part:
    command = (sys.executable, "-u", "-S", "-c", program)
    patient = name == "node"
    return Part(name, command, dict(os.environ), folder / f"{name}.log", ready, last, patient)


def _until(watched: Supervisor, done: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not done():
        watched.check()
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def test_ready_is_what_the_log_says_since_this_start(tmp_path: Path, watched: Supervisor) -> None:
    (tmp_path / "node.log").write_text("SuperNode ID: of an earlier start\n")
    part = _part(tmp_path, "node", "input()", ready="SuperNode ID:")
    watched.start([part])
    assert not watched.running[0].ready


def test_a_part_that_works_is_told_of_once(
    tmp_path: Path, watched: Supervisor, heard: list[str]
) -> None:
    program = "import time; print('SuperNode ID: 7'); time.sleep(60)"
    watched.start([_part(tmp_path, "node", program, ready="SuperNode ID:")])
    watched.wait_ready(SECONDS)
    _until(watched, lambda: heard)
    watched.check()
    assert heard == [f"node {READY}"]


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("Exit Code: 305 [code: 2004] Failed to activate SuperNode.", "does not accept this node"),
        ("CERTIFICATE_VERIFY_FAILED", "does not verify under ca.pem"),
        ("Connection refused", "does not answer"),
        ("ValueError: some other reason", "some other reason"),
    ],
)
def test_a_node_comes_back_and_its_reason_is_told_once(
    tmp_path: Path,
    watched: Supervisor,
    heard: list[str],
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    said: str,
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.01)
    watched.start([_part(tmp_path, "node", f"print({printed!r})", ready="SuperNode ID:")])
    _until(watched, lambda: watched.running[0].quick_ends > module.MOST_QUICK_ENDS)
    assert len(heard) == 1
    assert said in heard[0]
    assert (tmp_path / "node.log").read_text().count(printed) > module.MOST_QUICK_ENDS


@pytest.mark.parametrize(("name", "ready"), [("superlink", ""), ("party", "party ready")])
def test_a_part_that_waits_for_nobody_and_does_not_come_up_is_an_error(
    tmp_path: Path, watched: Supervisor, monkeypatch: pytest.MonkeyPatch, name: str, ready: str
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.01)
    program = "raise SystemExit('no such database')"
    watched.start([_part(tmp_path, name, program, ready=ready)])
    with pytest.raises(DeploymentError, match=rf"{name} ended 4 times.*no such database"):
        _until(watched, lambda: False)


def test_what_a_party_cannot_do_ends_its_start_at_once(tmp_path: Path, watched: Supervisor) -> None:
    program = "print('a warning'); print('refused: no file north.csv'); raise SystemExit(2)"
    part = replace(_part(tmp_path, "party", program, ready="party ready"), refused="refused: ")
    watched.start([part])
    with pytest.raises(DeploymentError, match=r"^party cannot start: no file north\.csv$"):
        _until(watched, lambda: False)


def test_a_reason_has_no_colours_and_a_kill_is_a_kill(
    tmp_path: Path, watched: Supervisor, heard: list[str]
) -> None:
    coloured = r"print('\x1b[91mERROR \x1b[0m:      no   such table')"
    watched.start([_part(tmp_path, "superlink", coloured)])
    _until(watched, lambda: heard)
    assert heard == ["superlink ended: no such table; it keeps trying"]
    killed = "import os; print('all is well'); os.kill(os.getpid(), 9)"
    watched.start([_part(tmp_path, "apps", killed)])
    _until(watched, lambda: len(heard) > 1)
    assert heard[1].startswith("apps ended: it was killed by SIGKILL, as happens where memory")


def test_why_a_node_waits_is_told_while_it_does_and_once(
    tmp_path: Path, watched: Supervisor, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.01)
    asked: list[str] = []

    def trouble() -> str:
        asked.append("no SuperLink answers")
        return asked[0]

    part = _part(tmp_path, "node", "import time; time.sleep(60)", ready="SuperNode ID:")
    watched.start([replace(part, trouble=trouble)])
    _until(watched, lambda: len(asked) > 2)
    assert heard == ["node waits: no SuperLink answers; it keeps trying"]
    with pytest.raises(DeploymentError, match="not ready after 0 seconds: no SuperLink answers"):
        watched.wait_ready(0)


def test_what_is_not_ready_in_time_is_named(tmp_path: Path, watched: Supervisor) -> None:
    program = "import time; print('still looking'); time.sleep(60)"
    watched.start([_part(tmp_path, "node", program, ready="SuperNode ID:")])
    with pytest.raises(DeploymentError, match=r"node is not ready after 1 seconds.*node\.log"):
        watched.wait_ready(1)


def test_the_superlink_leaves_last_and_what_parts_started_leaves_too(
    tmp_path: Path, watched: Supervisor
) -> None:
    """A node signs off at the SuperLink, which has to be there; an app ends with its node."""
    note = "open({!r}, 'a').write({!r})"
    leave = (
        "import signal, sys, time\n"
        "def leave(*_):\n    {}; sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave); print('up'); time.sleep(60)"
    )
    order = str(tmp_path / "order")
    child = "import os, time\nif os.fork() == 0:\n    print('pid', os.getpid()); time.sleep(60)\n"
    superlink = leave.format(note.format(order, "superlink "))
    node = child + leave.format(note.format(order, "node "))
    watched.start(
        [
            _part(tmp_path, "superlink", superlink, ready="up", last=True),
            _part(tmp_path, "node", node, ready="up"),
        ]
    )
    watched.wait_ready(SECONDS)
    _until(watched, lambda: "pid" in (tmp_path / "node.log").read_text())
    pid = int((tmp_path / "node.log").read_text().split("pid ")[1].split()[0])
    watched.stop()
    assert Path(order).read_text() == "node superlink "
    assert watched.running == []
    until = time.monotonic() + SECONDS
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{pid}/stat").exists()


def test_no_part_outlives_its_supervisor() -> None:
    program = (
        "import os, sys, time\n"
        "from privagg.flower.bridge.part import end_with\n"
        "end_with(int(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    part = subprocess.Popen(
        [sys.executable, "-c", program, str(parent.pid)], stdout=subprocess.PIPE
    )
    try:
        assert part.stdout is not None
        assert part.stdout.readline() == b"up\n"
        parent.kill()
        parent.wait()
        assert part.wait(SECONDS) == -signal.SIGTERM
    finally:
        for process in (parent, part):
            process.kill()
            process.wait()
        if part.stdout is not None:
            part.stdout.close()


def test_being_asked_to_stop_is_like_control_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), asked_to_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS)
    assert signal.getsignal(signal.SIGTERM) is before
