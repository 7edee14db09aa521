"""The coordinator's app as the deployment test names it: it records the test's randomness."""

from __future__ import annotations

from privagg.flower.apps import make_run_app
from privagg.privacy.randomness import DeterministicRandomness
from tests.flower.heart import SEED

server_app = make_run_app(DeterministicRandomness(SEED).name)
