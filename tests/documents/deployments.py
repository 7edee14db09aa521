"""Directors of the sections that start a deployment's processes on this machine."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from privagg.flower.deploy.trial import _free_ports
from tests.commands import Answer
from tests.documents.directors import HEART, README, blocks_of, directs, write_federation
from tests.documents.reading import ROOT, Command, Place, read
from tests.documents.story import Story
from tests.flower.heart import write_federation as write_heart

GUIDE = "examples/flower/README.md"
READY = "ready: the SuperLink and"


def few_rounds(path: Path, name: str = "rounds") -> None:
    """Let a configuration be of one round: over Flower each takes seconds."""
    text, found = re.subn(rf"(?m)^{name} = \d+", f"{name} = 1", path.read_text())
    assert found == 1
    path.write_text(text)


@directs(README, "On several machines", mark="deployment")
def several_machines(story: Story) -> None:
    (whole, *_) = blocks_of(README, "Your own federation in five minutes", "toml")
    write_federation(story.folder, whole)
    few_rounds(story.folder / "my.toml")
    story.until("privagg approve")
    story.start("privagg deploy up", READY)
    assert "1/1" in story.until("privagg run").out
    story.rest()
    story.stop()
    require_files(story.folder / "trial" / "coordinator" / "out")


@directs(GUIDE, "Try it on one machine first", mark="deployment")
def on_one_machine(story: Story) -> None:
    story.until("privagg demo")
    few_rounds(story.folder / "demo" / "breast-cancer.toml")
    story.until("privagg approve")
    story.start("privagg deploy up", READY)
    story.said("privagg run demo/breast-cancer.toml --runtime flower --deployment trial")
    status = story.said("privagg deploy status trial/coordinator").out
    for name in ("riverside", "hillcrest", "lakeview", "key-holder"):
        assert name in status, "who is connected"
    assert "finished:completed" in status, "how runs ended"
    story.stop()


def require_files(output: Path) -> Path:
    """Model, report and bundle of the only run, in its folder below `out`."""
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    for name in ("model.safetensors", "report.json", "report.html", "bundle.privagg.zip"):
        assert (folder / name).stat().st_size > 0, name
    assert json.loads((folder / "report.json").read_text())["outcome"] == "finished"
    return folder


SITES = ("cleveland", "va")
"""Two of the guide's four: a site more is a dozen seconds more."""
NODES = (*SITES, "key-holder")
PARTIES = ("coordinator", *NODES)


class Machines:
    """Folders that stand for the parties' machines, each with the configuration and its own data.

    Where the guide says `cleveland`, `/srv/heart` and `fl.example.org:9092`, a command names the
    party, its folder and a port of this machine.

    Args:
        story: of the section.
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        made = write_heart(story.folder / "made", rounds=1, scheme="bfv")
        text = made.read_text().replace("budget_epsilon = inf", "budget_epsilon = 200")
        text = re.sub(
            r'(?s)\n\[\[sites\]\]\nname = "(?:hungarian|switzerland)".*?\n(?=\n)', "", text
        )
        text = text.replace("dropouts = 1", "dropouts = 0")
        self.ports = dict(zip(PARTIES, _free_ports(len(PARTIES)), strict=True))
        for party in PARTIES:
            self[party].mkdir()
            (self[party] / "federation.toml").write_text(text)
            (self[party] / "data").mkdir()
            for name in {party, "public"} & {*SITES, "public"}:
                shutil.copy(made.parent / "data" / f"{name}.csv", self[party] / "data")

    def __getitem__(self, party: str) -> Path:
        return self.story.folder / party

    def at(self, party: str, command: Command, *more: str, code: int = 0) -> Answer:
        """Do a command on a party's machine; `more` is what one machine for all makes needed."""
        here = {
            "/srv/heart/cleveland.csv": str(self[party] / "data" / f"{party}.csv"),
            "fl.example.org:9092": f"127.0.0.1:{self.ports['coordinator']}",
            "cleveland": party,
        }
        words = (*(here.get(word, word) for word in command.words), *more)
        return self.story.do(Command(command.place, words), code, self[party])

    def typed(self, party: str, text: str, code: int = 0) -> Answer:
        """Do a command of the director's own on a party's machine."""
        return self.at(
            party, Command(Place("a director", "", 0), tuple(shlex.split(text))), code=code
        )

    def hand_round(self) -> None:
        """Everybody sends their card to everybody."""
        for sender in PARTIES:
            for receiver in set(PARTIES) - {sender}:
                shutil.copy(self[sender] / f"{sender}.card", self[receiver])

    def join(self, command: Command, *more: str) -> str:
        """Everybody joins; the fingerprint, which is the same everywhere."""
        shown = set()
        for party in PARTIES:
            port = () if party == "coordinator" else ("--port", str(self.ports[party]))
            out = self.at(party, command, *port, *more).out
            shown |= {line for line in out.splitlines() if line.startswith("fingerprint")}
        (fingerprint,) = shown
        return fingerprint.removeprefix("fingerprint").strip()

    def start(self, coordinator: Command, node: Command) -> None:
        """Everybody's parts, the coordinator's first; then the party of each node answers."""
        self.story.open(coordinator, self["coordinator"])
        for party in NODES:
            words = tuple(party if word == "cleveland" else word for word in node.words)
            self.story.open(Command(node.place, words), self[party])
        self.story.wait("registered: ", "party is ready")

    def charges(self) -> list[int]:
        """How often each site's ledger was charged."""
        shown = (self.typed(s, f"privagg ledger show {s}/ledger.sqlite --json").json for s in SITES)
        return [sum(budget["charges"] for budget in each["budgets"]) for each in shown]


@directs(GUIDE, "The real thing", mark="deployment")
def on_machines_of_their_own(story: Story) -> None:
    machines = Machines(story)
    shutil.copy(machines["coordinator"] / "federation.toml", story.folder)
    story.said("privagg check federation.toml --no-data")
    machines.at("coordinator", story.take("privagg deploy party coordinator"))
    machines.at("key-holder", story.take("privagg deploy party key-holder"))
    party = story.take("privagg deploy party cleveland")
    for site in SITES:
        machines.at(site, party)
    machines.hand_round()
    join = story.take("privagg deploy join")
    fingerprint = machines.join(join)
    machines.at("va", join, "--port", str(machines.ports["va"]), "--expect", fingerprint)
    machines.at("va", join, "--expect", "0000 1111", code=2)
    approve = story.take("privagg approve")
    for node in NODES:
        machines.at(node, approve)
    starts = story.take("privagg deploy start coordinator"), story.take("privagg deploy start")
    machines.start(*starts)
    run = story.take("privagg run")
    machines.at("coordinator", run)
    done = require_files(machines["coordinator"] / "coordinator" / "out")
    status = story.take("privagg deploy status")
    assert "finished:completed" in machines.at("coordinator", status).out
    spent = machines.charges()
    machines.at("coordinator", run, "--resume", done.name)
    assert machines.charges() == spent == [1] * len(SITES)
    story.stop()
    for node in NODES:
        assert list((machines[node] / node / "flower" / "logs").iterdir())
    renewed_and_replaced(machines, join, party)
    machines.start(*starts)
    machines.at("coordinator", run)
    assert machines.charges() == [2] * len(SITES)
    story.stop()


def renewed_and_replaced(machines: Machines, join: Command, party: Command) -> None:
    """A new certificate, a ledger lost and restored at cleveland, another key at va."""
    renew, restore, backup, kept, rotate, export = (
        command_of(GUIDE, "Renewing, replacing", text)
        for text in (
            "privagg deploy renew coordinator",
            "privagg ledger restore",
            "privagg ledger backup",
            "privagg ledger kept",
            "privagg ledger rotate ledger.sqlite",
            "privagg ledger export ledger.sqlite",
        )
    )
    before = (machines["coordinator"] / "coordinator" / "flower" / "server.pem").read_bytes()
    machines.at("coordinator", renew)
    assert (
        machines["coordinator"] / "coordinator" / "flower" / "server.pem"
    ).read_bytes() != before
    ledger = machines["cleveland"] / "cleveland" / "ledger.sqlite"
    machines.at("cleveland", backup, "cleveland/ledger.sqlite", "copy")
    checkpoints = ("coordinator/checkpoints.sqlite", "--site", "cleveland", ">", "noted")
    machines.at("coordinator", kept, *checkpoints)
    shutil.copy(machines["coordinator"] / "noted", machines["cleveland"])
    for file in ledger.parent.glob("ledger.sqlite*"):
        file.unlink()
    decided = ("--who", "Dr. Ito", "--why", "the disk failed")
    places = ("copy", "cleveland/ledger.sqlite", "--key", "cleveland/identity.pem")
    machines.at("cleveland", restore, *places, "--checkpoint", "noted", *decided)
    assert machines.charges() == [1] * len(SITES)
    rotated(machines, rotate, export)
    machines.at("va", party)
    machines.hand_round()
    for receiver in set(PARTIES) - {"va"}:
        shutil.copy(machines["va"] / "va" / "va.ledger", machines[receiver])
    shutil.copy(machines["va"] / "va" / "va.ledger", machines["va"])
    machines.join(join, "--replace", "--ledger", "va.ledger")


def rotated(machines: Machines, rotate: Command, export: Command) -> None:
    """Another identity key at va, as the guide says it, in va's folder."""
    story, folder = machines.story, machines["va"] / "va"
    words = tuple("Dr. Ito" if word == "..." else word for word in rotate.words)
    story.do(Command(rotate.place, words), where=folder)
    (folder / "identity.new.pem").replace(folder / "identity.pem")
    words = tuple(word.replace("NAME", "va") for word in export.words)
    story.do(Command(export.place, words), where=folder)


def command_of(document: str, heading: str, begins: str) -> Command:
    """The first command in a section's sentences that begins so."""
    inline = read(ROOT / document).inline_commands()
    return next(c for c in inline if c.place.heading == heading and c.text.startswith(begins))


@directs(HEART, "", mark="deployment")
def flower_heart(story: Story) -> None:
    """The app with what privagg adds to it, run over a deployment; `flwr run` alone is refused."""
    folder = story.folder / "examples" / "flower_heart"
    require_additions(folder, story.block("diff"))
    few_rounds(folder / "flower_heart.toml")
    few_rounds(folder / "pyproject.toml", name="num-server-rounds")
    story.until("privagg deploy approve")
    story.start("privagg deploy up", READY)
    story.rest()
    require_files(story.folder / "trial" / "coordinator" / "out")
    story.stop()
    assert "privagg run" in story.type(f"flwr run {folder}", code=1).err
    assert [path.name for path in story.home.rglob("*") if path.is_file()] == ["config.toml"]
    shutil.rmtree(story.home / ".flwr")  # Flower's own settings, and no state of a simulation


def require_additions(folder: Path, diff: str) -> None:
    """The lines that privagg adds are in the app, and without them it is an ordinary Flower app."""
    sources = {path.name: path.read_text() for path in folder.rglob("*_app.py")}
    for name, removed, added in changes(diff):
        assert added in sources[name], f"{name} does not read {added!r}"
        sources[name] = sources[name].replace(added, removed)
    for name, text in sources.items():
        ast.parse(text)
        assert not re.search(r"(?m)^(?:from|import) privagg|private", text), name


def changes(diff: str) -> Iterator[tuple[str, str, str]]:
    """The changes of a diff whose files are named in comments: the file, the old lines, the new."""
    name, old, new = "", "", ""
    for line in [*diff.splitlines(), " "]:
        if line[:1] == "+":
            new += line[1:] + "\n"
        elif line[:1] == "-":
            old += line[1:] + "\n"
        else:
            if old or new:
                yield name, old, new
            old, new = "", ""
            name = line[3:] if line.startswith(" # ") else name
