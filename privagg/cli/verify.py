"""`bundle` and `verify`: the evidence of a run in one file, and anybody's check of it."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from privagg.cli import console
from privagg.cli.options import LanguageName
from privagg.errors import ConfigError, UnreadableBundleError, VerificationError

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.audit import Claim, Verification, Work

MAX_CHECKPOINT_BYTES = 1 << 22
WIDEST = 46


def bundle(
    folder: Annotated[Path, typer.Argument(help="A federation's output folder.")] = Path("out"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; beside the report by default.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Which run; by default the one that the folder shows.")
    ] = None,
) -> None:
    """Put a run's report and every party's ledger into one signed file, for others to verify.

    `run` does this by itself; here it is done again for the report.json that lies in the folder, or
    in an earlier run's own folder, which is verified first.

    [bold]Examples[/bold]

      privagg bundle out

      privagg bundle out --run demo-3f9a     an earlier run: `privagg runs out`
    """
    from privagg.audit import Brought, ReportBundle, Verdict, verify_bundle
    from privagg.audit.bundle import NAME, read_bounded
    from privagg.identity.keys import Identity
    from privagg.party.local import local_folder, local_ledgers
    from privagg.protocol.names import COORDINATOR
    from privagg.report.model import Report
    from privagg.run.outputs import places_of, statements_of

    key = local_folder(folder, COORDINATOR).identity_key
    ledgers = local_ledgers(folder)
    if not key.is_file() or COORDINATOR not in ledgers:
        raise ConfigError(
            f"there is no {key}, or no ledger beside it; a bundle is made in a federation's output "
            "folder and signed by its coordinator"
        )
    beside = folder if run is None else places_of(folder, ledgers[COORDINATOR], run)[0]
    report = read_bounded(beside / "report.json")
    run = Report.from_json(report).run
    own, *above = places_of(folder, ledgers[COORDINATOR], run)
    made = ReportBundle.make(
        report,
        ledgers,
        Identity.load_or_create(COORDINATOR, key),
        statements_of(folder, run).of(run) or None,
    )
    found = verify_bundle(made, Brought()).of(Verdict.CONTRADICTED)
    if found:
        raise VerificationError(
            f"{beside / 'report.json'} does not follow from the ledgers in {folder} "
            f"({found[0].section}: {found[0].subject}); make it anew with `privagg report {folder} "
            f"--run {run}`"
        )
    paths = [output] if output else [place / NAME for place in (own, *above)]
    if output is None:
        own.mkdir(parents=True, exist_ok=True)
    for path in paths:
        made.write(path)
    console.console().print(f"bundle   {paths[-1]}", markup=False, soft_wrap=True)


def verify(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a report.json alone.")
    ],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A signed checkpoint or receipt kept earlier; repeatable."
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HEX", help="A party's public key as you know it; repeatable."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The released model's file.")] = None,
    require: Annotated[
        str | None,
        typer.Option(metavar="proved:NAME,…", help="Claims that must be proved, else exit 3."),
    ] = None,
    every_charge: Annotated[
        bool, typer.Option("--every-charge", help="Recompute ε after each charge of long ledgers.")
    ] = False,
    work: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            show_default="60",
            help="Recompute at most about so many processor seconds' worth; the rest is not "
            "decided.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write proofs of each budget's ε for Rocq there."),
    ] = None,
    language: LanguageName = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute every number of a report from the ledgers in its bundle.

    Hash chains, signatures, budgets, events, every ε by proof and by independent methods, the
    observer matrix, the sentences. Trusts nothing in the file, needs no training libraries.

    Each claim is proved by the evidence, attested by somebody's word, contradicted, or not decided.

    Work is limited by what it counts and not by the clock: a bundle gets one verdict everywhere.

    Exit codes: 0 nothing is contradicted, 1 a claim is contradicted, 2 not a readable bundle,
    3 a claim that --require names is not proved (`--json` lists the names).

    [bold]Examples[/bold]

      privagg verify out/bundle.privagg.zip

      privagg verify bundle.zip --checkpoint riverside.checkpoint --model model.safetensors

      privagg verify bundle.zip --checkpoint riverside.checkpoint
      --require proved:riverside/history

      privagg verify report.json               what a report alone allows

      privagg verify bundle.zip --certificate proof     files for Rocq and its checker
    """
    from privagg.audit import DEFAULT_WORK, Brought, Methods, Verdict, Work, verify_file
    from privagg.report.language import speaking

    spending = Work(DEFAULT_WORK if work is None else work)
    brought = Brought(
        checkpoints=[_checkpoint(path) for path in checkpoint or ()],
        keys=dict(_key(text) for text in key or ()),
        model_sha256=None if model is None else _digest(model),
        every_charge=every_charge,
        methods=Methods(spending),
    )
    wanted = _required(require)
    with speaking(language), shown(spending, console.console(stderr=True)):
        made = verify_file(source, brought)
    if as_json:
        console.print_json(made.to_json())
    else:
        with speaking(language):
            print_verification(console.console(), made)
    if not made.holds:
        raise typer.Exit(1)
    if certificate is not None:
        with speaking(language):
            _write_certificates(source, certificate)
    unproved = [c for name in wanted for c in made.named(name) if c.verdict is not Verdict.PROVED]
    if unproved:
        names = ", ".join(f"{c.name} ({c.verdict.value})" for c in unproved)
        typer.echo(f"required, and not proved: {names}", err=True)
        raise typer.Exit(3)


def _write_certificates(source: Path, folder: Path) -> None:
    """Write them, and say on standard error what each proves."""
    from privagg.audit import Methods
    from privagg.audit.certificates import write_certificates
    from privagg.report.language import say

    out = console.console(stderr=True)
    for each in write_certificates(source, folder, Methods()):
        if each.path is None:
            text = say("no certificate of {budget}: {why}", budget=each.budget, why=each.why)
        else:
            text = say(
                "certificate of {budget}: ε ≤ {epsilon}; check it with {command}",
                budget=each.budget,
                epsilon=f"{math.ceil(each.epsilon * 10**6) / 10**6:.6f}",
                command=f"{each.checker} {each.path}",
            )
        out.print(Text(console.plain(text)), soft_wrap=True)


PATIENCE = 2.0
"""Seconds after which a terminal shows how far a verification is."""


@contextmanager
def shown(work: Work, out: Console) -> Iterator[None]:
    """Shows, on a terminal and when it takes long, how much of the work limit is spent."""
    from privagg.report.language import say

    progress = Progress(
        TextColumn(say("verifying"), style="bold"), BarColumn(bar_width=40), TaskProgressColumn(),
        TextColumn(say("of the work limit")), TimeElapsedColumn(), console=out, transient=True,
    )  # fmt: skip
    task, since = progress.add_task("verifying", total=1.0), time.monotonic()

    def show(share: float) -> None:
        if time.monotonic() - since > PATIENCE and not progress.live.is_started:
            progress.start()
        progress.update(task, completed=share)

    if out.is_terminal:
        work.watch = show
    try:
        yield
    finally:
        work.watch = None
        if progress.live.is_started:
            progress.stop()


def _required(text: str | None) -> list[str]:
    """The names in `proved:NAME,proved:NAME,…`; the word before the first stands for the others."""
    names: list[str] = []
    for part in text.split(",") if text is not None else ():
        verdict, colon, name = part.strip().rpartition(":")
        if (colon and verdict != "proved") or not name or (not names and not colon):
            raise ConfigError(f"--require takes proved:NAME,…, got {part[:100]!r}")
        names.append(name)
    return names


def _checkpoint(path: Path) -> str:
    """The signed checkpoint in a file, which may also be a receipt that carries one."""
    from privagg.audit.bundle import read_bounded
    from privagg.privacy.ledger import Receipt

    try:
        text = read_bounded(path, MAX_CHECKPOINT_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UnreadableBundleError(f"{path} is neither a checkpoint nor a receipt") from error
    return Receipt.from_json(text).checkpoint if text.startswith("{") else text


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableBundleError(
            f"cannot read {path}: {error.strerror}; correct the path"
        ) from error


def _key(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not re.fullmatch(r"[0-9a-f]{64}", value) or not name:
        raise ConfigError(f"--key takes NAME=HEX with 64 hex digits, got {text[:100]!r}")
    return name, value


def print_verification(out: Console, made: Verification) -> None:
    """The verdict, the table of decided claims, and what a reader would need for the others."""
    from privagg.audit import Verdict
    from privagg.report.language import say

    _print_verdict(out, made)
    title = say(
        "{federation}, run {run} (bundle)"
        if made.kind == "bundle"
        else "{federation}, run {run} (report without its ledgers)",
        federation=made.federation,
        run=made.run,
    )
    out.print(Text(console.plain(title), style="bold"), soft_wrap=True)
    decided = [c for c in made.claims if c.verdict in (Verdict.PROVED, Verdict.CONTRADICTED)]
    widths = _widths(made.claims, out.width)
    section = note = ""
    for claim in decided:
        if claim.section != section:
            section = claim.section
            out.print()
            head = Text(_cell(_section(section), widths[0] + 16), style="bold")
            columns = f"{_cell(say('claimed'), widths[1])}{say('recomputed')}"
            out.print(head.append(columns, style="not bold dim"), soft_wrap=True)
            note = ""
        _print_claim(out, claim, widths, with_note=claim.note != note)
        note = claim.note
    _print_rest(
        out, made.of(Verdict.ATTESTED), say("Attested: somebody's word, and what would settle it")
    )
    _print_rest(out, made.of(Verdict.UNDECIDED), say("Not decided by this file, and what would"))


def _section(name: str) -> str:
    """A part of the evidence by name; parties have their own."""
    from privagg.report.language import say

    return say(name) if name in ("bundle", "report", "run") else name


def _widths(claims: tuple[Claim, ...], total: int) -> tuple[int, int]:
    """Columns as wide as their contents, within what the terminal has."""
    from privagg.report.language import told

    room = max((total - 16) // 3, 24)
    subjects = max((cell_len(told(claim.subject)) for claim in claims), default=0)
    values = max((cell_len(told(claim.claimed)) for claim in claims), default=0)
    return min(subjects, max(room, WIDEST)) + 2, min(values, max(room, 36)) + 2


def _wrapped(text: str, width: int) -> list[str]:
    return console.wrapped(console.plain(text), max(width, 40)) or [""]


def _cell(text: str, width: int) -> str:
    text = console.plain(text)
    if cell_len(text) > width - 2:
        text = f"{chop_cells(text, width - 3)[0]}…"
    return set_cell_size(text, width)


def _print_claim(out: Console, claim: Claim, widths: tuple[int, int], *, with_note: bool) -> None:
    """One line; a remark that the line before carried already is not said again."""
    from privagg.audit import Verdict
    from privagg.report.language import say, told

    proved = claim.verdict is Verdict.PROVED
    verdict = set_cell_size(say("proved") if proved else say("CONTRADICTED"), 14)
    line = Text(f"  {verdict}", style="green" if proved else "bold red")
    plain = "not bold default"
    line.append(_cell(told(claim.subject), widths[0]), style=plain)
    line.append(_cell(told(claim.claimed), widths[1]), style=plain)
    same = proved and claim.claimed == claim.recomputed
    recomputed = say("the same") if same else console.plain(told(claim.recomputed))
    line.append(recomputed, style="not bold dim" if same else plain)
    out.print(line, soft_wrap=True)
    if claim.note and with_note:
        style = "dim" if proved else "red"
        for part in _wrapped(told(claim.note), out.width - 16):
            out.print(Text(f"{'':16}{part}", style=style), soft_wrap=True)


def _print_rest(out: Console, claims: tuple[Claim, ...], heading: str) -> None:
    """What the evidence does not settle; the same about several parties stands once."""
    grouped: dict[tuple[str, str, str], list[Claim]] = {}
    for claim in claims:
        grouped.setdefault((_whose(claim), claim.subject, claim.settle), []).append(claim)
    if grouped:
        console.heading(out, heading)
    for same in grouped.values():
        for number, part in enumerate(_wrapped(_rest(same), out.width - 4)):
            out.print(Text(("  - " if number == 0 else "    ") + part), soft_wrap=True)


def _rest(same: list[Claim]) -> str:
    """Claims about several parties that the evidence does not settle, in a sentence."""
    from privagg.report.language import say, told

    first, said = same[0], {claim.claimed for claim in same}
    parties = [c.section for c in same if c.section not in ("bundle", "run", "report")]
    subject = told(first.subject)
    if parties:
        subject = say("{subject} ({parties})", subject=subject, parties=say(", ").join(parties))
    if not first.by:
        return say("{subject}: {settle}", subject=subject, settle=told(first.settle))
    return say(
        "{subject}, attested by {by}: {claimed}. To settle it: {settle}"
        if len(said) == 1
        else "{subject}, attested by {by}: {settle}",
        subject=subject,
        by=told(_whose(first)),
        claimed=told(first.claimed),
        settle=told(first.settle),
    )


def _whose(claim: Claim) -> str:
    return "each of them" if claim.by and claim.by == claim.section else claim.by


def _print_verdict(out: Console, made: Verification) -> None:
    """The first line: whether anything is contradicted, and how much rests on somebody's word."""
    from privagg.audit import Verdict
    from privagg.report.language import say

    failed = len(made.of(Verdict.CONTRADICTED))
    head = say("CONTRADICTED") if failed else say("NOTHING CONTRADICTED")
    line = say(
        ": {failed} of {claims} claims; do not rely on this report. {attested} claims are "
        "attested, {undecided} not decided."
        if failed
        else ": {values} values proved; {attested} claims are attested, {undecided} not decided.",
        failed=failed,
        claims=len(made.claims),
        values=made.compared,
        attested=len(made.of(Verdict.ATTESTED)),
        undecided=len(made.of(Verdict.UNDECIDED)),
    )
    text = Text(head, style="bold red" if failed else "bold green")
    out.print(text.append(line, style="not bold default"), soft_wrap=True)
