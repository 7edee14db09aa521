"""The rules: charge first, never beyond the budget, one receipt one training."""

from __future__ import annotations

import doctest
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from privagg.errors import BudgetExceededError, LedgerError, ReceiptError, UnknownEventError
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.accountants import RdpAccountant
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.ledger import BudgetKey, Ledger, Receipt
from privagg.privacy.ledger import ledger as module
from privagg.privacy.ledger.entries import Realised
from tests.privacy.ledger.conftest import (
    DELTA,
    EVENT,
    KEY,
    OTHER_KEY,
    RECORDS,
    create,
    request_for,
)

INFINITY = Decimal("Infinity")


def test_a_new_ledger_is_a_file_for_its_owner_only(path: Path) -> None:
    empty = create(path)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert len(empty) == 1
    assert empty.owner == "hospital-a"


def test_a_ledger_is_created_once(empty: Ledger, location: Path | str) -> None:
    with pytest.raises(LedgerError, match="already"):
        Ledger.create(location, "hospital-a", signing_key=KEY)


def test_opening_nothing_says_so(folder: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger.open(folder / "none.db")
    assert list(folder.iterdir()) == []


def test_a_file_that_is_no_ledger_is_refused(folder: Path) -> None:
    file = folder / "notes.txt"
    file.write_text("these are notes, and more than a hundred bytes of them" * 10)
    with pytest.raises(LedgerError):
        Ledger.open(file)


def test_a_ledger_without_a_file_is_refused() -> None:
    with pytest.raises(LedgerError, match="durable"):
        Ledger.create("sqlite://", "a", signing_key=KEY)


def test_an_owner_that_a_checkpoint_cannot_name_is_refused(path: Path) -> None:
    with pytest.raises(LedgerError, match="white space"):
        Ledger.create(path, "hospital a", signing_key=KEY)


def test_another_key_does_not_open_it_for_writing(ledger: Ledger, location: Path | str) -> None:
    with pytest.raises(LedgerError, match="signed by key"):
        Ledger.open(location, signing_key=OTHER_KEY)


def test_without_a_key_it_can_only_be_read(ledger: Ledger, location: Path | str) -> None:
    reader = Ledger.open(location, accountant=RdpAccountant())
    assert reader.project(RECORDS, EVENT).fits
    with pytest.raises(LedgerError, match="without its signing key"):
        reader.charge(request_for(0))


def test_a_charge_spends_what_was_projected(ledger: Ledger) -> None:
    projection = ledger.project(RECORDS, EVENT)
    receipt = ledger.charge(request_for(0))
    assert (receipt.charge.epsilon_before, receipt.charge.epsilon_after) == (
        0,
        projection.epsilon_after,
    )
    spending = ledger.spent(RECORDS)
    assert spending.epsilon.upper == receipt.charge.epsilon_after
    assert spending.event == EVENT
    assert spending.charges == 1


def test_charges_add_up_as_one_composition(ledger: Ledger) -> None:
    for round_ in range(5):
        receipt = ledger.charge(request_for(round_))
    expected = RdpAccountant().epsilon(EVENT.repeated(5), DELTA).upper
    assert receipt.charge.epsilon_after == expected
    assert [point.round for point in ledger.history(RECORDS)] == list(range(5))
    assert ledger.history(RECORDS)[-1].epsilon_after == expected


def test_the_same_request_returns_the_very_same_receipt(
    ledger: Ledger, again: Callable[[], Ledger]
) -> None:
    first = ledger.charge(request_for(0))
    ledger.charge(request_for(1))
    repeated = again().charge(request_for(0))
    assert repeated == first
    assert repeated.to_json() == first.to_json()
    assert ledger.spent(RECORDS).charges == 2


def test_the_same_attempt_with_other_contents_is_refused(ledger: Ledger) -> None:
    ledger.charge(request_for(0))
    size = len(ledger)
    with pytest.raises(LedgerError, match="new attempt"):
        ledger.charge(request_for(0, event=EVENT.repeated(2)))
    assert len(ledger) == size


def test_a_charge_beyond_the_budget_writes_nothing(ledger: Ledger) -> None:
    before = ledger.checkpoint()
    with pytest.raises(BudgetExceededError, match="above the budget 8"):
        ledger.charge(request_for(0, event=EVENT.repeated(10**6)))
    assert ledger.checkpoint() == before
    assert ledger.charge(request_for(0)).charge.epsilon_before == 0


def test_a_data_set_without_a_budget_is_refused(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceededError, match="no budget was set"):
        ledger.charge(request_for(0, key=BudgetKey("other", "record")))
    with pytest.raises(LedgerError, match="no budget was set"):
        ledger.spent(BudgetKey("other", "record"))


def test_budgets_are_apart_by_data_set_and_unit_but_not_by_run(ledger: Ledger) -> None:
    people = BudgetKey("table", "person")
    ledger.set_budget(people, Decimal(8), DELTA, who="officer", why="approved")
    first = ledger.charge(request_for(0, run="one"))
    second = ledger.charge(request_for(0, run="two"))
    assert second.charge.epsilon_before == first.charge.epsilon_after
    assert ledger.charge(request_for(0, run="one", key=people)).charge.epsilon_before == 0
    assert ledger.keys() == [people, RECORDS]


def test_a_budget_lowered_below_what_is_spent_blocks_and_is_recorded(ledger: Ledger) -> None:
    spent = ledger.charge(request_for(0)).charge.epsilon_after
    ledger.set_budget(RECORDS, spent / 2, DELTA, who="officer", why="second thoughts")
    with pytest.raises(BudgetExceededError):
        ledger.charge(request_for(1))
    assert ledger.spent(RECORDS).epsilon.upper == spent
    ledger.set_budget(RECORDS, spent * 2, DELTA, who="board", why="appeal")
    assert ledger.charge(request_for(1)).charge.epsilon_before == spent
    changes = [e.payload.to_json() for e in ledger.entries() if e.kind == "budget"]
    assert [change["why"] for change in changes] == ["approved", "second thoughts", "appeal"]


def test_a_changed_delta_counts_all_of_the_past_anew(ledger: Ledger) -> None:
    ledger.charge(request_for(0))
    delta = Decimal("1e-7")
    ledger.set_budget(RECORDS, Decimal(8), delta, who="officer", why="stricter")
    receipt = ledger.charge(request_for(1))
    accountant = RdpAccountant()
    assert receipt.charge.epsilon_before == accountant.epsilon(EVENT, delta).upper
    assert receipt.charge.epsilon_after == accountant.epsilon(EVENT.repeated(2), delta).upper


def test_no_privacy_needs_an_explicitly_infinite_budget(ledger: Ledger) -> None:
    bare = DpEvent.once(Mechanism(kind="non-private"))
    with pytest.raises(BudgetExceededError, match="Infinity"):
        ledger.charge(request_for(0, event=bare))
    ledger.set_budget(RECORDS, INFINITY, DELTA, who="officer", why="test data")
    assert ledger.charge(request_for(0, event=bare)).charge.epsilon_after == INFINITY
    assert ledger.charge(request_for(1)).charge.epsilon_before == INFINITY


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [("-1", "1e-5"), ("NaN", "1e-5"), ("1", "0"), ("1", "1"), ("1", "NaN"), ("1", "-0.1")],
)
def test_a_budget_out_of_range_is_refused(ledger: Ledger, epsilon: str, delta: str) -> None:
    size = len(ledger)
    with pytest.raises(LedgerError, match="budget"):
        ledger.set_budget(RECORDS, Decimal(epsilon), Decimal(delta), who="officer", why="typo")
    assert len(ledger) == size


def test_an_event_that_the_accountant_refuses_costs_nothing(
    ledger: Ledger, location: Path | str
) -> None:
    class Refusing:
        name = "refusing"

        def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
            raise UnknownEventError("no proof for this event")

    with pytest.raises(UnknownEventError):
        Ledger.open(location, signing_key=KEY, accountant=Refusing()).charge(request_for(0))
    assert ledger.spent(RECORDS).charges == 0


def test_a_receipt_is_good_for_one_training_also_after_a_restart(
    ledger: Ledger, again: Callable[[], Ledger]
) -> None:
    receipt = ledger.charge(request_for(0))
    ledger.consume(receipt)
    for opened in (ledger, again()):
        with pytest.raises(ReceiptError, match="used before"):
            opened.consume(receipt)
    # A repeated charge gives the same, used receipt: no second training for one charge.
    with pytest.raises(ReceiptError, match="used before"):
        ledger.consume(ledger.charge(request_for(0)))


def test_a_receipt_travels_as_json_and_proves_itself(ledger: Ledger) -> None:
    ledger.charge(request_for(0))
    receipt = Receipt.from_json(ledger.charge(request_for(1)).to_json())
    checkpoint = receipt.check(ledger.verifier)
    assert checkpoint.size == receipt.index + 1
    assert ledger.consume(receipt).kind == "consumed"


def test_a_foreign_receipt_is_refused(ledger: Ledger, folder: Path) -> None:
    ledger.charge(request_for(0))
    twin = create(folder / "twin.db")
    twin.set_budget(RECORDS, Decimal(9), DELTA, who="officer", why="approved")
    foreign = twin.charge(request_for(0))
    with pytest.raises(ReceiptError, match="not given out"):
        ledger.consume(foreign)
    with pytest.raises(ReceiptError, match="not given out"):
        ledger.consume(twin.charge(request_for(7)))


@pytest.mark.parametrize("field", ["owner", "entry", "checkpoint", "path"])
def test_an_altered_receipt_is_refused(ledger: Ledger, field: str) -> None:
    receipt = ledger.charge(request_for(0))
    values = receipt.model_dump()
    if field == "path":
        values["path"] = ("00" * 32, *receipt.path[1:])
    elif field == "entry":
        values["entry"] = receipt.entry.replace('"round":0', '"round":1')
    else:
        values[field] = values[field].replace("hospital-a", "hospital-b")
    with pytest.raises(ReceiptError):
        ledger.consume(Receipt(**values))
    ledger.consume(receipt)


def test_text_that_is_no_receipt_is_refused() -> None:
    for text in ("", "{}", "[1]", '{"owner": 1}', "x" * (1 << 22)):
        with pytest.raises(ReceiptError):
            Receipt.from_json(text)


def test_an_aborted_attempt_stays_charged_and_cannot_train(ledger: Ledger) -> None:
    receipt = ledger.charge(request_for(0))
    ledger.record("aborted", {"run": "run", "round": 0, "attempt": 0, "reason": "site lost"})
    with pytest.raises(ReceiptError, match="aborted"):
        ledger.consume(receipt)
    assert ledger.spent(RECORDS).charges == 1
    assert (
        ledger.charge(request_for(0, attempt=1)).charge.epsilon_before
        == receipt.charge.epsilon_after
    )


def test_a_resend_is_the_stored_bytes(ledger: Ledger, again: Callable[[], Ledger]) -> None:
    receipt = ledger.charge(request_for(0))
    with pytest.raises(ReceiptError, match="used for training"):
        ledger.store_upload(receipt, b"upload")
    ledger.consume(receipt)
    assert ledger.stored_upload("run", 0, 0) is None
    entry = ledger.store_upload(receipt, b"upload")
    assert again().store_upload(receipt, b"upload") == entry
    assert again().stored_upload("run", 0, 0) == b"upload"
    with pytest.raises(LedgerError, match="second release"):
        ledger.store_upload(receipt, b"fresh noise")
    assert ledger.stored_upload("run", 0, 0) == b"upload"
    assert ledger.stored_upload("run", 0, 1) is None


def test_forgotten_uploads_leave_their_digest(ledger: Ledger) -> None:
    receipt = ledger.charge(request_for(0))
    ledger.consume(receipt)
    ledger.store_upload(receipt, b"upload")
    assert ledger.forget_uploads("run") == 1
    assert ledger.stored_upload("run", 0, 0) is None
    assert ledger.store_upload(receipt, b"upload").kind == "upload"
    with pytest.raises(LedgerError, match="second release"):
        ledger.store_upload(receipt, b"fresh noise")


def test_what_was_realised_returns_no_budget(ledger: Ledger) -> None:
    receipt = ledger.charge(request_for(0))
    better = DpEvent.once(Mechanism.of(Decimal("0.01"), Decimal("2")))
    values = {
        **{"run": "run", "round": 0, "attempt": 0, "dataset": "table", "unit": "record"},
        **{"event": better, "attested_by": "coordinator", "facts": {"survivors": ["a", "b"]}},
    }
    entry = ledger.record("realised", values)
    assert ledger.record("realised", values) == entry
    assert ledger.spent(RECORDS).epsilon.upper == receipt.charge.epsilon_after
    assert isinstance(entry.payload, Realised)
    assert entry.payload.event == better
    with pytest.raises(LedgerError, match="other contents"):
        ledger.record("realised", {**values, "attested_by": "somebody else"})
    with pytest.raises(LedgerError, match="charge comes first"):
        ledger.record("realised", {**values, "round": 9})


def test_only_known_kinds_with_known_fields_are_recorded(ledger: Ledger) -> None:
    for kind in ("charge", "budget", "created", "gossip"):
        with pytest.raises(LedgerError, match="cannot record"):
            ledger.record(kind, {})
    with pytest.raises(LedgerError, match="reason"):
        ledger.record("aborted", {"run": "run", "round": 0, "attempt": 0})
    with pytest.raises(LedgerError, match="surprise"):
        ledger.record("released", {"what": "model", "who": "a", "surprise": 1})
    ledger.record("released", {"what": "model", "who": "a", "facts": {"sha256": "ab"}})
    ledger.record(
        "tuning", {"name": "grid", "runs": ["one", "two"], "method": "composition", "who": "a"}
    )


def test_facts_beyond_reason_are_refused(ledger: Ledger) -> None:
    request = request_for(0)
    for facts in ({"blob": "x" * (1 << 20)}, {"big": 1 << 70}):
        with pytest.raises(LedgerError):
            ledger.charge(request.model_copy(update={"facts": facts}))
    assert ledger.spent(RECORDS).charges == 0


def test_entries_of_a_round_carry_the_day_and_not_the_time(ledger: Ledger) -> None:
    receipt = ledger.charge(request_for(0))
    ledger.consume(receipt)
    ledger.store_upload(receipt, b"upload")
    times = {entry.kind: entry.time for entry in ledger.entries()}
    assert times["budget"] == "2026-01-02T03:04:05Z"
    assert {times[kind] for kind in ("charge", "consumed", "upload")} == {"2026-01-02"}


def test_a_run_is_charged_under_its_own_name_only(ledger: Ledger) -> None:
    ledger.charge(request_for(0, run="Run_1"))
    assert ledger.was_charged("Run_1")
    for other in ("run_1", "RUN_1", "Run", "Run-1", "%", 'Run_1",0'):
        assert not ledger.was_charged(other), other


def test_the_example_of_a_ledger_runs(tmp_path: Path) -> None:
    names = {"folder": tmp_path, "key": KEY, "event": EVENT}
    found = doctest.testmod(module, extraglobs=names)
    assert found.attempted > 10
    assert found.failed == 0
