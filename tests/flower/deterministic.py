"""A party's own process as the deployment test starts it: known randomness, and known misbehaviour.

switzerland holds its upload of round 1 back, so that the test takes its SuperNode off meanwhile
hungarian   holds its upload of round 2 back once, so that the test kills the coordinator meanwhile
va          sends its upload of round 1 again in round 2
hungarian   sends hostile bytes in round 3
cleveland   holds its upload of round 4 back, so that the test kills its SuperNode meanwhile
"""

from __future__ import annotations

import time
from pathlib import Path

from privagg.flower.deploy.processes import RESIDENT_READY
from privagg.flower.resident import end_with_parent, folder_of_this_process, serve
from privagg.party.folder import PartyFolder
from privagg.party.open import open_party
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.frames import read_message
from privagg.protocol.messages import RoundStart
from privagg.protocol.transport import Handler
from tests.flower.heart import SEED

NOTE = "holding-back"
MOST_SECONDS = 300.0
HELD_BACK = (("switzerland", 1), ("hungarian", 2), ("cleveland", 4))


def note_of(folder: PartyFolder) -> Path:
    """The file that stands there while a party holds its upload back; removed, it goes on."""
    return folder.root / NOTE


def hold_back(folder: PartyFolder) -> None:
    note_of(folder).touch()
    until = time.monotonic() + MOST_SECONDS
    while note_of(folder).exists() and time.monotonic() < until:
        time.sleep(0.05)


def misbehaving(folder: PartyFolder, honest: Handler) -> Handler:
    name, roster = folder.party().name, folder.pins().pinned_roster
    kept: dict[int, bytes] = {}

    def answer(frame: bytes) -> bytes:
        header, given = read_message(frame, roster).header, honest(frame)
        if not isinstance(header, RoundStart):
            return given
        first = header.round not in kept
        kept[header.round] = given
        if first and (name, header.round) in HELD_BACK:
            hold_back(folder)
        if (name, header.round) == ("va", 2):
            return kept[1]
        if (name, header.round) == ("hungarian", 3):
            return b"PVAG" + bytes(range(256)) * 16
        return given

    return answer


if __name__ == "__main__":
    end_with_parent()
    own = folder_of_this_process()
    party = open_party(own, DeterministicRandomness(SEED))
    serve(own, misbehaving(own, party), lambda: print(RESIDENT_READY, flush=True))
