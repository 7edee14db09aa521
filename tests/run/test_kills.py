"""A local run killed at its writes, and at any moment: resumed, it is what it would have been."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.party.local import local_ledgers
from privagg.run.unfinished import journal_folder
from tests.approvals import approved
from tests.run.kills import in_child
from tests.run.small import (
    RUN,
    SITES,
    ledgers_of,
    opened,
    require_evidence,
    run_small,
    told,
    write_small,
)

pytestmark = pytest.mark.usefixtures("no_page")

REAL_KILLS = int(os.environ.get("PRIVAGG_KILLS", "100"))


def begin_or_go_on(folder: Path) -> Callable[[], dict[str, Any]]:
    """What a person does after a kill: resume what was cut off, else run."""

    def work() -> dict[str, Any]:
        federation = Federation.from_toml(folder / "small.toml")
        left = [each.begun.run for each in federation.unfinished()]
        over = (federation.setup.output / "runs" / RUN / "bundle.privagg.zip").exists()
        if over and not left:
            return {}
        result = run_small(federation, **({"resume": RUN} if left else {}))
        require_evidence(result)
        assert federation.unfinished() == []
        assert not journal_folder(federation.setup.output, RUN).exists()
        ledgers = ledgers_of(federation)
        return {
            **told(result),
            "opened": opened(federation),
            "sites": {name: ledgers[name] for name in SITES},
            "record": [kind for kind, _ in ledgers["coordinator"]],
        }

    return work


def killed_at_writes(tmp_path: Path, scheme: str, which: Callable[[list[str]], list[int]]) -> None:
    """Kill at each of these writes of a run, in the resumed one at another write, and compare."""
    base, result, draw = tmp_path / "base", tmp_path / "result", random.Random(scheme)

    def prepare() -> None:
        approved(Federation.from_toml(write_small(base, scheme=scheme)))

    in_child(prepare, result)
    shutil.copytree(base, tmp_path / "whole")
    expected, writes = in_child(begin_or_go_on(tmp_path / "whole"), result)
    for step in which(writes):
        folder = tmp_path / f"killed-{step}"
        shutil.copytree(base, folder)
        work = begin_or_go_on(folder)
        done = in_child(work, result, dies_at=step)
        if done is not None:  # how many writes there are differs by a few from run to run
            assert (done[0], len(done[1]) < step) == (expected, True)
            continue
        in_child(work, result, dies_at=draw.randrange(1, len(writes)))
        found, _ = in_child(work, result)
        if found:  # else it was over already, its files included
            assert found == expected, f"killed at {step}, {writes[step - 1]}"
        shutil.rmtree(folder)


@pytest.mark.parametrize("scheme", ["plaintext", "bfv", "masked"])
def test_killed_at_some_writes(tmp_path: Path, scheme: str) -> None:
    killed_at_writes(tmp_path, scheme, lambda writes: [len(writes) * 2 // 5])


@pytest.mark.nightly
@pytest.mark.timeout(36000)
@pytest.mark.parametrize("scheme", ["plaintext", "bfv", "ckks", "masked"])
def test_killed_at_every_write(tmp_path: Path, scheme: str) -> None:
    stride = 1 if scheme == "plaintext" else 7
    killed_at_writes(tmp_path, scheme, lambda writes: list(range(1, len(writes) + 1, stride)))


FORGETS = ("DELETE FROM ledger_uploads", "UPDATE opening SET answer = x''", "DELETE FROM piece")


@pytest.mark.nightly
@pytest.mark.timeout(36000)
@pytest.mark.parametrize("scheme", ["plaintext", "bfv", "masked"])
def test_killed_wherever_something_is_forgotten(tmp_path: Path, scheme: str) -> None:
    """Just before, and before the commit that makes it durable."""

    def which(writes: list[str]) -> list[int]:
        found = [step for step, write in enumerate(writes, start=1) if write.startswith(FORGETS)]
        assert len(found) > 6
        return sorted({*found, *(step + 1 for step in found)})

    killed_at_writes(tmp_path, scheme, which)


@pytest.mark.nightly
@pytest.mark.timeout(36000)
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Real processes of the command line, real SIGKILLs (PRIVAGG_KILLS of them, 100)."""
    draw, kills, runs = random.Random(1), 0, 0
    while kills < REAL_KILLS:
        runs += 1
        kills += killed_until_done(tmp_path / str(runs), draw, REAL_KILLS - kills)
    assert kills == REAL_KILLS


def killed_until_done(folder: Path, draw: random.Random, most: int) -> int:
    """Run and resume until the run is over, killing each process at a random moment."""
    config = write_small(folder, rounds=4, scheme="bfv")
    config.write_text(config.read_text().replace("budget_epsilon = inf", "budget_epsilon = 60"))
    approved(Federation.from_toml(config))
    kills, command = 0, ["run", str(config)]
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "privagg", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if kills < min(most, 8):
            time.sleep(draw.uniform(2, 25))
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:
            assert process.returncode == 0, said
            break
        left = Federation.from_toml(config).unfinished()
        if not left and (folder / "out" / "report.json").exists():
            break
        command = ["run", str(config), *(["--resume", left[0].begun.run] if left else [])]
    for name in SITES:
        kinds = Counter(e.kind for e in local_ledgers(folder / "out")[name].entries())
        assert [kinds[kind] for kind in ("charge", "consumed", "upload", "realised")] == [4] * 4
    assert verify_file(folder / "out" / "bundle.privagg.zip", Brought()).holds
    assert re.search(r'"outcome": "finished"', (folder / "out" / "report.json").read_text())
    return kills
