"""What the coordinator asks of its SuperLink: register nodes, submit a run, and how it ended.

Through Flower's own command line, whose JSON is its stable face. How a run ended is read from the
SuperLink's list of runs, never from an exit code: `flwr run --stream` exits with 0 when a run
failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privagg.durable import write_whole
from privagg.errors import DeploymentError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.processes import (
    ARCHIVE,
    MODULE,
    environment_of,
    plain_line,
    require_flower,
)
from privagg.flower.deploy.reach import trouble
from privagg.party.folder import toml_text
from privagg.protocol.names import COORDINATOR

CONNECTION = "privagg"
CALL_SECONDS = 60.0
POLL_SECONDS = 1.0

FINISHED, COMPLETED = "finished:", "finished:completed"


@dataclass(frozen=True)
class RunState:
    """Where a run stands, as the SuperLink says.

    Args:
        run_id: Flower's number of the run.
        status: `pending`, `starting`, `running`, `finished:completed`, `finished:failed` or
            `finished:stopped`.
        details: why, where Flower says so.
        app: what runs, as publisher/name.
        ended: when, as Flower writes it; empty where it has not.
    """

    run_id: int
    status: str
    details: str
    app: str
    ended: str = ""

    @property
    def over(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.status.startswith(FINISHED)

    @property
    def completed(self) -> bool:
        """Whether it ended well."""
        return self.status == COMPLETED


@dataclass(frozen=True)
class NodeState:
    """How a party's node stands, as the SuperLink says.

    Args:
        status: `online`, `offline`, `registered` (it was never connected) or `unregistered`.
        since: when it came or went, as Flower writes it; empty where it never did.
    """

    status: str
    since: str

    @property
    def online(self) -> bool:
        """Whether it is connected."""
        return self.status == "online"


def write_connection(folder: FlowerFolder) -> None:
    """Write down how Flower's command line reaches the SuperLink from the coordinator's machine."""
    folder.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = {
        "address": folder.settings().local,
        "root-certificates": str(folder.authority.resolve()),
    }
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{toml_text(facts)}'
    write_whole(folder.home / "config.toml", text.encode())


def flwr(folder: FlowerFolder, *arguments: str, archive: Path | None = None) -> dict[str, Any]:
    """Call Flower's command line at the coordinator and read its JSON.

    Args:
        folder: the coordinator's.
        arguments: of the command line.
        archive: submitted as it is by `flwr run`.

    Raises:
        DeploymentError: the SuperLink does not answer, or the call failed.
    """
    require_flower()
    require_coordinator(folder)
    if found := trouble(folder):
        raise DeploymentError(found)
    write_connection(folder)
    command = [sys.executable, "-m", MODULE, "flwr", *arguments, "--format", "json"]
    try:
        done = subprocess.run(
            command,
            env=environment_of(folder) | ({} if archive is None else {ARCHIVE: str(archive)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DeploymentError(
            f"the SuperLink answers, but `flwr {arguments[0]}` came to nothing within "
            f"{CALL_SECONDS:.0f} seconds; try again, and look at {folder.logs / 'superlink.log'}"
        ) from error
    answer = _json_of(done.stdout)
    if answer is None or not answer.get("success", False):
        said = (answer or {}).get("error-message") or done.stderr.strip() or done.stdout.strip()
        raise DeploymentError(
            f"the SuperLink did not do what `flwr {arguments[0]}` asked for: "
            f"{plain_line(str(said))[-500:]}"
        )
    return answer


def require_coordinator(folder: FlowerFolder) -> None:
    """Refuse another party's folder: only the coordinator's machine submits runs and lists them.

    Raises:
        DeploymentError: it is one.
    """
    name = folder.party.party().name
    if name != COORDINATOR:
        raise DeploymentError(
            f"{folder.party.root} is the folder of {name!r}; runs are submitted and listed at the "
            "coordinator: name the coordinator's folder, or that of a trial"
        )


def _json_of(text: str) -> dict[str, Any] | None:
    start = text.find("{")
    try:
        found = json.loads(text[start:]) if start >= 0 else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def register(folder: FlowerFolder) -> dict[str, int]:
    """Register the node keys of everybody on the roster, and nobody else's any more.

    Returns:
        Party -> Flower's number of its node.

    Raises:
        DeploymentError: the SuperLink cannot be reached or refuses a key.
    """
    held = _registered(folder)
    # A SuperLink that starts for the first time need not be asked what it knows.
    nodes = flwr(folder, "supernode", "list", CONNECTION)["nodes"] if held else []
    listed = {int(node["node-id"]) for node in nodes}
    wanted = {
        path.stem: path.read_text().strip() for path in sorted(folder.at("nodes").glob("*.pub"))
    }
    kept = {
        party: entry
        for party, entry in held.items()
        if wanted.get(party) == entry["key"] and entry["node"] in listed
    }
    for party, entry in held.items():
        if party not in kept and entry["node"] in listed:
            flwr(folder, "supernode", "unregister", str(entry["node"]), CONNECTION)
    missing = [party for party in wanted if party not in kept]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda party: _register(folder, party), missing)
        for party, node in zip(missing, answers, strict=True):
            kept[party] = {"key": wanted[party], "node": node}
    write_whole(_register_file(folder), json.dumps(kept, indent=2).encode())
    return {party: int(entry["node"]) for party, entry in kept.items()}


def _register(folder: FlowerFolder, party: str) -> int:
    key = str(folder.at("nodes") / f"{party}.pub")
    return int(flwr(folder, "supernode", "register", key, CONNECTION, "--name", party)["node-id"])


def _register_file(folder: FlowerFolder) -> Path:
    return folder.at("nodes") / "registered.json"


def _registered(folder: FlowerFolder) -> dict[str, dict[str, Any]]:
    path = _register_file(folder)
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise DeploymentError(f"{path} cannot be read; remove it to register anew") from error
    return found


def node_ids(folder: FlowerFolder) -> dict[str, int]:
    """Party -> Flower's number of its node, as registered by the key on the party's card."""
    return {party: int(entry["node"]) for party, entry in _registered(folder).items()}


def nodes(folder: FlowerFolder) -> dict[str, NodeState]:
    """Party -> how its node stands, as far as the SuperLink has noticed.

    A node that crashed is noticed after up to a minute.
    """
    listed = flwr(folder, "supernode", "list", CONNECTION)["nodes"]
    states = {int(node["node-id"]): _node_state(node) for node in listed}
    return {
        party: states.get(node, NodeState("unregistered", ""))
        for party, node in node_ids(folder).items()
    }


def _node_state(node: Mapping[str, Any]) -> NodeState:
    status = str(node["status"])
    return NodeState(status, _said(node.get("online-at" if status == "online" else "offline-at")))


def _said(text: object) -> str:
    """What Flower says, as one line; nothing where it says that there is nothing."""
    return "" if text in (None, "N/A") else plain_line(str(text))


def submit(
    folder: FlowerFolder,
    app: Path,
    settings: Mapping[str, str | int | float] | None = None,
    *,
    more: str = "",
    archive: Path | None = None,
) -> int:
    """Submit a Flower app from its folder.

    Args:
        folder: the coordinator's.
        app: the app's folder.
        settings: overrides of the app's own configuration.
        more: further ones, as `flwr run --run-config` takes them.
        archive: the app's, submitted as it is; packed from the folder where it is None.

    Returns:
        Flower's number of the run.

    Raises:
        DeploymentError: the app is not one, or the SuperLink cannot be reached.
    """
    overrides = " ".join(f"{name}={json.dumps(v)}" for name, v in (settings or {}).items())
    options = [word for text in (more, overrides) if text for word in ("--run-config", text)]
    answer = flwr(folder, "run", str(app), CONNECTION, *options, archive=archive)
    return int(answer["run-id"])


def log_end(folder: FlowerFolder, run_id: int) -> str:
    """The last line that a run's ServerApp printed; empty where none can be had."""
    command = [sys.executable, "-m", MODULE, "flwr", "log", str(run_id), CONNECTION, "--show"]
    try:
        done = subprocess.run(
            command, env=environment_of(folder), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=CALL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ""
    lines = [plain for line in done.stdout.splitlines() if (plain := plain_line(line))]
    return lines[-1][:500] if lines else ""


def runs(folder: FlowerFolder) -> list[RunState]:
    """Every run that the SuperLink knows, the newest first."""
    return [_state(run) for run in flwr(folder, "list", CONNECTION)["runs"]]


def state_of(folder: FlowerFolder, run_id: int) -> RunState:
    """Where one run stands.

    Raises:
        DeploymentError: the SuperLink cannot be reached or does not know the run.
    """
    return _state(flwr(folder, "list", CONNECTION, "--run-id", str(run_id))["runs"][0])


def _state(run: Mapping[str, Any]) -> RunState:
    return RunState(
        run_id=int(run["run-id"]),
        status=str(run["status"]),
        details=_said(run["status-details"]),
        app=str(run["fab-id"]),
        ended=_said(run.get("finished-at")),
    )


def follow(
    folder: FlowerFolder, run_id: int, on_change: Callable[[RunState], None] | None = None
) -> RunState:
    """Wait until a run has ended, and say how.

    Args:
        folder: the coordinator's.
        run_id: Flower's number of the run.
        on_change: called with every new status.
    """
    before = ""
    while True:
        state = state_of(folder, run_id)
        if state.status != before and on_change is not None:
            on_change(state)
        before = state.status
        if state.over:
            return state
        time.sleep(POLL_SECONDS)


def stop(folder: FlowerFolder, run_id: int) -> None:
    """Ask the SuperLink to stop a run; what was charged stays charged."""
    flwr(folder, "stop", str(run_id), CONNECTION)
