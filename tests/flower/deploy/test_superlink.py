"""What the coordinator asks of its SuperLink, with a SuperLink that answers from a script."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from privagg.errors import DeploymentError
from privagg.flower.deploy import superlink as control
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.join import join
from privagg.flower.deploy.superlink import follow, node_ids, nodes, register, submit
from privagg.party.node_keys import make_node_key, public_line
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from tests.flower.deploy.conftest import AGREEMENT, Parties


class SuperLink:
    """The nodes and runs that Flower's command line would tell of."""

    def __init__(self) -> None:
        self.nodes: dict[int, tuple[str, str]] = {}
        self.statuses: list[str] = []
        self.calls: list[tuple[str, ...]] = []
        self._numbers = itertools.count(101)  # registered from several threads

    def __call__(self, folder: FlowerFolder, *words: str, archive: object = None) -> dict[str, Any]:
        self.calls.append(words)
        if words[:2] == ("supernode", "register"):
            number = next(self._numbers)
            self.nodes[number] = (Path(words[2]).read_text().strip(), "online")
            return {"success": True, "node-id": number}
        if words[:2] == ("supernode", "unregister"):
            del self.nodes[int(words[2])]
            return {"success": True}
        if words[:2] == ("supernode", "list"):
            times = {"online-at": "2027-03-01 10:00:00Z", "offline-at": "N/A"}
            nodes = [{"node-id": str(n), "status": s, **times} for n, (_, s) in self.nodes.items()]
            return {"success": True, "nodes": nodes}
        if words[0] == "run":
            return {"success": True, "run-id": "18446744073709551615"}
        status = self.statuses.pop(0)
        run = {"run-id": "7", "status": status, "status-details": "N/A", "fab-id": "a/b"}
        return {"success": True, "runs": [run]}


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    made = SuperLink()
    monkeypatch.setattr(control, "flwr", made)
    monkeypatch.setattr(control, "POLL_SECONDS", 0.0)
    return made


@pytest.fixture
def folder(parties: Parties) -> FlowerFolder:
    join(parties.folders[COORDINATOR], AGREEMENT, list(parties.cards.values()))
    return parties.folders[COORDINATOR]


def test_the_keys_on_the_cards_are_registered_once(
    folder: FlowerFolder, superlink: SuperLink, parties: Parties
) -> None:
    nodes = register(folder)
    assert set(nodes) == {"north", "south", KEY_HOLDER}
    for party, node in nodes.items():
        assert superlink.nodes[node][0] == parties.cards[party].node_key
    assert register(folder) == nodes == node_ids(folder)
    assert len(superlink.nodes) == 3


def test_a_replaced_key_is_registered_and_the_old_one_no_more(
    folder: FlowerFolder, superlink: SuperLink
) -> None:
    before = register(folder)
    line = public_line(make_node_key())
    (folder.at("nodes") / "south.pub").write_text(line + "\n")
    after = register(folder)
    assert {party for party in after if after[party] != before[party]} == {"south"}
    assert before["south"] not in superlink.nodes
    assert superlink.nodes[after["south"]][0] == line


def test_a_superlink_that_lost_its_state_gets_all_keys_again(
    folder: FlowerFolder, superlink: SuperLink
) -> None:
    before = register(folder)
    superlink.nodes.clear()
    after = register(folder)
    assert set(after) == set(before)
    assert set(after.values()) == set(superlink.nodes)


def test_who_is_connected_is_told_by_party(folder: FlowerFolder, superlink: SuperLink) -> None:
    numbers = register(folder)
    superlink.nodes[numbers["south"]] = (superlink.nodes[numbers["south"]][0], "offline")
    del superlink.nodes[numbers[KEY_HOLDER]]
    found = {party: (state.status, state.since) for party, state in nodes(folder).items()}
    assert found == {
        "north": ("online", "2027-03-01 10:00:00Z"),
        "south": ("offline", ""),
        KEY_HOLDER: ("unregistered", ""),
    }


def test_how_a_run_ended_is_read_and_never_guessed(
    folder: FlowerFolder, superlink: SuperLink
) -> None:
    superlink.statuses = ["pending", "running", "running", "finished:failed"]
    heard: list[str] = []
    state = follow(folder, 7, lambda state: heard.append(state.status))
    assert heard == ["pending", "running", "finished:failed"]
    assert state.over
    assert not state.completed


def test_a_run_is_submitted_with_its_settings(
    folder: FlowerFolder, superlink: SuperLink, tmp_path: Path
) -> None:
    assert submit(folder, tmp_path, {"run": 'a "b"', "rounds": 3}) == 2**64 - 1
    assert superlink.calls[-1][-2:] == ("--run-config", 'run="a \\"b\\"" rounds=3')


def test_flowers_answer_is_json_or_an_error(
    folder: FlowerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "trouble", lambda folder: "")
    for printed, said in (
        (json.dumps({"success": False, "error-message": "no such run"}), "no such run"),
        ("nothing that is JSON", "nothing that is JSON"),
        ('{"success": ', "success"),
    ):
        done = control.subprocess.CompletedProcess([], 1, printed, "")
        monkeypatch.setattr(control.subprocess, "run", lambda *a, _done=done, **k: _done)
        with pytest.raises(DeploymentError, match=said):
            control.flwr(folder, "list")


def test_a_broken_register_is_named(folder: FlowerFolder, superlink: SuperLink) -> None:
    (folder.at("nodes") / "registered.json").write_text("{")
    with pytest.raises(DeploymentError, match=r"registered\.json cannot be read"):
        register(folder)
