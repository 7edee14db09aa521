"""Uploads and partial sums: what fits is folded in, each lie is refused for its own reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg.errors import (
    CiphertextError,
    CohortError,
    KeyMismatchError,
    LedgerError,
    MessageError,
    PrivaggError,
    ReplayError,
    SignatureError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Identity, Roster
from privagg.kernels.residues import ResidueSum
from privagg.protocol.aggregator import Aggregator
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import OpenRequest, PartialSum, Presence, Refusal
from privagg.secure.contributors import bitmap_of
from privagg.secure.wire import EncryptedTensor
from tests.protocol.test_round import start_frame
from tests.simulator import DIMENSION, NAMES, Simulation
from tests.test_rewritten_history import rewrite

LEFT, RIGHT = Identity.generate("left"), Identity.generate("right")


@pytest.fixture(params=["plaintext", "ckks", "bfv"])
def simulation(tmp_path: Path, request: pytest.FixtureRequest) -> Simulation:
    return Simulation(tmp_path, scheme_name=request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


def aggregator(
    simulation: Simulation, *, round_number: int = 1, attempt: int = 1, strict: bool = False
) -> Aggregator:
    terms = replace(
        simulation.job.terms(round_number, attempt, NAMES),
        aggregators=("left", "right"),
        strict=strict,
    )
    keys = {**simulation.roster.keys, **Roster.of(LEFT, RIGHT).keys}
    return Aggregator(terms, simulation.job.parameters, Roster(keys))


def branch(simulation: Simulation, identity: Identity, names: tuple[str, ...]) -> Message:
    made = aggregator(simulation)
    for name in names:
        made.receive(simulation.sites[name].handle(start_frame(simulation)))
    return made.partial_sum(identity)


def test_a_tree_adds_what_one_aggregator_adds(simulation: Simulation) -> None:
    root = aggregator(simulation)
    root.receive(branch(simulation, LEFT, ("west", "north")).to_bytes())
    root.receive(branch(simulation, RIGHT, ("south",)).to_bytes())
    root.receive(simulation.sites["east"].handle(start_frame(simulation)))
    assert root.contributors == NAMES
    request = root.open_request(simulation.identities["coordinator"])
    share = simulation.key_holder.handle(request.to_bytes())
    payload = bytes(read_message(share, simulation.roster).payload)
    opened = simulation.scheme.combine(simulation.job.parameters, [payload], 4)
    np.testing.assert_array_equal(opened, sum(simulation.learners[name].values for name in NAMES))


def test_overlapping_sums_are_refused_and_change_nothing(plain: Simulation) -> None:
    root = aggregator(plain)
    root.receive(branch(plain, LEFT, ("north", "east")).to_bytes())
    before = root.partial_sum(LEFT).payload
    with pytest.raises(ReplayError, match="east"):
        root.receive(branch(plain, RIGHT, ("east", "south")).to_bytes())
    with pytest.raises(ReplayError, match="north"):
        root.receive(plain.sites["north"].handle(start_frame(plain)))
    assert root.partial_sum(LEFT).payload == before
    assert root.contributors == ("north", "east")


Lie = Callable[[PartialSum], PartialSum]


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (lambda h: h.model_copy(update={"contributions": h.contributions[:1]}), PrivaggError),
        (lambda h: h.model_copy(update={"contributions": h.contributions[:1] * 2}), MessageError),
        (lambda h: h.model_copy(update={"attempt": 2}), WrongRoundError),
        (
            lambda h: h.model_copy(
                update={
                    "contributions": (
                        h.contributions[0].model_copy(update={"signature": "00" * 64}),
                        h.contributions[1],
                    )
                }
            ),
            SignatureError,
        ),
    ],
)
def test_a_lying_branch_is_refused(plain: Simulation, lie: Lie, error: type[Exception]) -> None:
    honest = branch(plain, LEFT, ("north", "east"))
    assert isinstance(honest.header, PartialSum)
    root = aggregator(plain)
    with pytest.raises(error):
        root.receive(Message.sign(LEFT, lie(honest.header), bytes(honest.payload)).to_bytes())
    assert root.contributors == ()
    root.receive(honest.to_bytes())
    assert root.contributors == ("north", "east")


def test_only_pinned_aggregators_and_never_in_strict_mode(plain: Simulation) -> None:
    honest = branch(plain, LEFT, ("north",))
    with pytest.raises(MessageError, match="strict"):
        aggregator(plain, strict=True).receive(honest.to_bytes())
    assert isinstance(honest.header, PartialSum)
    lie = honest.header.model_copy(update={"sender": "north"})
    forged = Message.sign(plain.identities["north"], lie, bytes(honest.payload))
    with pytest.raises(UnknownPartyError, match="not an aggregator"):
        aggregator(plain).receive(forged.to_bytes())
    with pytest.raises(CohortError):
        aggregator(plain).partial_sum(LEFT)
    strict = aggregator(plain, strict=True)
    strict.receive(plain.sites["north"].handle(start_frame(plain)))
    with pytest.raises(MessageError, match="strict mode adds the uploads themselves"):
        strict.partial_sum(LEFT)


def test_memory_is_that_of_one_model_whatever_the_cohort(plain: Simulation) -> None:
    """Beyond the fold itself an aggregator keeps a statement a site: no payload."""
    made = aggregator(plain)
    for name in NAMES:
        made.receive(plain.sites[name].handle(start_frame(plain)))
    assert made._uploads == {}
    request = made.open_request(plain.identities["coordinator"])
    assert isinstance(request.header, OpenRequest)
    assert request.header.tensor_bytes == len(request.payload) < 8 * DIMENSION + 1024


# --- one lie at a time, by a site whose signature is true -----------------------------------------

ELSEWHERE = "ab" * 32


class Uploads:
    """A site's honest upload, and what becomes of it when a part is changed and signed anew."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.frame = simulation.sites["east"].handle(start_frame(simulation))
        self.message = read_message(self.frame, simulation.roster)

    def signed(self, payload: bytes = b"", **changes: object) -> bytes:
        header = self.message.header.model_copy(update=changes)
        identity = self.simulation.identities["east"]
        return Message.sign(identity, header, payload or bytes(self.message.payload)).to_bytes()

    def labelled(self, **changes: object) -> bytes:
        """The tensor inside with other labels; the message around it says the truth."""
        tensor = EncryptedTensor.from_bytes(self.message.payload, max_bytes=10**6)
        return self.signed(replace(tensor, **changes).to_bytes())  # type: ignore[arg-type]

    def said(self, kind: type[Presence | Refusal], **facts: object) -> bytes:
        place = self.message.header.model_dump(include={"run", "round", "attempt", "plan_digest"})
        header = kind.model_validate({**place, "sender": "east", **facts})
        return Message.sign(self.simulation.identities["east"], header).to_bytes()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Uploads:
    return Uploads(Simulation(tmp_path_factory.mktemp("aggregator")))


def test_a_tensor_moved_under_another_rounds_header_is_refused(tmp_path: Path) -> None:
    """Run, round, attempt and key stand in the signed header alone, which names the payload too."""
    simulation = Simulation(tmp_path, scheme_name="bfv")
    first, second = (
        simulation.sites["east"].handle(start_frame(simulation, round=number)) for number in (1, 2)
    )
    old, new = (read_message(frame, simulation.roster) for frame in (first, second))
    moved = second.replace(bytes(new.payload), bytes(old.payload))
    assert len(moved) == len(second)
    made = aggregator(simulation, round_number=2)
    with pytest.raises(SignatureError):
        made.receive(moved)
    assert made.receive(second) == "east"


@pytest.mark.parametrize(
    ("lie", "error", "reason"),
    [
        (lambda u: u.signed(run="run-2"), WrongRoundError, "answered for run run-2"),
        (lambda u: u.signed(round=2), WrongRoundError, "round 2"),
        (lambda u: u.signed(attempt=2), WrongRoundError, "attempt 2"),
        (lambda u: u.signed(plan_digest=ELSEWHERE), WrongRoundError, "plan abab"),
        (lambda u: u.signed(key_id=ELSEWHERE), KeyMismatchError, "encrypted under key abab"),
        (lambda u: u.labelled(scheme="bfv"), CiphertextError, "the tensor says"),
        (lambda u: u.labelled(length=DIMENSION + 1), CiphertextError, "the tensor says"),
        (lambda u: u.labelled(packing="another"), CiphertextError, "the tensor says"),
        (
            lambda u: u.labelled(parameters_fingerprint=ELSEWHERE),
            CiphertextError,
            "the tensor says",
        ),
        (
            lambda u: u.labelled(contributors=bitmap_of(("west",), NAMES)),
            CiphertextError,
            "names other sites",
        ),
        (
            lambda u: u.labelled(contributors=bitmap_of(("east", "west"), NAMES)),
            CiphertextError,
            "names other sites",
        ),
        (lambda u: u.signed(b"nonsense"), MessageError, "upload of 'east'"),
        (
            lambda u: u.said(Presence, nonce=ELSEWHERE, problem=""),
            MessageError,
            "sent a Presence, not an upload",
        ),
        (
            lambda u: u.said(Refusal, reason="budget", message="no more"),
            CohortError,
            "refuses this round: no more",
        ),
    ],
)
def test_an_upload_that_lies_is_refused_for_what_it_is(
    uploads: Uploads, lie: Callable[[Uploads], bytes], error: type[Exception], reason: str
) -> None:
    made = aggregator(uploads.simulation)
    with pytest.raises(error, match=reason):
        made.receive(lie(uploads), sender="east")
    assert made.contributors == ()
    made.receive(uploads.frame, sender="east")
    assert made.partial_sum(LEFT).payload == branch(uploads.simulation, LEFT, ("east",)).payload


def spoiled(simulation: Simulation, frame: bytes) -> bytes:
    """The upload, signed anew by its own site around a first residue that is out of range."""
    message = read_message(frame, simulation.roster)
    tensor = EncryptedTensor.from_bytes(message.payload, max_bytes=10**6)
    payload = b"\xff" * 7 + b"\x7f" + bytes(tensor.payload)[8:]
    identity = simulation.identities[message.header.sender]
    changed = replace(tensor, payload=memoryview(payload)).to_bytes()
    return Message.sign(identity, message.header, changed).to_bytes()


def together(made: Aggregator, *frames: bytes) -> list[str]:
    """What became of each frame: its sender, or the kind of its error."""
    answers = made.receive_many([(None, frame) for frame in frames])
    return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]


def frames_of(simulation: Simulation) -> dict[str, bytes]:
    start = start_frame(simulation)
    return {name: simulation.sites[name].handle(start) for name in NAMES}


def test_frames_handed_in_together_end_as_one_after_the_other(simulation: Simulation) -> None:
    frames = frames_of(simulation)
    good = list(frames.values())
    made, one = aggregator(simulation, strict=True), aggregator(simulation, strict=True)
    bad, west = spoiled(simulation, frames["east"]), frames["west"]
    lie = west[:-1] + bytes([west[-1] ^ 1])
    answers = made.receive_many(
        [("north", good[0]), ("east", bad), (None, lie), ("south", good[2])]
    )
    assert answers[::3] == ["north", "south"]
    assert isinstance(answers[1], CiphertextError)
    assert "upload of 'east': value 0" in str(answers[1])
    assert isinstance(answers[2], SignatureError)
    assert made.contributors == ("north", "south")
    assert together(made, frames["east"], frames["west"]) == ["east", "west"]
    for frame in good:
        one.receive(frame)
    asked = [
        each.open_request(simulation.identities["coordinator"]).to_bytes() for each in (made, one)
    ]
    assert asked[0] == asked[1]


def test_a_second_upload_among_several_counts_only_where_the_first_did_not(
    simulation: Simulation,
) -> None:
    frames = frames_of(simulation)
    bad, good = spoiled(simulation, frames["east"]), frames["east"]
    made = aggregator(simulation)
    assert together(made, bad, frames["north"], good, good) == [
        "CiphertextError", "north", "east", "ReplayError",
    ]  # fmt: skip
    assert made.partial_sum(LEFT).payload == branch(simulation, LEFT, ("north", "east")).payload


def test_a_partial_sum_among_uploads_does_not_add_them_twice(plain: Simulation) -> None:
    frames = frames_of(plain)
    overlapping = branch(plain, LEFT, ("north", "east")).to_bytes()
    apart = branch(plain, RIGHT, ("south", "west")).to_bytes()
    made = aggregator(plain)
    answers = together(made, frames["east"], overlapping, frames["north"], apart, frames["south"])
    assert answers == ["east", "ReplayError", "north", "right", "ReplayError"]
    assert made.partial_sum(LEFT).payload == branch(plain, LEFT, NAMES).payload


def test_uploads_handed_in_together_reach_the_kernel_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(tmp_path, scheme_name="bfv")
    made, sizes = aggregator(simulation), []
    add = ResidueSum.add

    def counted(self: ResidueSum, inputs: Sequence[Any]) -> Any:
        sizes.append(len(inputs))
        return add(self, inputs)

    monkeypatch.setattr(ResidueSum, "add", counted)
    assert together(made, *frames_of(simulation).values()) == list(NAMES)
    assert sizes == [4]


def test_who_delivers_must_be_who_signed(uploads: Uploads) -> None:
    with pytest.raises(UnknownPartyError, match="'west' delivered a message signed by 'east'"):
        aggregator(uploads.simulation).receive(uploads.frame, sender="west")


def test_who_was_not_asked_is_not_added(uploads: Uploads) -> None:
    made = aggregator(uploads.simulation)
    made.terms = replace(made.terms, cohort=("north", "south", "west"))
    with pytest.raises(UnknownPartyError, match="not in this round's cohort"):
        made.receive(uploads.frame)


def test_too_few_are_not_asked_to_be_opened(uploads: Uploads) -> None:
    made = aggregator(uploads.simulation)
    made.receive(uploads.frame)
    with pytest.raises(CohortError, match="1 of 4 sites contributed; the plan opens 4"):
        made.open_request(uploads.simulation.identities["coordinator"])


def signed_branch(simulation: Simulation, **changes: object) -> bytes:
    """A branch whose only contributor signed other facts; the sum in it says the truth."""
    honest = branch(simulation, LEFT, ("east",))
    upload = Uploads(simulation).signed(**changes)  # type: ignore[arg-type]
    statement = read_message(upload, simulation.roster).statement
    header = honest.header.model_copy(update={"contributions": (statement,)})
    return Message.sign(LEFT, header, bytes(honest.payload)).to_bytes()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"run": "run-2"}, WrongRoundError),
        ({"round": 2}, WrongRoundError),
        ({"plan_digest": ELSEWHERE}, WrongRoundError),
        ({"key_id": ELSEWHERE}, KeyMismatchError),
    ],
)
def test_a_branch_answers_for_what_its_sites_signed(
    plain: Simulation, changes: dict[str, object], error: type[Exception]
) -> None:
    root = aggregator(plain)
    with pytest.raises(error, match="'east'"):
        root.receive(signed_branch(plain, **changes))
    assert root.contributors == ()
    honest = branch(plain, LEFT, ("east",))
    relabelled = honest.header.model_copy(update=changes)
    with pytest.raises(error, match="'left'"):
        root.receive(Message.sign(LEFT, relabelled, bytes(honest.payload)).to_bytes())
    root.receive(signed_branch(plain))
    assert root.contributors == ("east",)


def test_a_branch_holds_nobody_who_was_not_asked(plain: Simulation) -> None:
    root = aggregator(plain)
    root.terms = replace(root.terms, cohort=("north", "south", "west"))
    with pytest.raises(UnknownPartyError, match="'east' is not in this round's cohort"):
        root.receive(branch(plain, LEFT, ("north", "east")).to_bytes())
    assert root.contributors == ()


def test_a_branch_holds_all_that_its_sites_signed(plain: Simulation) -> None:
    """Two statements over a sum of one would leave the other's noise out of the opened sum."""
    single, both = branch(plain, LEFT, ("north",)), branch(plain, LEFT, ("north", "east"))
    root = aggregator(plain)
    with pytest.raises(CiphertextError, match="names other sites"):
        root.receive(Message.sign(LEFT, both.header, bytes(single.payload)).to_bytes())
    assert root.contributors == ()


def test_a_branch_hides_no_rewritten_history(plain: Simulation) -> None:
    plain.round(1)
    rewrite(plain, "east", entries=40)
    terms = replace(plain.job.terms(2, 1, NAMES), aggregators=("left",))
    roster = Roster({**plain.roster.keys, **Roster.of(LEFT).keys})
    leaf = Aggregator(terms, plain.job.parameters, roster)
    leaf.receive(plain.wire.handlers["east"](start_frame(plain, round=2)))
    root = Aggregator(terms, plain.job.parameters, roster, plain.watch)
    with pytest.raises(LedgerError, match="privagg.ledger/east"):
        root.receive(leaf.partial_sum(LEFT).to_bytes())
    assert root.contributors == ()
