"""Records that are held out of training, so that a model is judged on what it never saw.

Which these are follows from a record's own encoded inputs and a public key: not from its place in
a file, its target, its neighbours, or chance. So the same records are held out in every run, at
every site and in every copy of them, and who trains and who evaluates need not agree on a list.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from decimal import Decimal
from math import floor, prod

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from privagg.encoding.vectors import rows_bytes
from privagg.training.features import BoolArray

_CONTEXT = b"privagg held-out records/1\n"
_WORD = 2**64


class HeldOut(BaseModel):
    """Which records are held out; public, pinned with every plan that it concerns.

    Two records that differ in their target alone lie on the same side: what a model learned of one
    says nothing of the other.

    Args:
        share: of all records, as expected of a keyed hash.
        key: any text; whoever knows it and a record knows the record's side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Decimal = Field(gt=0, lt=1)
    key: str = Field(min_length=1, max_length=200)

    def mask(self, inputs: npt.NDArray[np.float32], columns: Sequence[str] = ()) -> BoolArray:
        """Which of some records are held out, bool `(n,)`.

        Args:
            inputs: encoded, `(n, ...)`; every zero is one zero and every NaN one NaN.
            columns: names of the encoded columns, where the records have any; the order in which
                they are declared then does not matter.
        """
        count = len(inputs)
        values = inputs.reshape(count, prod(inputs.shape[1:]))
        if len(columns) == values.shape[1]:
            values = values[:, sorted(range(len(columns)), key=columns.__getitem__)]
        key = hashlib.sha256(_CONTEXT + self.key.encode()).digest()
        limit = floor(self.share * _WORD)
        found = (
            int.from_bytes(hmac.digest(key, row, "sha256")[:8]) < limit
            for row in rows_bytes(values)
        )
        return np.fromiter(found, dtype=np.bool_, count=count)
