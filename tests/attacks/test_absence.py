"""Somebody with the database and no key makes a site forget that it trained.

One charge would then pay for two releases: the attacker edits the column under which a used receipt
is filed, deletes the upload that was stored beside the log, and has the round asked again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from privagg.privacy.ledger import Ledger
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Refusal, RoundStart, Upload
from tests.simulator import ACCOUNTANT, DIMENSION, Simulation

EDITS = {
    "the use": "UPDATE ledger_entries SET subject = subject || ' ' WHERE kind = 'consumed'",
    "its kind": "UPDATE ledger_entries SET kind = 'opened' WHERE kind = 'consumed'",
    "everything": "UPDATE ledger_entries SET subject = subject || ' ' WHERE subject IS NOT NULL",
}


def trained_once(folder: Path) -> tuple[Simulation, bytes]:
    """A federation in which `north` took part in a round, and the frame that asked it to."""
    simulation = Simulation(folder)
    job = simulation.job
    start = RoundStart(
        run=job.run,
        round=1,
        attempt=1,
        sender="coordinator",
        plan_digest=job.plan.digest,
        key_id=job.key_id,
        cohort=job.plan.names,
    )
    model = np.zeros(DIMENSION, dtype="<f8").tobytes()
    frame = Message.sign(job.identity, start, model).to_bytes()
    first = simulation.sites["north"].handle(frame)
    assert isinstance(read_message(first, simulation.roster).header, Upload)
    assert simulation.learners["north"].calls == 1
    return simulation, frame


def forget(path: Path, edit: str) -> None:
    """What database access allows: drop the rules, file an entry elsewhere, delete the upload."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")
        assert database.execute(edit).rowcount
        stored = "DELETE FROM ledger_uploads WHERE subject LIKE '%,1,1]'"
        assert database.execute(stored).rowcount == 1


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "running"])
def test_a_site_whose_database_was_edited_does_not_train_again(
    tmp_path: Path, edit: str, restarted: bool
) -> None:
    simulation, start = trained_once(tmp_path)
    forget(tmp_path / "north.sqlite", edit)
    site = simulation.sites["north"]
    if restarted:
        ledger = Ledger.open(
            tmp_path / "north.sqlite",
            signing_key=simulation.identities["north"].key,
            accountant=ACCOUNTANT,
        )
        site = simulation.site("north", ledger=ledger)
    answer = read_message(site.handle(start), simulation.roster).header
    assert isinstance(answer, Refusal)
    assert simulation.learners["north"].calls == 1


def test_unedited_the_same_request_gets_the_same_bytes(tmp_path: Path) -> None:
    simulation, start = trained_once(tmp_path)
    answer = simulation.sites["north"].handle(start)
    assert isinstance(read_message(answer, simulation.roster).header, Upload)
    assert simulation.learners["north"].calls == 1
