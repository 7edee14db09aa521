"""`privagg deploy`: each step teaches the next, and what cannot be is one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privagg.cli import deploystatus
from privagg.cli.demo import write_demo
from privagg.flower.deploy import superlink as control
from privagg.flower.deploy.processes import folder_at
from privagg.flower.deploy.superlink import NodeState, RunState
from privagg.flower.deploy.supervisor import only_one
from privagg.flower.lead import alone
from privagg.party import certificates
from privagg.party.certificates import hosts_of, read_certificate
from tests.commands import call

SITES = ("riverside", "hillcrest", "lakeview")
PARTIES = ("coordinator", *SITES, "key-holder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial of the demo, made once by the command itself."""
    root = tmp_path_factory.mktemp("deploy")
    config = write_demo(root, scheme="plaintext")
    assert call("deploy", "trial", config, root / "trial").code == 0
    return root


@pytest.fixture
def root(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that a test may spoil; sockets have to fit into its path."""
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("copy") / "made"))


def test_help_teaches() -> None:
    code, out, _ = call("deploy", "--help")
    assert code == 0
    for word in ("party", "join", "start", "status", "trial", "examples/flower/README.md"):
        assert word in out
    for verb in ("party", "join", "start", "status", "renew", "approve", "trial", "up"):
        code, out, _ = call("deploy", verb, "--help")
        assert code == 0
        assert "Example" in out


def test_a_trial_has_every_party_with_secrets_of_its_own(root: Path) -> None:
    trial = root / "trial"
    for name in PARTIES:
        folder = folder_at(trial / name)
        assert set(folder.party.pins().roster) == set(PARTIES)
        assert (trial / f"{name}.card").exists()
    ports = {folder_at(trial / name).settings().port for name in PARTIES}
    assert len(ports) == len(PARTIES)


def test_a_trial_made_again_keeps_its_secrets(root: Path) -> None:
    def secrets() -> dict[Path, bytes]:
        files = (p for p in (root / "trial").rglob("*") if p.stat().st_mode & 0o777 == 0o600)
        passing = ("-wal", "-shm")  # of a database that somebody has open
        kept = (p for p in files if p.is_file() and not p.name.endswith(passing))
        return {path: path.read_bytes() for path in kept}

    before = secrets()
    assert len(before) > 12
    code, _, err = call("deploy", "trial", root / "breast-cancer.toml", root / "trial")
    assert (code, secrets()) == (0, before), err


def test_a_party_makes_its_folder_and_card_and_joins(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    shutil.copy("data/riverside.csv", "mine.csv")
    code, out, err = call(
        "deploy", "party", "riverside", "breast-cancer.toml", "--data", "mine.csv"
    )
    assert code == 0
    assert "riverside.card" in out
    assert "privagg deploy join riverside" in err
    assert folder_at(Path("riverside")).party.party().data == str(root / "mine.csv")
    cards = [f"trial/{name}.card" for name in PARTIES if name != "riverside"]
    code, _, err = call("deploy", "join", "riverside", *cards)
    assert code == 2
    assert "cards are missing: riverside" in err
    words = ("join", "riverside", "riverside.card", *cards)
    code, _, err = call("deploy", *words, "--expect", "0000 1111")
    assert code == 2
    assert "not the expected one" in err
    code, out, _ = call("deploy", *words)
    assert code == 0
    shown = next(line for line in out.splitlines() if line.startswith("fingerprint"))
    code, _, _ = call("deploy", *words, "--expect", shown.removeprefix("fingerprint"))
    assert code == 0


def test_a_wrong_file_or_address_is_corrected_by_the_same_command(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    config, folder = "breast-cancer.toml", folder_at(Path("trial/riverside"))
    made = ("party", "riverside", config, "--folder", "trial/riverside")
    before = folder.party.identity_key.read_bytes()
    for name in ("first.csv", "second.csv"):
        shutil.copy("data/riverside.csv", name)
        assert call("deploy", *made, "--data", name).code == 0
        assert folder.party.party().data == str(root / name)
    code, _, err = call("deploy", *made, "--data", "third.csv")
    assert (code, folder.party.party().data) == (2, str(root / "second.csv"))
    assert "no file" in err
    Path("second.csv").unlink()
    code, _, err = call("deploy", *made)  # its card may be wanted before its data are there
    assert code == 0
    assert "second.csv" in err
    assert "riverside cannot start so; give --data FILE" in err
    assert folder.party.party().data == str(root / "second.csv")
    assert folder.party.identity_key.read_bytes() == before

    coordinator = folder_at(Path("trial/coordinator"))
    made = ("party", "coordinator", config, "--folder", "trial/coordinator")
    key = coordinator.server_key.read_bytes()
    assert call("deploy", *made, "--superlink", "fl.example.org:9092").code == 0
    for words in (made, (*made, "--superlink", "fl.example.org:9093")):
        assert call("deploy", *words).code == 0
    certificate = read_certificate(coordinator.server_certificate.read_bytes())
    assert hosts_of(certificate)[0] == "fl.example.org"
    assert coordinator.at("superlink.address").read_text() == "fl.example.org:9093"
    assert coordinator.server_key.read_bytes() == key


def test_an_authority_kept_off_line_is_not_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    folder = folder_at(Path("trial/coordinator"))
    folder.authority_key.unlink()
    before = folder.authority.read_bytes()
    made = ("party", "coordinator", "breast-cancer.toml", "--folder", "trial/coordinator")
    assert call("deploy", *made).code == 0
    code, _, err = call("deploy", *made, "--superlink", "fl.example.org:9092")
    assert code == 2
    assert "where it is kept off line, bring it back for this" in err
    assert folder.authority.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("party", "mars", "breast-cancer.toml"), "knows no party 'mars'"),
        (("party", "coordinator", "breast-cancer.toml"), "--superlink host:port"),
        (("party", "coordinator", "breast-cancer.toml", "--superlink", "x"), "host:port"),
        (("party", "riverside", "breast-cancer.toml", "--superlink", "a:1"), "coordinator's"),
        (("party", "riverside", "absent.toml"), "there is no file absent.toml"),
        (("join", "trial/riverside", "breast-cancer.toml"), "is no party's card"),
        (("join", "nowhere", "trial/riverside.card"), "party.toml is missing"),
        (("start", "nowhere"), "party.toml is missing"),
        (("up", "nowhere"), "holds no trial"),
        (("renew", "trial/riverside"), "renew at the coordinator"),
        (("approve", "trial/riverside", "abc", "--why", "x"), "no SHA-256"),
        (("status", "nowhere"), "party.toml is missing"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    root: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(root)
    code, _, err = call("deploy", *words)
    assert code == 2
    assert said in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_renewing_and_approving(root: Path) -> None:
    code, out, _ = call("deploy", "renew", root / "trial" / "coordinator", "--days", 30)
    assert (code, out) == (0, "the certificate is valid for 30 days\n")
    code, _, _ = call(
        "deploy", "approve", root / "trial" / "riverside", "A" * 64, "--why", "read by Dr. Ito"
    )
    assert code == 0
    listed = (root / "trial" / "riverside" / "flower" / "approved.txt").read_text()
    assert listed == f"{'a' * 64}  read by Dr. Ito\n"


@pytest.mark.parametrize(
    ("ended", "code"),
    [("finished:completed", 0), ("running", 0), ("finished:failed", 2), ("finished:stopped", 2)],
)
def test_status_says_how_the_newest_run_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch, ended: str, code: int
) -> None:
    states = [RunState(7, ended, "why", "privagg/app"), RunState(6, "finished:failed", "", "x/y")]
    nodes = {"riverside": NodeState("online", "noon"), "hillcrest": NodeState("offline", "one")}
    monkeypatch.setattr(control, "runs", lambda folder: states)
    monkeypatch.setattr(control, "nodes", lambda folder: nodes)
    found, out, _ = call("deploy", "status", root / "trial" / "coordinator")
    assert found == code
    assert ended in out
    assert "hillcrest   no          one     stopped, or its machine or network is down" in out
    found, out, _ = call("deploy", "status", root / "trial" / "coordinator", "--json")
    assert found == code
    facts = json.loads(out)
    assert facts["nodes"] == {"riverside": True, "hillcrest": False}
    assert facts["runs"][0] == {
        "run": 7, "status": ended, "details": "why", "app": "privagg/app", "ended": "",
    }  # fmt: skip


def test_status_says_why_runs_ended_and_what_to_type_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = folder_at(root / "trial" / "coordinator")
    nodes = {name: NodeState("online", "noon") for name in PARTIES[1:]}
    monkeypatch.setattr(control, "runs", lambda folder: [RunState(7, "running", "", "a/b")])
    monkeypatch.setattr(control, "nodes", lambda folder: nodes)

    def told() -> str:
        return call("deploy", "status", root / "trial" / "coordinator").out

    assert f"next   privagg deploy start {coordinator.party.root}" in told()
    run = f"privagg run {root / 'breast-cancer.toml'} --runtime flower --deployment"
    with only_one(coordinator):
        assert f"its parts run (process {os.getpid()})" in told()
        assert told().splitlines()[-1].startswith(f"next   {run}")
        ended = coordinator.party.run_folder("demo-1")
        ended.mkdir(parents=True)
        (ended / "driving").touch()
        (ended / "rounds.jsonl").write_text('{"outcome": "opened"}\n{"outcome": "stopped"}\n')
        assert "demo-1   cut off             1" in told()
        assert told().splitlines()[-1].endswith("--resume demo-1")
        with alone(ended, "demo-1"):
            assert told().splitlines()[-1] == "next   wait for the run under way"
        result = {"outcome": "failed", "reason": "0 of 3 sites are there; nothing was spent"}
        (ended / "result.json").write_text(json.dumps(result))
        assert result["reason"] in told()
        assert told().splitlines()[-1].startswith(f"next   {run}")
        nodes["lakeview"] = NodeState("registered", "")
        assert "never connected" in told()
        assert "have lakeview start" in told().splitlines()[-1]
        later = datetime.now(UTC) + timedelta(days=80)
        monkeypatch.setattr(certificates, "_now", lambda: later)
        assert "9 days left: ends soon" in told()
        assert "next   privagg deploy renew" in told().splitlines()[-1]


@pytest.mark.parametrize("fits", [True, False])
def test_status_of_a_trial_submits_no_run_that_a_budget_has_no_room_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    trial = root / "trial"
    room = {"spent": "1", "after_another_run": "1.43", "budget": "1", "fits": fits}
    owner = {"approved_until": "2030-01-01", "approval_days_left": 90, "refusal": "", "room": room}
    monkeypatch.setattr(deploystatus, "_owners", lambda folder: owner)
    monkeypatch.setattr(control, "runs", lambda folder: [])
    nodes = {name: NodeState("online", "noon") for name in PARTIES[1:]}
    monkeypatch.setattr(control, "nodes", lambda folder: nodes)
    with only_one(folder_at(trial / "coordinator")):
        last = call("deploy", "status", trial).out.splitlines()[-1]
    config = root / "breast-cancer.toml"
    larger = f"privagg approve {config} --all-sites --deployment {trial} --budget E"
    assert last.startswith(f"next   {f'privagg run {config}' if fits else larger}")


def test_status_says_what_a_sites_owner_approved_and_what_there_is_room_for(root: Path) -> None:
    def told(where: str) -> tuple[str, str]:
        code, out, _ = call("deploy", "status", root / "trial" / where)
        assert code == 0
        return out, out.splitlines()[-1]

    assert told("riverside")[1] == f"next   privagg approve --party {root / 'trial' / 'riverside'}"
    words = ("approve", root / "breast-cancer.toml", "--all-sites", "--deployment", root / "trial")
    assert call(*words, "--yes").code == 0
    for party in ("riverside", "key-holder"):
        out, last = told(party)
        assert "90 days left" in out
        assert last == f"next   privagg deploy start {root / 'trial' / party}"
    out, _ = told("riverside")
    said = " ".join(out.split())
    assert re.search(r"ε 0 of \S+ spent; another run would bring it to 1\.00: there is room", said)
    folder = folder_at(root / "trial" / "riverside")
    with only_one(folder):
        out, last = told("riverside")
        assert "no SuperLink answers at 127.0.0.1" in out
        assert last == "next   see the SuperLink's line above"
    folder.party.ledger.unlink()
    assert "has approved nothing yet" in told("riverside")[0]


def test_status_at_a_site_asks_nobody(root: Path) -> None:
    code, out, _ = call("deploy", "status", root / "trial" / "riverside")
    assert code == 0
    assert "days left" in out


def test_a_superlink_that_does_not_answer_is_named(root: Path) -> None:
    for where in ("trial/coordinator", "trial"):
        code, out, err = call("deploy", "status", root / where)
        assert code == 2
        assert "its parts do not run" in out
        assert err.startswith("error: no SuperLink answers at 127.0.0.1:")
        assert "start it: privagg deploy start" in err
    assert "riverside: approval" in out
    approve = f"privagg approve {root / 'breast-cancer.toml'} --all-sites --deployment"
    assert f"next   {approve} {root / 'trial'}" in out
    facts = call("deploy", "status", root / "trial", "--json").json
    assert facts["process"] is None
    assert facts["owners"]["riverside"]["refusal"]
