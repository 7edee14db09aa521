"""One of Flower's programs, with what privagg adds to it: `python -m privagg.flower.bridge.part`.

    part superlink ...    behind the gate: only this machine submits runs and registers nodes
    part supernode ...    a SuperNode
    part superexec APP .. what takes a party's tasks, and has APP, its only one, started for each
    part clientapp        behind the guard: this machine's own code, or what its owner approved
    part serverapp        the coordinator's app, whose Grid reads no more than an answer may hold
    part flwr ...         Flower's command line

Each of them ends with the process that started it, so that no part outlives its supervisor. The two
apps stay and fork for each task, as `starter` says.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PARENT, ARCHIVE = "PRIVAGG_PARENT", "PRIVAGG_ARCHIVE"
_WATCH_SECONDS = 0.5


def main(arguments: list[str]) -> None:
    """Run the part that is named first, with the other arguments.

    Raises:
        SystemExit: no such part.
    """
    if not arguments or arguments[0] not in _PARTS:
        raise SystemExit(f"usage: part {{{','.join(_PARTS)}}} ...")
    name, run, given = arguments[0], _PARTS[arguments[0]], arguments[1:]
    if name in _PRELOADED:
        from privagg.flower.bridge import starter

        task = starter.forked(_PRELOADED[name])
        if task is None:
            return
        given = task
    sys.argv = [f"flower-{name}" if name != "flwr" else name, *given]
    if (parent := os.environ.get(PARENT, "")).isdigit():
        end_with(int(parent))
    run()


def end_with(parent: int) -> None:
    """Ask this process to stop once `parent` is gone, and insist after a while."""

    def watch() -> None:
        while _alive(parent):
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10 * _WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _superlink() -> None:
    from flwr.superlink.cli import flower_superlink

    from privagg.flower.bridge import gate

    gate.install()
    flower_superlink()


def _supernode() -> None:
    from flwr.supernode.cli import flower_supernode

    from privagg.flower.bridge.pace import pace_node

    pace_node()
    flower_supernode()


def _superexec() -> None:
    from flwr.supercore.cli import flower_superexec

    from privagg.flower.bridge import starter
    from privagg.flower.bridge.pace import pace_superexec

    app = sys.argv.pop(1)
    pace_superexec()
    starter.install(app, [sys.executable, "-m", "privagg.flower.bridge.part", app])
    flower_superexec()


def _clientapp() -> None:
    from flwr.supernode.cli import flwr_clientapp

    from privagg.flower.bridge import guard

    guard.install()
    flwr_clientapp()


def _serverapp() -> None:
    from flwr.superlink.cli import flwr_serverapp

    from privagg.flower.bridge.transport import bound_pulls

    bound_pulls()
    flwr_serverapp()


def _flwr() -> None:
    from flwr.cli.app import app

    if archive := os.environ.get(ARCHIVE):
        from privagg.flower.bridge.archives import submit_as_approved

        submit_as_approved(Path(archive))
    app()


_PARTS: dict[str, Callable[[], None]] = {
    "superlink": _superlink,
    "supernode": _supernode,
    "superexec": _superexec,
    "clientapp": _clientapp,
    "serverapp": _serverapp,
    "flwr": _flwr,
}

_IN_BOTH = ("httpcore", "privagg.flower.doors")
_PRELOADED = {
    "clientapp": ("flwr.supernode.cli", "privagg.flower.bridge.guard", *_IN_BOTH),
    "serverapp": ("flwr.superlink.cli", "privagg.flower.bridge.transport", *_IN_BOTH),
}
"""App -> what each of its processes would import; none of it is from a run."""

if __name__ == "__main__":
    main(sys.argv[1:])
