"""`bundle` and `verify`: the evidence of a run in one file, and anybody's check of it."""

from __future__ import annotations

import hashlib
import re
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from privagg.cli import console
from privagg.errors import ConfigError, UnreadableBundleError, VerificationError

if TYPE_CHECKING:
    from rich.console import Console

    from privagg.audit import Claim, Verification, Work

MAX_CHECKPOINT_BYTES = 1 << 22
WIDEST = 46


def bundle(
    folder: Annotated[Path, typer.Argument(help="A federation's output folder.")] = Path("out"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; in the folder by default.")
    ] = None,
) -> None:
    """Put a run's report and every party's ledger into one signed file, for others to verify.

    `run` does this by itself; here it is done again for the report.json that lies in the folder,
    which is verified first.

    [bold]Example[/bold]

      privagg bundle out
    """
    from privagg.audit import Brought, ReportBundle, Verdict, verify_bundle
    from privagg.audit.bundle import NAME, read_bounded
    from privagg.identity.keys import Identity
    from privagg.party.local import local_folder, local_ledgers
    from privagg.protocol.names import COORDINATOR
    from privagg.protocol.statements import StatementStore
    from privagg.report.model import Report

    key = local_folder(folder, COORDINATOR).identity_key
    if not key.is_file():
        raise ConfigError(
            f"there is no {key}; a bundle is made in a federation's output folder and signed by "
            "its coordinator"
        )
    report = read_bounded(folder / "report.json")
    made = ReportBundle.make(
        report,
        local_ledgers(folder),
        Identity.load_or_create(COORDINATOR, key),
        StatementStore.beside(folder).of(Report.from_json(report).run) or None,
    )
    found = verify_bundle(made, Brought()).of(Verdict.CONTRADICTED)
    if found:
        raise VerificationError(
            f"{folder / 'report.json'} does not follow from the ledgers beside it "
            f"({found[0].section}: {found[0].subject}); make it anew with `privagg report {folder}`"
        )
    path = output or folder / NAME
    made.write(path)
    console.console().print(f"bundle   {path}", markup=False, soft_wrap=True)


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
    """
    from privagg.audit import DEFAULT_WORK, Brought, Methods, Verdict, Work, verify_file

    spending = Work(DEFAULT_WORK if work is None else work)
    brought = Brought(
        checkpoints=[_checkpoint(path) for path in checkpoint or ()],
        keys=dict(_key(text) for text in key or ()),
        model_sha256=None if model is None else _digest(model),
        every_charge=every_charge,
        methods=Methods(spending),
    )
    wanted = _required(require)
    with shown(spending, console.console(stderr=True)):
        made = verify_file(source, brought)
    if as_json:
        console.print_json(made.to_json())
    else:
        print_verification(console.console(), made)
    if not made.holds:
        raise typer.Exit(1)
    unproved = [c for name in wanted for c in made.named(name) if c.verdict is not Verdict.PROVED]
    if unproved:
        names = ", ".join(f"{c.name} ({c.verdict.value})" for c in unproved)
        typer.echo(f"required, and not proved: {names}", err=True)
        raise typer.Exit(3)


PATIENCE = 2.0
"""Seconds after which a terminal shows how far a verification is."""


@contextmanager
def shown(work: Work, out: Console) -> Iterator[None]:
    """Shows, on a terminal and when it takes long, how much of the work limit is spent."""
    progress = Progress(
        TextColumn("[bold]verifying"), BarColumn(bar_width=40), TaskProgressColumn(),
        TextColumn("of the work limit"), TimeElapsedColumn(), console=out, transient=True,
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

    _print_verdict(out, made)
    what = "bundle" if made.kind == "bundle" else "report without its ledgers"
    out.print(
        Text(_plain(f"{made.federation}, run {made.run} ({what})"), style="bold"), soft_wrap=True
    )
    decided = [c for c in made.claims if c.verdict in (Verdict.PROVED, Verdict.CONTRADICTED)]
    widths = _widths(made.claims, out.width)
    section = note = ""
    for claim in decided:
        if claim.section != section:
            section = claim.section
            out.print()
            title = Text(_cell(section, widths[0] + 16), style="bold")
            title.append(f"{_cell('claimed', widths[1])}recomputed", style="not bold dim")
            out.print(title, soft_wrap=True)
            note = ""
        _print_claim(out, claim, widths, with_note=claim.note != note)
        note = claim.note
    _print_rest(
        out, made.of(Verdict.ATTESTED), "Attested: somebody's word, and what would settle it"
    )
    _print_rest(out, made.of(Verdict.UNDECIDED), "Not decided by this file, and what would")


def _widths(claims: tuple[Claim, ...], total: int) -> tuple[int, int]:
    """Columns as wide as their contents, within what the terminal has."""
    room = max((total - 16) // 3, 24)
    subjects = max((len(claim.subject) for claim in claims), default=0)
    values = max((len(claim.claimed) for claim in claims), default=0)
    return min(subjects, max(room, WIDEST)) + 2, min(values, max(room, 36)) + 2


def _plain(text: str) -> str:
    """A stranger's text without anything that could steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(_plain(text), max(width, 40)) or [""]


def _cell(text: str, width: int) -> str:
    text = _plain(text)
    return (text if len(text) <= width - 2 else f"{text[: width - 3]}…").ljust(width)


def _print_claim(out: Console, claim: Claim, widths: tuple[int, int], *, with_note: bool) -> None:
    """One line; a remark that the line before carried already is not said again."""
    from privagg.audit import Verdict

    proved = claim.verdict is Verdict.PROVED
    line = Text(
        f"  {'proved' if proved else 'CONTRADICTED':14}", style="green" if proved else "bold red"
    )
    plain = "not bold default"
    line.append(f"{_cell(claim.subject, widths[0])}", style=plain)
    line.append(f"{_cell(claim.claimed, widths[1])}", style=plain)
    same = proved and claim.claimed == claim.recomputed
    line.append(
        "the same" if same else _plain(claim.recomputed), style="not bold dim" if same else plain
    )
    out.print(line, soft_wrap=True)
    if claim.note and with_note:
        style = "dim" if proved else "red"
        for part in _wrapped(claim.note, out.width - 16):
            out.print(Text(f"{'':16}{part}", style=style), soft_wrap=True)


def _print_rest(out: Console, claims: tuple[Claim, ...], heading: str) -> None:
    """What the evidence does not settle; the same about several parties stands once."""
    grouped: dict[tuple[str, str, str], list[Claim]] = {}
    for claim in claims:
        grouped.setdefault((_whose(claim), claim.subject, claim.settle), []).append(claim)
    if grouped:
        console.heading(out, heading)
    for (by, subject, settle), same in grouped.items():
        parties = [c.section for c in same if c.section not in ("bundle", "run", "report")]
        about = f" ({', '.join(parties)})" if parties else ""
        whose = f", attested by {by}" if by else ""
        said = {claim.claimed for claim in same}
        what = f"{said.pop()}. To settle it: " if len(said) == 1 and by else ""
        for number, part in enumerate(
            _wrapped(f"{subject}{about}{whose}: {what}{settle}", out.width - 4)
        ):
            out.print(Text(("  - " if number == 0 else "    ") + part), soft_wrap=True)


def _whose(claim: Claim) -> str:
    return "each of them" if claim.by and claim.by == claim.section else claim.by


def _print_verdict(out: Console, made: Verification) -> None:
    """The first line: whether anything is contradicted, and how much rests on somebody's word."""
    from privagg.audit import Verdict

    counts = {verdict: len(made.of(verdict)) for verdict in Verdict}
    rest = (
        f"{counts[Verdict.ATTESTED]} claims are attested, {counts[Verdict.UNDECIDED]} not decided"
    )
    failed = counts[Verdict.CONTRADICTED]
    if failed:
        head = Text("CONTRADICTED", style="bold red")
        rest_of_line = (
            f": {failed} of {len(made.claims)} claims; do not rely on this report. {rest}."
        )
    else:
        head = Text("NOTHING CONTRADICTED", style="bold green")
        rest_of_line = f": {made.compared} values proved; {rest}."
    out.print(head.append(rest_of_line, style="not bold default"), soft_wrap=True)
