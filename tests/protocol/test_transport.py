"""What is posted rides along with the next exchange, hinders nothing and is not lost on the way."""

from __future__ import annotations

from privagg.errors import MessageError
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.transport import MAX_POSTED, Outbox, answer_frames


def echo(frame: bytes) -> bytes:
    if frame == b"bad":
        raise MessageError("no message")
    return b"to " + frame


def test_posted_frames_come_before_the_next_request_and_only_once() -> None:
    heard: list[bytes] = []

    def party(frame: bytes) -> bytes:
        heard.append(frame)
        return echo(frame)

    transport = LocalTransport({"north": party})
    transport.post({"north": b"close 1"})
    transport.post({"north": b"bad"})
    assert heard == []
    (reply,) = transport.exchange({"north": b"start 2"})
    assert (reply.data, reply.posted) == (b"to start 2", (b"to close 1", b""))
    (reply,) = transport.exchange({"north": b"start 3"})
    assert (reply.data, reply.posted) == (b"to start 3", ())
    assert heard == [b"close 1", b"bad", b"start 2", b"start 3"]


def test_a_party_that_refuses_the_request_is_silent_but_got_its_post() -> None:
    transport = LocalTransport({"north": echo})
    transport.post({"north": b"close 1"})
    (reply,) = transport.exchange({"north": b"bad"})
    assert reply.data is None
    assert "no message" in reply.problem
    (reply,) = transport.exchange({"nobody": b"start"})
    assert reply.problem == "not reachable"


def test_post_waits_for_an_answered_exchange_and_never_grows_without_bound() -> None:
    outbox = Outbox()
    outbox.post({"north": b"one"})
    sent = outbox.load("north", b"start")
    assert sent == outbox.load("north", b"start") == [b"one", b"start"]
    outbox.post({"north": b"two"})
    outbox.delivered("north", sent)
    assert outbox.load("north", b"next") == [b"two", b"next"]
    for number in range(2 * MAX_POSTED):
        outbox.post({"south": b"%d" % number})
    waiting = outbox.load("south", b"start")
    assert len(waiting) == MAX_POSTED + 1
    assert waiting[0] == b"%d" % MAX_POSTED


def test_every_frame_gets_an_answer_in_order() -> None:
    assert answer_frames(echo, [b"a", b"bad", b"c"]) == [b"to a", b"", b"to c"]
