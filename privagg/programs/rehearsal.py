"""A program on made-up records, before any charge: one that fails on all of them is refused.

A record that cannot be computed adds nothing and is told to nobody, as a refusal would depend on
records. So a program with a plain mistake would be charged and open nothing but noise. Made-up
records follow from the public declaration alone, and whatever fails on them may be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import ConfigError
from privagg.privacy.plan import OpeningTerms, SumsPlan
from privagg.privacy.randomness import public_stream
from privagg.programs.questions.columns import Columns
from privagg.programs.sums import bounded, bounded_sum
from privagg.programs.sums_program import (
    AnsweringProgram,
    NoisySum,
    ShardsProgram,
    SumsProgram,
)
from privagg.training.features import NumericFeature
from privagg.training.table import TableSchema

RECORDS = 12
"""Made-up records; none has a gap, as a program may well leave out one that has."""

_PLACES = (0.0, 1.0, 0.5, 0.25, 0.75)
"""Of numbers within their ranges."""


def made_up(schema: TableSchema) -> Columns:
    """Records of the declared columns: ends and middles of ranges, every place of a category list.

    Args:
        schema: the public declaration.

    Returns:
        `RECORDS` records without a gap.
    """
    numbers, codes = dict[str, Any](), dict[str, Any]()
    for place, (name, found) in enumerate(_declared(schema)):
        row = np.arange(RECORDS) + place
        if isinstance(found, int):
            codes[name] = (row % found).astype(np.int64)
        else:
            low, high = found
            numbers[name] = low + (high - low) * np.take(_PLACES, row % len(_PLACES))
    return Columns(numbers, codes, RECORDS)


def _declared(schema: TableSchema) -> Iterator[tuple[str, tuple[float, float] | int]]:
    """Each declared column with its range, or how many categories it has."""
    for feature in schema.features:
        if isinstance(feature, NumericFeature):
            yield feature.name, feature.range
        else:
            yield feature.name, len(feature.categories)
    for name in schema.target.columns:
        if ends := schema.target.range_of(name):
            yield name, ends
        elif labels := schema.target.categories(name):
            yield name, len(labels)


def require_computable(program: AnsweringProgram, plan: SumsPlan, records: Columns) -> None:
    """Refuse a program that no made-up record can be asked, in any of its rounds, at any site.

    Args:
        program: over records or over shards.
        plan: its own.
        records: `made_up` of the declared columns.

    Raises:
        ConfigError: the program and the round by name, and what failed; nothing was charged.
    """
    for each in dict.fromkeys(map(program.at, plan.names)):
        _require_computable(each, plan, records)


def _require_computable(program: AnsweringProgram, plan: SumsPlan, records: Columns) -> None:
    number = 0
    try:
        state = program.begin()
        for number, terms in enumerate(plan.openings, 1):
            if state.shape != (terms.state,) or not np.isfinite(state).all():
                raise ValueError(
                    f"the round starts from {terms.state} finite float64, not {state.dtype} "
                    f"{state.shape}"
                )
            total = np.zeros(plan.upload_dimension, dtype=np.int64)
            total[: terms.length] = _summed(program, number, state, records, terms)
            state = program.step(number, state, NoisySum.of(plan, number, total, plan.names))
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(
            f"program {program.name!r} fails on made-up records of the declared columns, in round "
            f"{number} of {plan.rounds}: {type(error).__name__}: {error}. Whatever it were asked "
            "of real ones would be charged for noise alone; correct it. Nothing was spent"
        ) from error


def _summed(
    program: AnsweringProgram,
    number: int,
    state: FloatVector,
    records: Columns,
    terms: OpeningTerms,
) -> IntVector:
    """What the records that can be computed add together, int64 (n,).

    Raises:
        Exception: none can; the last one's.
    """
    state = state.copy()
    state.flags.writeable = False
    if isinstance(program, ShardsProgram):
        draws = public_stream(b"privagg/rehearsal", number)
        votes = np.asarray(program.votes(number, state, records, draws))
        total: IntVector = bounded(votes[None], 1, terms)[0]
        return total
    assert isinstance(program, SumsProgram)  # every other program's kind
    rows, failures = list[IntVector](), list[Exception]()
    for place in range(len(records)):
        one = records[place : place + 1]
        try:
            rows.append(bounded_sum(program.integers(number, state, one), 1, terms))
        except Exception as error:  # whatever a program raises
            failures.append(error)
    if not rows:
        raise failures[-1]
    return np.asarray(sum(rows), dtype=np.int64)
