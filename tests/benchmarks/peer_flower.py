"""Flower's own aggregation paths, run by `peers.py` in Flower's own environment.

`fedavg`: protobuf bytes to `RecordDict`s, then `aggregate_arrayrecords`, which FedAvg averages
with: float32, nothing encrypted. `secagg`: SecAgg+ with every site present, through the functions
that its workflow calls in the stages *collect masked vectors* and *unmask*, without the network and
the shares: the server reads and adds the masked vectors, and subtracts each site's private mask.
`shares`: what that leaves out at the server, one seed of each site from its shares.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import peer_protocol
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common import bytes_to_ndarray, ndarray_to_bytes
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

CLIPPING, LEVELS, MODULUS = 8.0, 4194304, 4294967296  # the defaults of its workflow


def read(data: bytes) -> RecordDict:
    """A record dictionary as Flower reads it off the wire."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


class FedAvg:
    """Plain averaging."""

    def prepare(self, parameters: int, sites: int) -> dict[str, Any]:
        """Make one update; every site sends these bytes."""
        values = np.random.default_rng(1).normal(size=parameters).astype(np.float32)
        record = RecordDict(
            {
                "arrays": ArrayRecord({"model": Array(values)}),
                "metrics": MetricRecord({"num-examples": 100}),
            }
        )
        self._sites = sites
        self._data = recorddict_to_proto(record).SerializeToString()
        return {"bytes": len(self._data)}

    def run(self) -> None:
        """One round at Flower's server; it holds all updates before it averages."""
        records = [read(self._data) for _ in range(self._sites)]
        aggregate_arrayrecords(records, "num-examples")


class SecAggPlus:
    """Masked averaging, nobody missing."""

    def prepare(self, parameters: int, sites: int, **_: int) -> dict[str, Any]:
        """Make one masked update; every site sends these bytes."""
        values = np.random.default_rng(1).normal(size=parameters).astype(np.float32)
        masked = quantize([values], CLIPPING, LEVELS)
        mask = pseudo_rand_gen(b"seed" * 8, MODULUS, get_parameters_shape(masked))
        masked = parameters_mod(parameters_addition(masked, mask), MODULUS)
        vector = [ndarray_to_bytes(array) for array in masked]
        record = RecordDict({"secagg": ConfigRecord({"masked": vector})})
        self._sites = sites
        self._data = recorddict_to_proto(record).SerializeToString()
        return {"bytes": len(self._data)}

    def run(self) -> None:
        """Collect and unmask, as the workflow does."""
        messages = [read(self._data) for _ in range(self._sites)]
        total = None
        for message in messages:
            found = [bytes_to_ndarray(b) for b in message.config_records["secagg"]["masked"]]
            total = found if total is None else parameters_addition(total, found)
        total = parameters_mod(total, MODULUS)
        for site in range(self._sites):
            seed = site.to_bytes(32, "little")
            mask = pseudo_rand_gen(seed, MODULUS, get_parameters_shape(total))
            total = parameters_subtraction(total, mask)
        dequantize(parameters_mod(total, MODULUS), CLIPPING, LEVELS)


class SecAggShares:
    """Seeds from shares, nobody missing."""

    def prepare(self, parameters: int, sites: int, threshold: int, holders: int) -> dict[str, Any]:
        """Deal one seed to so many holders; every site's seed is dealt like this."""
        shares = create_shares(b"seed" * 8, threshold, holders)
        self._sites, self._shares = sites, shares
        return {"bytes": sum(map(len, shares))}

    def run(self) -> None:
        """Combine every site's shares, of which the workflow takes all that came."""
        for _ in range(self._sites):
            combine_shares(self._shares)


if __name__ == "__main__":
    kinds = {"fedavg": FedAvg, "secagg": SecAggPlus, "shares": SecAggShares}
    peer_protocol.serve(kinds[sys.argv[1]]())
