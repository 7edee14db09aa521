"""`run --runtime flower`: a run over a deployment, submitted and followed from the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from privagg.cli import console
from privagg.errors import ApprovalError, ConfigError

if TYPE_CHECKING:
    from privagg.config.setup import Setup
    from privagg.federation import Federation
    from privagg.flower.app_runs import AppArchive
    from privagg.flower.deploy.folder import FlowerFolder
    from privagg.flower.submit import Submitted
    from privagg.party.folder import PartyFolder

PARTY_FILE, TRAINING = "party.toml", "training"


def run_on_flower(
    federation: Federation,
    config: Path,
    *,
    deployment: Path | None,
    resume: str | None,
    as_json: bool,
    app: Path | None = None,
    settings: str = "",
) -> None:
    """Train over a deployment.

    Args:
        federation: of the configuration.
        config: the configuration's path.
        deployment: the coordinator's folder, or a trial's; None starts a trial on this machine.
        resume: identifier of a run to resume.
        as_json: print JSON lines.
        app: folder or archive of the Flower app that trains; by default the configuration's folder.
        settings: for that app, as `flwr run --run-config` takes them.

    Raises:
        ConfigError: the deployment is of another configuration, or there is no run to resume.
        ApprovalError: the owner of a party on this machine has not approved the app.
        DeploymentError: the SuperLink does not answer, or the coordinator's process died.
    """
    from privagg.flower.deploy.processes import require_flower
    from privagg.flower.submit import submit_run

    require_flower()
    archive = _archive(federation, config, app, settings)

    def submit(folder: FlowerFolder) -> Submitted:
        if archive is None:
            return submit_run(folder, resume=resume)
        return _submit_app(folder, archive, settings=settings, resume=resume)

    result = follow_on_flower(federation, config, deployment, TRAINING, submit, as_json=as_json)
    _print_result(result, as_json=as_json)
    if result["outcome"] != "finished" or result.get("missing"):
        raise typer.Exit(2)


def follow_on_flower(
    federation: Federation,
    config: Path,
    deployment: Path | None,
    job: str,
    submit: Callable[[FlowerFolder], Submitted],
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Submit a job, report its rounds, and judge it by what its coordinator wrote down.

    Args:
        federation, config, deployment, as_json: as for `run_on_flower`.
        job: which of the configuration's jobs.
        submit: does.

    Returns:
        How it ended; see `privagg.flower.lead.result_facts`.

    Raises:
        As `run_on_flower`.
    """
    from privagg.config.jobs import job_of
    from privagg.flower.deploy.processes import require_flower
    from privagg.flower.deploy.superlink import require_coordinator
    from privagg.flower.submit import follow_run

    require_flower()
    setup = job_of(federation.setup, job)
    with _coordinator(federation, config, deployment) as folder:
        require_coordinator(folder)
        _same_configuration(folder, config)
        submitted = submit(folder)
        console.note(f"run {submitted.run} is Flower's {submitted.flower_run}")
        try:
            with _reporting(setup, as_json=as_json) as on_round:
                return follow_run(submitted, on_round)
        except KeyboardInterrupt as error:
            where = "" if deployment is None else f" --deployment {deployment}"
            message = (
                "no longer followed; what was charged stays charged. Resume with: privagg "
                f"{setup.command} {config} --runtime flower{where} --resume {submitted.run}"
            )
            raise typer.Exit(console.fail(None, message)) from error


def _archive(
    federation: Federation, config: Path, app: Path | None, settings: str
) -> AppArchive | None:
    """The app that trains; None where privagg's own programs do."""
    from privagg.config.data import AppData
    from privagg.flower.app_runs import AppArchive

    if isinstance(federation.config.data, AppData):
        return AppArchive.at(app or config.parent)
    if app is not None or settings:
        raise ConfigError(
            '--app and --run-config are for a Flower app\'s own training ([data] kind = "app"); '
            f"{config} trains by its [training]"
        )
    return None


def _submit_app(
    folder: FlowerFolder, archive: AppArchive, *, settings: str, resume: str | None
) -> Submitted:
    """Submit an app, once the owners on this machine have approved it."""
    from privagg.flower.app_runs import submit_app, unapproved
    from privagg.flower.deploy.trial import nodes_beside

    nodes = nodes_beside(folder)
    lacking = unapproved(archive, nodes)
    if lacking:
        raise ApprovalError(
            f"the app brings code of its own (SHA-256 {archive.sha256}), and the owners of "
            f"{', '.join(lacking)} have not approved it; nothing was submitted. Read it in "
            f"{archive.source}, then: privagg deploy approve {folder.party.root.parent} "
            f'{archive.source} --why "..."'
        )
    console.note(f"app {archive.name}, SHA-256 {archive.sha256}")
    if not nodes:
        console.note(
            "a node whose owner has not approved it stays out; there: privagg deploy approve "
            f'FOLDER {archive.sha256} --why "..."'
        )
    return submit_app(folder, archive, settings=settings, resume=resume)


@contextmanager
def _coordinator(
    federation: Federation, config: Path, deployment: Path | None
) -> Iterator[FlowerFolder]:
    """The coordinator's folder, its SuperLink running."""
    from privagg.flower.deploy.processes import folder_at
    from privagg.flower.deploy.trial import Trial, up

    if deployment is None:
        with up(_own_trial(federation, config), console.note) as _:
            yield Trial.at(_trial_folder(federation)).coordinator
    elif (deployment / PARTY_FILE).is_file():
        yield folder_at(deployment)
    else:
        yield Trial.at(deployment).coordinator


def coordinator_at(federation: Federation, deployment: Path | None) -> PartyFolder:
    """The coordinator's own folder, of a deployment that is there already.

    Args:
        federation: of the configuration.
        deployment: the coordinator's folder, or a trial's; None: the trial of this machine.
    """
    from privagg.party.folder import PartyFolder
    from privagg.protocol.names import COORDINATOR

    root = deployment or _trial_folder(federation)
    return PartyFolder(root if (root / PARTY_FILE).is_file() else root / COORDINATOR)


def _trial_folder(federation: Federation) -> Path:
    return federation.setup.output / "trial"


def _own_trial(federation: Federation, config: Path) -> Any:
    """A deployment on this machine, for trying out; the one from before where there is one."""
    from privagg.flower.deploy.join import Agreement
    from privagg.flower.deploy.trial import make_trial

    agreement = Agreement.of(federation.setup, config)
    folder = _trial_folder(federation)
    folder.parent.mkdir(parents=True, exist_ok=True)
    console.note(f"all parties on this machine, for trying out: {folder}")
    return make_trial(folder, config, agreement)


def _same_configuration(folder: FlowerFolder, config: Path) -> None:
    held = folder.party.federation_file
    try:
        same = held.read_bytes() == config.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    if not same:
        raise ConfigError(
            f"the deployment in {folder.party.root} was made from {held}, which differs from "
            f"{config}; run with that file, or make a deployment of this one"
        )


@contextmanager
def _reporting(setup: Setup, *, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What reports each attempt, with a bar under it in a terminal."""
    from privagg.cli.live import RoundLines, json_lines
    from privagg.flower.lead import report_of

    plan = setup.plan
    if as_json:
        machine = json_lines(plan.rounds)
        yield lambda facts: machine(report_of(facts))
        return
    measured = setup.job == TRAINING and setup.config.public_table is not None
    shown = setup.config.data.target.shown if measured else ()
    out = console.console()
    out.print(
        f"ε of this run: what its rounds have cost each data set by the plan, at δ = "
        f"{plan.delta:g}. What earlier jobs cost stands in the sites' ledgers, and in the report.",
        style="dim", markup=False, soft_wrap=True,
    )  # fmt: skip
    lines = RoundLines(out, plan.rounds, plan.names, shown=shown, ledgers_here=False)
    lines.header()
    with lines.live():
        yield lambda facts: lines(report_of(facts))


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    from privagg.cli.live import result_lines, spending_line
    from privagg.flower.lead import missing_text

    if as_json:
        console.print_json_line(result)
        return
    out = console.console()
    out.print()
    for line in result_lines(result.get("metrics", {})):
        out.print(line, markup=False, soft_wrap=True)
    if result.get("report_json"):
        out.print(spending_line(Path(result["report_json"])), markup=False, soft_wrap=True)
    names = (("model", "model"), ("report", "report_json"), ("page", "report_html"),
             ("bundle", "bundle"))  # fmt: skip
    found = [(label, str(result[name])) for label, name in names if result.get(name)]
    console.facts(out, [("run", result["run"]), *found])
    if result["outcome"] != "finished":  # last, where it is looked for
        how = "failed" if result["outcome"] == "failed" else f"was {result['outcome']}"
        out.print(
            f"the run {how}: {result['reason']}", style="yellow", markup=False, soft_wrap=True
        )
    if result.get("missing"):
        out.print(missing_text(result["missing"]), style="yellow", markup=False, soft_wrap=True)
