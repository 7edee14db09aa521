"""Events add up under one neighbouring relation only."""

from __future__ import annotations

import pytest

from privagg.errors import LedgerError
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger.composition import compose
from tests.privacy.ledger.conftest import EVENT


@pytest.mark.parametrize("place", range(3))
def test_events_under_different_neighbouring_relations_do_not_add_up(place: int) -> None:
    """A sum would be labelled with one of them; no event can name another relation today."""
    events = [DpEvent(), EVENT, EVENT]
    events[place] = events[place].model_copy(update={"adjacency": "replace-one"})
    with pytest.raises(LedgerError, match="add-or-remove-one.*replace-one"):
        compose(*events)
