"""Sites join and leave between rounds: who contributes, opens or charges outside its rounds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.errors import PrivaggError, UnknownPartyError
from privagg.privacy.plan import ClientPlan, SiteTerms
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.key_statement import pack_cards, split_cards
from privagg.protocol.messages import (
    KeyRequest,
    LedgerRequest,
    Refusal,
    RoundStart,
    Upload,
)
from privagg.run.keying import in_epoch, key_of_run
from tests.simulator import DIMENSION, Simulation

STAYING = ("a", "b", "c")
NAMES = (*STAYING, "joins", "leaves")
SPANS = {"joins": (5, None), "leaves": (None, 8)}


class Changing(Simulation):
    """Five sites; one joins in round 5, another leaves after round 8 of 12."""

    def __init__(self, folder: Path, scheme: str = "masked", **changes: Any) -> None:
        super().__init__(
            folder, kind=ClientPlan, scheme_name=scheme, names=NAMES, rounds=12,
            sites=[
                SiteTerms(
                    name=name, records=40,
                    first_round=SPANS.get(name, (None, None))[0],
                    last_round=SPANS.get(name, (None, None))[1],
                )
                for name in NAMES
            ],
            **changes,
        )  # fmt: skip

    def enter(self, number: int) -> None:
        """Go on under the key of a round's epoch."""
        identity = self.identities["coordinator"]
        self.keys[self.run] = key_of_run(self.terms, self.run, identity, self.wire, number=number)

    def start(self, site: str, number: int, cohort: tuple[str, ...], **facts: Any) -> Message:
        """What a site answers to a round's start."""
        header = RoundStart(
            run=self.run, round=number, attempt=1, sender="coordinator",
            plan_digest=self.plan.digest,
            **{"key_id": self.run_key.key_id, "cohort": cohort, **facts},
        )  # fmt: skip
        model = np.zeros(DIMENSION).tobytes()
        frame = Message.sign(self.identities["coordinator"], header, model).to_bytes()
        return read_message(self.sites[site].handle(frame), self.roster)

    def refused(self, site: str, *asked: Any, **facts: Any) -> str:
        before = self.charges(site)
        header = self.start(site, *asked, **facts).header
        assert isinstance(header, Refusal)
        assert self.charges(site) == before
        return header.message


@pytest.mark.parametrize("scheme", ["plaintext", "masked"])
def test_each_rounds_sum_is_that_of_whoever_is_there(tmp_path: Path, scheme: str) -> None:
    simulation = Changing(tmp_path, scheme)
    for number in (1, 4, 5, 8, 9, 12):
        simulation.enter(number)
        outcome = simulation.round(number)
        there = simulation.plan.epoch(number).names
        total = sum(simulation.learners[name].values for name in there)
        assert (outcome.outcome, outcome.survivors) == ("opened", there)
        assert outcome.total is not None
        assert np.array_equal(outcome.total, total)
    assert [simulation.charges(name) for name in NAMES] == [6, 6, 6, 4, 4]


@pytest.mark.parametrize("scheme", ["plaintext", "masked"])
def test_nobody_is_charged_outside_its_rounds(tmp_path: Path, scheme: str) -> None:
    simulation = Changing(tmp_path, scheme)
    first, last = simulation.plan.epoch(1).names, simulation.plan.epoch(9).names
    assert "asks 4 different sites of a, b, c, leaves" in simulation.refused("joins", 4, NAMES)
    assert "not in this round's cohort" in simulation.refused("joins", 4, first)
    for number in (5, 9):
        simulation.enter(number)
        simulation.wire.post(dict.fromkeys(NAMES, simulation.run_key.frame))
    assert "asks 4 different" in simulation.refused("leaves", 9, NAMES)
    assert "not in this round's cohort" in simulation.refused("leaves", 9, last)
    assert "asks 4 different" in simulation.refused("a", 9, (*STAYING, "leaves"))


@pytest.mark.parametrize("scheme", ["plaintext", "masked"])
@pytest.mark.parametrize(("stranger", "number"), [("leaves", 9), ("joins", 4)])
def test_an_upload_from_outside_its_rounds_is_neither_added_nor_opened(
    tmp_path: Path, scheme: str, stranger: str, number: int
) -> None:
    """The stranger signs whatever suits it; its key is a party's of the federation."""
    simulation = Changing(tmp_path, scheme)
    simulation.enter(number)
    there = simulation.plan.epoch(number).names
    answer = simulation.start("a", number, there) if "a" in there else None
    if answer is None or not isinstance(answer.header, Upload):
        simulation.wire.post(dict.fromkeys(there, simulation.run_key.frame))
        answer = simulation.start("a", number, there)
    own = answer.header
    assert isinstance(own, Upload)
    forged = Message.sign(
        simulation.identities[stranger], own.model_copy(update={"sender": stranger}), answer.payload
    )
    job, terms = simulation.job, simulation.job.terms(number, 1, there)
    aggregator = Aggregator(terms, job.parameters, job.roster)
    with pytest.raises(UnknownPartyError, match="is not in this round's cohort"):
        aggregator.receive(forged.to_bytes())
    # A coordinator that colludes with it asks for the opening all the same.
    wide = Aggregator(replace(terms, cohort=NAMES, minimum_survivors=1), job.parameters, job.roster)
    with pytest.raises(PrivaggError, match="its contributor set names other sites"):
        wide.receive(forged.to_bytes())
    if scheme == "plaintext":
        request = simulation.job.heading(simulation.round(number))
        assert simulation.key_holder is not None
        with pytest.raises(PrivaggError, match="different sites of the plan in roster order"):
            simulation.key_holder.check_contributions(
                _Asked(**request, key_id=own.key_id, contributions=(forged.statement,)), own.key_id
            )


class _Asked:
    """A request for an opening, as far as its contributions are looked at."""

    def __init__(self, **facts: Any) -> None:
        vars(self).update(facts)
        self.round_id = (facts["run"], facts["round"], facts["attempt"])


def test_an_old_epochs_key_and_cards_mask_nothing(tmp_path: Path) -> None:
    simulation = Changing(tmp_path)
    old = simulation.run_key
    simulation.enter(5)
    new = simulation.run_key
    simulation.wire.post(dict.fromkeys(NAMES, new.frame))
    assert new.key_id != old.key_id
    assert (new.epoch, tuple(new.members)) == ("run-1/5", NAMES)
    assert set(new.members.values()).isdisjoint(old.members.values())
    assert "the round uses key" in simulation.refused("a", 5, NAMES, key_id=old.key_id)
    # The old cards, stated again as those of the new epoch.
    message = read_message(old.frame, simulation.roster)
    cards = [bytes(card) for card in split_cards(message.payload)]
    again = message.header.model_copy(update={"round": 5})
    frame = Message.sign(simulation.identities["coordinator"], again, pack_cards(cards)).to_bytes()
    answer = read_message(simulation.sites["a"].handle(frame), simulation.roster).header
    assert isinstance(answer, Refusal)
    assert "different epochs" in answer.message


@pytest.mark.parametrize(
    ("site", "number", "why"),
    [("a", 6, "begins in round 6"), ("joins", 1, "takes no part"), ("leaves", 9, "takes no part")],
)
def test_a_card_is_made_at_a_change_by_whoever_is_there(
    tmp_path: Path, site: str, number: int, why: str
) -> None:
    simulation = Changing(tmp_path)
    header = KeyRequest(
        run="run-1", round=number, attempt=1, sender="coordinator",
        plan_digest=simulation.plan.digest, federation_digest=simulation.terms.federation_digest,
    )  # fmt: skip
    frame = Message.sign(simulation.identities["coordinator"], header).to_bytes()
    answer = read_message(simulation.sites[site].handle(frame), simulation.roster).header
    assert isinstance(answer, Refusal)
    assert why in answer.message


def living_keys(simulation: Changing, site: str) -> list[str]:
    with closing(sqlite3.connect(simulation.folder / f"{site}-openings.sqlite")) as database:
        rows = database.execute("SELECT run FROM run_key WHERE secret IS NOT NULL ORDER BY run")
        return [run for (run,) in rows]


def test_an_epochs_secrets_go_with_its_last_round_and_with_whoever_leaves(tmp_path: Path) -> None:
    simulation = Changing(tmp_path)
    assert living_keys(simulation, "a") == ["run-1"]
    simulation.round(4)
    assert living_keys(simulation, "a") == []
    simulation.enter(5)
    simulation.round(7)
    assert living_keys(simulation, "leaves") == ["run-1/5"]
    job = simulation.job
    ask = LedgerRequest(
        run=job.run, round=8, attempt=1, sender="coordinator", plan_digest=job.plan.digest
    )
    simulation.sites["leaves"].handle(Message.sign(job.identity, ask).to_bytes())
    assert living_keys(simulation, "leaves") == []
    assert living_keys(simulation, "a") == ["run-1/5"]


def test_sites_that_were_told_other_schedules_take_no_part_together(tmp_path: Path) -> None:
    """A schedule is in the plan's digest, which every site pinned and every message names."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Changing(tmp_path / "one"), Changing(tmp_path / "two")
    sites = [
        site.model_copy(update={"last_round": 9}) if site.name == "leaves" else site
        for site in two.plan.sites
    ]
    other = type(two.plan).model_validate({**two.plan.model_dump(), "sites": sites})
    assert other.digest != one.plan.digest
    header = RoundStart(
        run="run-1", round=9, attempt=1, sender="coordinator", plan_digest=other.digest,
        key_id=one.run_key.key_id, cohort=other.epoch(9).names,
    )  # fmt: skip
    frame = Message.sign(one.identities["coordinator"], header, np.zeros(DIMENSION).tobytes())
    answer = read_message(one.sites["a"].handle(frame.to_bytes()), one.roster).header
    assert isinstance(answer, Refusal)
    assert "not the one this site pinned" in answer.message


def test_a_coordinator_goes_on_under_the_epochs_key_alone(tmp_path: Path) -> None:
    class Kept:
        """Keeps nothing; a journal of a run that nobody resumes."""

        def key(self, first: int) -> None:
            return None

        def keep_key(self, frame: bytes, first: int) -> None:
            pass

    simulation = Changing(tmp_path)
    job: Any = in_epoch(simulation.job, simulation.terms, simulation.wire, Kept(), 4)  # type: ignore[arg-type]
    assert job.key is simulation.run_key
    job = in_epoch(job, simulation.terms, simulation.wire, Kept(), 9)  # type: ignore[arg-type]
    assert tuple(job.key.members) == simulation.plan.epoch(9).names
    assert job.parameters.rule.asked == 4
