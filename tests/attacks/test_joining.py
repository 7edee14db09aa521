"""Records that keep a site from joining: one text for all causes, and no stop once it has begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from privagg.errors import DataError
from privagg.federation import Federation
from privagg.party import approving
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.open import open_federation, open_party
from privagg.privacy.ledger import Approval
from tests.approvals import approved, approved_trial
from tests.attacks.test_approval import demo
from tests.attacks.test_records import charges, table_of
from tests.commands import call
from tests.flower.heart import make_deployment, write_federation
from tests.simulator import Simulation

Table = pd.DataFrame


def one_class(table: Table) -> Table:
    return table.assign(malignant=1)


def words(table: Table) -> Table:
    return table.assign(**{"mean radius": "large"})


def no_class(table: Table) -> Table:
    return table.assign(malignant=["?"] * (len(table) - 2) + [0, 1])


def empty(table: Table) -> Table:
    return table.assign(malignant=None)


CAUSES: dict[Callable[[Table], Table], str] = {
    one_class: "all records have class 1",
    words: "cells are not numbers",
    no_class: "hold no declared class",
    empty: "no record is usable",
}


def changed(path: Path, site: str, change: Callable[[Table], Table]) -> None:
    table = table_of(path, site)
    change(pd.read_csv(table)).to_csv(table, index=False)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_one_text_stops_the_joining_whatever_the_cause(
    tmp_path: Path, cause: Callable[[Table], Table]
) -> None:
    path = demo(tmp_path)
    federation = Federation.from_toml(path)
    approved(federation)
    changed(path, "riverside", cause)
    answer = call("check", path.name, "--site", "riverside", where=tmp_path)
    assert answer.code == 2
    assert CAUSES[cause] in answer.out
    texts = set()
    for act in (Federation.run, approved, Federation.check_ready):
        with pytest.raises(DataError) as refused:
            act(Federation.from_toml(path))
        texts.add(str(refused.value))
    assert texts == {
        "'riverside' does not join with its records as they are. Its owner is told why on its own "
        f"machine (privagg check {path} --site riverside; in a deployment privagg approve --party "
        "FOLDER), and corrects them or accepts them as they are (privagg approve "
        "--accept-findings). Nothing was spent"
    }
    assert charges(path, "riverside") == 0


def test_an_owner_accepts_what_is_right_as_it_is(tmp_path: Path) -> None:
    path = demo(tmp_path)
    changed(path, "riverside", one_class)
    words = ("approve", path.name, "--all-sites", "--yes")
    refused = call(*words, where=tmp_path)
    assert refused.code == 2
    assert "all records have class 1" in refused.out  # told before it is refused
    assert "does not join" in refused.err
    assert call(*words, "--accept-findings", where=tmp_path).code == 0
    assert call("check", path.name, where=tmp_path).code == 0
    said = (tmp_path / "parties/riverside/party.toml").read_text()
    assert "accept_findings = true" in said
    Federation.from_toml(path).run()
    assert charges(path, "riverside") == 2


def test_a_deployed_site_does_not_answer_anybody_before_its_owner_accepts(tmp_path: Path) -> None:
    config = write_federation(tmp_path, rounds=3, scheme="plaintext")
    trial = make_deployment(config, tmp_path / "parties")
    folder: PartyFolder = trial.parties["va"].party
    table = config.parent / "data" / "va.csv"
    pd.read_csv(table).assign(num=0).to_csv(table, index=False)
    for act in (lambda: open_party(folder), lambda: approved_trial(trial)):
        with pytest.raises(DataError, match="'va' does not join with its records as they are"):
            act()
    found = approving.inspect_records(open_federation(folder), ["va"])["va"]
    assert any("all records have class 0" in finding.message for finding in found)
    PartyFolder.create(folder.root, PartyFile(name="va", accept_findings=True))
    approved_trial(trial)
    open_party(folder)


def test_once_a_run_has_begun_nothing_that_is_known_of_records_stops_it(tmp_path: Path) -> None:
    """The owner's memory changes while a run goes on: other approvals are given."""
    known: list[str] = []

    def recognise(approval: Approval) -> None:
        if known:
            raise DataError("strangers")

    simulation = Simulation(tmp_path, dropouts=1)
    simulation.wire.handlers["north"] = simulation.site("north", recognise=recognise).handle
    assert "north" in simulation.round(1).survivors
    known.append("another data set")
    simulation.wire.handlers["north"] = simulation.site("north", recognise=recognise).handle
    assert "north" in simulation.round(2).survivors
