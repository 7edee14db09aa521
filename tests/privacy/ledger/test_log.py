"""An entry is found under its own name, in its own place, and as it was signed."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from privagg.errors import LedgerTamperedError
from tests.privacy.ledger.conftest import RECORDS
from tests.privacy.ledger.test_tampering import fill, read, unlocked

SUBJECT = ("run", 1, 0, *RECORDS)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    fill(folder / "ledger.db").backup(folder / "copy.db")
    return folder / "copy.db"


@pytest.mark.parametrize(
    ("statement", "kind", "round_", "reason"),
    [
        (
            "UPDATE ledger_entries SET body = replace(body, '\"index\":5', '\"index\":6') "
            "WHERE idx = 5",
            *("charge", 1, "not those that the last signed checkpoint covers"),
        ),
        (
            "UPDATE ledger_entries SET subject = replace(subject, ',1,', ',7,') WHERE idx = 5",
            *("charge", 7, "filed under a name not its own"),
        ),
        (
            "UPDATE ledger_entries SET kind = 'realised' WHERE idx = 5",
            *("realised", 1, "filed under a name not its own"),
        ),
        (
            "UPDATE ledger_entries SET body = replace(body, 'abab', 'cdcd') WHERE idx = 5",
            *("charge", 1, "not those that the last signed checkpoint covers"),
        ),
    ],
    ids=["index", "subject", "kind", "contents"],
)
def test_an_entry_filed_wrongly_or_rewritten_is_not_found(
    filled: Path, tmp_path: Path, statement: str, kind: str, round_: int, reason: str
) -> None:
    path = Path(shutil.copy(filled, tmp_path / "ledger.db"))
    found = read(path).entry_about("charge", SUBJECT)
    assert found is not None
    assert found.index == 5
    with closing(unlocked(path)) as connection:
        assert connection.execute(statement).rowcount == 1
    with pytest.raises(LedgerTamperedError, match=reason):
        read(path).entry_about(kind, ("run", round_, 0, *RECORDS))
