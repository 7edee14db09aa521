"""A helper process that encrypts ranges of ciphertexts for its parent; see `workers`."""

from __future__ import annotations

import json
import os
import struct
import sys

from privagg.secure.registry import scheme
from privagg.secure.workers import RangedKey, read_frame, write_frame


def serve() -> None:
    """Answer the parent until it closes the pipe."""
    source = sys.stdin.buffer
    # Whatever a library prints must not end up in the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    key: RangedKey | None = None
    while True:
        try:
            name = read_frame(source)
        except EOFError:
            return
        if name:
            facts, data = json.loads(read_frame(source)), read_frame(source)
            found = scheme(name.decode())
            loaded = found.load_encryption_key(found.load_parameters(facts), data)
            if not isinstance(loaded, RangedKey):
                raise SystemExit(f"scheme {name.decode()!r} does not encrypt over processes")
            key = loaded
        if key is None:
            raise SystemExit("asked to encrypt before any key was given")
        first, last = struct.unpack("<QQ", read_frame(source))
        write_frame(answers, key.encrypt_range(first, last, read_frame(source)))
        answers.flush()


if __name__ == "__main__":
    serve()
