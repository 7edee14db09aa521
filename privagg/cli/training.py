"""`init`, `check` and `run`: from a configuration to a trained model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.text import Text

from privagg.cli import console
from privagg.cli.options import LanguageName
from privagg.durable import write_whole
from privagg.errors import (
    ApprovalError,
    ConfigError,
    DataError,
    MissingDependencyError,
    PrivaggError,
    ResumeError,
)
from privagg.training.declared import DeviceName

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.config.asking import SumsSetup
    from privagg.federation import Federation
    from privagg.run.results import RunResult
    from privagg.secure.scheme import Parameters

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_QUIET_SECONDS = 2.5  # on an idle machine, loading compiled kernels takes less
RUNTIMES = ("local", "flower")
Runtime = Annotated[
    str, typer.Option(help="local: all parties in this process; flower: over a deployment.")
]
Deployment = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="flower: the coordinator's folder, or a trial's; else a trial is started here.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where all sites train, in place of their party.toml: auto, cpu, cuda or mps.",
    ),
]
TARGETS = ("binary", "multiclass", "regression", "ordinal", "multi-label", "time-to-event")
TERMINATED = 143
"""Exit code of a process that SIGTERM ended."""

TRAINING_MODULES = frozenset(
    {"torch", "opacus", "safetensors", "pandas", "pyarrow", "sklearn", "numba"}
)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("federation.toml"),
    target: Annotated[
        str, typer.Option(metavar="KIND", help="What is predicted: " + ", ".join(TARGETS) + ".")
    ] = "binary",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented configuration to start from.

    [bold]Examples[/bold]

      privagg init my.toml

      privagg init my.toml --target regression     an amount, in place of yes or no
    """
    if target not in TARGETS:
        raise ConfigError(f"--target is one of {', '.join(TARGETS)}, not {target!r}")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; choose another name, or replace it with --force")
    write_text(path, _template(target))
    out = console.console()
    out.print(f"wrote {path}", markup=False, soft_wrap=True)
    out.print(
        f"next: name your sites and columns in it, then `privagg check {path}`, then as owner of "
        f"the data `privagg approve {path} --all-sites`, then `privagg run {path}`",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def check(
    config: ConfigPath,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help="Also look at the sites' files that are here.")
    ] = True,
    site: Annotated[
        str | None, typer.Option(help="Look at this site's file only: run this where it lies.")
    ] = None,
    device: Device = None,
    language: LanguageName = "en",
    as_json: AsJson = False,
) -> None:
    """Validate a configuration and print the plan, before anyone trains. Spends nothing.

    Where the configuration asks questions or facts, or evaluates on held-out records, their plans
    and what they cost follow. Where no column is declared yet, the plan of \\[facts] is all there
    is.

    What it says about a site's data is for the data's owner only; nothing of it is sent or stored.

    [bold]Examples[/bold]

      privagg check my.toml

      privagg check my.toml --site riverside     at riverside, on its own file

      privagg check my.toml --no-data --json     the plan alone, for a machine
    """
    federation = open_federation(config, device=device)
    from privagg.cli.planview import require_budgets

    _require_approved_code(federation)
    names = [section.name for section in federation.config.sites]
    if site is not None and site not in names:
        raise ConfigError(f"no site {site!r}; the file has {', '.join(names)}")
    if not federation.declared:
        _check_facts_alone(federation, language, as_json=as_json)
        return
    findings = _findings(federation, site) if data else {}
    beside = _jobs_beside(federation)
    facts = _planned(federation, beside)
    if as_json:
        console.print_json({**facts, "findings": findings})
    else:
        _print_checked(federation, facts, beside, findings, language)
    _require_usable(federation, findings)
    require_budgets(federation.setup, facts)


def _jobs_beside(federation: Federation) -> dict[str, SumsSetup]:
    """Questions, facts and evaluations that the file has beside its training, rehearsed; by job."""
    from privagg.config.evaluating import EvaluateSetup
    from privagg.config.jobs import jobs_besides

    found = [*jobs_besides(federation.setup)]
    if EvaluateSetup.configured(federation.config) and not EvaluateSetup.is_in(federation.setup):
        found.append(federation.evaluating.foreseen)
    for setup in found:
        setup.rehearse()
    return {setup.job: setup for setup in found}


def _planned(federation: Federation, beside: Mapping[str, SumsSetup]) -> dict[str, Any]:
    """The plan, and those of the jobs beside it; JSON-ready."""
    from privagg.cli.askview import questions_facts
    from privagg.cli.planview import describe

    told = {job: questions_facts(setup) for job, setup in beside.items()}
    choice = federation.config.choice
    return describe(federation.setup) | {
        "asking": told.get("questions"),
        "facts": told.get("facts"),
        "chosen": None if choice is None else choice._asdict(),
        "evaluation": told.get("evaluation"),
        "looks": told.get("rounds"),
    }


def _print_checked(
    federation: Federation,
    facts: dict[str, Any],
    beside: Mapping[str, SumsSetup],
    findings: dict[str, list[dict[str, Any]]],
    language: str,
) -> None:
    """Plan, jobs beside it and findings, for a person."""
    from privagg.cli.askview import print_both, print_choice, print_questions
    from privagg.cli.planview import print_plan
    from privagg.report.language import speaking

    out = console.console()
    with speaking(language):
        print_plan(out, facts, federation.plan)
        if federation.config.choice is not None:
            print_choice(out, federation.config.choice)
        for job, setup in beside.items():
            if job == "facts":  # asked before there was anything to train
                print_questions(out, setup)
            else:
                print_both(out, federation.setup, setup)
        print_findings(findings, federation.plan.names)


def _require_usable(federation: Federation, findings: dict[str, list[dict[str, Any]]]) -> None:
    """Hold what was found in tables against what their owners accept.

    Raises:
        DataError: a table should not be used as it is.
    """
    own = federation.setup.own
    accepted = {section.name for section in federation.config.sites if own(section.name).accepted}
    wrong = [
        name
        for name, found in findings.items()
        if name not in accepted and any(f["severity"] == "error" for f in found)
    ]
    if wrong:
        raise DataError(
            f"the data of {', '.join(wrong)} should not be used as it is; see the findings above. "
            "Nothing was spent"
        )


def _check_facts_alone(federation: Federation, language: str, *, as_json: bool) -> None:
    """Show what is asked before anything can be trained: no column is declared yet."""
    from privagg.cli.askview import print_questions, questions_facts
    from privagg.party.ready import require_room
    from privagg.report.language import speaking

    setup = federation.beside("facts")
    if as_json:
        console.print_json({"facts": questions_facts(setup)})
    else:
        with speaking(language):
            print_questions(console.console(), setup)
    require_room(setup)


def _require_approved_code(federation: Federation) -> None:
    """Say which code the configuration names; none is imported that no approval names.

    Raises:
        ApprovalError: the plan cannot be known without running such code.
    """
    setup = federation.setup
    if not setup.names_code:
        return
    allowed, source = setup.code, setup.source
    unknown = [one for one in setup.factories() if not allowed.allows(one)]
    if unknown:
        listed = "; ".join(f"{f.module}:{f.name} in {f.path}, SHA-256 {f.sha256}" for f in unknown)
        raise ApprovalError(
            f"{source} names code that no approval in force covers, so nothing was imported and "
            f"the plan is not known: {listed}. Read it; where it may run beside the data: privagg "
            f"approve {source} --all-sites"
        )


def print_findings(findings: dict[str, list[dict[str, Any]]], sites: Sequence[str]) -> None:
    """What was found in tables, by table; those of `sites` are for their owner only."""
    from privagg.report.language import say, told

    out = console.console()
    for name, found in findings.items():
        private = name in sites
        heading = say("Data of {name} (for its owner only)" if private else "Data of {name}",
                      name=name if private else told(name))  # fmt: skip
        console.heading(out, heading)
        for finding in found:
            style = {"error": "bold red", "warning": "yellow"}.get(finding["severity"], "dim")
            line = Text(f"{say(finding['severity']):>7}  ", style=style)
            place = f"{finding['column']}: " if finding["column"] else ""
            message = told(finding["message"])
            out.print(line.append(f"{place}{message}", style="not bold default"), soft_wrap=True)
        if not found:
            out.print(say("fits its declaration"))


def _findings(federation: Federation, only: str | None) -> dict[str, list[dict[str, Any]]]:
    """What the owner of each site should know about its file; reading it checks the file itself."""
    from dataclasses import asdict

    found = {
        section.name: [asdict(finding) for finding in federation.setup.inspect(section)]
        for section in federation.config.sites
        if only in (None, section.name)
    }
    evaluation = federation.config.public_table
    if only is None and evaluation is not None:
        public = federation.setup.inspect_public()  # read now, so that a bad file is named now
        found[f"{evaluation.name}, declared public"] = [asdict(finding) for finding in public]
    return found


def run(
    config: ConfigPath,
    runtime: Runtime = "local",
    deployment: Deployment = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was cut off.")
    ] = None,
    abandon: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="local: end a run that was cut off; its model so far and its report are kept.",
        ),
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option(
            help="flower: the folder or archive of your Flower app; else where CONFIG lies."
        ),
    ] = None,
    run_config: Annotated[
        str, typer.Option(metavar="'KEY=VALUE ...'", help="flower: settings of your app.")
    ] = "",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train: charge, encrypt or mask, add, open, step, for every planned round; then report.

    Every site's owner approves first (`privagg approve`). Budgets are checked before anything is
    spent. A round that cannot be opened stays charged.
    Ctrl-C stops after the round that is under way, with its model and report.

    A run that was cut off (a second Ctrl-C, SIGTERM, a kill, a power failure, a full disk) keeps
    its key until it is resumed, abandoned, or the approval ends. Resumed, it is charged for
    nothing twice, and ends with the model that it would have had.

    [bold]Examples[/bold]

      privagg run my.toml

      privagg run my.toml --resume three-hospitals-5f0c9a1b2d3e

      privagg run my.toml --json > rounds.jsonl     one JSON document a line

      privagg run my.toml --runtime flower --deployment coordinator

    With Flower, each party runs in processes of its own: see `privagg deploy --help`. A Flower app
    of your own ([data] kind = "app") is submitted by the same command: examples/flower_heart.
    """
    require_runtime(runtime, deployment)
    if runtime == "flower" and abandon:
        raise ConfigError(
            "--abandon belongs to local runs. Over Flower a run that is not resumed keeps "
            "its key until the approval ends; its owner ends it with: privagg approve --withdraw"
        )
    if resume and abandon:
        raise ConfigError("give one of --resume and --abandon")
    if runtime == "local" and (app or run_config):
        raise ConfigError("--app and --run-config belong to --runtime flower")
    if runtime == "flower" and device:
        raise ConfigError(
            "--device belongs to local runs; over Flower each site says `device` in its party.toml"
        )
    federation = open_federation(config, deployment, device)
    if abandon:
        _abandon(federation, abandon, as_json=as_json)
        return
    if runtime == "local":
        train(federation, as_json=as_json, resume=resume)
        return
    from privagg.cli.flowerrun import run_on_flower

    run_on_flower(
        federation, config, deployment=deployment, resume=resume, as_json=as_json, app=app,
        settings=run_config,
    )  # fmt: skip


def train(federation: Federation, *, as_json: bool, resume: str | None = None) -> None:
    """Run, reporting each round; what cuts the run off is said plainly, and how to go on.

    Args:
        federation: trains.
        as_json: print a line of JSON for each round.
        resume: a run that was cut off.
    """
    from privagg.cli.live import stopping_when_terminated

    with telling_how_to_go_on(federation):
        # Before anything that takes a while, and before the first line.
        federation.check_ready(resume)
        prepare_kernels(federation.parameters, "rounding")
        with stopping_when_terminated():
            result = _reported(federation, as_json=as_json, resume=resume)
    if as_json:
        console.print_json_line(_result_json(result))
    else:
        _print_result(result)
        _tell_evaluation(federation)
    if result.outcome != "finished":  # it left its files, but is not what was asked for
        raise typer.Exit(2)


def _reported(federation: Federation, *, as_json: bool, resume: str | None) -> RunResult:
    """Run, with a line for each round."""
    from privagg.cli.live import json_lines, stopping_between_rounds

    if not as_json:
        return _train_live(federation, resume)
    with stopping_between_rounds(json_lines(federation.plan.rounds)) as on_round:
        return federation.run(on_round=on_round, resume=resume)


@contextmanager
def telling_how_to_go_on(federation: Federation) -> Iterator[None]:
    """Whatever ends a run before its end is followed by what was cut off, and what to type."""
    from privagg.cli.live import Terminated

    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        code = console.fail(None, f"interrupted. {told_cut_off(federation)}")
        raise typer.Exit(TERMINATED if isinstance(error, Terminated) else code) from error
    except ResumeError:  # says itself how to go on
        raise
    except PrivaggError:
        if federation.unfinished():
            console.note(told_cut_off(federation))
        raise


def told_cut_off(federation: Federation) -> str:
    """Which runs were cut off, and what to type."""
    from privagg.run.unfinished import ways_on

    found = federation.unfinished()
    if not found:
        return "Nothing was charged for a run that has not ended"
    ways = "; ".join(f"{each}. {ways_on(federation.setup, each.begun)}" for each in found)
    return f"What was charged stays charged, and nothing is charged twice. Cut off: {ways}"


def _abandon(federation: Federation, run: str, *, as_json: bool) -> None:
    """End a run that was cut off, and say what it left."""
    result = federation.give_up(run)
    if as_json:
        console.print_json_line(_result_json(result))
    else:
        _print_result(result)


def prepare_kernels(parameters: Parameters, *more: str) -> None:
    """Load a scheme's kernels and more; where that takes a while, say what the wait is for."""
    from threading import Timer

    from privagg.kernels.loading import load_kernels

    text = "loading kernels; a machine's first run compiles them, for some ten seconds"
    notice = Timer(_QUIET_SECONDS, console.note, (text,))
    notice.daemon = True
    notice.start()
    try:
        load_kernels((*parameters.compiled_kernels, *more))
    finally:
        notice.cancel()


def _train_live(federation: Federation, resume: str | None) -> RunResult:
    """Run with a line a round and, in a terminal, a progress bar."""
    from privagg.cli.live import RoundLines, stopping_between_rounds

    plan = federation.plan
    out = console.console()
    sizes = ", ".join(f"{site.name} ({site.records})" for site in plan.sites[:6])
    more = f" and {len(plan.sites) - 6} more" if len(plan.sites) > 6 else ""
    noise = f"noise multiplier {plan.noise_multiplier.normalize():f}, {plan.scheme}"
    name = federation.config.federation.name
    out.print(Text(f"{name}: {sizes}{more}; {noise}"), soft_wrap=True)
    if not federation.setup.scheme.protects:
        console.note(f"scheme {plan.scheme} does not encrypt: for tests and comparisons only")
    measured = federation.setup.public_records is not None
    shown = federation.config.data.target.shown if measured else ()
    lines = RoundLines(out, plan.rounds, plan.names, shown=shown)
    lines.header()
    with lines.live(), stopping_between_rounds(lines) as on_round:
        return federation.run(on_round=on_round, resume=resume)


def _print_result(result: RunResult) -> None:
    from privagg.cli.live import result_lines

    out = console.console()
    out.print()
    for line in result_lines(result.metrics):
        out.print(Text(line), soft_wrap=True)
    if result.outcome != "finished":
        out.print(Text(f"the run was {result.outcome}: {result.reason}", style="yellow"),
                  soft_wrap=True)  # fmt: skip
    elif result.reason:
        out.print(Text(result.reason), soft_wrap=True)
    pairs = [("run", result.run), *places(result)]
    if result.selected is not None:
        pairs.append(("round", f"{result.selected}, the best one by its evaluation"))
    if result.ledgers:
        parties = next(iter(result.ledgers.values())).parent.parent
        pairs.append(("ledgers", f"{parties}/*/ledger.sqlite ({len(result.ledgers)} parties)"))
    print_places(out, pairs)


def _tell_evaluation(federation: Federation) -> None:
    """How the configured evaluation of the model is done: it is approved and charged by itself."""
    from privagg.config.evaluating import EvaluateSetup
    from privagg.report.figures import epsilon_text

    if not EvaluateSetup.configured(federation.config):
        return
    setup = federation.evaluating
    path = quote(str(setup.source)) if setup.source else "CONFIG"
    console.note(
        f"to evaluate the model on the held-out records, for ε {epsilon_text(setup.epsilon, 4)} "
        f"more of each budget: privagg approve {path} --all-sites --job {setup.job} && privagg "
        f"{setup.command} {path}"
    )


def require_runtime(runtime: str, deployment: Path | None) -> None:
    """Refuse a runtime that there is not, and a deployment where none is used.

    Raises:
        ConfigError: says which.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"--runtime is {' or '.join(RUNTIMES)}, not {runtime!r}")
    if runtime == "local" and deployment:
        raise ConfigError("--deployment belongs to --runtime flower")


def places(result: RunResult) -> list[tuple[str, str]]:
    """Label and place of each file of a run: where README looks, and where it stays."""
    made = [
        (label, path)
        for label, path in (
            ("model", result.model), ("answers", result.answers), ("report", result.report_json),
            ("page", result.report_html), ("bundle", result.bundle),
        )
        if path is not None
    ]  # fmt: skip
    found = [(label, str((result.shown or path.parent) / path.name)) for label, path in made]
    if result.shown is not None and made:
        found.append(("kept in", f"{made[0][1].parent}, also when another run takes its place"))
    return found


def print_places(out: Console, pairs: list[tuple[str, str]]) -> None:
    """Label and value on a line each, never broken."""
    width = max(len(label) for label, _ in pairs)
    for label, value in pairs:
        out.print(Text(f"{label.ljust(width)}  ", style="dim").append(value, style="not dim"),
                  soft_wrap=True)  # fmt: skip


def _result_json(result: RunResult) -> dict[str, Any]:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return {
        "run": result.run,
        "selected_round": result.selected,
        "outcome": result.outcome,
        "reason": result.reason,
        "metrics": result.metrics,
        "model": text(result.model),
        "answers": text(result.answers),
        "report_json": text(result.report_json),
        "report_html": text(result.report_html),
        "bundle": text(result.bundle),
        "shown": text(result.shown),
        "ledgers": {party: str(path) for party, path in result.ledgers.items()},
    }


def open_federation(
    path: Path, deployment: Path | None = None, device: str | None = None
) -> Federation:
    """The federation of a configuration file.

    Args:
        path: the file.
        deployment: the folder of a party or a trial, whose approvals say what code may run.
        device: where all sites train; by default as each one's `party.toml` says.

    Raises:
        ConfigError: the file cannot be used as it is, or there is no such kind of device.
        MissingDependencyError: what training needs is not installed.
    """
    from privagg.config.schema import load_config

    if device is not None and device not in get_args(DeviceName):
        known = ", ".join(get_args(DeviceName))
        raise ConfigError(f"--device {device!r} is none of {known}; choose one of them")
    checked = load_config(path)  # its faults are told before torch is loaded, which takes seconds
    try:
        from privagg.federation import Federation
    except ImportError as error:
        raise missing(error) from error
    code = None
    if deployment is not None:
        from privagg.party.folder import PartyFolder
        from privagg.party.open import code_in

        whole = deployment / "coordinator"
        code = code_in(PartyFolder(whole if whole.is_dir() else deployment))
    chosen = cast(DeviceName | None, device)
    return Federation(checked, base=path.resolve().parent, source=path, code=code, device=chosen)


def missing(error: ImportError) -> Exception:
    """The error to raise for a failed import: ours where an extra is missing, else the same."""
    if (error.name or "").partition(".")[0] not in TRAINING_MODULES:
        return error
    return MissingDependencyError(
        f"training needs {error.name}, which is not installed; pip install 'privagg[train,ckks]'"
    )


def _template(target: str) -> str:
    """The commented configuration, with the section of this kind of target."""
    text = packaged("template.toml")
    if target == "binary":
        return text
    section = packaged(f"targets/{target}.toml")
    if target != "multiclass":  # nothing is proposed for other targets than classes
        for line in ("rounds =", "sampling_rate =", "[training.optimizer]", "kind =", "learning_"):
            text = text.replace(f"\n# {line}", f"\n{line}", 1)
    if target == "regression":  # a squared loss curves four times as much as a logistic one
        text = text.replace("learning_rate = 2.0", "learning_rate = 0.5")
    return re.sub(r"(?ms)^\[data\.target\]\n.*?\n(?=\n)", lambda _: section, text, count=1)


def packaged(name: str) -> str:
    """A text that lies beside the commands.

    Args:
        name: of the file.
    """
    return resources.files("privagg.cli").joinpath(name).read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> Path:
    """Write a configuration where the user wants it.

    Args:
        path: where; its folder is made.
        text: the configuration.

    Raises:
        ConfigError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; choose another folder"
        ) from error
    write_whole(path, text.encode())
    return path
