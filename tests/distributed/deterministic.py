"""A party's own process as the deployment test starts it: known randomness, and known misbehaviour.

va         sends its upload of round 1 again in round 2
hungarian  sends hostile bytes in round 3
cleveland  leaves a note in round 4, so that the test kills its SuperNode before it answers
"""

from __future__ import annotations

import time
from pathlib import Path

from privagg.deployment.layout import PartyFolder
from privagg.deployment.parts import RESIDENT_READY
from privagg.distributed.folders import open_party
from privagg.distributed.resident import end_with_parent, folder_of_this_process, serve
from privagg.messages import RoundStart, read_message
from privagg.privacy.randomness import DeterministicRandomness
from privagg.transport import Handler
from tests.distributed.heart import SEED

NOTE = "in-round-4"


def note_of(folder: PartyFolder) -> Path:
    return folder.root / NOTE


def misbehaving(folder: PartyFolder, honest: Handler) -> Handler:
    name, roster = folder.party().name, folder.pins().pinned_roster
    kept: list[bytes] = []

    def answer(frame: bytes) -> bytes:
        header, given = read_message(frame, roster).header, honest(frame)
        if not isinstance(header, RoundStart):
            return given
        kept.append(given)
        if (name, header.round) == ("va", 2):
            return kept[0]
        if (name, header.round) == ("hungarian", 3):
            return b"PVAG" + bytes(range(256)) * 16
        if (name, header.round) == ("cleveland", 4):
            note_of(folder).touch()
            time.sleep(10)
        return given

    return answer


if __name__ == "__main__":
    end_with_parent()
    own = folder_of_this_process()
    party = open_party(own, DeterministicRandomness(SEED))
    serve(own, misbehaving(own, party), lambda: print(RESIDENT_READY, flush=True))
