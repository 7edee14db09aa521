"""An owner's key is changed by its owner, and by nobody who only holds the key that serves."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from privagg.audit import Methods, Verdict
from privagg.cli.app import app
from privagg.errors import ApprovalError, LedgerError, LedgerTamperedError
from privagg.identity.owner import needs_passphrase, read_owner_key
from privagg.privacy.ledger import Ledger, Replay, sign_owner_key_change
from privagg.privacy.ledger.approvals import public_hex
from tests.approvals import OWNER, approve_plan
from tests.attacks.test_approval import MINE
from tests.attacks.test_restored import keys, rotated
from tests.audit.conftest import Evidence, bundle_of
from tests.report.worlds import World, distributed
from tests.simulator import ACCOUNTANT, Simulation

REASON = ("--who", "Dr. Ito", "--why", "Dr. Ito follows Dr. Mori")


def stored(key: Ed25519PrivateKey, path: Path) -> Path:
    """An owner's key in a file."""
    kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
    path.chmod(0o600)
    return path


def change(folder: Path, key: Path, *more: str) -> Result:
    """What the owner types; the new key is made, encrypted."""
    new = ("--new-owner-key", str(folder / "owner.new.pem"), "--passphrase")
    words = ["ledger", "rotate-owner", str(folder / "north.sqlite"), "--key", str(key), *new]
    return CliRunner().invoke(
        app, [*words, *more, *REASON], env={"PRIVAGG_OWNER_PASSPHRASE": "seven words"}
    )


def with_old(folder: Path) -> tuple[str, str]:
    """The option that names the key until now."""
    return "--owner-key", str(stored(OWNER, folder / "owner.pem"))


def test_old_and_new_key_agree_and_a_run_goes_on(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    simulation.round(1)
    done = change(tmp_path, keys(simulation, tmp_path), *with_old(tmp_path))
    assert done.exit_code == 0, done.output
    assert "1 stand" in done.output
    assert needs_passphrase(tmp_path / "owner.new.pem")
    assert "north" in simulation.round(2).survivors
    with pytest.raises(LedgerError, match="not by the owner's key"):
        approve_plan(simulation.ledgers["north"], MINE, "00" * 32, Decimal(900))
    new = read_owner_key(tmp_path / "owner.new.pem", "seven words")
    approve_plan(simulation.ledgers["north"], MINE, "00" * 32, Decimal(900), owner=new)
    again = change(tmp_path, keys(simulation, tmp_path), *with_old(tmp_path))
    assert "not by the owner's key" in str(again.exception)


def test_approvals_of_a_key_that_was_copied_end_with_it(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, dropouts=1)
    key = keys(simulation, tmp_path)
    done = change(tmp_path, key, *with_old(tmp_path), "--withdraw")
    assert "1 ended" in done.output
    outcome = simulation.round(1)
    assert "has not approved plan" in outcome.refusals["north"]
    assert simulation.charges("north") == 0


def test_whoever_holds_the_serving_key_alone_makes_itself_no_owner(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    ledger = simulation.ledgers["north"]
    before = ledger.checkpoint()
    lost = change(tmp_path, keys(simulation, tmp_path), "--without-old-key")
    assert "was not changed just before it" in str(lost.exception)
    thief = Ed25519PrivateKey.generate()
    forged = sign_owner_key_change(thief, thief, ledger.origin, who="x", why="x", keeps=True)
    claimed = forged.model_copy(update={"old_key": public_hex(OWNER)})
    for act in (forged, claimed):
        with pytest.raises(LedgerError, match=r"refused.*(not by the owner's key|not signed by)"):
            ledger.decide(act)
    with pytest.raises(LedgerError, match="no approval stays in force"):
        sign_owner_key_change(thief, public_hex(OWNER), ledger.origin, who="x", why="x", keeps=True)
    assert ledger.checkpoint() == before


def test_replay_finds_a_change_that_the_ledgers_key_alone_signed(tmp_path: Path) -> None:
    ledger = Simulation(tmp_path).ledgers["north"]
    thief = Ed25519PrivateKey.generate()
    act = sign_owner_key_change(
        thief, public_hex(OWNER), ledger.origin, who="x", why="x", keeps=False
    )
    with ledger._writing() as (connection, head):
        free = replace(head, state=replace(head.state, rekeyed=True))
        ledger._append(connection, free, act)
    replayed = Replay()
    with pytest.raises(LedgerTamperedError, match="without the old one"):
        for entry in ledger.entries():
            replayed.add(entry.body())


def test_a_lost_key_is_replaced_where_every_peer_sees_it_and_approvals_end(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    identity = rotated(simulation, tmp_path)  # peers take part in nothing until they pin it anew
    done = change(tmp_path, tmp_path / "north.new.pem", "--without-old-key")
    assert done.exit_code == 0, done.output
    assert "which did not agree" in done.output
    ledger = Ledger.open(tmp_path / "north.sqlite", signing_key=identity.key, accountant=ACCOUNTANT)
    assert ledger.approvals() == ()
    with pytest.raises(ApprovalError):
        ledger.require_approval(MINE, simulation.plan.digest)
    new = read_owner_key(tmp_path / "owner.new.pem", "seven words")
    approve_plan(ledger, MINE, simulation.plan.digest, Decimal(1000), owner=new)
    ledger.require_approval(MINE, simulation.plan.digest)
    ledger.verify()
    later = change(tmp_path, tmp_path / "north.new.pem", "--without-old-key")
    assert later.exit_code != 0  # only directly after the ledger's own key was changed


class Rekeyed(World):
    """Leuven's owner goes on with another key before the run."""

    lost = False

    def _decide(self, name: str, ledger: Ledger) -> None:
        super()._decide(name, ledger)
        if name != "leuven":
            return
        old, new = self.owners.pop(name), Ed25519PrivateKey.generate()
        if self.lost:
            serving = Ed25519PrivateKey.generate()
            ledger.rotate_key(serving, who="Dr. Leuven", why="disk failed")
            self.identities[name] = replace(self.identities[name], key=serving)
        ledger.decide(
            sign_owner_key_change(
                new, public_hex(old) if self.lost else old, ledger.origin, who="Dr. Leuven",
                why="disk failed", keeps=not self.lost,
            )
        )  # fmt: skip
        self.owners[name] = new
        if self.lost:
            super()._decide(name, ledger)


@pytest.mark.parametrize("lost", [False, True])
def test_verify_says_whether_the_old_key_agreed(
    tmp_path: Path, methods: Methods, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rekeyed, "lost", lost)
    world = Rekeyed(tmp_path, distributed(rounds=2)).play()
    made = Evidence(world, bundle_of(world), methods).verify()
    assert made.holds
    (said,) = [c for c in made.claims if c.subject == "its owner's key was changed"]
    assert (said.section, "without the old key" in said.claimed) == ("leuven", lost)
    assert said.verdict is (Verdict.ATTESTED if lost else Verdict.PROVED)
    (approval,) = world.report().sites[2].approvals
    assert approval.for_lost_key is lost
