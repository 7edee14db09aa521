"""Flower's two apps around our parties: frames in, frames out, and a run that drives itself."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from privagg.errors import PrivaggError
from privagg.flower.bridge.records import frames_to_records, records_to_frames
from privagg.flower.bridge.transport import ACTION, REFUSED
from privagg.protocol.messages import refusal_text
from privagg.protocol.transport import Handler, answer_frames
from privagg.training.progress import every_while, watching

OpenParty = Callable[[Context], Handler]
Drive = Callable[[Grid, Context], None]

_LOG = logging.getLogger("privagg")


def _tell(text: str) -> None:
    log(logging.INFO, "privagg: %s", text)


def make_client_app(open_party: OpenParty) -> ClientApp:
    """An app that hands a node's frames to the party behind it.

    Whatever goes wrong stays at the party, in its own log; what leaves is a public reason or the
    kind of the error, never an exception's text.

    Args:
        open_party: makes the party's handler; Flower calls the app in a fresh process for each
            message, so all that has to last lies in the party's folder.
    """
    app = ClientApp()

    @app.query(ACTION)
    def answer(message: Message, context: Context) -> Message:
        try:
            frames = records_to_frames(message.content)
            with watching(every_while(_tell)):
                answers = answer_frames(open_party(context), frames)
            return Message(frames_to_records(answers), reply_to=message)
        except PrivaggError as error:
            _LOG.warning("refused: %s", error)
            reason = f"{type(error).__name__}: {refusal_text(error)}"
        except Exception as error:
            _LOG.exception("failed")
            reason = f"failed: {type(error).__name__}"
        return Message(Error(REFUSED, reason), reply_to=message)

    return app


def make_server_app(drive: Drive) -> ServerApp:
    """An app that drives a run over Flower's Grid.

    Args:
        drive: the run; what it raises ends Flower's run as failed.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        drive(grid, context)

    return app
