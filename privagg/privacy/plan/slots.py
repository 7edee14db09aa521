"""How many slots a site's sampled records are placed in: a public number, and what it costs.

At record level the records of a step are placed at random in K physical batches of B rows, all of
which always run. K follows from public numbers alone, so batches and their time say nothing about
how many records were sampled. More records than slots are as improbable as `overflow_chance`, which
every event charges and which does not depend on B: a speed setting moves no event. The argument is
`proofs/sensitivity.md`.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from math import ceil

from flint import arb, ctx, fmpq

OVERFLOW_BITS = 64
"""Folding multiplies a distance by 1 + e^epsilon, which 2^64 outweighs up to epsilon 40.

2^20 would do up to epsilon 10 and often save no batch, sometimes one in ten; but rows of observers
who know others' noise have a larger epsilon than the job, and would have no bound at all.
"""

_UPWARD = Context(prec=20, rounding=ROUND_CEILING)
_PRECISION_BITS = 160


def overflow_chance(*, delta: Decimal, steps: int, sampling_rate: Decimal) -> Decimal:
    """What one step charges for a sample that finds no room: 2^-64 * delta / steps, rounded up.

    Args:
        delta: of the whole job.
        steps: sampling steps of the whole job.
        sampling_rate: q; at 1 there is a slot for every declared record, and nothing to charge.

    Source: proofs/sensitivity.md; Chua et al. 2024, "Scalable DP-SGD: shuffling vs. Poisson
        subsampling", charges truncated batches to delta in the same way.
    """
    if sampling_rate == 1:
        return Decimal(0)
    return _UPWARD.divide(delta, Decimal(steps * 2**OVERFLOW_BITS))


def slot_batches(
    *, records: int, sampling_rate: Decimal, physical_batch: int, chance: Decimal
) -> int:
    """K, physical batches of a step: the least whose slots are too few with at most `chance`.

    Args:
        records: R, the site's declared records, which it never has more of.
        sampling_rate: q in (0, 1].
        physical_batch: B, rows of a batch.
        chance: of an overflow, at most; 0 makes room for all records.

    Returns:
        K >= 1 with P(Bin(R - 1, q) >= K * B) <= chance, so that beside any one record the others
        leave it a slot; never more than room for R records takes.
    """
    low, high = 0, ceil(records / physical_batch)
    if chance == 0:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if _tail_is_within(records - 1, Fraction(sampling_rate), middle * physical_batch, chance):
            high = middle
        else:
            low = middle
    return high


def _tail_is_within(trials: int, rate: Fraction, least: int, chance: Decimal) -> bool:
    """Whether P(Bin(trials, rate) >= least) <= chance; beyond the mean, else False.

    Terms are added, in balls, until it is certain. Each is r times the one before, with r = (n - m)
    q / ((m + 1) (1 - q)) falling, so that what is left is at most the next term over 1 - r. A
    comparison of balls is true only where it is certain; what stays open counts as too much.
    """
    if least > trials:
        return True
    odds = rate / (1 - rate)
    if Fraction(trials - least, least + 1) * odds >= 1:
        return False
    with ctx.workprec(_PRECISION_BITS):
        n, m = arb(trials), arb(least)
        choose = (n + 1).lgamma() - (m + 1).lgamma() - (n - m + 1).lgamma()
        term = (choose + m * _ball(rate).log() + (n - m) * _ball(1 - rate).log()).exp()
        limit, total = _ball(Fraction(chance)), arb(0)
        for k in range(least, trials + 1):
            ratio = arb(trials - k) / (k + 1) * _ball(odds)
            if total + term / (1 - ratio) <= limit:
                return True
            total += term
            if total > limit:
                return False
            term *= ratio
        return False


def _ball(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))
