"""A Flower app as what trains at a site, in this process or in another one.

Everything that a message asks for is the core's `Site`'s to answer; the app only turns a round's
model into an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import ERROR

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.errors import MessageError
from privagg.flower.bridge.arrays import TrainRequest
from privagg.privacy.plan import ClientPlan
from privagg.privacy.randomness import Randomness
from privagg.protocol.frames import read_message
from privagg.protocol.messages import RoundStart
from privagg.protocol.site import Seat
from privagg.protocol.transport import Handler
from privagg.training.draws import Draws, RoundId, noised_update

Train = Callable[[Mapping[str, JsonValue], FloatVector], FloatVector]
"""Has the app train: a round's settings and model, float64 `(d,)` -> the change, float64 `(d,)`.

The settings are those of a `TrainRequest`. The change is private, and so is what is raised.
"""


class AppLearner:
    """A Flower app as what trains in one round.

    Args:
        seat: the site's.
        settings: of the round; those of a `TrainRequest`.
        train: has the app train.
    """

    def __init__(self, seat: Seat, settings: Mapping[str, JsonValue], train: Train) -> None:
        self._name, self._plan = seat.identity.name, ClientPlan.require(seat.plan)
        self._settings, self._train = settings, train

    def contribution(
        self, parameters: NDArray[np.float64], randomness: Randomness, round_id: RoundId
    ) -> NDArray[np.int64]:
        """The app's update, clipped on the grid, weighted, noised. See `Learner.contribution`.

        Args:
            parameters: float64 `(d,)`, the round's model.
            randomness: source of rounding and noise.
            round_id: (run, round, attempt).

        Returns:
            int64 `(n,)` in grid units.

        Raises:
            DataError: the app answered with an error, or with no model. It stays with the client.
        """
        try:
            update = self._train(self._settings, parameters)
        except Exception as error:
            log(ERROR, "privagg: the app did not train", exc_info=error)  # for its owner alone
            raise
        draws = Draws(randomness, round_id, self._name, self._plan)
        return noised_update(self._plan, update, draws, released=parameters)


class NoLearner:
    """Trains nothing: for messages that ask for no training."""

    def contribution(
        self, parameters: NDArray[np.float64], randomness: Randomness, round_id: RoundId
    ) -> NDArray[np.int64]:
        """Refused.

        Args:
            parameters, randomness, round_id: as for `Learner.contribution`.

        Raises:
            MessageError: always.
        """
        raise MessageError("this message asks for no training")


def app_handler(seat: Seat, train: Train) -> Handler:
    """What answers at a site whose records a Flower app reads.

    Args:
        seat: the site's.
        train: has the app train.

    Returns:
        A handler. A round whose settings no app can be asked with is refused before it is charged.
    """
    dimension = ClientPlan.require(seat.plan).dimension

    def handle(frame: bytes) -> bytes:
        message = read_message(frame, seat.pins.roster)
        header, learner = message.header, NoLearner()
        if not isinstance(header, RoundStart):
            return seat.site(learner).answer(message, frame)
        TrainRequest.read(header.settings, dimension=dimension)
        # Not `handle`: it would hash the whole model a second time.
        return seat.site(AppLearner(seat, header.settings, train)).answer(message, frame)

    return handle
