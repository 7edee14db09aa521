"""What a plan says about one round's integers, as the encodings that do it, at every party alike.

Mask and rotation follow by a hash from a digest of the plan, the round's id and its model: all
of it public, agreed or sent to everybody, and fixed before any record is read. The plan's
sensitivity holds for every mask and rotation, so none of this is secret, and whoever could steer it
(a coordinator names the run) gains nothing but the loss of its own accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privagg.encoding.grid import Grid
from privagg.encoding.quantize import UpdateEncoding
from privagg.encoding.transforms import Rotation, Transform, random_mask, top_mask
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import EncodingError
from privagg.privacy.plan import ClientPlan, Plan
from privagg.privacy.randomness import public_stream

RoundId = tuple[str, int, int]
"""(run, round, attempt)."""


def round_seed(plan: Plan, round_id: RoundId) -> bytes:
    """The round's public seed: 32 bytes from what the plan computes and the round's id, by SHA-256.

    How the sum is added and opened is left out, so every scheme gives the same model.
    """
    return public_stream(bytes.fromhex(plan.computation_digest), "compression", *round_id).bytes(32)


def transform_of(plan: Plan, round_id: RoundId, released: FloatVector) -> Transform:
    """The round's mask and rotation.

    Args:
        plan: the agreed plan.
        round_id: (run, round, attempt); a new attempt has a mask of its own.
        released: float64 (d,), the model that the round starts from, as every site got it.

    Raises:
        EncodingError: `released` does not fit the plan.
    """
    planned, mask, rotation = plan.in_round(round_id[1]), None, None
    terms, dimension = planned.compression, planned.dimension
    if terms is None:
        return Transform(dimension)
    seed = round_seed(plan, round_id)
    if terms.kept is not None and terms.mask == "top-k":
        mask = top_mask(released, terms.kept, seed=seed)
    elif terms.kept is not None:
        mask = random_mask(dimension, terms.kept, seed=seed)
    if terms.rotation:
        rotation = Rotation(terms.kept_of(dimension), seed)
    return Transform(dimension, mask, rotation)


def update_encoding(
    plan: ClientPlan, site: str, round_id: RoundId, released: FloatVector
) -> UpdateEncoding:
    """How a client's update becomes integers in this round.

    Args:
        plan: the agreed plan.
        site: whose clamp applies.
        round_id: (run, round, attempt).
        released: float64 (d,), the model that the round starts from.

    Raises:
        EncodingError: `released` does not fit the plan, or the plan's numbers are outside the
            grid's proved range.
    """
    transform = transform_of(plan, round_id, released)
    return UpdateEncoding(Grid(*plan.update_terms(site)), transform, plan.rounding)


def decode_sum(
    plan: Plan,
    round_id: RoundId,
    released: FloatVector,
    total: IntVector,
    contributors: Sequence[str],
) -> FloatVector:
    """Opened integers -> the mean in model units, as the direction that the server steps along.

    Args:
        plan, round_id, released: as `transform_of`.
        total: int64 (n,), the opened sum.
        contributors: whose uploads are in it.

    Returns:
        float64 (d,), or (n,) where nothing is compressed: a post-processing of the opened sum by
        public facts.

    Raises:
        EncodingError: the sum does not fit the plan.
    """
    planned = plan.in_round(round_id[1])
    values = np.asarray(total.astype(np.float64) * float(planned.step_per_grid(contributors)))
    if planned.compression is None:  # n integers, whatever the state that they were asked with
        if values.shape != (plan.upload_dimension,):
            raise EncodingError(
                f"a sum must have shape ({plan.upload_dimension},), got {values.shape}"
            )
        return values
    return transform_of(plan, round_id, released).undo(values)
