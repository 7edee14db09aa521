"""The owner's verbs as they are typed: passphrases, parties' folders, trials, trusted code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from privagg.cli.demo import write_demo
from privagg.flower.deploy.processes import folder_at
from privagg.identity.owner import needs_passphrase
from privagg.privacy.ledger import Approval, Ledger
from privagg.training.factories import look_at
from tests.commands import call

SITES = ("riverside", "hillcrest", "lakeview")
WORDS = {"PRIVAGG_OWNER_PASSPHRASE": "seven words"}
CODE = """
from pathlib import Path

import torch

Path({mark!r}).touch()


def model() -> torch.nn.Module:
    return torch.nn.Linear(30, 1)
"""


def typed(where: Path, *words: object, **environment: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    code, out, err = call(*words, where=where, **environment)
    return code, out + err


def unattended(where: Path, *words: object, **environment: str) -> tuple[int, str]:
    """The same in a process of its own without a terminal, which has imported nothing yet."""
    kept = {n: v for n, v in os.environ.items() if n != "PRIVAGG_OWNER_PASSPHRASE"}
    paths = os.pathsep.join([str(where), kept.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "from privagg.cli import main; main()", *map(str, words)],
        cwd=where, env={**kept, "PYTHONPATH": paths, **environment}, start_new_session=True,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def refused(answer: tuple[int, str], *said: str) -> None:
    """One line that says what was wrong, exit code 2, no fault of privagg's own."""
    code, text = answer
    assert code == 2, text
    error = next(line for line in reversed(text.splitlines()) if "error: " in line)
    for words in said:
        assert words in error


def acts(ledger: Path) -> list[Approval]:
    """The approvals in force."""
    return list(Ledger.open(ledger).approvals())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial, and hillcrest's own folder with an owner's key under a passphrase, joined to it."""
    root = tmp_path_factory.mktemp("owner")
    config = write_demo(root, scheme="plaintext")
    assert typed(root, "deploy", "trial", config.name, "trial")[0] == 0
    words = ("deploy", "party", "hillcrest", config.name, "--passphrase")
    refused(
        unattended(root, *words),
        "needs a passphrase and none was typed",
        "PRIVAGG_OWNER_PASSPHRASE",
    )
    assert not (root / "hillcrest" / "owner.pem").exists()
    code, text = typed(root, *words, **WORDS)
    assert code == 0, text
    others = [f"trial/{n}.card" for n in ("coordinator", "riverside", "lakeview", "key-holder")]
    code, text = typed(root, "deploy", "join", "hillcrest", "hillcrest.card", *others)
    assert code == 0, text
    return root


@pytest.fixture
def root(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that a test may spoil; sockets have to fit into its path."""
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("copy") / "made"))


def test_an_encrypted_owners_key_approves_with_its_passphrase_and_not_without(root: Path) -> None:
    assert needs_passphrase(root / "hillcrest" / "owner.pem")
    words, ledger = ("approve", "--party", "hillcrest", "--yes"), root / "hillcrest/ledger.sqlite"
    refused(unattended(root, *words), "needs a passphrase and none was typed")
    wrong = {"PRIVAGG_OWNER_PASSPHRASE": "six words"}
    refused(typed(root, *words, **wrong), "owner.pem holds no key that opens with this passphrase")
    refused(typed(root, *words, PRIVAGG_OWNER_PASSPHRASE=""), "a passphrase is needed")
    assert acts(ledger) == []
    code, text = typed(root, *words, **WORDS)
    assert (code, len(acts(ledger))) == (0, 1), text
    assert "approved for hillcrest; nothing was spent" in text


def test_a_key_that_is_there_unencrypted_is_not_passed_off_as_encrypted(root: Path) -> None:
    answer = typed(
        root, "deploy", "party", "riverside", "breast-cancer.toml", "--folder", "trial/riverside",
        "--passphrase", **WORDS,
    )  # fmt: skip
    refused(answer, "is there and not encrypted", "rotate-owner --passphrase")


def test_approve_in_a_partys_folder(root: Path) -> None:
    party, ledger = "trial/riverside", root / "trial/riverside/ledger.sqlite"
    words = ("approve", "--party", party)
    refused(typed(root, *words), "not approved; nothing was written or spent")  # nobody answers
    refused(typed(root, *words, "--yes", "--until", "soon"), "'soon'", "such as 2026-12-31")
    refused(typed(root, *words, "--yes", "--until", "2020-01-01"), "until a day that was over")
    refused(
        typed(root, *words, "--yes", "--owner-key", "absent.pem"), "cannot read the owner's key"
    )
    refused(
        typed(root, *words, "--yes", "--owner-key", "trial/lakeview/owner.pem"),
        "not by the owner's key",
    )
    refused(typed(root, "approve", "--party", "nowhere", "--yes"), "party.toml is missing")
    refused(typed(root, "approve", "breast-cancer.toml", "--party", party), "give it alone")
    assert acts(ledger) == []
    code, text = typed(root, *words, "--yes", "--who", "Dr. Ito", "--why", "vote 12", "--budget", 2)
    assert code == 0, text
    (act,) = acts(ledger)
    assert (act.who, act.why, str(act.epsilon), act.acted_for) == ("Dr. Ito", "vote 12", "2", ())
    code, text = typed(root, *words, "--withdraw")
    assert (code, acts(ledger)) == (0, []), text
    assert "riverside: 1 withdrawn" in text


def test_approve_in_a_trial_is_for_all_its_sites_or_for_none(root: Path) -> None:
    config, ledgers = "breast-cancer.toml", [root / f"trial/{n}/ledger.sqlite" for n in SITES]
    trial = ("--deployment", "trial", "--yes")
    other = (root / config).read_text().replace("rounds = 40", "rounds = 41")
    (root / "other.toml").write_text(other)
    one = typed(root, "approve", config, "--site", "riverside", *trial)
    refused(one, "--deployment goes with --all-sites", "--party trial/riverside")
    everybody = ("--all-sites", *trial)
    refused(typed(root, "approve", "absent.toml", *everybody), "cannot read absent.toml")
    refused(typed(root, "approve", "other.toml", *everybody), "which differs from other.toml")
    refused(
        typed(root, "approve", config, "--all-sites", "--deployment", "nowhere"), "holds no trial"
    )
    assert [acts(ledger) for ledger in ledgers] == [[], [], []]
    code, text = typed(root, "approve", config, *everybody)
    assert code == 0, text
    for ledger in ledgers:
        (act,) = acts(ledger)
        assert set(act.acted_for) == set(SITES)


def test_code_is_trusted_by_its_hash_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_demo(tmp_path, scheme="plaintext")
    words = ("deploy", "party", "riverside", path.name)
    nothing = (*words, "--trust-code", f"strange_models={'0' * 64}")
    refused(typed(tmp_path, *nothing), "the configuration names no code")
    assert not (tmp_path / "riverside").exists()
    text = path.read_text().replace('model = "logistic"', 'model = "strange_models:model"')
    path.write_text(text)
    mark = tmp_path / "was-imported"
    (tmp_path / "strange_models.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    sha256 = look_at("strange_models:model").sha256
    refused(typed(tmp_path, *words), "nothing was imported", sha256)
    for wrong in (f"strange_models={'0' * 64}", "strange_models", sha256, f"other={sha256}"):
        answer = typed(tmp_path, *words, "--trust-code", wrong)
        refused(answer, "no --trust-code names it; nothing was imported", sha256)
    assert not mark.exists()
    assert not (tmp_path / "riverside").exists()
    trusted = ("--trust-code", f"strange_models={sha256}")
    code, said = unattended(tmp_path, *words, "--passphrase", *trusted, **WORDS)
    assert code == 0, said
    assert mark.exists()
    ledger = folder_at(tmp_path / "riverside").party.ledger
    assert [code.sha256 for act in acts(ledger) for code in act.code] == [sha256]
