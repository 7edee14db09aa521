"""A helper process that encrypts ranges of ciphertexts for its parent; see `workers`."""

from __future__ import annotations

import json
import os
import struct
import sys
from multiprocessing.connection import Connection

from privagg.secure.registry import scheme
from privagg.secure.workers import RangedKey


def serve(parent: Connection) -> None:
    """Answer the parent until it closes the connection."""
    key: RangedKey | None = None
    while True:
        try:
            name = parent.recv_bytes()
        except EOFError:
            return
        if name:
            facts, data = json.loads(parent.recv_bytes()), parent.recv_bytes()
            found = scheme(name.decode())
            loaded = found.load_encryption_key(found.load_parameters(facts), data)
            if not isinstance(loaded, RangedKey):
                raise SystemExit(f"scheme {name.decode()!r} does not encrypt over processes")
            key = loaded
        if key is None:
            raise SystemExit("asked to encrypt before any key was given")
        first, last = struct.unpack("<QQ", parent.recv_bytes())
        parent.send_bytes(key.encrypt_range(first, last, parent.recv_bytes()))


if __name__ == "__main__":
    os.dup2(2, 1)  # whatever a library prints must not end up in what the parent prints
    serve(Connection(int(sys.argv[1])))
