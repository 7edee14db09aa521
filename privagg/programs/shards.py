"""Sums over shards: what a site adds for a program whose votes come from many records together.

A record falls into one of a public number of shards by a keyed hash of its own bytes: not by its
place, nor by what other records there are. The site draws the key anew for every attempt and writes
it nowhere, so nobody chooses it: not an owner who has seen the records, and nobody who writes
records so as to meet a certain one. Equal records fall into one shard.

Every shard has its votes computed from its own records, with random numbers of its own. One record
more or less then replaces the votes of one shard by others, and exact integer bounds say how far
that moves the sum (proofs/shards.md).
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.randomness import ByteStream
from privagg.programs.sums import NoisedSums, SumsLearner, bounded
from privagg.programs.sums_program import AnsweringProgram, ShardsProgram, SumsProgram
from privagg.training.draws import Draws

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""


class ShardsLearner(NoisedSums):
    """Sums over shards.

    Args:
        plan, site: as for `NoisedSums`; every round states its shards.
        program: votes for a shard.
        records: the site's own; their `record_bytes()` and lists of them are asked for.
    """

    def __init__(self, plan: SumsPlan, site: str, program: ShardsProgram, records: Any) -> None:
        super().__init__(plan, site, records)
        self._program = program

    def total(
        self, number: int, state: FloatVector, terms: OpeningTerms, draws: Draws
    ) -> IntVector:
        """See `NoisedSums.total`: every shard's votes, none longer than the plan charges."""
        total: IntVector = np.zeros(terms.length, dtype=np.int64)
        for part in self.parts(number, state, terms, draws):
            total += part
        return total

    def parts(
        self, number: int, state: FloatVector, terms: OpeningTerms, draws: Draws
    ) -> Iterator[IntVector]:
        """What each shard adds, one after the other.

        Args:
            number, state, terms, draws: as for `total`.
        """
        assert terms.shards is not None  # `openings_of` refuses a program of shards without them
        dealt = deal(self._records.record_bytes(), draws.shard_key(), terms.shards)
        for place, own in enumerate(dealt):
            shard = self._records[own]
            yield part_of(self._program, number, state, shard, draws.of_shard(place), terms)


def learner_of(plan: SumsPlan, site: str, program: AnsweringProgram, records: Any) -> NoisedSums:
    """A site's part under a plan, of the kind that its program is.

    Args:
        plan, site, records: as for `NoisedSums`.
        program: over records or over shards.

    Raises:
        ConfigError: as `AnsweringProgram.at`.
    """
    program = program.at(site)
    if isinstance(program, ShardsProgram):
        return ShardsLearner(plan, site, program, records)
    assert isinstance(program, SumsProgram)  # every other program's kind
    return SumsLearner(plan, site, program, records)


def deal(records: Sequence[bytes], key: bytes, shards: int) -> list[list[int]]:
    """Which records are in each shard.

    Args:
        records: each one's own bytes.
        key: nobody's choice, and independent of the records.
        shards: how many there are.

    Returns:
        For each shard the places of its records, by their bytes in rising order: where a record
        stands changes nothing, and no record changes another's shard.
    """
    dealt: list[list[int]] = [[] for _ in range(shards)]
    for place in sorted(range(len(records)), key=records.__getitem__):
        word = int.from_bytes(hmac.digest(key, records[place], "sha256"))
        dealt[word % shards].append(place)
    return dealt


def part_of(
    program: ShardsProgram,
    number: int,
    state: FloatVector,
    shard: Any,
    draws: ByteStream,
    terms: OpeningTerms,
) -> IntVector:
    """What one shard adds: its votes within the round's bounds; a longer vector is shrunk.

    Votes that cannot be computed, for whatever reason, are none, and nobody but the owner is told.

    Args:
        program: votes.
        number: of the round.
        state: float64 (d,), the round's public state, not to be written to.
        shard: its records.
        draws: random bytes of its own.
        terms: the round's.

    Returns:
        int64 (n,), from 0 to `largest_grid`, the squares at most `largest_square` together.
    """
    try:
        votes = np.asarray(program.votes(number, state, shard, draws))
        part: IntVector = bounded(votes[None], 1, terms)[0]
        return part
    except Exception as error:  # of memory too: how much a shard needs depends on records
        _OWNERS_LOG.warning("a shard adds nothing, its votes cannot be computed: %s", error)
        return np.zeros(terms.length, dtype=np.int64)
