"""`ledger`: what an institution's ledger says, whether it is whole, its key and copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privagg.cli import console
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.privacy.ledger import Ledger

app = typer.Typer(
    help="Look into an institution's ledger, check it, copy it, change its key.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Location = Annotated[
    str, typer.Argument(metavar="LEDGER", help="Path of a ledger, or a database URL.")
]


@app.command()
def show(
    ledger: Location,
    last: Annotated[int, typer.Option(help="How many charges to list; 0 lists all.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what was spent of which budget, and the last charges.

    [bold]Example[/bold]

      privagg ledger show out/parties/riverside/ledger.sqlite --last 5
    """
    opened = _open(ledger)
    if as_json:
        console.print_json(_as_json(opened))
        return
    out = console.console()
    console.facts(
        out,
        (
            ("owner", opened.owner),
            ("entries", str(len(opened))),
            ("signing key", opened.verifier.encode()),
            ("Merkle root", opened.root().hex()),
        ),
    )
    for key in opened.keys():  # noqa: SIM118 - a method of the ledger, not of a dict
        _print_budget(opened, key, last)
    if not opened.keys():
        out.print("\nNo budget is set in this ledger.")


def _open(location: str) -> Ledger:
    from privagg.privacy.ledger import Ledger

    return Ledger.open(location)


def _print_budget(ledger: Ledger, key: Any, last: int) -> None:
    from privagg.report.figures import delta_text, epsilon_text

    out, spending = console.console(), ledger.spent(key)
    console.heading(out, f"{key.dataset} (unit: {key.unit})")
    spent, budget = spending.epsilon.upper, spending.epsilon_budget
    share = f", {spent / budget:.0%}" if budget.is_finite() and budget and spent.is_finite() else ""
    out.print(
        f"ε {epsilon_text(spent, 6)} spent of {epsilon_text(budget, 6)}{share}, "
        f"at δ = {delta_text(spending.delta)}, in {spending.charges} charges"
    )
    points = ledger.history(key)
    shown = points[-last:] if last else points
    if len(shown) < len(points):
        out.print(f"the last {len(shown)} of {len(points)} charges:", style="dim")
    if shown:
        console.table(
            out,
            ("entry", "run", "round", "attempt", "ε after", "budget then"),
            [
                (
                    str(p.index), p.run, str(p.round), str(p.attempt),
                    epsilon_text(p.epsilon_after, 6), epsilon_text(p.epsilon_budget, 6),
                )
                for p in shown
            ],
            left=(0, 1),
        )  # fmt: skip


def _as_json(ledger: Ledger) -> dict[str, Any]:
    budgets = []
    for key in ledger.keys():  # noqa: SIM118 - a method of the ledger, not of a dict
        spending = ledger.spent(key)
        lower = spending.epsilon.lower
        budgets.append(
            {
                "dataset": key.dataset,
                "unit": key.unit,
                "epsilon_spent": format(spending.epsilon.upper, "f"),
                "epsilon_spent_lower": None if lower is None else format(lower, "f"),
                "epsilon_budget": format(spending.epsilon_budget, "f"),
                "delta": format(spending.delta, "f"),
                "charges": spending.charges,
                "event": spending.event.model_dump(mode="json"),
                "history": [
                    {
                        "entry": p.index, "run": p.run, "round": p.round, "attempt": p.attempt,
                        "epsilon_after": format(p.epsilon_after, "f"),
                    }
                    for p in ledger.history(key)
                ],
            }
        )  # fmt: skip
    return {
        "owner": ledger.owner,
        "entries": len(ledger),
        "root": ledger.root().hex(),
        "checkpoint": ledger.checkpoint(),
        "public_key": ledger.verifier.encode(),
        "budgets": budgets,
    }


@app.command()
def checkpoint(ledger: Location) -> None:
    """Print the signed checkpoint; whoever keeps one finds any later change of what it covers.

    [bold]Example[/bold]

      privagg ledger checkpoint out/parties/riverside/ledger.sqlite > kept.checkpoint
    """
    typer.echo(_open(ledger).checkpoint(), nl=False)


@app.command()
def kept(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Who kept: a site's ledger, the coordinator's checkpoints.sqlite, or the key "
            "holder's openings-checkpoints.sqlite.",
        ),
    ],
    site: Annotated[
        str | None, typer.Option(help="Print the checkpoint kept of this site's ledger.")
    ] = None,
    entries: Annotated[
        int | None,
        typer.Option(help="Not the latest, but the one that covers so many entries or just fewer."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all of them, not the latest.")] = False,
) -> None:
    """List the checkpoints kept of other ledgers, or print one for an auditor.

    [bold]Examples[/bold]

      privagg ledger kept out/parties/coordinator/checkpoints.sqlite

      privagg ledger kept out/parties/lakeview/ledger.sqlite --site riverside > riverside.checkpoint

      privagg verify out/bundle.privagg.zip --checkpoint riverside.checkpoint
    """
    from privagg.privacy.ledger import Checkpoint, CheckpointKeeper
    from privagg.privacy.ledger.ledger import ORIGIN_PREFIX

    keeper = CheckpointKeeper.read(store)
    found = [(note, Checkpoint.parse(note)) for note in keeper.all()]
    if site is not None:
        fitting = [
            note
            for note, checkpoint in found
            if checkpoint.origin == ORIGIN_PREFIX + site
            and (entries is None or checkpoint.size <= entries)
        ]
        if not fitting:
            names = sorted({c.origin.removeprefix(ORIGIN_PREFIX) for _, c in found})
            raise ConfigError(
                f"no such checkpoint of {site!r} is kept here; kept are those of "
                f"{', '.join(names) or 'nobody'} (see --all)"
            )
        typer.echo(fitting[-1], nl=False)
        return
    latest = {checkpoint.origin: checkpoint for _, checkpoint in found}
    shown = [checkpoint for _, checkpoint in found] if every else list(latest.values())
    console.table(
        console.console(),
        ("site", "entries", "Merkle root"),
        [(c.origin.removeprefix(ORIGIN_PREFIX), str(c.size), c.root.hex()) for c in shown],
        left=(0, 2),
    )


@app.command()
def verify(
    ledger: Location,
    kept: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="FILE", help="A checkpoint kept from earlier."),
    ] = None,
) -> None:
    """Recompute every hash, signature and running total; exit 2 where something was changed.

    [bold]Example[/bold]

      privagg ledger verify out/parties/riverside/ledger.sqlite --checkpoint kept.checkpoint
    """
    opened = _open(ledger)
    remarks = opened.verify(None if kept is None else _read_checkpoint(kept))
    out = console.console()
    out.print(f"[bold green]holds[/bold green]: {len(opened)} entries, chain, signatures, totals")
    for remark in remarks:
        out.print(f"note: {remark}", markup=False)


def _read_checkpoint(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the checkpoint {path}: {error}") from error


@app.command()
def backup(
    ledger: Location,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the copy.")],
) -> None:
    """Copy a ledger into a file, also while it is in use. Rounds' stored uploads stay out.

    [bold]Example[/bold]

      privagg ledger backup out/parties/riverside/ledger.sqlite riverside-2027-03-01.backup
    """
    opened = _open(ledger)
    opened.backup(target)
    console.console().print(f"{len(opened)} entries of {opened.owner} in {target}", markup=False)


@app.command()
def export(
    ledger: Location,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the export.")],
) -> None:
    """Write a ledger as others can replay it: entries and checkpoints, no keys, no stored uploads.

    Other parties ask for it where the ledger names a new key (`privagg deploy join --ledger`).

    [bold]Example[/bold]

      privagg ledger export riverside/ledger.sqlite riverside.ledger
    """
    opened = _open(ledger)
    opened.export(target)
    console.console().print(f"{len(opened)} entries of {opened.owner} in {target}", markup=False)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `backup` wrote.")],
    ledger: Annotated[str, typer.Argument(metavar="LEDGER", help="Where the ledger shall be.")],
    key: Annotated[Path, typer.Option(help="The key that the copy was last signed with (PEM).")],
    who: Annotated[str, typer.Option(help="Who decided.")],
    why: Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")],
    kept: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="Kept by another party; repeat it."),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="No other party ever saw an upload of this ledger's.")
    ] = False,
) -> None:
    """Go on from a backup that lacks nothing of what other parties saw of this ledger.

    An older copy would forget charges, and what they paid for would be spent twice. So ask each
    party of the last run for the checkpoint that it keeps (`privagg ledger kept`). With an older
    copy go on under a new name, with a budget less what was spent.

    [bold]Example[/bold]

      privagg ledger restore riverside.backup out/parties/riverside/ledger.sqlite
      --key out/parties/riverside/identity.pem --who "Dr. Ito" --why "disk failed"
      --checkpoint from-lakeview --checkpoint from-coordinator
    """
    from privagg.privacy.ledger import Ledger

    if not kept and not alone:
        raise ConfigError(
            "give --checkpoint FILE for each party that keeps one of this ledger, so that a copy "
            "that lacks charges is found; or --alone where no other party ever saw it"
        )
    notes = [_read_checkpoint(path) for path in kept or ()]
    opened = Ledger.restore(
        source, ledger, signing_key=_key(key), who=who, why=why, checkpoints=notes
    )
    console.console().print(
        f"{len(opened)} entries of {opened.owner}, held against {len(notes)} kept checkpoints",
        markup=False,
    )


@app.command()
def adopt(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A local run's output folder.")],
) -> None:
    """Carry what earlier versions kept under an output folder over into the parties' own folders.

    Ledgers, keys, memories, openings and checkpoints move from OUT/ledgers, OUT/keys, OUT/owners
    and OUT/keyholder to OUT/parties/NAME/. Until then nothing is run or reported there. After a
    power loss, type it again.

    [bold]Example[/bold]

      privagg ledger adopt out
    """
    from privagg.party.local import adopt as carry_over

    moved = carry_over(folder)
    for path in moved:
        console.console().print(str(path), markup=False, soft_wrap=True)
    console.note(f"{len(moved)} files carried over" if moved else "nothing to carry over")


@app.command()
def rotate(
    ledger: Location,
    key: Annotated[Path, typer.Option(help="The ledger's present signing key (PEM).")],
    new_key: Annotated[
        Path, typer.Option("--new-key", help="File for the new key; made where absent.")
    ],
    who: Annotated[str, typer.Option(help="Who decided.")],
    why: Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")],
) -> None:
    """Change the key that signs a ledger and its owner's messages. Nothing spent is forgotten.

    The new key is stored first. The ledger's next checkpoint carries both keys' signatures, so
    whoever pinned the old key sees that its holder named the new one. Then put the new file where
    the old one was, make a new card (`privagg deploy party`), and have everybody join with
    --replace and the ledger's export (`privagg ledger export`), which shows them this entry; until
    then they refuse what the new key signs. Typed again after a power loss, it goes on where it
    was.

    [bold]Example[/bold]

      privagg ledger rotate riverside/ledger.sqlite --key riverside/identity.pem
      --new-key riverside/identity.new.pem --who "Dr. Ito" --why "an administrator left"
    """
    from privagg.identity.keys import Identity
    from privagg.privacy.ledger import Ledger

    fresh = Identity.load_or_create("owner", new_key).key
    opened = _open(ledger)
    if _signs(opened, fresh):
        raise ConfigError(f"the ledger is signed by the key in {new_key} already")
    before = opened.verifier.encode()
    opened = Ledger.open(ledger, signing_key=_key(key))
    entry = opened.rotate_key(fresh, who=who, why=why)
    console.facts(
        console.console(),
        (
            ("entry", str(entry.index)),
            ("old key", before),
            ("new key", opened.verifier.encode()),
            (
                "next",
                f"put {new_key} in the place of {key}, make a new card, export the ledger; all "
                "join again with both",
            ),
        ),
    )
    typer.echo(opened.checkpoint(), nl=False)


@app.command("rotate-owner")
def rotate_owner(
    ledger: Location,
    key: Annotated[Path, typer.Option(help="The ledger's present signing key (PEM).")],
    new_owner_key: Annotated[
        Path, typer.Option("--new-owner-key", help="The owner's new key; made where absent.")
    ],
    who: Annotated[str, typer.Option(help="Who decided.")],
    why: Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")],
    owner_key: Annotated[
        Path | None, typer.Option("--owner-key", help="The owner's key until now (PEM).")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--without-old-key", help="It is lost; all approvals end.")
    ] = False,
    taking_back: Annotated[
        bool, typer.Option("--withdraw", help="The approvals in force end too.")
    ] = False,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for one that encrypts the new key.")
    ] = False,
) -> None:
    """Change the key that a ledger's owner approves with. Nothing spent is forgotten.

    Old and new key sign the change, and approvals in force stay so, unless --withdraw ends them:
    take it where the old key may have been copied. Put the new file in the old one's place.

    A lost key (--without-old-key) is replaced only directly after `privagg ledger rotate`, so that
    every peer sees it: they take part in nothing until they have compared the new card and joined
    again. All approvals end, and `privagg verify` says for ever that the old key did not agree.

    [bold]Examples[/bold]

      privagg ledger rotate-owner riverside/ledger.sqlite --key riverside/identity.pem
      --owner-key riverside/owner.pem --new-owner-key riverside/owner.new.pem
      --who "Dr. Ito" --why "Dr. Ito follows Dr. Mori"

      privagg ledger rotate-owner riverside/ledger.sqlite --key riverside/identity.new.pem
      --without-old-key --new-owner-key riverside/owner.new.pem --who "Dr. Ito" --why "disk failed"
    """
    from privagg.cli.approve import new_passphrase, passphrase_for
    from privagg.identity.owner import make_owner_key, read_owner_key
    from privagg.privacy.ledger import Ledger, sign_owner_key_change

    if (owner_key is None) != lost:
        raise ConfigError("give the owner's present key (--owner-key), or say that it is lost "
                          "(--without-old-key)")  # fmt: skip
    opened = Ledger.open(ledger, signing_key=_key(key))
    if not opened.owner_key:
        raise ConfigError("this ledger knows no owner yet; the first approval introduces its key")
    old = opened.owner_key if owner_key is None else read_owner_key(
        owner_key, passphrase_for(owner_key)
    )  # fmt: skip
    if new_owner_key.exists():
        new = read_owner_key(new_owner_key, passphrase_for(new_owner_key))
    else:
        new = make_owner_key(new_owner_key, new_passphrase(new_owner_key) if passphrase else None)
    standing = len(opened.approvals())
    act = sign_owner_key_change(
        new, old, opened.origin, who=who, why=why, keeps=not (lost or taking_back)
    )
    entry = opened.decide(act)
    console.facts(
        console.console(),
        (
            ("entry", str(entry.index)),
            ("old key", act.old_key + (", which did not agree" if lost else "")),
            ("new key", act.owner_key),
            ("approvals", f"{standing} {'stand' if act.keeps else 'ended; approve anew'}"),
            ("next", f"put {new_owner_key} in the place of {owner_key or 'the lost key'}"),
        ),
    )


def _key(path: Path) -> Any:
    """The private key of a ledger's owner; never made here, where it could sign nothing."""
    from privagg.identity.keys import Identity

    if not path.is_file():
        raise ConfigError(f"there is no key at {path}; a ledger is changed with its own key only")
    return Identity.load_or_create("owner", path).key


def _signs(ledger: Ledger, key: Any) -> bool:
    from privagg.privacy.ledger import Verifier

    return Verifier.of(ledger.verifier.name, key) == ledger.verifier
