"""What a ledger tells is what was logged, and epsilon so far is the present accountant's."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from privagg.errors import LedgerTamperedError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Ledger
from tests.privacy.ledger.conftest import DELTA, EVENT, KEY, RECORDS, create, request_for
from tests.privacy.ledger.test_tampering import fill, read, unlocked


@pytest.mark.parametrize(
    ("statement", "round_"),
    [
        ("UPDATE ledger_uploads SET data = x'00'", 0),
        ("UPDATE ledger_uploads SET subject = replace(subject, ',0,', ',1,')", 1),
    ],
    ids=["other bytes", "never logged"],
)
def test_an_upload_is_sent_again_only_as_it_was_logged(
    path: Path, statement: str, round_: int
) -> None:
    """Other bytes would be a second release on one charge."""
    fill(path).close()
    connection = unlocked(path)
    connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerTamperedError, match="not the one that was logged"):
        read(path).stored_upload("run", round_, 0)


class Stricter(RdpAccountant):
    """An accountant by another name, whose figures are twice as high."""

    name = "stricter"

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """Twice what it is."""
        bound = super().epsilon(event, delta)
        return EpsilonBound(bound.upper * 2, None, bound.method, certified=False)


def test_another_accountant_counts_all_of_the_past_anew(path: Path) -> None:
    ledger = create(path)
    ledger.set_budget(RECORDS, Decimal(8), DELTA, who="officer", why="approved")
    ledger.charge(request_for(0))
    ledger.close()
    other = Ledger.open(path, signing_key=KEY, accountant=Stricter())
    receipt = other.charge(request_for(1))
    assert receipt.charge.epsilon_before == Stricter().epsilon(EVENT, DELTA).upper
    assert receipt.charge.epsilon_after == Stricter().epsilon(EVENT.repeated(2), DELTA).upper
