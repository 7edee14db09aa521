"""`ledger`: what an institution's ledger says, whether it is whole, and changing a budget."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privagg.cli import console
from privagg.cli.options import check_delta, exact
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from privagg.privacy.ledger import Ledger

app = typer.Typer(
    help="Look into an institution's ledger, check it, change a budget.",
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

      privagg ledger show out/ledgers/riverside.sqlite --last 5
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

      privagg ledger checkpoint out/ledgers/riverside.sqlite > kept.checkpoint
    """
    typer.echo(_open(ledger).checkpoint(), nl=False)


@app.command()
def kept(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Who kept: a site's ledger, or checkpoints.sqlite of coordinator or key holder.",
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

      privagg ledger kept out/checkpoints.sqlite

      privagg ledger kept out/ledgers/lakeview.sqlite --site riverside > riverside.checkpoint

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

      privagg ledger verify out/ledgers/riverside.sqlite --checkpoint kept.checkpoint
    """
    text = None
    if kept is not None:
        try:
            text = kept.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the checkpoint {kept}: {error}") from error
    opened = _open(ledger)
    remarks = opened.verify(text)
    out = console.console()
    out.print(f"[bold green]holds[/bold green]: {len(opened)} entries, chain, signatures, totals")
    for remark in remarks:
        out.print(f"note: {remark}", markup=False)


@app.command()
def budget(
    ledger: Location,
    dataset: Annotated[str, typer.Option(help="Public name of the data set.")],
    epsilon: Annotated[
        Decimal, typer.Option("--epsilon", "-e", parser=exact, metavar="E", help="The new budget.")
    ],
    delta: Annotated[Decimal, typer.Option("--delta", "-d", parser=exact, metavar="D")],
    key: Annotated[Path, typer.Option(help="The ledger's signing key (PEM).")],
    who: Annotated[str, typer.Option(help="Who decided.")],
    why: Annotated[str, typer.Option(help="Why; it stands in the ledger for ever.")],
    unit: Annotated[str, typer.Option(help="record, site or person.")] = "record",
) -> None:
    """Set or change a data set's budget. What was spent stays spent.

    [bold]Example[/bold]

      privagg ledger budget out/ledgers/riverside.sqlite --key out/keys/riverside.pem
      --dataset riverside --epsilon 2 --delta 1e-5 --who "Dr. Ito" --why "second study, vote 12"
    """
    from privagg.identity import Identity
    from privagg.privacy.ledger import BudgetKey, Ledger
    from privagg.privacy.unit import Unit
    from privagg.report.figures import epsilon_text

    check_delta(delta)
    if unit not in {u.value for u in Unit}:
        raise ConfigError(f"unknown unit {unit!r}; choose record, site or person")
    if not key.is_file():
        raise ConfigError(f"there is no key at {key}; a budget is changed with the ledger's own")
    opened = Ledger.open(ledger, signing_key=Identity.load_or_create("owner", key).key)
    entry = opened.set_budget(BudgetKey(dataset, unit), epsilon, delta, who=who, why=why)
    console.console().print(
        f"entry {entry.index}: budget of {dataset} (unit: {unit}) is now ε = "
        f"{epsilon_text(epsilon, 9)}", markup=False,
    )  # fmt: skip
