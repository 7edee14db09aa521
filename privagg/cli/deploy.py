"""`deploy`: a federation across machines, on Flower; from everybody's keys to how the run ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privagg.cli import console
from privagg.errors import ConfigError, DataError, DeploymentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from privagg.federation import Federation
    from privagg.flower.deploy.folder import FlowerFolder
    from privagg.flower.deploy.join import Agreement
    from privagg.party.folder import PartyFolder

HELP = """Run a federation across machines, on Flower, with TLS and authenticated nodes.

Each institution makes its own secrets on its own machine and hands out one
public card. Nothing secret ever travels.

[bold]Each party, on its own machine[/bold]

  privagg deploy party riverside my.toml    its folder, and its card
  privagg deploy join riverside *.card      check and pin all cards
  privagg approve --party riverside         the owner's decision
  privagg deploy start riverside            its parts, until Ctrl-C

The coordinator adds --superlink HOST:PORT to `party`; then

  privagg deploy status coordinator         nodes, and how runs ended

[bold]All of it on one machine, for trying out[/bold]

  privagg deploy trial my.toml trial
  privagg approve my.toml --all-sites --deployment trial
  privagg deploy up trial

[bold]A Flower app of your own[/bold]: privagg deploy pack, approve; examples/flower_heart

The guide with every step: examples/flower/README.md
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The federation's file.")]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE=SHA256",
        help="Code that the file names and that may run here: you have read it. Recorded.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A party's folder.")]


@app.command()
def party(
    name: Annotated[str, typer.Argument(help="A site's name, key-holder, or coordinator.")],
    config: ConfigPath,
    folder: Annotated[
        Path | None, typer.Option(help="The party's folder; by default its name, here.")
    ] = None,
    superlink: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Coordinator only: where the nodes reach it."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A site's own data, in place of the configuration's path.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels of image data.")] = None,
    trust_code: TrustCode = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for one that encrypts the owner's key.")
    ] = False,
) -> None:
    """Make a party's folder with secrets of its own, and its public card.

    Run it where the party lives. A site's data are looked at. Typed again, it keeps all secrets and
    whatever is not said anew: a wrong --data or --superlink is corrected by the right one.

    No encryption key is made or handed round: whoever opens makes one for each run, under its
    identity key. The owner's key, owner.pem, signs approvals alone: no process that serves reads
    it, so keep it elsewhere if you can.

    [bold]Examples[/bold]

      privagg deploy party riverside my.toml --data patients.csv

      privagg deploy party coordinator my.toml --superlink fl.example.org:9092
    """
    from privagg.flower.deploy.join import card_of, make_party
    from privagg.flower.resident import socket_of
    from privagg.party.folder import PartyFolder

    root = folder or Path(name)
    federation, agreement = _agreed(config, root, trust_code)
    agreement.check(name)
    if name in agreement.nodes:
        socket_of(PartyFolder(root))
    own = {"data": _from_here(data), "labels": _from_here(labels)}
    remarks = _data_remarks(federation, root, name, own) if name in agreement.sites else []
    made = make_party(
        root, name, agreement, config, **own, superlink=superlink,
        passphrase=_new_passphrase(root) if passphrase else None,
    )  # fmt: skip
    if trust_code:
        _write_trust([made.party], federation)
    card = card_of(made, agreement)
    path = root.parent / f"{name}.card"
    card.write(path, made.party.identity())
    out = console.console()
    pairs = [("folder", f"{root}/ (secret: keep it on this machine, and back it up)")]
    pairs.append(("card", f"{path} (public: give it to every other party)"))
    console.facts(out, pairs)
    for remark in remarks:
        console.note(f"data of {name}, for its owner only: {remark}")
    console.note(
        f"next, once everybody's cards are here: privagg deploy join {root} *.card; then the owner "
        f"approves: privagg approve --party {root}"
    )


def _from_here(path: str | None) -> str | None:
    """A path as `party.toml` says it; a data set's factory stays as it is."""
    return path if path is None or ":" in path else str(Path(path).resolve())


def _data_remarks(
    federation: Federation, root: Path, name: str, own: Mapping[str, str | None]
) -> list[str]:
    """What the owner of a site's data should know of them.

    Raises:
        ConfigError, DataError: those that are named now cannot; nothing was made or changed.
    """
    from privagg.config.jobs import agreed_job
    from privagg.party.folder import PartyFile, PartyFolder
    from privagg.party.usable import require_usable

    held = PartyFolder(root)
    before = held.party() if held.party_file.exists() else PartyFile(name=name)
    said = {key: path for key, path in own.items() if path is not None}
    try:
        found = require_usable(
            agreed_job(federation.setup), before.model_copy(update={"name": name, **said}), root
        )
    except (ConfigError, DataError) as error:
        if said:
            raise
        return [f"{error}. {name} cannot start so; give --data FILE with this command"]
    return [f"{one.column}: {one.message}" if one.column else one.message for one in found]


@app.command()
def join(
    folder: Folder,
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="Everybody's cards.")],
    expect: Annotated[
        str | None, typer.Option(metavar="CODE", help="Go on only if the fingerprint is this one.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on this machine.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Coordinator only: address that the SuperLink listens on.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Accept other keys of a party than before.")
    ] = False,
    ledgers: Annotated[
        list[Path] | None,
        typer.Option("--ledger", metavar="FILE", help="Export of a ledger that names a new key."),
    ] = None,
) -> None:
    """Check that everybody's cards belong together, and pin what is in them.

    Prints one fingerprint over all cards. Read it out in a call with all parties before you
    start: where it differs, somebody's card was exchanged on its way.

    Where a party changed its identity key, says what that party's ledger (--ledger) notes of it;
    an export that does not lead from the old key to the new one is refused.

    [bold]Examples[/bold]

      privagg deploy join riverside *.card

      privagg deploy join riverside *.card --replace --ledger hillcrest.ledger
    """
    from privagg.flower.deploy import join as joining
    from privagg.party import rotations
    from privagg.party.cards import Card, fingerprint, same_fingerprint

    held = _folder(folder)
    _, agreement = _agreed(held.party.federation_file, folder)
    read = [Card.read(path) for path in cards]
    if expect is not None and not same_fingerprint(expect, fingerprint(read)):
        raise DeploymentError(
            f"the cards' fingerprint is {fingerprint(read)}, not the expected one; nothing was "
            "changed. Compare the cards with the other parties, one by one"
        )
    changed = rotations.new_keys(held.party, read, ledgers or ())
    for one in changed:
        console.note(one.words)
    made = joining.join(held, agreement, read, listen=listen, port=port, replace=replace)
    _print_cards(made)
    console.note("read the fingerprint out in a call with all parties; it is the same everywhere")


def _print_cards(made: Any) -> None:
    from privagg.party import node_keys as nodekeys

    out = console.console()
    console.table(
        out,
        ("party", "identity", "node key"),
        [
            (card.party, card.identity[:16],
             nodekeys.fingerprint(card.node_key) if card.node_key else "none: it has no node")
            for card in made.cards
        ],
        left=(0, 1, 2),
    )  # fmt: skip
    out.print()
    console.facts(out, [("fingerprint", made.fingerprint)])
    if made.changed:
        console.note(f"changed: {', '.join(made.changed)}")


@app.command()
def start(folder: Folder) -> None:
    """Start this party's parts and watch them until Ctrl-C.

    At the coordinator: the SuperLink, which registers the nodes on the cards. Elsewhere: a
    SuperNode, which keeps trying until the SuperLink accepts it. What they print goes to
    FOLDER/flower/logs.

    [bold]Example[/bold]

      privagg deploy start riverside
    """
    from privagg.flower.deploy.supervisor import asked_to_stop
    from privagg.flower.deploy.trial import start_party

    with asked_to_stop():
        try:
            start_party(_folder(folder), _report)
        except KeyboardInterrupt:
            _report("stopped")


@app.command()
def status(
    folder: Folder,
    run: Annotated[int | None, typer.Option(help="Flower's number of one run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how a party's deployment stands, why, and what to type next.

    At the coordinator (or with a trial's folder): who is connected, how runs ended and why, days
    left of the certificate. Elsewhere: whether and why the SuperLink is not reached, until when the
    owner approved, and whether the budget has room for another run.

    Exit codes: 0 nothing failed, 2 the SuperLink does not answer the coordinator, or the run that
    was asked for (or else the newest) failed.

    [bold]Example[/bold]

      privagg deploy status coordinator --run 3890120549032309680
    """
    from privagg.cli.deploystatus import facts_at, print_facts

    facts = facts_at(folder, run)
    if as_json:
        console.print_json(facts)
    else:
        print_facts(console.console(), facts)
    if "written" in facts and facts["trouble"]:
        raise DeploymentError(facts["trouble"])
    shown = facts.get("runs") or [{"status": ""}]
    if shown[0]["status"] in ("finished:failed", "finished:stopped"):
        raise typer.Exit(2)


@app.command()
def renew(
    folder: Folder,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long the new one is valid.")] = 90,
) -> None:
    """Make a new certificate for the SuperLink, under the same authority and for the same key.

    The nodes need nothing new. Restart the coordinator's parts afterwards.

    [bold]Example[/bold]

      privagg deploy renew coordinator
    """
    from privagg.flower.deploy import join as joining
    from privagg.party import certificates

    made = joining.renew(_folder(folder), days=days)
    left = certificates.days_left(made.certificate) + 1
    console.console().print(f"the certificate is valid for {left} days", markup=False)


@app.command()
def pack(
    source: Annotated[Path, typer.Argument(metavar="APP", help="The folder of a Flower app.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; by default NAME.fab.")
    ] = None,
) -> None:
    """Pack a Flower app of your own into the archive that travels, and say its SHA-256.

    The archive goes to every owner, who reads it and approves it; then to `privagg run --app`.

    [bold]Example[/bold]

      privagg deploy pack my-app
    """
    from privagg.flower.app_runs import AppArchive

    archive = AppArchive.at(source)
    path = output or Path(f"{archive.name}.fab")
    try:
        path.write_bytes(archive.data)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    pairs = [("archive", str(path)), ("SHA-256", archive.sha256)]
    console.facts(console.console(), [*pairs, ("files", ", ".join(archive.files))])
    console.note(
        f"every party but the coordinator reads it (unzip {path} -d app) and then: privagg deploy "
        f'approve FOLDER {path} --why "..."'
    )


@app.command()
def approve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A party's, or a trial's.")],
    what: Annotated[
        str, typer.Argument(metavar="APP", help="The app's folder, its archive (.fab), or SHA-256.")
    ],
    why: Annotated[str, typer.Option(help="Who read it, and why it may run beside the data.")],
) -> None:
    """Let an app with code of its own run at this node. privagg's own apps need no approval.

    Whoever submits a run could otherwise have any program run beside the data. Read the app's
    code first. What is approved is the archive, by its SHA-256: another version needs another
    approval.

    [bold]Examples[/bold]

      privagg deploy approve riverside my-app.fab --why "Dr. Ito read version 3"

      privagg deploy approve trial my-app --why "trying it out"     every node of a trial
    """
    from privagg.flower.app_runs import AppArchive
    from privagg.flower.deploy.folder import add_approved
    from privagg.flower.deploy.trial import nodes_beside
    from privagg.protocol.names import COORDINATOR

    sha256 = AppArchive.at(Path(what)).sha256 if Path(what).exists() else what.lower()
    whole = folder / COORDINATOR
    nodes = nodes_beside(_folder(whole)) if whole.is_dir() else {"": _folder(folder)}
    for node in nodes.values():
        add_approved(node, sha256, why)
        console.console().print(
            f"approved {sha256[:16]}… at {node.party.root}", markup=False, soft_wrap=True
        )


@app.command()
def trial(
    config: ConfigPath,
    folder: Annotated[Path, typer.Argument(help="Where all parties' folders go.")],
    trust_code: TrustCode = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Go on with another configuration in the same file.")
    ] = False,
) -> None:
    """Make every party's folder on this machine, for trying out: keys, certificates, cards, pins.

    Typed again it keeps them. Where the file says something else than before, such as columns that
    `privagg ask --for` proposed, --replace has all parties join again; keys and ledgers stay.

    [bold]Example[/bold]

      privagg deploy trial my.toml trial
    """
    from privagg.config.data import AppData
    from privagg.flower.deploy.processes import require_flower
    from privagg.flower.deploy.trial import make_trial
    from privagg.flower.resident import socket_of
    from privagg.party.folder import PartyFolder

    require_flower()
    federation, agreement = _agreed(config, folder, trust_code)
    for name in agreement.nodes:
        socket_of(PartyFolder(folder / name))
    made = make_trial(folder, config, agreement, replace=replace)
    if trust_code:
        _write_trust([party.party for party in made.parties.values()], federation)
    console.facts(
        console.console(),
        [("folder", f"{folder}/"), ("parties", ", ".join(made.parties))],
    )
    code = ""
    if isinstance(federation.config.data, AppData):
        code = f'; its code, once you read it: privagg deploy approve {folder} APP --why "..."'
    console.note(
        f"next: privagg approve {config} --all-sites --deployment {folder}{code}; then privagg "
        f"deploy up {folder}"
    )


@app.command()
def up(folder: Annotated[Path, typer.Argument(help="The folder of a trial.")]) -> None:
    """Start every party of a trial on this machine, and stop them all at Ctrl-C.

    [bold]Example[/bold]

      privagg deploy up trial
    """
    from privagg.flower.deploy.supervisor import asked_to_stop
    from privagg.flower.deploy.trial import Trial
    from privagg.flower.deploy.trial import up as all_parts

    with asked_to_stop():
        try:
            with all_parts(Trial.at(folder), _report) as supervisor:
                supervisor.run()
        except KeyboardInterrupt:
            _report("stopped")


def _report(message: str) -> None:
    console.console().print(message, markup=False, soft_wrap=True)
    sys.stdout.flush()  # whoever keeps the output in a file reads it while the parts run


def _folder(path: Path) -> FlowerFolder:
    from privagg.flower.deploy.processes import folder_at

    return folder_at(path)


def _agreed(
    config: Path, folder: Path | None = None, trusted: list[str] | None = None
) -> tuple[Federation, Agreement]:
    """The federation of a configuration, and what every party derives from it.

    Args:
        config: the configuration's path.
        folder: a party's, whose approvals say what code may run.
        trusted: `MODULE=SHA256` that its owner lets run before there is a ledger to say so.
    """
    from privagg.cli.training import open_federation
    from privagg.flower.deploy.join import Agreement

    federation = open_federation(config, folder)
    _trust(federation, trusted or [])
    return federation, Agreement.of(federation.setup, config)


def _trust(federation: Federation, trusted: list[str]) -> None:
    """Let the named code run in this process, if it is what lies here.

    Raises:
        ConfigError: it is not.
    """
    if not trusted:
        return
    code = federation.setup.factories()
    if not code:
        raise ConfigError(
            "--trust-code was given, and the configuration names no code; leave it out"
        )
    for one in code:
        if f"{one.module}={one.sha256}" not in trusted:
            raise ConfigError(
                f"{one.module} in {one.path} has SHA-256 {one.sha256}, and no --trust-code names "
                "it; nothing was imported"
            )
    federation.trust(code)


def _write_trust(folders: list[PartyFolder], federation: Federation) -> None:
    """Record the trust in code in the ledgers of the new folders, under their owners' keys."""
    from privagg.cli.approve import login, passphrase_for
    from privagg.identity.owner import read_owner_key
    from privagg.party.approving import Approver, Terms, approve_code, last_day

    terms = Terms(login(), "the configuration names it", last_day())
    for folder in folders:
        owner = read_owner_key(folder.owner_key, passphrase_for(folder.owner_key))
        approver = Approver(folder, owner, federation.setup)
        approve_code(approver, federation.setup.factories(), terms)


def _new_passphrase(root: Path) -> str | None:
    """A passphrase for a key that is yet to be made, asked for twice or from the environment.

    Raises:
        ConfigError: the key is there and not encrypted, or nobody is there to type a passphrase.
    """
    from privagg.cli.approve import new_passphrase
    from privagg.identity.owner import needs_passphrase

    path = root / "owner.pem"
    if not path.exists():
        return new_passphrase(path)
    if not needs_passphrase(path):
        raise ConfigError(
            f"{path} is there and not encrypted, and --passphrase encrypts new keys only; make one "
            "in its place: privagg ledger rotate-owner --passphrase"
        )
    return None
