"""All parties in one process: for trying out, for tests, for one owner of several data sets.

The frames are the very same bytes that a network would carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from privagg.errors import PrivaggError
from privagg.protocol.messages import refusal_text
from privagg.protocol.transport import Handler, Outbox, Reply, answer_frames


class LocalTransport:
    """Calls each party's handler in turn.

    Args:
        handlers: party name -> bytes in, bytes out.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        self._outbox = Outbox()
        self.exchanges = 0

    def post(self, frames: Mapping[str, bytes]) -> None:
        """See `Transport.post`."""
        self._outbox.post(frames)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[Reply]:
        """See `Transport.exchange`. An error of our own tree is that party's silence.

        Anything else is a defect of the program and is raised: in one process nothing else
        could have caused it.
        """
        self.exchanges += 1
        for party, frame in requests.items():
            handler = self._handlers.get(party)
            if handler is None:
                yield Reply(party, None, "not reachable")
                continue
            sent = self._outbox.load(party, frame)
            self._outbox.delivered(party, sent)
            try:
                *posted, answer = answer_frames(handler, sent)
                yield Reply(party, answer, posted=tuple(posted))
            except PrivaggError as error:
                yield Reply(party, None, f"{type(error).__name__}: {refusal_text(error)}")
            except (OSError, ConnectionError) as error:
                yield Reply(party, None, f"failed: {type(error).__name__}")
