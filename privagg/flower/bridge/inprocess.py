"""Flower without a network: a `Grid` over ClientApps in this process, with faults injected.

For tests of apps and strategies, and for trying out. Every message passes through Flower's own
protobuf form both ways, so only what would survive the wire arrives; an app that raises becomes the
error message that a SuperNode would send, the exception's text included.

    grid = InProcessGrid({1: app, 2: app}, node_configs={1: {"party": "north"}, ...})
    grid.faults[2] = Faults(silent=True)           # never answers, its app never runs
    grid.faults[1] = Faults(pulls_late=3)          # the answer is there at the fourth pull
    grid.faults[1] = Faults(answer=lambda reply: [reply, reply])   # answers twice
    server_app(grid, context)                      # or strategy.start(grid, ...)

Apps run one after the other, when their answer is first pulled; nothing is held that was pulled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

App = Callable[[Message, Context], Message]

PULL_SECONDS = 0.01
"""How long `send_and_receive` rests between two pulls that brought nothing."""


@dataclass
class Faults:
    """What goes wrong between the Grid and one node.

    Args:
        silent: nothing arrives there, and nothing comes back.
        pulls_late: pulls for which an answer is not there yet.
        answer: what becomes of an answer on its way: none, one, several, or altered ones.
        request: what becomes of a request on its way there.
    """

    silent: bool = False
    pulls_late: int = 0
    answer: Callable[[Message], list[Message]] = lambda reply: [reply]
    request: Callable[[Message], Message] = lambda message: message


@dataclass
class Traffic:
    """What passed between the Grid and one node.

    Attributes:
        messages: sent to the node.
        bytes_down: sent to the node.
        bytes_up: that came back.
    """

    messages: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass
class _Pending:
    frame: bytes
    node_id: int
    pulls: int = 0
    replies: list[bytes] | None = field(default=None)


class InProcessGrid(Grid):
    """A Grid whose nodes are callables of this process.

    Args:
        apps: node id -> its ClientApp (or any callable of message and context).
        node_configs: node id -> what a SuperNode would be started with.
        run_config: what the run was submitted with; every node's context shows it.
        at_once: most apps that one pull runs; None runs all that are asked for.
        run_id: of the run all messages belong to.
    """

    def __init__(
        self,
        apps: Mapping[int, App],
        *,
        node_configs: Mapping[int, UserConfig] | None = None,
        run_config: UserConfig | None = None,
        at_once: int | None = None,
        run_id: int = 1,
    ) -> None:
        # Flower's messages take their origin from the process they are made in.
        TaskIdentity.run_id, TaskIdentity.node_id = run_id, SUPERLINK_NODE_ID
        TaskIdentity.task_id = 1
        self._run = Run.create_empty(run_id)
        self._apps = dict(apps)
        self._at_once = at_once
        self._pending: dict[str, _Pending] = {}
        self.faults: dict[int, Faults] = {}
        self.traffic = {node_id: Traffic() for node_id in self._apps}
        configs = node_configs or {}
        self.contexts = {
            node_id: Context(
                run_id=run_id,
                node_id=node_id,
                node_config=dict(configs.get(node_id, {})),
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for node_id in self._apps
        }

    def restart(self, node_id: int, app: App) -> None:
        """A node goes down with everything it held in memory, and comes back with `app`."""
        self._apps[node_id] = app
        self.contexts[node_id].state = RecordDict()

    def remove(self, node_id: int) -> None:
        """A node goes away for good; what waits for it is never answered."""
        del self._apps[node_id]
        self._pending = {i: p for i, p in self._pending.items() if p.node_id != node_id}

    # --- Flower's interface -----------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """See `Grid.set_run`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `Grid.run`."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid.get_node_ids`."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid.push_messages`; the apps run when their answers are pulled."""
        identifiers = []
        for message in messages:
            node_id, identifier = message.metadata.dst_node_id, str(uuid4())
            faults = self.faults.get(node_id, Faults())
            message = faults.request(message)
            message.metadata.__dict__["_message_id"] = identifier
            frame = message_to_proto(message).SerializeToString()
            traffic = self.traffic.setdefault(node_id, Traffic())
            traffic.messages += 1
            traffic.bytes_down += len(frame)
            if not faults.silent:
                self._pending[identifier] = _Pending(frame, node_id)
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid.pull_messages`; an answer is handed out once and then forgotten."""
        found: list[Message] = []
        ran = 0
        for identifier in message_ids:
            pending = self._pending.get(identifier)
            if pending is None:
                continue
            if pending.replies is None:
                if self._at_once is not None and ran >= self._at_once:
                    continue
                pending.replies = self._run_app(pending)
                ran += 1
            if pending.pulls < self.faults.get(pending.node_id, Faults()).pulls_late:
                pending.pulls += 1
                continue
            del self._pending[identifier]
            found += [message_from_proto(ProtoMessage.FromString(r)) for r in pending.replies]
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """See `Grid.send_and_receive`; it does not wait for answers that will never come."""
        waiting = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        found: list[Message] = []
        while waiting & self._pending.keys() and (end is None or time.monotonic() < end):
            pulled = list(self.pull_messages(waiting))
            found += pulled
            if not pulled:
                time.sleep(PULL_SECONDS)
        return found

    # --- one node ---------------------------------------------------------------------------------

    def _run_app(self, pending: _Pending) -> list[bytes]:
        message = message_from_proto(ProtoMessage.FromString(pending.frame))
        context = self.contexts.get(pending.node_id)
        try:
            if context is None or pending.node_id not in self._apps:
                unknown = Error(ErrorCode.NODE_UNAVAILABLE, "there is no such node")
                reply = Message(unknown, reply_to=message)
            else:
                reply = self._apps[pending.node_id](message, context)
        except Exception as error:  # as a SuperNode does, the exception's text included
            reason = f"{type(error)}:<'{error}'>"
            failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
            reply = Message(failed, reply_to=message)
        answer = self.faults.get(pending.node_id, Faults()).answer
        frames = [message_to_proto(made).SerializeToString() for made in answer(reply)]
        self.traffic[pending.node_id].bytes_up += sum(len(frame) for frame in frames)
        return frames
