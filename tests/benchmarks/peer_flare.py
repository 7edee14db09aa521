"""NVIDIA FLARE's aggregation of encrypted updates, run by `peers.py` in FLARE's own environment.

What is timed is its server's own path: FOBS bytes to a `Shareable` whose values are TenSEAL CKKS
vectors, `HEInTimeAccumulateWeightedAggregator.accept` for each, `aggregate` at the end. The updates
are made by its `HEModelEncryptor` under the context of its `HEBuilder`, with their defaults.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import peer_protocol
import tenseal
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
    HEInTimeAccumulateWeightedAggregator,
)
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.fuel.utils import fobs
from nvflare.lighter.impl.he import HEBuilder
from nvflare.private.fed.utils.fed_utils import fobs_initialize

logging.disable(logging.CRITICAL)


def encrypted_update(parameters: int, context: bytes) -> bytes:
    """One site's update as FLARE's client makes it; one variable for the whole model."""
    encryptor = HEModelEncryptor(encrypt_layers=["model"], weigh_by_local_iter=False)
    encryptor.tenseal_context = tenseal.context_from(context)
    values = np.random.default_rng(1).normal(size=parameters).astype(np.float32)
    made = encryptor._process(DXO(DataKind.WEIGHT_DIFF, {"model": values}), FLContext())
    return bytes(fobs.dumps(made.to_shareable()))


class Flare:
    """Answers the runner."""

    def __init__(self) -> None:
        fobs_initialize()
        common_decomposers.register()
        builder = HEBuilder()
        builder.initialize(None, None)
        self._context = builder.get_serialized_context(is_client=True)

    def prepare(self, parameters: int, sites: int) -> dict[str, Any]:
        """Make one update; every site sends these bytes."""
        self._sites = sites
        self._data = encrypted_update(parameters, self._context)
        return {"bytes": len(self._data)}

    def run(self) -> None:
        """One round at FLARE's server."""
        aggregator = HEInTimeAccumulateWeightedAggregator()
        context = FLContext()
        aggregator.handle_event(EventType.START_RUN, context)
        context.set_prop(AppConstants.CURRENT_ROUND, 1)
        for site in range(self._sites):
            shareable = fobs.loads(self._data)
            shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site{site}"})
            shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, 1)
            if not aggregator.accept(shareable, context):
                raise SystemExit("FLARE did not accept an update")
        total = from_shareable(aggregator.aggregate(context)).data["model"]
        if not isinstance(total, tenseal.CKKSVector):
            raise SystemExit("FLARE's sum is not encrypted")


if __name__ == "__main__":
    peer_protocol.serve(Flare())
