"""A party's own process as the app's deployment test starts it: known randomness.

hungarian  holds its upload of round 2 back once, so that the test kills the coordinator meanwhile
"""

from __future__ import annotations

import socket
from dataclasses import replace

from privagg.flower import resident
from privagg.flower.deploy.processes import RESIDENT_READY
from privagg.party.folder import PartyFolder
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.frames import read_message
from privagg.protocol.messages import RoundStart
from privagg.protocol.site import Seat
from privagg.protocol.transport import Handler
from tests.flower.deterministic import hold_back, note_of
from tests.flower.heart import SEED


def known(party: Handler | Seat) -> Handler | Seat:
    """The party; a site with the test's source of randomness."""
    if not isinstance(party, Seat):
        return party
    return replace(party, randomness=DeterministicRandomness(SEED))


def holding_back(folder: PartyFolder) -> None:
    """Have this process hold its first upload of round 2 back."""
    plain, held = resident._handler, note_of(folder).with_name("held-back")

    def handler(party: Handler | Seat, connection: socket.socket) -> Handler:
        honest = plain(party, connection)

        def answer(frame: bytes) -> bytes:
            header, given = read_message(frame, folder.pins().pinned_roster).header, honest(frame)
            if isinstance(header, RoundStart) and header.round == 2 and not held.exists():
                held.touch()
                hold_back(folder)
            return given

        return answer

    resident._handler = handler


if __name__ == "__main__":
    resident.end_with_parent()
    own = resident.folder_of_this_process()
    if own.party().name == "hungarian":
        holding_back(own)
    party = known(resident.open_resident(own))
    resident.serve(own, party, lambda: print(RESIDENT_READY, flush=True))
