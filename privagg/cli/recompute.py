"""`recompute`: an owner holds a site's integers against what was computed in a round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privagg.cli import console
from privagg.cli.approve import key_at
from privagg.cli.training import open_federation
from privagg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from privagg.config.setup import Setup
    from privagg.encoding.planned import RoundId
    from privagg.party.folder import PartyFolder
    from privagg.party.samples import Samples


def recompute(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The configuration file.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="With CONFIG: which site of a run on this machine.")
    ] = None,
    party: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A site's folder, on that site's own machine."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="By default the one kept last.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--round", min=1, help="By default the last that was kept.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=0, help="By default the last that was kept.")
    ] = None,
    keeping: Annotated[
        bool | None,
        typer.Option("--on/--off", help="Keep samples from the next start on, or no more."),
    ] = None,
    owner_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The owner's key, where it is kept elsewhere."),
    ] = None,
) -> None:
    """Recompute a round's integers before noise, as the owner of the records, on your machine.

    Off by default. Once its owner says --on, a site keeps which records it sampled in each
    round, in which slots, and the round's model, sealed for the owner's key, until the run's end:
    no seed, nothing from which noise follows (of a record-local round its first step). While the
    run is under way, or was cut off, this computes the clipped integers again from the records as
    they lie here, prints their digest, and exits with 1 where it is not the one of the round. It
    writes nothing.

    With engine exact-dense the integers follow from the records on any machine. With another engine
    last bits follow from the machine, its number of threads and its libraries, too: compare where
    the round was computed. The digest is as private as the records: keep it to yourself.

    [bold]Examples[/bold]

      privagg recompute my.toml --site north --on

      privagg recompute my.toml --site north             the last round

      privagg recompute --party riverside --round 3      in a deployment, on riverside's machine
    """
    from privagg.party.samples import Samples, keep_samples_for

    folder, setup = opened_site(config, site, party)
    name, out = folder.party().name, console.console()
    if keeping is False:
        keep_samples_for(folder, None)
        out.print(f"{name}: no samples are kept from its next start on; those kept are deleted")
        return
    owner = key_at(owner_key or folder.owner_key)
    if keeping:
        _require_sampling(setup)
        keep_samples_for(folder, owner)
        out.print(
            f"{name}: samples are kept from its next start on, for this owner's key alone",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return
    kept = Samples(folder)
    _compare(kept, _chosen(kept, name, (run, number, attempt)), owner, setup)


def opened_site(
    config: Path | None, site: str | None, party: Path | None
) -> tuple[PartyFolder, Setup]:
    """A site's folder, and the federation that it takes part in.

    Args:
        config: with `site`: a configuration whose parties lie on this machine.
        site: which of them.
        party: in place of both, the folder of a site on a machine of its own.

    Raises:
        ConfigError: neither is named, or both are; no such site.
    """
    from privagg.party.folder import PartyFolder
    from privagg.party.open import decided_folder
    from privagg.party.open import open_federation as pinned

    if party is not None:
        if config or site:
            raise ConfigError("--party names one site's folder; give it without CONFIG and --site")
        return PartyFolder(party), pinned(PartyFolder(party))
    if config is None or site is None:
        raise ConfigError("name a configuration file and --site NAME, or a folder with --party")
    setup = open_federation(config).setup
    setup.section(site)
    return decided_folder(setup, site), setup


def _require_sampling(setup: Setup) -> None:
    from privagg.privacy.plan import RecordPlan

    if not isinstance(setup.plan, RecordPlan):
        raise ConfigError(
            f"no records are sampled under mode {setup.plan.mode!r}, so there is nothing to keep"
        )


def _chosen(kept: Samples, name: str, said: tuple[str | None, int | None, int | None]) -> RoundId:
    """The last round that was kept, of those that fit what was said."""
    for place in reversed(kept.rounds()):
        if all(want in (None, found) for want, found in zip(said, place, strict=True)):
            return place
    wanted = " of this run, round or attempt" if any(word is not None for word in said) else ""
    raise ConfigError(
        f"{name} keeps no sample{wanted}: they are kept once its owner said privagg recompute "
        "--on, and deleted at the run's end"
    )


def _compare(kept: Samples, place: RoundId, owner: Ed25519PrivateKey, setup: Setup) -> None:
    """Recompute, print both digests, and exit with 1 where they differ."""
    from privagg.party.samples import recomputed

    found = kept.read(place, owner)
    digest, learner = recomputed(found, setup, kept.site)
    out, (run, number, attempt) = console.console(), place
    console.heading(out, f"{kept.site}, run {run}, round {number}, attempt {attempt}")
    same = digest == found.digest
    pairs = [
        ("integers before noise", f"SHA-256 {digest}"),
        ("as computed in the round", "the same" if same else f"SHA-256 {found.digest}"),
        ("keep to yourself", "the digest is as private as the records"),
    ]
    console.facts(out, pairs)
    if not same:
        out.print(_why(found.computed, learner.records_apart.facts()), markup=False, soft_wrap=True)
        raise typer.Exit(1)


def _why(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What a difference may come from, for the owner."""
    changed = [
        f"{key} {then.get(key)} then, {now.get(key)} now"
        for key in ("engine", "physical_batch", "threads", "device", "torch", "opacus")
        if then.get(key) != now.get(key)
    ]
    told = f" What differs: {'; '.join(changed)}." if changed else ""
    if then.get("engine") == "exact-dense":
        return (
            "They differ. With engine exact-dense that is not the machine: other records lie here "
            f"now, or they are encoded otherwise.{told}"
        )
    return (
        "They differ: other records lie here now; or another machine, number of threads or library "
        f"computed them, which with this engine moves last bits (exact-dense does not).{told}"
    )
