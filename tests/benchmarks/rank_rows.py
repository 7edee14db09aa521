"""A fixture that is known to leak: the sampled records in rows by their rank, layouts unchecked.

So did the engine at commit 649ed6a: one record more shifts all later ones to another row, where the
same gradient may have other last bits, and a model that sees time first was hooked as it came. The
benchmark of sensitivity has to find both here, or its search is too weak to say anything.
"""

from __future__ import annotations

import numpy as np
import torch

from privagg.encoding.grid import Grid
from privagg.training.data import TensorRecords
from privagg.training.dpsgd import DpSgd

Integers = np.ndarray


def rank_sum(trainer: DpSgd, grid: Grid, records: TensorRecords) -> Integers:
    """The clipped sum over all records at the trainer's parameters, a full batch at a time.

    Args:
        trainer: supplies per-record gradients of a batch; its own records are not used.
        grid: clips and truncates each row.
        records: n records, in order.

    Returns:
        int64 `(d,)`.
    """
    total = np.zeros(trainer.dimension, dtype=np.int64)
    rows = trainer.physical_batch
    for start in range(0, len(records), rows):
        x, y = records.x[start : start + rows], records.y[start : start + rows]
        count = len(x)
        if count < rows:
            x = torch.cat([x, x.new_zeros((rows - count, *x.shape[1:]))])
            y = torch.cat([y, y.new_zeros(rows - count)])
        total += grid.sum_records(trainer.batch_gradients(x, y)[:count])
    return total
