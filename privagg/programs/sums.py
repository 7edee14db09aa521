"""Sums over records: what a site adds for a program that turns each record into bounded integers.

Whatever a program computes, a record moves a round's sum by no more than the plan says: every
record's integers are held, in exact integer arithmetic, against the norm that the plan charges, and
an offender is shrunk to it. A record that cannot be computed adds nothing. Neither is told to
anybody but the owner: a refusal would depend on records.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from math import isqrt
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from privagg.encoding.planned import RoundId
from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.randomness import Randomness
from privagg.training.draws import Draws

IntMatrix = npt.NDArray[np.int64]
"""int64 (records, n)."""


class Placed(NamedTuple):
    """Rows of integers that are 0 but in a few places: the same rows, told shorter.

    Attributes:
        places: int64 (records, m), where they stand, rising along each row.
        values: int64 (records, m), the integers there.
    """

    places: IntMatrix
    values: IntMatrix

    def dense(self, length: int) -> IntMatrix:
        """Each row in full, int64 (records, length)."""
        found = np.zeros((len(self.places), length), dtype=np.int64)
        np.put_along_axis(found, self.places, self.values, axis=1)
        return found


TOGETHER = 4096
"""Records that are turned into integers at once, at most."""

NUMBERS_TOGETHER = 2**22
"""Integers that they add together, at most, but for one record's own: so what memory a round takes
follows from the plan, and does not tell how many records there are."""

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


class RecordProgram(Protocol):
    """The sites' half of a program over records: pure, one record at a time.

    A row is a function of the round's number, its public state and its own record, to the last
    bit: nothing kept from other records, no position, no batch. `tests/programs/contract.py` looks
    for what is not so.
    """

    def integers(self, number: int, state: FloatVector, records: Any) -> IntMatrix | Placed:
        """What each of some records adds in a round.

        Args:
            number: of the round, from 1.
            state: float64 (d,), the round's public state.
            records: some of the site's records, in any order, any number of them.

        Returns:
            int64 `(records, n)`, n as the plan's opening of this round says; where most of it
            is 0, `Placed` is faster.
        """


class NoisedSums(ABC):
    """A site's part under a `SumsPlan`: a `privagg.encoding.contribution.Learner`.

    Args:
        plan: what everybody agreed to.
        site: its name in the plan.
        records: the site's own.
    """

    def __init__(self, plan: SumsPlan, site: str, records: Any) -> None:
        self._plan, self._terms, self._records = plan, plan.site(site), records

    def contribution(
        self, parameters: FloatVector, randomness: Randomness, round_id: RoundId
    ) -> IntVector:
        """The noised sum of bounded integers.

        Args:
            parameters: float64 (d,), the round's public state.
            randomness: source of the noise.
            round_id: (run, round, attempt), labels for the streams.

        Returns:
            int64 (n,), n = `plan.upload_dimension`; what the round does not use is 0. One record
            changes it by at most the round's `sensitivity_grid` in L2.
        """
        number = round_id[1]
        terms = self._plan.openings[number - 1]
        parameters = parameters.copy()
        parameters.flags.writeable = False  # what one record wrote there, the next one would read
        draws = Draws(randomness, round_id, self._terms.name, self._plan)
        total = self.total(number, parameters, terms, draws)
        clamp = self._plan.contribution_bound(self._terms, number)
        sent = np.zeros(self._plan.upload_dimension, dtype=np.int64)
        sent[: terms.length] = np.clip(total, -clamp, clamp) + draws.noise(terms.length)
        return sent

    @abstractmethod
    def total(
        self, number: int, state: FloatVector, terms: OpeningTerms, draws: Draws
    ) -> IntVector:
        """The sum before clamp and noise, int64 (n,).

        Args:
            number: of the round.
            state: float64 (d,), the round's public state, not to be written to.
            terms: the round's.
            draws: the attempt's.
        """


class SumsLearner(NoisedSums):
    """Sums over records.

    Args:
        plan, site: as for `NoisedSums`.
        program: turns records into integers.
        records: the site's own; `len` and slices of them are asked for.
    """

    def __init__(self, plan: SumsPlan, site: str, program: RecordProgram, records: Any) -> None:
        super().__init__(plan, site, records)
        self._program, self._slices = program, dict[int, list[Any]]()

    def total(
        self, number: int, state: FloatVector, terms: OpeningTerms, draws: Draws
    ) -> IntVector:
        """See `NoisedSums.total`: every record's integers, none longer than the plan charges."""
        total = np.zeros(terms.length, dtype=np.int64)
        together = max(1, min(TOGETHER, NUMBERS_TOGETHER // terms.length))
        for some in self._sliced(together):
            total += self._bounded(number, state, some, terms)
        return total

    def _sliced(self, together: int) -> list[Any]:
        """The records in order; in every round the same slices, of which a program may remember
        what it reads from them alone."""
        if together not in self._slices:
            starts = range(0, len(self._records), together)
            self._slices[together] = [self._records[at : at + together] for at in starts]
        return self._slices[together]

    def _bounded(
        self, number: int, state: FloatVector, some: Any, terms: OpeningTerms
    ) -> IntVector:
        """int64 (n,): the sum of records' integers, none longer than the plan charges."""
        try:
            return bounded_sum(self._program.integers(number, state, some), len(some), terms)
        except MemoryError:
            raise  # says nothing about a record
        except Exception as error:
            if len(some) > 1:  # whichever record it was, the others count
                each = (some[i : i + 1] for i in range(len(some)))
                rows = [self._bounded(number, state, one, terms) for one in each]
                return np.asarray(np.sum(rows, axis=0, dtype=np.int64))
            _OWNERS_LOG.warning("a record adds nothing, it cannot be computed: %s", error)
            return np.zeros(terms.length, dtype=np.int64)


def bounded_sum(integers: Any, count: int, terms: OpeningTerms) -> IntVector:
    """The sum of rows of integers, each within the round's bounds, int64 (n,).

    Args:
        integers: what a program returned; of `Placed` rows, what they leave out is 0 and adds
            nothing to a norm.
        count: of records.
        terms: the round's.

    Raises:
        ValueError: not integers of this shape, or places that are none, or named twice.
    """
    if not isinstance(integers, Placed):
        return np.asarray(bounded(integers, count, terms).sum(axis=0))
    places, values = (np.asarray(each) for each in integers)
    if places.shape != values.shape or places.ndim != 2 or places.dtype != np.int64:
        raise ValueError("a program owes as many places, int64, as values")
    known = (places >= 0).all() and (places < terms.length).all()
    if not known or not (np.diff(places, axis=1) > 0).all():
        raise ValueError(f"places rise along a row, from 0 to {terms.length - 1}")
    rows = bounded(values, count, terms.model_copy(update={"length": values.shape[1]}))
    if rows.size * terms.largest_grid < 2**53:  # then doubles add exactly, and faster
        sums = np.bincount(places.ravel(), rows.ravel(), terms.length)
        return np.asarray(sums.astype(np.int64))
    total = np.zeros(terms.length, dtype=np.int64)
    np.add.at(total, places, rows)
    return total


def bounded(integers: Any, count: int, terms: OpeningTerms) -> IntMatrix:
    """Rows of integers, each within the round's bounds; a longer one is shrunk.

    Args:
        integers: what a program returned.
        count: of records.
        terms: the round's.

    Returns:
        int64 (count, n), no coordinate below `least_grid` or beyond `largest_grid`, the squares
        of no row more than `largest_square` together; where the opening has `moves`, no row's
        magnitudes beyond those, in falling order.

    Raises:
        ValueError: not integers of this shape.
    """
    rows = np.asarray(integers)
    if rows.shape != (count, terms.length) or rows.dtype != np.int64:
        raise ValueError(
            f"a program owes int64 ({count}, {terms.length}), not {rows.dtype} {rows.shape}"
        )
    rows = np.asarray(np.clip(rows, terms.least_grid, terms.largest_grid))
    if terms.moves is not None:
        return _within_moves(rows, terms.moves)
    # Below 2^63: the plan refuses a length and a bound whose squares could add up to more.
    squares = np.einsum("ij,ij->i", rows, rows)
    times = 2 if terms.shards else 1
    for place in np.flatnonzero(squares > terms.largest_square):
        # Towards zero by S / r, r > norm (sqrt(2) norm of a shard's): no coordinate grows, and the
        # norm stays below S (S / sqrt(2)).
        norm, row = isqrt(times * int(squares[place])) + 1, rows[place]
        rows[place] = np.sign(row) * (np.abs(row) * terms.sensitivity_grid // norm)
    return rows


def _within_moves(rows: IntMatrix, moves: tuple[int, ...]) -> IntMatrix:
    """Rows whose k-th largest magnitude is at most the k-th move, all others 0; in place.

    Of equal magnitudes the first stands before the others, so that it is the row alone that counts.
    """
    record, place = np.nonzero(rows)
    size = np.abs(rows[record, place])
    order = np.lexsort((place, -size, record))
    record, place, size = record[order], place[order], size[order]
    rank = np.arange(len(record)) - np.searchsorted(record, record)
    limits = np.array([*moves, 0], dtype=np.int64)[np.minimum(rank, len(moves))]
    rows[record, place] = np.sign(rows[record, place]) * np.minimum(size, limits)
    return rows
