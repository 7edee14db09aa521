"""One line of JSON each way between `peers.py` and a peer's process; standard library only."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any, Protocol


class Peer(Protocol):
    """What a peer's process can do."""

    def prepare(self, parameters: int, sites: int) -> dict[str, Any]:
        """Make the updates that `run` adds."""

    def run(self) -> None:
        """One round of aggregation."""


def serve(peer: Peer) -> None:
    """Answer requests from standard input until it ends: {"parameters", "sites"} or {}."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            answer = peer.prepare(**request)
        else:
            wall, processor = time.perf_counter(), time.process_time()
            peer.run()
            answer = {
                "seconds": time.perf_counter() - wall,
                "processor_seconds": time.process_time() - processor,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
