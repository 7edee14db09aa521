"""The client's door: what a Flower app trains leaves its node charged, clipped, noised, encrypted.

    app = ClientApp(mods=[PrivateUpdates(party_of)])

and the app's `@app.train()` stays as it is. Everything that comes from the network goes to the
core's `Site` first, which checks it, charges the ledger and only then has the app train; of the
app's answer nothing but the change of its one model is read, and that leaves only as an upload.
What else an app could send in the clear stays on the node: metrics, further records, errors.

The door is closed unless it is opened: training messages that carry no round of privagg's, queries,
and evaluation are refused, the last unless the app's owner says that it reads public data only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from logging import ERROR
from typing import Literal

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.app.message import make_message
from flwr.clientapp.typing import ClientAppCallable
from flwr.supercore import log
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.errors import DataError, MessageError, PrivaggError
from privagg.flower.bridge.arrays import TrainRequest
from privagg.flower.bridge.learner import Train, app_handler
from privagg.flower.bridge.records import frames_to_records, records_to_frames
from privagg.flower.bridge.transport import REFUSED
from privagg.protocol.messages import refusal_text
from privagg.protocol.site import Seat
from privagg.protocol.transport import Handler, answer_frames

FAILED = "this client failed; the node's own log says why"
"""All that is said of an error that could depend on private data."""


@dataclass(frozen=True)
class Elsewhere:
    """A party that answers in a process of its own, which may ask this one's app to train.

    Args:
        ask: passes a frame on, with what has the app train, and brings the answer.
    """

    ask: Callable[[bytes, Train], bytes]


class PrivateUpdates:
    """A Flower mod that lets an app's updates leave only under a plan, charged and encrypted.

    Put it first among the app's mods: a mod before it sees what the network sees, a mod after it
    what the app sees.

    Args:
        party_of: who this node is: a site's `Seat`, the `handle` of a key holder, or where the
            party answers in a process of its own.
        evaluation: `public` lets the app answer evaluation messages with its metrics, because it
            reads nothing but data that its owner has declared public.
        answer_after_seconds: an answer to a training message leaves no sooner than this after the
            message came, so that it does not show how long training took.

    Guarantees:
        No exception leaves a call; what is said of one is its kind and, where it follows from
        public facts, its text.
    """

    def __init__(
        self,
        party_of: Callable[[Context], Seat | Handler | Elsewhere],
        *,
        evaluation: Literal["refused", "public"] = "refused",
        answer_after_seconds: float = 0.0,
    ) -> None:
        self._party_of = party_of
        self._evaluation = evaluation
        self._answer_after_seconds = answer_after_seconds

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answer a message in the app's place; Flower calls this."""
        came = time.monotonic()
        try:
            content = self._answer(message, context, call_next)
            reply = Message(content, reply_to=message)
        except Exception as error:
            reply = Message(_refusal(error), reply_to=message)
        left = came + self._answer_after_seconds - time.monotonic()
        if message.metadata.message_type.startswith(MessageType.TRAIN) and left > 0:
            time.sleep(left)
        return reply

    def _answer(
        self, message: Message, context: Context, call_next: ClientAppCallable
    ) -> RecordDict:
        kind = message.metadata.message_type.partition(".")[0]

        def run(content: RecordDict) -> Message:
            # The app gets metadata of its own: nothing that it changes there leaves the node.
            inner = make_message(metadata=copy(message.metadata), content=content)
            return call_next(inner, context)

        if kind == MessageType.EVALUATE and self._evaluation == "public":
            return _public_metrics(run(message.content))
        if kind != MessageType.TRAIN:
            raise MessageError(
                f"this client does not answer {kind!r} messages: an answer would leave it in the "
                "clear (an app that evaluates on public data only says evaluation='public')"
            )
        frames = records_to_frames(message.content)
        if not frames:
            raise MessageError("a training message without a frame asks for nothing")
        return frames_to_records(answer_frames(self._handler(context, run), frames))

    def _handler(self, context: Context, run: Callable[[RecordDict], Message]) -> Handler:
        party, train = self._party_of(context), _training(run)
        if isinstance(party, Elsewhere):
            return lambda frame: party.ask(frame, train)
        return app_handler(party, train) if isinstance(party, Seat) else party


def _training(run: Callable[[RecordDict], Message]) -> Train:
    """What has the app of this process train.

    Args:
        run: the app's call.
    """

    def train(settings: Mapping[str, JsonValue], parameters: FloatVector) -> FloatVector:
        request = TrainRequest.read(settings, dimension=len(parameters))
        return request.update(parameters, _succeeded(run(request.content(parameters))))

    return train


def _public_metrics(answer: Message) -> RecordDict:
    """Of an app's answer, the metrics."""
    return RecordDict(dict(_succeeded(answer).metric_records))


def _succeeded(answer: Message) -> RecordDict:
    if answer.has_error():
        raise DataError(f"the app answered with an error: {answer.error.reason}")
    return answer.content


def _refusal(error: Exception) -> Error:
    """What of an error may leave the node; the rest goes into its own log."""
    if isinstance(error, PrivaggError) and error.public:
        reason = f"{type(error).__name__}: {refusal_text(error)}"
    else:
        log(ERROR, "privagg: a message was not answered", exc_info=error)
        reason = FAILED
    return Error(REFUSED, reason)
