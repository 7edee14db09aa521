"""The file of a released model, as tests compare it."""

from __future__ import annotations

import json

from safetensors import safe_open

from privagg.run.results import RunResult


def but_for_its_plan(run: RunResult) -> bytes:
    """The model's file but for the digest of its plan, which names the scheme."""
    assert run.model is not None
    data = run.model.read_bytes()
    digest = json.loads(safe_open(run.model, "np").metadata()["privagg"])["plan_digest"].encode()
    assert data.count(digest) == 1
    return data.replace(digest, b"")
