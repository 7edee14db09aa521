"""What a verification may compute: shares of it, prices of questions, and the bar that shows it."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console

from privagg.audit import Methods, Work
from privagg.audit.charges import affordable, spread
from privagg.audit.methods import MOST_TERMS, Remembering
from privagg.audit.replayed import Charged
from privagg.audit.work import distribution_price, growing_price
from privagg.cli import verify
from privagg.errors import CertificationError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent, Mechanism

DELTA = Decimal("1e-5")


def of(*terms: tuple[str, str, int]) -> DpEvent:
    event = DpEvent()
    for rate, noise, count in terms:
        event += DpEvent.once(Mechanism.of(Decimal(rate), Decimal(noise)), count=count)
    return event


def test_a_part_is_never_exceeded_and_what_it_leaves_is_for_others() -> None:
    work = Work(1)
    with work.portion(2):
        work.take(100)
        with work.portion(4):
            assert work.left == 100
            work.require(100)
            with pytest.raises(CertificationError, match="--work 10"):
                work.require(101)
        assert work.left == 400
    assert work.left == 900
    work.take(5000)
    assert work.left == 0


# The dearest found by drawing some hundred events within what is recomputed.
DEAR = [
    (of(("0.08551", "0.3419", 18), ("0.0002938", "0.2061", 1811)), "0.0001102"),
    (of(("2.717e-6", "0.3278", 10879)), "1.448e-14"),
    (of(("0.001012", "0.5842", 3)), "4.969e-6"),
    (of(*((f"{1 + k}e-6", f"0.{10 + k}", 10 + k) for k in range(MOST_TERMS))), "1e-6"),
]


@pytest.mark.parametrize(("event", "delta"), DEAR)
def test_the_dearest_questions_are_counted_in_seconds(event: DpEvent, delta: str) -> None:
    methods = Methods()
    methods.certified.epsilon(event, Decimal(delta))
    assert 0.05 < methods.work.spent / 1000 < 9


def test_a_round_more_on_the_same_contour_is_cheap_and_once_more_it_is_free() -> None:
    methods = Methods()
    methods.certified.epsilon(of(("0.01", "1", 100)), DELTA)
    first = methods.work.spent
    for _ in range(2):
        methods.certified.epsilon(of(("0.01", "1", 101)), DELTA)
        assert methods.work.spent - first < min(20, first)


def test_a_question_that_had_no_answer_is_not_asked_again() -> None:
    class Stumbling:
        name, asked = "stumbling", 0

        def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
            self.asked += 1
            raise CertificationError("no")

    accountant, work = Stumbling(), Work(1)
    remembering = Remembering(accountant, lambda event, delta: 400, work)
    for _ in range(3):
        with pytest.raises(CertificationError, match="no"):
            remembering.epsilon(of(("0.01", "1", 100)), DELTA)
    assert (accountant.asked, work.spent) == (1, 400)


def test_charges_are_thinned_to_what_is_affordable() -> None:
    events = [of(("1e-5", "0.7", k + 1)) for k in range(100)]
    charged = [Charged(k, _Charge(), event) for k, event in enumerate(events)]  # type: ignore[arg-type]
    few = affordable(charged, spread(100), 10_000)
    assert few[-1] == 99
    assert 5 < len(few) < 30
    assert growing_price([events[k] for k in few]) <= 10_000
    often = [Charged(k, _Charge(), of(("0.01", "1", k + 1))) for k in range(100)]  # type: ignore[arg-type]
    assert affordable(often, spread(100), 10_000) == spread(100)
    assert affordable(often, spread(100), 0) == [99]


class _Charge:
    delta = DELTA


def test_a_grid_beyond_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(CertificationError, match="too fine a grid"):
        distribution_price(of(("1", "0.1", 10**7)), Decimal(10**8), Decimal("1e-4"))
    assert distribution_price(of(("0.01", "1", 100)), Decimal(1), Decimal("1e-4")) < 1500


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_verification_shows_how_far_it_is_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    for patience, told in ((-1.0, terminal), (1e6, False)):
        monkeypatch.setattr(verify, "PATIENCE", patience)
        out = io.StringIO()
        work = Work(2)
        with verify.shown(work, Console(file=out, force_terminal=terminal, width=120)):
            work.take(1000)
        assert ("of the work limit" in out.getvalue()) is told
