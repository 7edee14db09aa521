"""A contribution's random draws, and what every whole update goes through before it leaves.

Nothing here trains, so whoever brings an update of their own (another framework's model, another
runtime's app) puts it on the same grid, under the same clip, weight and noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from privagg.encoding.planned import RoundId as RoundId
from privagg.encoding.planned import update_encoding
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import ClientPlan, Plan
from privagg.privacy.randomness import ByteStream, Randomness, poisson_sample


class Draws:
    """The random draws of one contribution, each from a stream of its own.

    Args:
        randomness: the site's own source.
        round_id: (run, round, attempt).
        site: whose contribution it is.
        plan: gives the noise.
    """

    def __init__(self, randomness: Randomness, round_id: RoundId, site: str, plan: Plan) -> None:
        self.site, self.round_id = site, round_id
        self._randomness, self._labels = randomness, (*round_id, site)
        self._noise = plan.in_round(round_id[1]).noise

    def mask(self, count: int, sampling_rate: Decimal, step: int = 0) -> npt.NDArray[np.bool_]:
        """Which of the records take part in this step.

        Args:
            count: number of records; private.
            sampling_rate: q in (0, 1], for each record by itself.
            step: number of the local step, from 0.

        Returns:
            bool `(count,)`.
        """
        stream = self._randomness.stream("sample", *self._labels, step)
        return poisson_sample(stream, count, sampling_rate)

    def slots(self, step: int = 0) -> ByteStream:
        """What this step's sampled records are placed by; as secret as the sample."""
        return self._randomness.stream("slots", *self._labels, step)

    def noise(self, count: int, step: int = 0) -> IntVector:
        """This step's integer noise as the plan has it, int64 `(count,)`."""
        if self._noise is None:
            return np.zeros(count, dtype=np.int64)
        stream = self._randomness.stream("noise", *self._labels, step)
        return self._noise.sample(stream, count)

    def coins(self) -> ByteStream:
        """What stochastic rounding draws from; as secret as the noise."""
        return self._randomness.stream("rounding", *self._labels)

    def layer_seed(self) -> int:
        """Seed of layers that draw, such as dropout; only whole clients are trained with them."""
        return int(self._randomness.stream("layers", *self._labels).uint64(1)[0] >> 1)

    def shard_key(self) -> bytes:
        """What the records are dealt to shards by: 32 bytes, as secret as the noise."""
        return self._randomness.stream("shards", *self._labels).bytes(32)

    def of_shard(self, number: int) -> ByteStream:
        """What one shard's program draws from; no other shard's draws move it."""
        return self._randomness.stream("shard", *self._labels, number)

    def batches(self, count: int, batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
        """Endless batches from shuffled passes over `count` records."""
        stream = self._randomness.stream("batches", *self._labels)
        size, waiting = min(batch_size, count), np.empty(0, dtype=np.int64)
        while True:
            if len(waiting) < size:
                order = np.argsort(stream.uint64(count), kind="stable")
                waiting = np.concatenate([waiting, order])
            yield waiting[:size]
            waiting = waiting[size:]


def place_records(
    stream: ByteStream, sampled: npt.NDArray[np.int64], slots: int
) -> npt.NDArray[np.int64]:
    """Places the sampled records in slots by a uniformly random injection.

    A permutation of all slots is drawn first, whoever is sampled; then the i-th record gets its
    i-th slot. So the placement of n + 1 records, restricted to any n of them, is uniform.

    Args:
        stream: secret; what it gives is used for nothing else.
        sampled: int64 `(m,)`, record numbers.
        slots: public number of slots. Of more records than slots, a uniformly random choice of as
            many is placed; the plan makes that improbable and charges for it.

    Returns:
        int64 `(slots,)`: the record in each slot, -1 where there is none.
    """
    order = _permutation(stream, slots)
    if len(sampled) > slots:
        sampled = sampled[_permutation(stream, len(sampled))[:slots]]
    records_at = np.full(slots, -1, dtype=np.int64)
    records_at[order[: len(sampled)]] = sampled
    return records_at


def _permutation(stream: ByteStream, count: int) -> npt.NDArray[np.int64]:
    """A uniform permutation: the order of words that all differ; words that do not are redrawn."""
    while True:
        words = stream.uint64(count)
        order = np.argsort(words, kind="stable")
        in_order = words[order]
        if bool((in_order[1:] != in_order[:-1]).all()):
            return order


def noised_update(
    plan: ClientPlan, update: FloatVector, draws: Draws, *, released: FloatVector
) -> IntVector:
    """A client's whole update, compressed and clipped on the grid, weighted, with its noise share.

    Args:
        plan: what everybody agreed to.
        update: float64 `(d,)`, the change of the parameters; private.
        draws: this contribution's; rounding and noise are drawn from them once.
        released: float64 `(d,)`, the round's model as the coordinator sent it.

    Returns:
        int64 `(n,)` in grid units, n = `plan.upload_dimension`. Whatever the update is, it moves
        the result by at most weight·`sensitivity_grid` in L2; one that is not finite counts as
        zero.

    Raises:
        EncodingError: the plan's numbers are outside the grid's proved range.
    """
    encoding = update_encoding(plan, draws.site, draws.round_id, released)
    weighted = encoding.encode(update, draws.coins())
    weighted *= plan.site(draws.site).weight
    noised = draws.noise(plan.upload_dimension)
    noised += weighted
    return noised
