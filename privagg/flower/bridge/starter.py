"""The processes of Flower's apps, forked from one that has imported everything already.

Flower starts a process for each message, and an interpreter that imports Flower takes more than a
second of a core before it looks at the message. Here a process stays that has imported Flower and
privagg's own app, and forks for each task. It is a program of its own that never meets data, a
ledger, a key, the secret for tasks or the code of an app: a fork of it knows what a fresh process
would, and what a task brings lives and ends in its fork. Tokens travel through a pipe; on a command
line, which Flower writes them to, every user of the machine can read them.

    SuperExec -> starter   a line of JSON a task: {"arguments": [...], "quiet": ...}

(`multiprocessing`'s fork server would leave out what a process has registered to do at its end, and
start one more process to track resources.)
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module

from flwr.supercore.constant import (
    TASK_TYPE_TO_APPIO_API_ADDRESS_ARG,
    TASK_TYPE_TO_COMMAND,
    TaskType,
)
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult


class ForkingExecutor:
    """Flower's `Executor` whose app processes are forked.

    Args:
        kind: the only app that runs at this party, `clientapp` or `serverapp`.
        command: starts the starter.
    """

    def __init__(self, kind: str, command: Sequence[str]) -> None:
        self._kind = kind
        self._starter = subprocess.Popen(command, stdin=subprocess.PIPE)

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        """All tasks are taken: those that do not run here are to fail, and not to wait for ever."""
        return supported_task_types, set()

    def wait_for_capacity(self, task_type: TaskType | None = None, **_: object) -> None:
        """Nothing to wait for."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Have the task's app started, if it is this party's kind."""
        if TASK_TYPE_TO_COMMAND[spec.task_type] != f"flwr-{self._kind}":
            return LaunchResult.failed(f"refused: no {spec.task_type} runs at this party")
        task = {"arguments": _arguments(spec), "quiet": spec.suppress_output}
        assert self._starter.stdin is not None
        try:
            self._starter.stdin.write(json.dumps(task).encode() + b"\n")
            self._starter.stdin.flush()
        except OSError as error:
            return LaunchResult.failed(f"the starter of apps is gone ({error.strerror})")
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """End with the starter; the supervisor starts both again.

        Raises:
            SystemExit: it has ended.
        """
        if self._starter.poll() is not None:
            raise SystemExit(f"the starter of apps ended, status {self._starter.returncode}")

    def close(self) -> None:
        """End the starter; apps that still run notice by themselves that their parent is gone."""
        if self._starter.stdin is not None:
            with suppress(OSError):
                self._starter.stdin.close()


def _arguments(spec: ExecutionSpec) -> list[str]:
    """The options that Flower starts an app's program with."""
    arguments = [TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type], spec.runtime_api_address]
    arguments += ["--token", spec.token]
    if spec.insecure:
        arguments.append("--insecure")
    elif spec.root_certificates_path is not None:
        arguments += ["--root-certificates", spec.root_certificates_path]
    if spec.parent_pid is not None:
        arguments += ["--parent-pid", str(spec.parent_pid)]
    return arguments


def install(kind: str, command: Sequence[str]) -> None:
    """Have the SuperExec that this process is about to run fork its apps.

    Args:
        kind: the only app that runs at this party, `clientapp` or `serverapp`.
        command: starts the starter, a process in which `forked` runs.

    Raises:
        SystemExit: this release of Flower has no place for it; without it nothing is started.
    """
    if "get_executor" not in run_superexec.run_superexec.__code__.co_names:
        raise SystemExit(
            "this release of flwr has no hook for privagg's starter of apps; use flwr 1.41 or 1.42"
        )
    run_superexec.__dict__["get_executor"] = lambda *_, **__: ForkingExecutor(kind, command)


def forked(modules: Iterable[str]) -> list[str] | None:
    """Stay and fork for each task that standard input brings, until it ends.

    Args:
        modules: imported before the first fork.

    Returns:
        In the fork, the arguments of its app; in the starter, None at the end.
    """
    for module in modules:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is here now stays shared between the forks
    # Without a buffer: a fork is not to find there what came for the next one.
    tasks = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
    while line := tasks.readline():
        _bury()
        task = json.loads(line)
        if os.fork() == 0:
            _be_a_process_of_its_own(quiet=task["quiet"])
            return list(task["arguments"])
    return None


def _bury() -> None:
    """Forget the forks that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _be_a_process_of_its_own(*, quiet: bool) -> None:
    """In a fork: no pipe of other tasks, no random numbers that another draws, and a quick end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2) if quiet else (0,):
        os.dup2(nothing, stream)
    os.close(nothing)
    # Python's own `random` and OpenSSL see to that themselves; torch begins with a fixed seed.
    numpy = import_module("numpy")
    numpy.random.seed()
    atexit.register(_leave)


def _leave() -> None:
    """End, after all that the app registered: taking an interpreter apart takes longer than it ran.

    The status says nothing; Flower asks for none.
    """
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
