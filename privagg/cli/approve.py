"""`approve`: the owner's act that lets a plan use data, sets its budget, and lets code run."""

from __future__ import annotations

import getpass
import os
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privagg.cli import console
from privagg.cli.options import exact
from privagg.cli.training import open_federation, print_findings
from privagg.errors import ApprovalError, ConfigError
from privagg.party.folder import PartyFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from privagg.config.setup import Setup
    from privagg.federation import Federation
    from privagg.party.approving import Job
    from privagg.privacy.plan import Plan
    from privagg.training.factories import Factory
    from privagg.training.inspection import Finding

PASSPHRASE = "PRIVAGG_OWNER_PASSPHRASE"


def approve(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The configuration file.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Approve for this site; may be given several times.")
    ] = None,
    all_sites: Annotated[
        bool, typer.Option("--all-sites", help="For every site: one person decides for all.")
    ] = False,
    party: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A party's folder, on that party's own machine."),
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --all-sites: the sites of a trial lie here."),
    ] = None,
    budget: Annotated[
        Decimal | None,
        typer.Option(
            parser=exact, metavar="E", help="ε over all jobs; the configuration's by default."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Last day, 2026-12-31; by default 90 days.")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="So many runs at most; else any number within the budget."),
    ] = None,
    who: Annotated[
        str | None, typer.Option(help="Who decides; by default who is logged in.")
    ] = None,
    why: Annotated[str | None, typer.Option(help="For whom or what; recorded for ever.")] = None,
    overlap_known: Annotated[
        str,
        typer.Option(metavar="WHY", help="Records count under two names, and why that is right."),
    ] = "",
    without_guarantee: Annotated[
        bool, typer.Option("--without-guarantee", help="An infinite budget is meant.")
    ] = False,
    owner_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The owner's key, where it is kept elsewhere."),
    ] = None,
    job: Annotated[
        str,
        typer.Option(
            help="Which of the configuration's jobs: training, questions, facts (`privagg ask "
            "--for`), evaluation or rounds (evaluations between a training's rounds)."
        ),
    ] = "training",
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="In a deployment, with --job evaluation: the opened model."
        ),
    ] = None,
    taking_back: Annotated[
        bool, typer.Option("--withdraw", help="Take back every approval in force.")
    ] = False,
    accept_findings: Annotated[
        bool,
        typer.Option(
            "--accept-findings", help="Take part with the records as they are, now and later."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Approve a plan, or all candidates of a search: without it no site takes part in anything.

    Questions, facts and an evaluation are jobs of their own, each approved by its plan (--job).

    Says first what was found in the sites' records, for their owner only. What would change what
    is learned keeps a site from joining, unless its owner accepts it (--accept-findings).

    In a deployment an evaluation is of a model whose file the owner has in hand (--model): the
    approval is of these very bytes and keeps a copy beside the party's ledger. No other is taken.

    In a deployment a key holder of its own approves too: else it makes no keys and opens nothing.

    Shows what the job does and costs, and asks. What is approved is signed with the owner's key
    and stands in the site's ledger: plans, data set, budget, code with its hash, for what and
    until when. Spends nothing. A key that is encrypted asks for its passphrase, or takes it from
    the environment variable PRIVAGG_OWNER_PASSPHRASE.

    [bold]Examples[/bold]

      privagg approve my.toml --all-sites           on one machine: you decide for every site

      privagg approve my.toml --site riverside --budget 2 --why "second study, vote 12"

      privagg approve my.toml --all-sites --job questions

      privagg approve --party riverside             in a deployment, on riverside's machine

      privagg approve my.toml --all-sites --withdraw
    """
    words = _Words(
        who or login(), why, _day(until), budget, overlap_known, without_guarantee, yes, runs,
        accept_findings, model,
    )  # fmt: skip
    if model is not None and (job != "evaluation" or not (party or deployment)):
        raise ConfigError(
            "--model goes with --job evaluation and --party or --deployment; on one machine the "
            "model is the latest run's, or the one that evaluation.model names"
        )
    if party is not None:
        if config or site or all_sites or deployment:
            raise ConfigError("--party names one party's folder; give it alone")
        PartyFolder(party).party()
        _in_folders([party], words, owner_key, taking_back, job)
        return
    if config is None:
        raise ConfigError("name a configuration file, or a party's folder with --party")
    if bool(site) == all_sites:
        raise ConfigError("say for whom: --site NAME, or --all-sites where you decide for all")
    if deployment is not None:
        if site:
            raise ConfigError(
                "--deployment goes with --all-sites; for one site of it: privagg approve --party "
                f"{deployment / site[0]}"
            )
        _in_folders(_folders_of(deployment, config), words, owner_key, taking_back, job)
        return
    federation = open_federation(config)
    names = tuple(site or (section.name for section in federation.config.sites))
    if taking_back:
        count = federation.withdraw(who=words.who, why=words.why or "withdrawn", sites=names)
        console.console().print(f"withdrawn: {count} approvals of {', '.join(names)}", markup=False)
        return
    _here(federation, names, words, owner_key, job)


@dataclass(frozen=True)
class _Words:
    """What was said on the command line."""

    who: str
    why: str | None
    until: date | None
    budget: Decimal | None
    overlaps: str
    without_guarantee: bool
    yes: bool
    runs: int | None
    accept_findings: bool
    model: Path | None


def login() -> str:
    """Who is logged in.

    Raises:
        ConfigError: nobody that has a name.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigError("say who decides: --who NAME") from None


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--until is a day such as 2026-12-31, not {text!r}") from error


def passphrase_for(path: Path) -> str | None:
    """The passphrase of an owner's key, asked for where it is encrypted.

    Raises:
        ConfigError: it is needed, and nobody is there to type it.
    """
    from privagg.identity.owner import needs_passphrase

    if not needs_passphrase(path):
        return None
    given = os.environ.get(PASSPHRASE)
    if given is not None:
        return given
    return _asked(lambda: getpass.getpass(f"passphrase of {path}: "), path)


def new_passphrase(path: Path) -> str:
    """A passphrase for an owner's key that is yet to be made: of the environment, or asked for.

    Raises:
        ConfigError: nobody is there to type it.
    """

    def typed() -> str:
        question = "passphrase of the owner's key"
        return str(typer.prompt(question, hide_input=True, confirmation_prompt=True))

    return os.environ.get(PASSPHRASE) or _asked(typed, path)


def _asked(ask: Callable[[], str], path: Path) -> str:
    try:
        return ask()
    except (EOFError, OSError, typer.Abort) as error:  # nobody there to answer
        raise ConfigError(
            f"the owner's key {path} needs a passphrase and none was typed; where there is no "
            f"terminal, set {PASSPHRASE}"
        ) from error


def key_at(path: Path) -> Ed25519PrivateKey:
    """The owner's key in a file; its passphrase is asked for where it is encrypted.

    Raises:
        ConfigError: as `read_owner_key` and `passphrase_for`.
    """
    from privagg.identity.owner import read_owner_key

    return read_owner_key(path, passphrase_for(path))


def _here(
    federation: Federation,
    names: tuple[str, ...],
    words: _Words,
    owner_key: Path | None,
    job: str,
) -> None:
    """Approve for sites of a local run, whose folders lie in its output folder."""
    from privagg.cli.askview import print_questions
    from privagg.config.asking import SumsSetup
    from privagg.config.jobs import job_of
    from privagg.party.approving import Job, inspect_records

    key = None if owner_key is None else key_at(owner_key)
    federation.trust(code_to_trust(job_of(federation.setup, job), words.yes))
    setup = job_of(federation.setup, job)
    if isinstance(setup, SumsSetup):
        print_questions(console.console(), setup)
    _tell(inspect_records(setup, names), setup, names, words)
    _show(setup, Job.of(setup), names, words)
    _confirm("approve this?", words.yes)
    acts = federation.approve(
        who=words.who, why=_purpose(federation.setup, words), sites=names, until=words.until,
        budget=words.budget, without_guarantee=words.without_guarantee,
        overlaps=words.overlaps, runs=words.runs, owner=key, job=job,
        accept_findings=words.accept_findings,
    )  # fmt: skip
    verb = "tune" if job == "training" and federation.config.tuning else setup.command
    until = next(iter(acts.values())).until
    console.console().print(
        f"approved until {until} for {', '.join(acts)}; nothing was spent. next: privagg "
        f"{verb} {federation.setup.source}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _tell(
    found: Mapping[str, list[Finding]], setup: Setup, names: Iterable[str], words: _Words
) -> None:
    """What was found in the records, for their owner, before anything is decided.

    Raises:
        DataError: it keeps a site from joining, and is not accepted.
    """
    told = {
        name: [asdict(one) for one in findings if one.severity != "note"]
        for name, findings in found.items()
    }
    print_findings({name: findings for name, findings in told.items() if findings}, list(names))
    for name in names if not words.accept_findings else ():
        setup.require_joining(setup.section(name))


def code_to_trust(setup: Setup, yes: bool) -> list[Factory]:
    """The code that a configuration names and that may run here, once its owner says so.

    Raises:
        ApprovalError: its owner says no.
    """
    allowed = setup.code if setup.names_code else None
    new = [f for f in setup.factories() if allowed is not None and not allowed.allows(f)]
    if new:
        _show_code(new)
        _confirm("this code will run beside the data; may it?", yes)
    return new


def _show_code(code: Iterable[Factory]) -> None:
    out = console.console()
    console.heading(out, "Code that the configuration names (nothing was imported yet)")
    for one in code:
        out.print(
            f"{one.module}:{one.name} in {one.path}; SHA-256 of {one.files} source files "
            f"{one.sha256}", markup=False, soft_wrap=True,
        )  # fmt: skip


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except (typer.Abort, OSError):  # nobody there to answer
        agreed = False
    if not agreed:
        raise ApprovalError("not approved; nothing was written or spent (--yes answers yes)")


def _purpose(setup: Setup, words: _Words) -> str:
    return words.why or f"federation {setup.config.federation.name}"


def _show(setup: Setup, job: Job, names: Iterable[str], words: _Words) -> None:
    """What is approved, in words."""
    from privagg.config.evaluating import EvaluateSetup
    from privagg.config.setup import TRAINING
    from privagg.report.figures import delta_text, epsilon_text

    out, plan, privacy = console.console(), job.plans[0], setup.config.privacy
    delta = delta_text(plan.delta)
    what = "a run" if job.kind == "plan" else f"a search of {len(job.plans)} runs"
    what = what if setup.job == TRAINING else setup.job
    often = "any number, as far as the budget reaches" if words.runs is None else f"{words.runs}"
    console.heading(out, f"To be approved for {setup.config.federation.name}: {what}")
    pairs = [
        ("a run is" if setup.job == TRAINING else "once is", _in_words(plan)),
        ("how many runs" if setup.job == TRAINING else "how many times", often),
        ("who opens", plan.custody_plainly),
        ("for", _purpose(setup, words)),
        ("decided by", words.who),
        ("plan digests", ", ".join(f"{digest[:16]}…" for digest in job.digests)),
    ]  # fmt: skip
    if isinstance(setup, EvaluateSetup):
        pairs.append(("model", f"SHA-256 {setup.sums.content.model.sha256}"))
    console.facts(out, pairs)
    for name in names:
        cost = setup.accountant.epsilon(job.event(name), plan.delta).upper
        budget = privacy.budget if words.budget is None else words.budget
        out.print(
            f"{name}: data set {job.key(name).dataset}, the job costs ε {epsilon_text(cost, 4)}, "
            f"budget over all jobs ε {epsilon_text(budget, 4)}, at δ = {delta}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _in_words(plan: Plan) -> str:
    """What one run of a plan is."""
    from privagg.privacy.plan import SumsPlan, TrainingPlan
    from privagg.report.figures import count_text

    if isinstance(plan, SumsPlan):
        sums = count_text(plan.rounds, "opened sum")
        return f"{sums} with noise; hidden is one {plan.unit.value}"

    noise = ""
    if isinstance(plan, TrainingPlan):
        noise = f", noise multiplier {plan.noise_multiplier.normalize():f}"
    rounds = count_text(plan.rounds, "round")
    return f"{rounds}, {plan.mode}{noise}; hidden is one {plan.unit.value}"


def _folders_of(root: Path, config: Path) -> list[Path]:
    """The folders of a trial's parties, if it was made from this configuration."""
    from privagg.flower.deploy.trial import Trial

    trial = Trial.at(root)
    held = trial.coordinator.party.federation_file
    try:
        same = held.read_bytes() == config.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    if not same:
        raise ConfigError(f"the trial in {root} was made from {held}, which differs from {config}")
    return [folder.party.root for folder in trial.parties.values()]


def _in_folders(
    roots: list[Path], words: _Words, owner_key: Path | None, taking_back: bool, job: str
) -> None:
    """Approve in parties' own folders; several only where one person tries all of it out."""
    from privagg.cli.askview import print_questions
    from privagg.config.asking import SumsSetup
    from privagg.config.evaluating import EvaluateSetup
    from privagg.party import approving
    from privagg.party.approving import Approver, Job, Terms, last_day, withdraw
    from privagg.party.open import open_federation as pinned

    folders = [PartyFolder(root) for root in roots]
    keys = [key_at(owner_key or folder.owner_key) for folder in folders]
    owned = list(zip(folders, keys, strict=True))
    if taking_back:
        for folder, key in owned:
            count = withdraw(folder, key, who=words.who, why=words.why or "withdrawn")
            console.console().print(f"{folder.party().name}: {count} withdrawn", markup=False)
        return
    approvers = [Approver(f, key, pinned(f, job, words.model)) for f, key in owned]
    setup = approvers[0].setup
    code = code_to_trust(setup, words.yes)
    if code:
        approvers = [replace(each, setup=each.setup.trusting(code)) for each in approvers]
        setup = approvers[0].setup
    sites = [approver.name for approver in approvers if approver.name in setup.plan.names]
    for each in approvers:
        found = approving.inspect_records(each.setup, [each.name] if each.name in sites else [])
        _tell(found, each.setup, list(found), words)
    if isinstance(setup, SumsSetup):
        print_questions(console.console(), setup)
    _show(setup, Job.of(setup), sites, words)
    _confirm("approve this?", words.yes)
    for each in approvers if words.accept_findings else ():
        approving.accept(each.folder)
    terms = Terms(
        words.who, _purpose(setup, words), last_day(words.until), words.budget,
        words.without_guarantee, words.overlaps, words.runs,
    )  # fmt: skip
    done = approving.approve(approvers, terms)
    for each in approvers:
        if words.model is None or not isinstance(each.setup, EvaluateSetup):
            continue  # the job that --model goes with
        each.folder.keep_evaluated(words.model, each.setup.model_sha256)
    console.console().print(
        f"approved for {', '.join(done) or 'nobody: these parties need no approval'}; nothing was "
        "spent", markup=False, soft_wrap=True,
    )  # fmt: skip
