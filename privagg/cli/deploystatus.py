"""How a deployment stands, explained: who is connected, how runs ended, and what to type next."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privagg.cli import console
from privagg.errors import DeploymentError, PrivaggError

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.flower.deploy.folder import FlowerFolder
    from privagg.flower.deploy.superlink import NodeState

SHOWN_RUNS = 10
SOON_DAYS = 21
"""What ends within so many days is said to end soon."""
_CUT_OFF, _DRIVEN = "cut off", "under way"


def facts_at(root: Path, run: int | None) -> dict[str, Any]:
    """What can be said about the deployment of a party, or of a whole trial.

    Args:
        root: the party's folder or the trial's.
        run: as for `facts_of`.

    Raises:
        ConfigError: neither lies there.
        DeploymentError: as `facts_of`.
    """
    from privagg.flower.deploy.processes import folder_at
    from privagg.flower.deploy.trial import Trial
    from privagg.protocol.names import COORDINATOR

    if (root / "party.toml").exists() or not (root / COORDINATOR).is_dir():
        return facts_of(folder_at(root), run)
    trial = Trial.at(root)
    owners = {name: _owners(one) for name, one in trial.parties.items() if name != COORDINATOR}
    facts = {**facts_of(trial.coordinator, run), "owners": owners}
    refused = [name for name, one in owners.items() if one["refusal"]]
    config = Path(trial.coordinator.party.federation_file).resolve()
    approve = f"privagg approve {config} --all-sites --deployment {root}"
    approve += _job(trial.coordinator)
    up = f"privagg deploy up {root}"
    if refused or facts["process"] is None:
        facts["next"] = approve if refused else up
    elif _begins_a_run(facts["next"]) and not all(map(_has_room, owners.values())):
        facts["next"] = f"{approve} --budget E, where the owners allow a larger one"
    return facts


def _begins_a_run(command: str) -> bool:
    return command.startswith(("privagg run ", "privagg ask ")) and "--resume" not in command


def _has_room(owner: dict[str, Any]) -> bool:
    return not owner["room"] or bool(owner["room"]["fits"])


def facts_of(folder: FlowerFolder, run: int | None) -> dict[str, Any]:
    """What can be said about a party's deployment, from its own machine.

    Args:
        folder: the party's, which has joined.
        run: Flower's number of the one run to tell of; the newest ones by default.

    Raises:
        DeploymentError: a run is asked for at a party that is not the coordinator.
    """
    from privagg.flower.deploy import superlink as control
    from privagg.flower.deploy.reach import trouble
    from privagg.flower.deploy.supervisor import runs_as
    from privagg.party.certificates import days_left, read_certificate
    from privagg.protocol.names import COORDINATOR

    if run is not None:
        control.require_coordinator(folder)
    name, settings = folder.party.party().name, folder.settings()
    facts: dict[str, Any] = {
        "party": name,
        "process": runs_as(folder),
        "superlink": settings.superlink,
        "listens": settings.local,
        "authority_days_left": days_left(read_certificate(folder.read(folder.authority))),
        "roster": dict(folder.party.pins().roster),
    }
    if name == COORDINATOR:
        facts |= _coordinators(folder, run)
    else:
        facts |= {"trouble": trouble(folder), **_owners(folder)}
    return {**facts, "next": _next(folder, facts)}


def _coordinators(folder: FlowerFolder, run: int | None) -> dict[str, Any]:
    from privagg.flower.deploy import superlink as control
    from privagg.party.certificates import days_left, read_certificate

    certificate = read_certificate(folder.read(folder.server_certificate))
    facts: dict[str, Any] = {
        "certificate_days_left": days_left(certificate),
        "trouble": "",
        "written": _written(folder.party.output),
    }
    try:
        nodes = control.nodes(folder)
        states = control.runs(folder) if run is None else [control.state_of(folder, run)]
    except DeploymentError as error:
        return {**facts, "trouble": str(error)}
    return {
        **facts,
        "nodes": {name: node.online for name, node in nodes.items()},
        "since": {name: node.since for name, node in nodes.items()},
        "absent": {name: _why_absent(node) for name, node in nodes.items() if not node.online},
        "runs": [
            {"run": s.run_id, "status": s.status, "details": s.details, "app": s.app,
             "ended": s.ended}
            for s in states[:SHOWN_RUNS]
        ],
    }  # fmt: skip


def _why_absent(node: NodeState) -> str:
    there = "`privagg deploy status` on its own machine says why"
    return {
        "registered": f"never connected: not started there yet, or it does not get here; {there}",
        "unregistered": "its key is not registered: stop the coordinator's parts and start again",
    }.get(node.status, f"stopped, or its machine or network is down; {there}")


def _written(output: Path) -> list[dict[str, Any]]:
    """How runs ended by what their coordinator wrote down, the newest first."""
    folders = [path.parent for path in output.glob("*/driving")]
    newest = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    return [_one_written(path) for path in newest[:SHOWN_RUNS]]


def _one_written(place: Path) -> dict[str, Any]:
    rounds = place / "rounds.jsonl"
    opened = rounds.read_text(encoding="utf-8").count('"opened"') if rounds.exists() else 0
    facts = {"run": place.name, "rounds_opened": opened, "reason": "", "missing": []}
    try:
        result = json.loads((place / "result.json").read_bytes())
    except (OSError, ValueError):
        return {**facts, "outcome": _DRIVEN if _is_driven(place) else _CUT_OFF}
    missing = sorted(result.get("missing", ()))
    return {**facts, "outcome": result["outcome"], "reason": result["reason"], "missing": missing}


def _is_driven(place: Path) -> bool:
    import fcntl

    with (place / "driving").open(encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _owners(folder: FlowerFolder) -> dict[str, Any]:
    """What a site's or key holder's owner approved, and whether the budget has room."""
    from privagg.party.standing import standing

    try:
        found = standing(folder.party)
    except PrivaggError as error:
        return {
            "approved_until": None,
            "approval_days_left": None,
            "refusal": str(error),
            "room": None,
        }
    room = found.room and {
        "spent": format(found.room.before, "f"),
        "after_another_run": format(found.room.after, "f"),
        "budget": format(found.room.budget, "f"),
        "fits": found.room.fits,
    }
    return {
        "approved_until": found.approved_until,
        "approval_days_left": found.days_left,
        "refusal": found.refusal,
        "room": room,
    }


def _next(folder: FlowerFolder, facts: dict[str, Any]) -> str:
    """The command to type next, or whom to wait for."""
    root = folder.party.root
    config = Path(folder.party.federation_file).resolve()
    if facts["authority_days_left"] < 0:
        return "the authority has expired: see 'Renewing, replacing' in examples/flower/README.md"
    if facts.get("certificate_days_left", SOON_DAYS) < SOON_DAYS:
        return f"privagg deploy renew {root}, then stop the parts and start them again"
    approve = f"privagg approve --party {root}{_job(folder)}"
    if facts.get("refusal"):
        return approve
    if facts["process"] is None:
        return f"privagg deploy start {root}"
    if facts.get("room") and not facts["room"]["fits"]:
        return f"{approve} --budget E, where its owner allows a larger one"
    if facts["trouble"]:
        return "see the SuperLink's line above"
    if "written" not in facts:
        return "nothing here: the coordinator submits the runs"
    if facts.get("absent"):
        return f"have {', '.join(facts['absent'])} start: privagg deploy start NAME, there"
    command = "ask --for" if _job(folder) else "run"
    run = f"privagg {command} {config} --runtime flower --deployment {root}"
    newest = facts["written"][0] if facts["written"] else {"outcome": "", "missing": []}
    if newest["outcome"] == _CUT_OFF or newest["missing"]:
        return f"{run} --resume {newest['run']}"
    return "wait for the run under way" if newest["outcome"] == _DRIVEN else run


def _job(folder: FlowerFolder) -> str:
    """What an approval of the pinned plan is typed with beside the folder."""
    from privagg.party.standing import pins_facts

    return " --job facts" if pins_facts(folder.party) else ""


def print_facts(out: Console, facts: dict[str, Any]) -> None:
    """The facts for a reader."""
    process = facts["process"]
    runs = "do not run" if process is None else f"run (process {process})"
    answers = facts["trouble"] or "answers"
    pairs = [
        ("party", f"{facts['party']}; its parts {runs}"),
        ("SuperLink", f"{facts['superlink']}: {answers}"),
        *[(what, _days(facts[f"{what}_days_left"])) for what in ("certificate", "authority")
          if f"{what}_days_left" in facts],
    ]  # fmt: skip
    if "refusal" in facts:
        pairs += _owners_lines(facts)
    for name, owner in facts.get("owners", {}).items():
        pairs += [(f"{name}: {label}", text) for label, text in _owners_lines(owner)]
    console.facts(out, pairs)
    if "nodes" in facts:
        _print_runs(out, facts)
    out.print()
    # Whole, so that it can be copied.
    out.print(f"next   {facts['next']}", markup=False, soft_wrap=True)


def _days(left: int) -> str:
    if left < 0:
        return f"expired {-left} days ago"
    return f"{left} days left" + (": ends soon" if left < SOON_DAYS else "")


def _owners_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from privagg.report.figures import epsilon_text

    until = facts["approved_until"]
    approval = f"until {until}, {_days(facts['approval_days_left'])}" if until else facts["refusal"]
    room = facts["room"]
    if not room:
        return [("approval", approval)]
    spent, after, budget = (
        epsilon_text(Decimal(room[key])) for key in ("spent", "after_another_run", "budget")
    )
    verdict = "there is room for it" if room["fits"] else "there is no room for it"
    text = f"ε {spent} of {budget} spent; another run would bring it to {after}: {verdict}"
    return [("approval", approval), ("budget", text)]


def _print_runs(out: Console, facts: dict[str, Any]) -> None:
    out.print()
    rows = [
        (name, "yes" if on else "no", facts["since"][name] or "-", facts["absent"].get(name, ""))
        for name, on in facts["nodes"].items()
    ]
    console.table(out, ("node", "connected", "since", "why not"), rows, left=(0, 1, 2, 3))
    out.print()
    if not facts["runs"]:
        out.print("no run yet")
        return
    reasons = [r["reason"] for r in facts["written"]]
    flowers = [
        (str(r["run"]), r["status"], r["ended"], r["app"], _untold(r["details"], reasons))
        for r in facts["runs"]
    ]
    columns = ("Flower's run", "status", "ended", "app", "details")
    console.table(out, columns, flowers, left=(0, 1, 2, 3, 4))
    written = [
        (r["run"], r["outcome"], str(r["rounds_opened"]),
         r["reason"] or (f"ledgers missing: {', '.join(r['missing'])}" if r["missing"] else ""))
        for r in facts["written"]
    ]  # fmt: skip
    if written:
        out.print()
        console.table(out, ("run", "how it ended", "rounds", "why"), written, left=(0, 1, 3))


def _untold(details: str, reasons: list[str]) -> str:
    """What Flower says of a run, where its coordinator does not say the same below."""
    said = details.partition(": ")[2] or details
    return "see below" if any(said and said in reason for reason in reasons) else details
