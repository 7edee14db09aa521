"""How a deployment stands: certificates, nodes and runs, as facts and on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from privagg.cli import console

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.flower.deploy.folder import FlowerFolder

SHOWN_RUNS = 10


def facts_of(folder: FlowerFolder, run: int | None) -> dict[str, Any]:
    """What can be said about a party's deployment.

    Raises:
        DeploymentError: the SuperLink cannot be reached (coordinator), or does not know the run.
    """
    from privagg.flower.deploy import superlink as control
    from privagg.flower.deploy.processes import check_certificate
    from privagg.party.certificates import days_left, read_certificate
    from privagg.protocol.names import COORDINATOR

    if run is not None:
        control.require_coordinator(folder)
    name, settings = folder.party.party().name, folder.settings()
    authority = read_certificate(folder.authority.read_bytes())
    facts: dict[str, Any] = {
        "party": name,
        "superlink": settings.superlink,
        "listens": settings.local,
        "authority_days_left": days_left(authority),
        "roster": dict(folder.party.pins().roster),
    }
    if name == COORDINATOR:
        facts["certificate_days_left"] = check_certificate(folder)
        states = control.runs(folder) if run is None else [control.state_of(folder, run)]
        facts["nodes"] = control.online(folder)
        facts["runs"] = [
            {"run": s.run_id, "status": s.status, "details": s.details, "app": s.app}
            for s in states[:SHOWN_RUNS]
        ]
    return facts


def print_facts(out: Console, facts: dict[str, Any]) -> None:
    """The facts for a reader."""
    pairs = [("party", facts["party"]), ("SuperLink", facts["superlink"])]
    if "certificate_days_left" in facts:
        pairs.append(("certificate", f"{facts['certificate_days_left']} days left"))
    pairs.append(("authority", f"{facts['authority_days_left']} days left"))
    console.facts(out, pairs)
    if "nodes" not in facts:
        return
    out.print()
    nodes = facts["nodes"].items()
    console.table(
        out, ("node", "connected"), [(n, "yes" if on else "no") for n, on in nodes], left=(0, 1)
    )
    out.print()
    rows = [(str(r["run"]), r["status"], r["app"], r["details"]) for r in facts["runs"]]
    if rows:
        console.table(out, ("run", "status", "app", "details"), rows, left=(0, 1, 2, 3))
    else:
        out.print("no run yet")
