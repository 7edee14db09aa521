"""Flower's Grid as a transport: our own deadlines, answers as they come, nothing believed.

Flower knows when a message expires; it does not know when a round does. Each exchange has its own
deadline here. An answer that comes after it, a second answer to one request and an answer from
another node than the one asked are refused and reported by name. Whatever goes wrong with one
party's answer, down to bytes that Flower itself cannot read, is that party's silence and nobody
else's.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from privagg.errors import AppRefusedError, MessageError, PrivaggError
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.records import frames_to_records, records_to_frames
from privagg.protocol.transport import Outbox, Reply

ACTION = "privagg"
MESSAGE_TYPE = f"query.{ACTION}"
REFUSED = 4600
"""Code of an error by which a party's app says, in public words, why it gives no answer."""

EXPIRY_SECONDS = 60.0
"""How much longer than our deadline Flower keeps a message, so that a late answer is seen."""

MAX_REPLY_BYTES = 2**33
"""Most that one answer may hold; `bound_pulls` has Flower stop there while it still comes in."""

SIMULATED_PER_CORE, SIMULATED_SECONDS = 8, 5.0
"""How many requests a core Flower's simulation engine holds at a time, of those sent this lately.

The engine looks through all that it holds once for each of its nodes, ten times a second: a cohort
that is asked at once costs the square of its size for as long as any answer is due. Its clients
take turns anyway. A request that takes longer holds up nobody.
"""

_FLOWER_ERRORS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its app could not be loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "its app failed",
    ErrorCode.MESSAGE_UNAVAILABLE: "the request expired before it was answered",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer could not be delivered",
    ErrorCode.NODE_UNAVAILABLE: "its node went away",
    ErrorCode.INVALID_FAB: "its node does not accept the app",
    ErrorCode.CLIENT_APP_CRASHED: "its app crashed",
}


_APP_REFUSED = str(AppRefusedError)
"""How Flower begins to tell of an exception of this kind, which the guard at a node raises."""


@dataclass(frozen=True)
class Patience:
    """How long an exchange waits.

    Args:
        answer_seconds: for answers of the parties asked.
        absent_seconds: for a party without a node to connect and say who it is.
        poll_seconds: between two looks at what came.
    """

    answer_seconds: float = 600.0
    absent_seconds: float = 60.0
    poll_seconds: float = 0.25


@dataclass(frozen=True)
class _Sent:
    """A message under way, sent at this second of the clock. `party` is None for a challenge."""

    exchange: int
    node: int
    party: str | None
    at: float
    frames: tuple[bytes, ...] = ()


class FlowerTransport:
    """Carries frames to parties behind Flower's nodes.

    Args:
        grid: the run's Grid.
        directory: which node is which party.
        patience: how long to wait.
        message_type: by which the nodes' app is asked; an app behind a mod is asked to train.
        clock, sleep: seconds now, and how to let them pass.
    """

    def __init__(
        self,
        grid: Grid,
        directory: Directory,
        *,
        patience: Patience | None = None,
        message_type: str = MESSAGE_TYPE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid = grid
        self.directory = directory
        self.patience = patience or Patience()
        self._message_type = message_type
        self._clock, self._sleep = clock, sleep
        self._outbox = Outbox()
        self._late: dict[str, _Sent] = {}
        self._told: dict[str, list[str]] = {}
        self._alive: set[int] = set()
        self._written: tuple[tuple[bytes, ...], RecordDict] = ((), RecordDict())
        self.exchanges = 0

    def post(self, frames: Mapping[str, bytes]) -> None:
        """See `Transport.post`."""
        self._outbox.post(frames)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """See `Transport.exchange`."""
        self.exchanges += 1
        self.directory.ask_anew()
        started, left, waiting = self._clock(), dict(requests), dict[str, _Sent]()
        yield from self._tellings(requests)
        while left or any(sent.party is not None for sent in waiting.values()):
            passed = self._clock() - started
            if passed >= self.patience.answer_seconds:
                break
            if passed >= self.patience.absent_seconds:
                absent = [party for party in left if party not in self.directory.nodes]
                yield from self._absent(absent)
                left = {party: left[party] for party in left if party not in absent}
            self._look_round(left, waiting)
            waiting.update(self._send_out(left, self._room(waiting)))
            yield from self._harvest(waiting)
            yield from self._tellings(requests)
            if left or waiting:
                self._sleep(self.patience.poll_seconds)
        yield from self._absent(left)
        yield from self._give_up(waiting)

    def meet(self, parties: Collection[str]) -> dict[str, str]:
        """Find out where the parties are, and whether they can take part in the whole job.

        Returns:
            Party -> why it is not there or cannot take part; only those of whom that is so.
        """
        self.exchanges += 1
        self.directory.ask_anew()
        started, waiting = self._clock(), dict[str, _Sent]()
        missing = dict.fromkeys(parties, b"")
        while missing and self._clock() - started < self.patience.absent_seconds:
            self._look_round(missing, waiting)
            list(self._harvest(waiting))
            missing = {p: b"" for p in missing if p not in self.directory.nodes}
            if missing:
                self._sleep(self.patience.poll_seconds)
        list(self._give_up(waiting))
        absent = {party: self.directory.absence(party) for party in missing}
        found = self.directory.presences
        unwilling = {p: found[p].problem for p in parties if p in found and found[p].problem}
        return {**unwilling, **absent}

    # --- out --------------------------------------------------------------------------------------

    def _look_round(self, left: Mapping[str, bytes], waiting: dict[str, _Sent]) -> None:
        """Ask nodes nobody knows who they are, as long as somebody is looked for."""
        if not left:
            return
        self._alive = set(self._grid.get_node_ids())
        self.directory.forget_absent(self._alive)
        if all(party in self.directory.nodes for party in left):
            return
        for node in self.directory.unknown(self._alive)[: self._room(waiting)]:
            waiting.update(self._push(node, None, [self.directory.challenge(node)]))

    def _room(self, waiting: Mapping[str, _Sent]) -> int | None:
        """How many more may be asked now; None where all may."""
        if not isinstance(self._grid, InMemoryGrid):
            return None
        lately = self._clock() - SIMULATED_SECONDS
        under_way = sum(sent.at > lately for sent in waiting.values())
        return max(0, SIMULATED_PER_CORE * (os.cpu_count() or 1) - under_way)

    def _send_out(self, left: dict[str, bytes], room: int | None) -> dict[str, _Sent]:
        """Send to the parties that have a node now, as far as there is room; those are no longer
        left."""
        sent: dict[str, _Sent] = {}
        for party in [party for party in left if party in self.directory.nodes][:room]:
            frames = self._outbox.load(party, left.pop(party))
            sent.update(self._push(self.directory.nodes[party], party, frames))
        return sent

    def _push(self, node: int, party: str | None, frames: list[bytes]) -> dict[str, _Sent]:
        message = Message(
            self._records(tuple(frames)),
            node,
            self._message_type,
            ttl=self.patience.answer_seconds + EXPIRY_SECONDS,
            group_id=str(self.exchanges),
        )
        sent = _Sent(self.exchanges, node, party, self._clock(), tuple(frames))
        (identifier,) = self._grid.push_messages([message])
        if identifier is None:
            self._tell(sent, "cannot be reached: Flower did not take the request")
            return {}
        return {str(identifier): sent}

    def _records(self, frames: tuple[bytes, ...]) -> RecordDict:
        """The frames as records; a cohort that is sent the same shares one copy in memory."""
        written, records = self._written
        same = len(written) == len(frames) and all(map(operator.is_, written, frames))
        if not same:
            records = frames_to_records(frames)
            self._written = frames, records
        return records

    # --- back -------------------------------------------------------------------------------------

    def _harvest(self, waiting: dict[str, _Sent]) -> Iterator[Reply]:
        """What has come by now. One message at a time: a broken one must not take others along."""
        for identifier, sent in list(waiting.items()):
            messages, problem = self._pull(identifier)
            if not messages and not problem:
                continue
            del waiting[identifier]
            first = self._read(sent, messages[0]) if messages else problem
            yield from self._answer(sent, first)
            for _ in messages[1:]:
                self._tell(sent, "gave a second answer to one request; it was refused")
        for identifier, sent in list(self._late.items()):
            messages, problem = self._pull(identifier)
            if messages or problem:
                del self._late[identifier]
                if messages and not messages[0].has_error():  # else Flower gave up on it, too
                    self._tell(sent, f"answered exchange {sent.exchange} too late; it was refused")

    def _tellings(self, parties: Collection[str]) -> Iterator[Reply]:
        """What has to be told of these parties besides their answers."""
        for party in parties:
            for problem in self._told.pop(party, ()):
                yield Reply(party, None, problem)

    def _pull(self, identifier: str) -> tuple[list[Message], str]:
        try:
            return list(self._grid.pull_messages([identifier])), ""
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "httpx" or isinstance(error, OSError):
                return [], ""  # the SuperLink cannot be reached just now; the deadline runs on
            # Flower parses what a party sent, so whatever else fails is that party's doing.
            return [], f"Flower could not read the answer ({type(error).__name__})"

    def _read(self, sent: _Sent, message: Message) -> list[bytes] | str:
        """The frames of an answer, or why there are none."""
        try:
            if message.has_error():
                return _error_text(message)
            if message.metadata.src_node_id != sent.node:
                return f"node {message.metadata.src_node_id} answered in place of node {sent.node}"
            content: RecordDict = message.content
            frames = records_to_frames(content, max_bytes=MAX_REPLY_BYTES)
            if len(frames) != len(sent.frames):
                raise MessageError(f"{len(sent.frames)} frames were sent, {len(frames)} came back")
            return frames
        except PrivaggError as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:  # as in `_pull`: whatever Flower's own classes choke on
            return f"Flower could not read the answer ({type(error).__name__})"

    def _answer(self, sent: _Sent, found: list[bytes] | str) -> Iterator[Reply]:
        if sent.party is None:
            self._be_introduced(sent.node, found)
        elif isinstance(found, str):
            yield Reply(sent.party, None, found)
        else:
            self._outbox.delivered(sent.party, sent.frames)
            *posted, answer = found
            yield Reply(sent.party, answer, posted=tuple(posted))

    def _be_introduced(self, node: int, found: list[bytes] | str) -> None:
        if isinstance(found, str):
            self.directory.silent(node, found)
            return
        try:
            self.directory.welcome(node, found[-1])
        except PrivaggError:
            return  # the directory remembers why, and tells it when the party is missed

    def _tell(self, sent: _Sent, problem: str) -> None:
        if sent.party is not None:
            self._told.setdefault(sent.party, []).append(f"{sent.party!r} {problem}")

    def _absent(self, left: Iterable[str]) -> Iterator[Reply]:
        for party in left:
            yield Reply(party, None, self.directory.absence(party))

    def _give_up(self, waiting: Mapping[str, _Sent]) -> Iterator[Reply]:
        """The deadline has passed: what still comes is late."""
        for identifier, sent in waiting.items():
            if sent.party is None:
                self.directory.silent(sent.node, "it did not say who it is in time")
                continue
            # Without its frames: they hold the round's model, and nobody sends them again.
            self._late[identifier] = replace(sent, frames=())
            seconds = self.patience.answer_seconds
            yield Reply(sent.party, None, f"no answer within {seconds:.0f} seconds")


def bound_pulls(most: int = MAX_REPLY_BYTES) -> None:
    """Have Flower's Grid leave off in the middle of an answer that grows too large.

    Flower fetches everything that belongs to an answer before anybody sees its size. Here what has
    come is counted, object by object; an answer that is cut off is its sender's silence.

    Raises:
        SystemExit: this release of Flower has no place for it; without it no run is led.
    """
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
    from flwr.superlink.grid import http_grid

    pull: Callable[..., dict[str, bytes]] | None = getattr(http_grid, "pull_objects", None)
    if pull is None or "pull_objects" not in http_grid.HttpGrid.pull_messages.__code__.co_names:
        raise SystemExit("this release of flwr has no hook for a size limit; use flwr 1.41 or 1.42")

    def bounded(
        object_ids: list[str], pull_object_fn: Callable[[str], bytes], **options: object
    ) -> dict[str, bytes]:
        sizes: list[int] = []  # several threads append to it

        def counted(object_id: str) -> bytes:
            data = pull_object_fn(object_id)
            sizes.append(len(data))
            if sum(sizes) > most:
                raise ObjectPullError(object_id, f"the answer is longer than {most} bytes")
            return data

        return pull(object_ids, counted, **options)

    http_grid.__dict__["pull_objects"] = bounded


def _error_text(message: Message) -> str:
    """An error in words fit for a report: ours as it is, Flower's by kind alone.

    Flower puts the text of whatever exception it met into an error, and that may hold anything.
    """
    error = message.error
    if error.code == REFUSED:
        return str(error.reason or "it refuses")[:2048]
    if str(error.reason).startswith(_APP_REFUSED):
        return "its owner has not approved the app's code (there: privagg deploy approve)"
    return _FLOWER_ERRORS.get(error.code, f"Flower reports error {error.code}")
