"""A charge whose proven interval is wide: nothing inside it is called false."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest

from privagg.audit.charges import _follows
from privagg.audit.methods import Methods
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent, Mechanism

EVENT = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal(1)), count=10)


@pytest.mark.parametrize(
    ("lower", "upper", "claimed", "answer"),
    [
        ("1", "2", "0.9", False),
        ("1", "2", "1.5", None),
        ("1", "2", "2", True),
        ("1", "2", "3", True),
        ("1.9999999", "2", "3", False),
        ("1.9999999", "2", "2", True),
        ("1", "Infinity", "3", False),
    ],
)
def test_only_what_is_proven_false_is_contradicted(
    lower: str, upper: str, claimed: str, answer: bool | None
) -> None:
    bound = EpsilonBound(Decimal(upper), Decimal(lower), "renyi", certified=True)
    delta = Decimal("1e-6")
    charge = SimpleNamespace(epsilon_after=Decimal(claimed), accountant="certified", delta=delta)
    charged = SimpleNamespace(charge=charge, total=EVENT)
    assert _follows(charged, bound, Methods()) is answer  # type: ignore[arg-type]
