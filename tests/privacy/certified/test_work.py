"""Work limits: counted before it is done, the same each time, and never left without an answer."""

from __future__ import annotations

import math
import resource
from fractions import Fraction

import numpy as np
import pytest

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, epsilon_interval, work
from privagg.privacy.certified.accountant import delta_interval
from privagg.privacy.certified.mechanism import Composition

MOST = 5e6
"""Units of about a microsecond: five seconds."""


def test_what_does_not_fit_is_refused_before_it_is_counted() -> None:
    with work.limited(100) as outer, work.limited(1000) as inner:
        work.charge(50)
        with pytest.raises(CertificationError, match="units of work"):
            work.charge(500)
        assert outer.spent == inner.spent < 100
        work.count(500)
    assert outer.spent == inner.spent > 100
    work.charge(10**12)  # Without a limit nothing is refused.


def test_the_count_does_not_depend_on_the_machine() -> None:
    spent = []
    for _ in range(2):
        with work.limited(1e12) as meter:
            epsilon_interval({Mechanism("0.01", "1"): 1000}, "1e-6")
        spent.append(meter.spent)
    assert spent[0] == spent[1] > 0


@pytest.mark.parametrize("allowed", [0, 1e4, 1e5])
def test_with_hardly_any_work_an_interval_is_wide_and_true(allowed: float) -> None:
    composition, delta = {Mechanism("0.01", "0.9"): 500}, Fraction("1e-6")
    sharp = epsilon_interval(composition, delta)
    with work.limited(allowed):
        wide = epsilon_interval(composition, delta)
    assert wide.lower <= sharp.upper
    assert wide.upper >= sharp.lower
    with work.limited(allowed):
        assert delta_interval(composition, sharp.upper).upper >= delta * Fraction(999, 1000)


MANY: list[Composition] = [
    {Mechanism(f"{i}e-6", "1"): 100 for i in range(1, 13)},
    {Mechanism("0.01", f"0.{10 + i}"): 100 for i in range(12)},
    {Mechanism(f"0.{100 + i}", f"0.{100 + i}"): 1000 for i in range(60)},
]


@pytest.mark.parametrize("composition", MANY, ids=["rare", "little-noise", "sixty"])
def test_many_mechanisms_take_no_longer_than_one(composition: Composition) -> None:
    with work.limited(math.inf) as meter:
        interval = epsilon_interval(composition, "1e-6")
    assert meter.spent < MOST
    assert 0 <= interval.lower <= interval.upper


def test_corners_of_the_range_are_answered_soon() -> None:
    """A few of the settings that the benchmark draws by the thousand, ends of ranges among them."""
    generator = np.random.default_rng(20_260_301)

    def draw(low: float, high: float) -> float:
        if generator.random() < 0.25:
            return (low, high)[generator.integers(2)]
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(25):
        rate, noise = f"{draw(1e-9, 1):.4g}", f"{draw(0.01, 1e4):.4g}"
        rounds, delta = max(1, round(draw(1, 1e6))), f"{draw(1e-15, 0.1):.4g}"
        with work.limited(math.inf) as meter:
            interval = epsilon_interval({Mechanism(rate, noise): rounds}, delta)  # type: ignore[arg-type]
        assert meter.spent < MOST, (rate, noise, rounds, delta)
        assert 0 <= interval.lower <= interval.upper
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB: a gigabyte
