"""A Flower app of one's own on a deployment: packed, approved by its SHA-256, submitted."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from privagg.errors import ConfigError, DeploymentError
from privagg.flower import app_runs
from privagg.flower.app_runs import AppArchive, submit_app, unapproved
from privagg.flower.bridge.inprocess import InProcessGrid
from privagg.flower.deploy.superlink import RunState
from privagg.flower.deploy.trial import Trial, nodes_beside
from privagg.flower.doors import private_grid
from privagg.flower.lead import FLOWER_RUN_NAME
from tests.commands import call

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flower_heart"
NODES = ["cleveland", "hungarian", "switzerland", "va", "key-holder"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app")
    shutil.copytree(EXAMPLE, root / "app", ignore=shutil.ignore_patterns("out", "__pycache__"))
    runpy.run_path(str(root / "app" / "prepare.py"))["prepare"](root / "app" / "out" / "data")
    code, _, err = call("deploy", "trial", root / "app" / "flower_heart.toml", root / "trial")
    assert code == 0, err
    assert "privagg deploy approve" in err
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_an_app_is_packed_the_same_way_and_without_what_does_not_run(root: Path) -> None:
    archive = AppArchive.at(Path("app"))
    assert archive.name == "flower-heart"
    assert "flower_heart/task.py" in archive.files
    assert not {"prepare.py", "flower_heart.toml"} & set(archive.files)
    code, out, _ = call("deploy", "pack", "app", "-o", "sent.fab")
    assert code == 0
    assert archive.sha256 in out
    assert AppArchive.at(Path("sent.fab")).sha256 == archive.sha256
    Path("app/flower_heart/task.py").write_text("# changed\n")
    assert AppArchive.at(Path("app")).sha256 != archive.sha256


@pytest.mark.parametrize("source", ["trial", "app/flower_heart.toml", "nowhere"])
def test_what_is_no_app_is_said(root: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=f"{source} holds no Flower app"):
        AppArchive.at(Path(source))


def packed(path: Path, manifest: str, **others: str) -> bytes:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pyproject.toml", manifest)
        for name, text in others.items():
            archive.writestr(name, text)
    return path.read_bytes()


@pytest.mark.parametrize("hostile", ["encrypted", "compressed somehow", "nested", "no table"])
def test_bytes_that_a_stranger_sent_are_refused_and_never_approved(
    root: Path, hostile: str
) -> None:
    path, fields = root / "sent.fab", {"encrypted": (6, 8, 1), "compressed somehow": (8, 10, 99)}
    manifest = {"nested": "x = " + "[" * 10**5, "no table": '[tool.flwr]\napp = "x"\n'}
    data = bytearray(packed(path, manifest.get(hostile, '[project]\nname = "app"\n')))
    if hostile in fields:
        local, central, value = fields[hostile]
        data[local] = data[data.index(b"PK\1\2") + central] = value
        path.write_bytes(data)
    code, _, err = call("deploy", "approve", "trial", path, "--why", "read")
    assert code == 2
    assert "sent.fab holds no Flower app" in err
    assert not list(root.glob("trial/*/flower/approved.txt"))


def test_an_app_whose_name_is_a_path_is_packed_and_approved_nowhere(root: Path) -> None:
    packed(root / "in" / "sent.fab", '[project]\nname = "../elsewhere"\n[tool.flwr.app]\n')
    before = set(root.parent.rglob("*"))
    for command in (("pack", "in/sent.fab"), ("approve", "trial", "in/sent.fab", "--why", "read")):
        code, _, err = call("deploy", *command)
        assert code != 0
        assert "has the name '../elsewhere'" in err
    assert set(root.parent.rglob("*")) == before


def test_names_in_an_archive_steer_no_terminal(root: Path) -> None:
    packed(root / "sent.fab", '[project]\nname = "app"\n[tool.flwr.app]\n', **{"\x1b[2Ja.py": ""})
    code, out, _ = call("deploy", "pack", "sent.fab")
    assert code == 0
    assert "\x1b" not in out


def test_owners_are_asked_by_name_and_approve_what_they_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = nodes_beside(Trial.at(Path("trial")).coordinator)
    assert list(nodes) == NODES
    monkeypatch.delattr("privagg.flower.app_runs.submit")
    run = ("run", "app/flower_heart.toml", "--runtime", "flower", "--deployment")
    assert call("deploy", "approve", "trial/cleveland", "app", "--why", "read").code == 0
    for deployment in ("trial", "trial/coordinator"):
        code, _, err = call(*run, deployment)
        assert code == 2
        assert "hungarian, switzerland, va, key-holder have not approved it" in err
        assert "privagg deploy approve" in err
    assert call("deploy", "approve", "trial", "app", "--why", "read").code == 0
    archive = AppArchive.at(Path("app"))
    assert unapproved(archive, nodes) == []
    listed = Path("trial/va/flower/approved.txt").read_text()
    assert listed == f"{archive.sha256}  read\n"


class SuperLink:
    """Stands for the SuperLink's side of a submission."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: str = "running") -> None:
        self.asked: list[Any] = []
        self.begins: Path | None = None
        monkeypatch.setattr(app_runs, "submit", self.submit)
        monkeypatch.setattr(
            app_runs, "state_of", lambda folder, number: RunState(number, status, "", "x/y")
        )
        monkeypatch.setattr(app_runs, "log_end", lambda folder, number: "ConfigError: why")

    def submit(self, folder: Any, app: Path, settings: Any, *, more: str, archive: Path) -> int:
        assert (app / "pyproject.toml").is_file()
        self.asked.append((settings, more, AppArchive.at(archive).sha256))
        if self.begins is not None:
            self.begins.mkdir(parents=True, exist_ok=True)
            (self.begins / FLOWER_RUN_NAME).write_text("7")
        return 7


def test_a_run_is_known_by_the_name_that_the_app_gave_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, archive = Trial.at(Path("trial")).coordinator, AppArchive.at(Path("app"))
    superlink = SuperLink(monkeypatch)
    other = folder.party.run_folder("other")
    other.mkdir(parents=True)
    (other / FLOWER_RUN_NAME).write_text("6")
    superlink.begins = folder.party.run_folder("flower-heart-1")
    found = submit_app(folder, archive, settings="local-steps=3")
    assert (found.run, found.flower_run, found.reported) == ("flower-heart-1", 7, 0)
    (superlink.begins / "result.json").write_text("{}")
    (superlink.begins / "rounds.jsonl").write_text('{"round": 1}\n')
    found = submit_app(folder, archive, resume="flower-heart-1")
    assert (found.run, found.reported) == ("flower-heart-1", 1)
    assert not (superlink.begins / "result.json").exists()  # how it ended before counts no more
    assert superlink.asked == [
        ({}, "local-steps=3", archive.sha256),
        ({"resume": "flower-heart-1"}, "", archive.sha256),
    ]


def test_an_app_that_begins_no_run_is_told_with_the_end_of_its_log(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SuperLink(monkeypatch, "finished:failed")
    folder, archive = Trial.at(Path("trial")).coordinator, AppArchive.at(Path("app"))
    with pytest.raises(DeploymentError, match="nothing was spent.*ConfigError: why"):
        submit_app(folder, archive, sleep=lambda seconds: None)


def test_what_cannot_be_resumed_is_not_submitted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    superlink, folder = SuperLink(monkeypatch), Trial.at(Path("trial")).coordinator
    with pytest.raises(ConfigError, match="no run 'x' to resume"):
        submit_app(folder, AppArchive.at(Path("app")), resume="x")
    folder.party.run_folder("x").mkdir(parents=True)
    manifest = Path("app/pyproject.toml")
    manifest.write_text(manifest.read_text().replace("resume = ", "again = "))
    with pytest.raises(ConfigError, match="has no setting 'resume': add"):
        submit_app(folder, AppArchive.at(Path("app")), resume="x")
    assert not superlink.asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("app/flower_heart.toml",), "--runtime flower --deployment FOLDER"),
        (("app/flower_heart.toml", "--app", "app"), "belong to --runtime flower"),
        (("demo/breast-cancer.toml", "--runtime", "flower", "--app", "app"), "Flower app's own"),
        (("app/flower_heart.toml", "--runtime", "flower", "--app", "trial"), "no Flower app"),
    ],
)
def test_the_right_command_is_named(root: Path, words: tuple[str, ...], said: str) -> None:
    from privagg.cli.demo import write_demo

    write_demo(Path("demo"))
    code, _, err = call("run", *words)
    assert code == 2
    assert said in err


def test_an_app_outside_of_a_deployment_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRIVAGG_PARTY", raising=False)
    with (
        pytest.raises(ConfigError, match="privagg run CONFIG --runtime flower"),
        private_grid(InProcessGrid({})),
    ):
        raise AssertionError("no run begins")


def test_flwr_run_alone_starts_no_simulation_and_names_the_command(
    root: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = Path("app/pyproject.toml").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", "from flwr.cli.app import app; app()", "run", "."],
        cwd="app", env={**os.environ, "HOME": str(home)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert "privagg run flower_heart.toml --runtime flower" in said
    written = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert written == [Path(".flwr/config.toml")]  # Flower's own, before it looks at any app
    assert Path("app/pyproject.toml").read_bytes() == before
