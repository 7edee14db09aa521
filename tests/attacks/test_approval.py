"""Whoever writes the shared file, or holds the serving keys, decides nothing for the owner."""

from __future__ import annotations

import importlib
import py_compile
import sys
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.audit.untrusted import check_numbers
from privagg.cli.demo import write_demo
from privagg.cli.training import check
from privagg.errors import ApprovalError, ConfigError, LedgerError, LedgerTamperedError
from privagg.federation import Federation
from privagg.party.approving import Job, Terms, approve, check_approval, last_day
from privagg.party.open import ledger_here, make_local
from privagg.privacy.ledger import BudgetKey, Ledger, Replay, sign_approval, sign_withdrawal
from privagg.privacy.ledger.entries import Charge, payload_of
from privagg.privacy.ledger.log import read_account
from privagg.protocol.frames import read_message
from privagg.protocol.messages import Refusal
from privagg.training.factories import ApprovedCode, look_at
from privagg.training.known import KnownRecords, rows_as_bytes
from tests.approvals import OWNER, approve_plan, approved
from tests.simulator import ACCOUNTANT, Simulation

MINE = BudgetKey("north", "record")
MARK = "imported.txt"
CODE = """
from pathlib import Path
from torch import nn

Path({mark!r}).write_text("ran")


def model(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 1))


shell = print
"""


def demo(folder: Path, *changes: tuple[str, str]) -> Path:
    """The demo's shared file, two rounds, as whoever wrote it changed it."""
    (folder / "breast-cancer.toml").unlink(missing_ok=True)
    path = write_demo(folder, scheme="plaintext")
    text = path.read_text().replace("rounds = 40", "rounds = 2")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


# --- budgets -------------------------------------------------------------------------------------


def test_a_run_sets_no_budget_by_itself(tmp_path: Path) -> None:
    federation = Federation.from_toml(demo(tmp_path))
    with pytest.raises(ApprovalError, match="privagg approve .*breast-cancer.toml --all-sites"):
        federation.run()
    assert not (tmp_path / "parties").exists()


def test_another_name_for_the_same_table_gets_no_fresh_budget(tmp_path: Path) -> None:
    approved(Federation.from_toml(demo(tmp_path))).run()
    renamed = ("records = 220", 'records = 220\ndataset = "study-2"')
    federation = Federation.from_toml(demo(tmp_path, renamed))
    with pytest.raises(ApprovalError, match="count already under 'riverside'"):
        federation.approve(who="Dr. Ito", why="study 2")
    with pytest.raises(ApprovalError, match="nothing was spent"):
        federation.run()
    ledger = Ledger.open(tmp_path / "parties" / "riverside" / "ledger.sqlite")
    assert [key.dataset for key in ledger.keys()] == ["riverside"]  # noqa: SIM118
    acts = federation.approve(who="Dr. Ito", why="study 2", overlaps="agreed with the board")
    assert acts["riverside"].overlaps == "agreed with the board"


def test_one_record_in_a_hundred_is_recognised_whatever_is_declared(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    first = pd.DataFrame(draw.normal(size=(300, 3)), columns=["a", "b", "c"])
    other = pd.DataFrame(draw.normal(size=(200, 3)), columns=["a", "b", "c"])
    known = KnownRecords(tmp_path / "north.records")
    known.remember("first", known.tags(rows_as_bytes(first)))
    assert known.recognise("other", known.tags(rows_as_bytes(other))).elsewhere == ()
    two = pd.concat([other[:198], first[:2]])[["c", "a", "b"]].astype(str)  # moved, and as text
    (found,) = known.recognise("other", known.tags(rows_as_bytes(two))).elsewhere
    assert (found.dataset, found.share) == ("first", 0.01)
    assert known.path.stat().st_mode & 0o077 == 0


def test_an_infinite_budget_has_to_be_asked_for_by_name(tmp_path: Path) -> None:
    change = ("budget_epsilon = 3 ", "budget_epsilon = inf ")
    federation = Federation.from_toml(demo(tmp_path, change))
    with pytest.raises(ApprovalError, match="promises nothing to anybody"):
        federation.approve(who="Dr. Ito", why="study")
    assert federation.approve(who="Dr. Ito", why="study", budget=Decimal(2))


# --- plans ---------------------------------------------------------------------------------------


def refusal(simulation: Simulation) -> str:
    """Why north takes no part in a round."""
    outcome = simulation.round(1)
    assert "north" not in outcome.survivors
    return outcome.refusals["north"]


def test_a_plan_without_approval_is_refused_before_any_charge(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, dropouts=1)
    ledger = Ledger.create(
        tmp_path / "bare.sqlite", "north", signing_key=simulation.identities["north"].key
    )
    ledger.set_budget(MINE, Decimal(9), Decimal("1e-5"), who="whoever", why="no owner asked")
    simulation.wire.handlers["north"] = simulation.site("north", ledger=ledger).handle
    assert "has not approved plan" in refusal(simulation)
    assert ledger.spent(MINE).charges == 0
    frame = simulation.wire.seen["north"][-1]
    assert isinstance(read_message(frame, simulation.roster).header, Refusal)


def test_an_approval_that_is_over_or_withdrawn_covers_nothing(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, dropouts=1)
    ledger = simulation.ledgers["north"]
    approval = ledger.approvals()[0]
    taken_back = sign_withdrawal(
        OWNER, ledger.origin, who="Dr. Ito", why="stop", approval=approval.name
    )
    ledger.decide(taken_back)
    assert "no approval in force" in refusal(simulation)
    assert ledger.spent(MINE).charges == 0
    with pytest.raises(LedgerError, match="a day that was over"):
        approve_plan(ledger, MINE, simulation.plan.digest, Decimal(9), until="2020-01-01")


def test_an_approval_of_one_run_is_not_used_for_another(tmp_path: Path) -> None:
    """The same plan again, within the budget and before the last day; in one run it goes on."""
    simulation = Simulation(tmp_path, dropouts=1)
    ledger = Ledger.create(
        tmp_path / "once.sqlite", "north", signing_key=simulation.identities["north"].key,
        accountant=ACCOUNTANT,
    )  # fmt: skip
    approve_plan(ledger, MINE, simulation.plan.digest, Decimal(1000), runs=1)
    simulation.wire.handlers["north"] = simulation.site("north", ledger=ledger).handle
    for number in (1, 2):
        assert "north" in simulation.round(number).survivors
    simulation.begin("run-2")
    assert "was for 1 run," in simulation.round(1).refusals["north"]
    assert ledger.spent(MINE).charges == 2
    with ledger._writing() as (connection, head):  # whoever stole the serving key forgets the use
        free = replace(head, state=replace(head.state, used={}))
        (last,) = [e.payload for e in ledger.entries() if e.kind == "charge"][-1:]
        assert isinstance(last, Charge)
        more = last.model_copy(update={"run": "run-2", "epsilon_before": last.epsilon_after})
        account = read_account(connection, head, MINE)
        ledger._append(connection, free, more, account=account)
    with pytest.raises(LedgerTamperedError, match="no approval of the owner covers"):
        replayed = Replay()
        for entry in ledger.entries():
            replayed.add(entry.body())


def test_a_number_of_runs_is_kept_to_by_the_command_line_and_in_copies(tmp_path: Path) -> None:
    federation = Federation.from_toml(demo(tmp_path))
    federation.approve(who="Dr. Ito", why="study", runs=1)
    federation.run()
    with pytest.raises(ApprovalError, match="covers one more run"):
        federation.run()
    ledger = ledger_here(federation.setup, "riverside")
    identity = make_local(federation.setup, "riverside").identity()
    ledger.backup(tmp_path / "copy")
    again = Ledger.restore(
        tmp_path / "copy", tmp_path / "again.sqlite",
        signing_key=identity.key, who="x", why="x", checkpoints=[],
    )  # fmt: skip
    for held in (ledger, again):
        with pytest.raises(ApprovalError, match="was for 1 run,"):
            held.require_approval(federation.setup.budget_key("riverside"), federation.plan.digest)


def test_a_key_holders_approval_pretends_to_no_number_of_runs(tmp_path: Path) -> None:
    """It charges nothing, so nothing would be counted; the page said a number all the same."""
    federation = Federation.from_toml(demo(tmp_path))
    holder: Any = SimpleNamespace(name="key-holder", setup=federation.setup)
    with pytest.raises(ConfigError, match="'key-holder' charges nothing; leave out --runs"):
        approve([holder], Terms("Dr. Ito", "study", last_day(), runs=2))


class Clock:
    """A machine's clock, which its administrator, or the network, sets."""

    def __init__(self, day: str) -> None:
        self.day = day

    def __call__(self) -> datetime:
        return datetime.fromisoformat(f"{self.day}T12:00:00+00:00")


def clocked(folder: Path, clock: Clock) -> tuple[Simulation, Ledger]:
    """A federation whose north has this clock and an approval until the second of March."""
    simulation = Simulation(folder, dropouts=1)
    ledger = Ledger.create(
        folder / "clocked.sqlite", "north", signing_key=simulation.identities["north"].key,
        accountant=ACCOUNTANT, clock=clock,
    )  # fmt: skip
    approve_plan(ledger, MINE, simulation.plan.digest, Decimal(1000), until="2026-03-02")
    simulation.wire.handlers["north"] = simulation.site("north", ledger=ledger).handle
    return simulation, ledger


def test_an_approval_that_ends_in_the_middle_of_a_run_ends_the_sites_part(tmp_path: Path) -> None:
    clock = Clock("2026-03-02")
    simulation, ledger = clocked(tmp_path, clock)
    assert "north" in simulation.round(1).survivors
    clock.day = "2026-03-03"
    outcome = simulation.round(2)
    assert "ended on 2026-03-02" in outcome.refusals["north"]
    assert ledger.spent(MINE).charges == 1


def test_a_clock_set_back_brings_no_approval_back(tmp_path: Path) -> None:
    clock = Clock("2026-03-01")
    simulation, ledger = clocked(tmp_path, clock)
    clock.day = "2026-03-04"
    ledger.record("released", {"what": "a letter", "who": "north"})
    clock.day = "2026-03-02"
    assert "ended on 2026-03-02" in simulation.round(1).refusals["north"]
    assert ledger.spent(MINE).charges == 0
    assert ledger.approvals() == ()


@pytest.mark.parametrize("name", ["r\u0456verside", "riverside\u200b", "riverside ", " riverside"])
def test_no_two_data_sets_look_alike(tmp_path: Path, name: str) -> None:
    path = demo(tmp_path, ("records = 220", f'records = 220\ndataset = "{name}"'))
    with pytest.raises(ConfigError, match=r"dataset.*a name takes letters"):
        Federation.from_toml(path)


def test_records_that_privagg_does_not_see_get_no_second_budget_unasked(tmp_path: Path) -> None:
    """Behind a Flower app a data set is known by its name alone, which the shared file gives."""
    ledger = Simulation(tmp_path).ledgers["north"]
    setup = Federation.from_toml(demo(tmp_path)).setup
    known = KnownRecords(tmp_path / "x.records")
    owner: Any = SimpleNamespace(
        name="riverside", ledger=ledger, known=known, tags=None, setup=setup
    )
    terms = Terms("Dr. Ito", "study", "9999-12-31")
    with pytest.raises(ApprovalError, match="'riverside' of 'riverside' is new beside north"):
        check_approval(owner, Job.of(setup), terms)
    check_approval(owner, Job.of(setup), replace(terms, overlaps="other people"))


def test_only_the_owners_key_decides_and_only_for_its_own_ledger(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    ledger, other = simulation.ledgers["north"], simulation.ledgers["east"]
    before = ledger.checkpoint()
    thief = Ed25519PrivateKey.generate()
    with pytest.raises(LedgerError, match="not by the owner's key"):
        approve_plan(ledger, MINE, "00" * 32, Decimal(900), owner=thief)
    foreign = sign_approval(
        OWNER, other.origin, who="x", why="x", until="9999-12-31", job="plan", plans=["00" * 32],
        total=Decimal(0), dataset="north", unit="record", epsilon=Decimal(900),
        delta=Decimal("1e-5"), code=[], acted_for=[], overlaps="",
    )  # fmt: skip
    with pytest.raises(LedgerError, match="not signed by the key it names"):
        ledger.decide(foreign)
    altered = ledger.approvals()[0].model_copy(update={"epsilon": Decimal(9000), "name": "more"})
    with pytest.raises(LedgerError, match="not signed by the key it names"):
        ledger.decide(altered)
    with pytest.raises(LedgerError, match="owner's approval alone"):
        ledger.set_budget(MINE, Decimal(900), Decimal("1e-5"), who="north", why="thief")
    assert ledger.checkpoint() == before


def test_replay_finds_what_the_ledgers_key_signed_without_its_owner(tmp_path: Path) -> None:
    """A stolen serving key forgets the owner's and sets a budget: whoever replays sees it."""
    simulation = Simulation(tmp_path)
    ledger = simulation.ledgers["north"]
    with ledger._writing() as (connection, head):
        budget = payload_of(
            "budget",
            {"dataset": "north-2", "unit": "record", "epsilon": Decimal(900),
             "delta": Decimal("1e-5"), "who": "north", "why": "thief"},
        )  # fmt: skip
        free = replace(head, state=replace(head.state, owner_key="", approvals=()))
        ledger._append(connection, free, budget, account=None)
    replayed = Replay()
    with pytest.raises(LedgerTamperedError, match="without the owner's approval"):
        for entry in ledger.entries():
            replayed.add(entry.body())


def test_one_person_who_acts_for_all_is_named_in_every_ledger(tmp_path: Path) -> None:
    federation = Federation.from_toml(demo(tmp_path))
    acts = federation.approve(who="Dr. Ito", why="study")
    names = federation.plan.names
    assert {act.acted_for for act in acts.values()} == {names}
    assert len({act.owner_key for act in acts.values()}) == len(names)


# --- code ----------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the import path that leaves a mark when it is imported."""
    path = tmp_path / "strange_models.py"
    path.write_text(CODE.format(mark=str(tmp_path / MARK)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return path


def test_a_received_file_runs_nothing(tmp_path: Path) -> None:
    command = f"touch {tmp_path / MARK}"
    model = f'model = {{ kind = "os:system", options = {{ command = "{command}" }} }}'
    path = demo(tmp_path, ('model = "logistic"', model))
    with pytest.raises(ConfigError, match="Python's own"):
        check(path)
    with pytest.raises(ConfigError, match="Python's own"):
        Federation.from_toml(path).approve(who="hasty", why="did not look")
    assert not (tmp_path / MARK).exists()


def test_check_says_what_code_there_is_and_imports_nothing(tmp_path: Path, module: Path) -> None:
    path = demo(tmp_path, ('model = "logistic"', 'model = "strange_models:model"'))
    with pytest.raises(ApprovalError, match="nothing was imported") as said:
        check(path)
    assert look_at("strange_models:model").sha256 in str(said.value)
    with pytest.raises(ApprovalError, match="nothing was imported"):
        _ = Federation.from_toml(path).plan
    assert not (tmp_path / MARK).exists()


def test_code_runs_as_it_was_approved_and_no_other(tmp_path: Path, module: Path) -> None:
    path = demo(tmp_path, ('model = "logistic"', 'model = "strange_models:model"'))
    approved(Federation.from_toml(path))
    assert (tmp_path / MARK).exists()
    assert Federation.from_toml(path).plan.dimension == 31
    module.write_text(module.read_text() + "\n# one more line\n")
    with pytest.raises(ApprovalError, match="nothing was imported"):
        _ = Federation.from_toml(path).plan


def test_withdrawn_code_is_not_imported(tmp_path: Path, module: Path) -> None:
    path = demo(tmp_path, ('model = "logistic"', 'model = "strange_models:model"'))
    federation = approved(Federation.from_toml(path))
    assert federation.withdraw(who="tester", why="second thoughts") == 3
    (tmp_path / MARK).unlink()
    del sys.modules["strange_models"]
    with pytest.raises(ApprovalError, match="nothing was imported"):
        _ = Federation.from_toml(path).plan
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("reference", ["strange_models:shell", "os:system", "builtins:exec", "x:y"])
def test_what_a_file_does_not_itself_define_is_no_factory(module: Path, reference: str) -> None:
    with pytest.raises(ConfigError):
        look_at(reference)
    assert "strange_models" not in sys.modules


HELPED = CODE.replace("from pathlib", "import strange_helper\nfrom pathlib")


def test_another_local_module_that_it_imports_is_part_of_what_is_approved(
    tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner reads both files; afterwards the one that no configuration names is changed."""
    monkeypatch.delitem(sys.modules, "strange_helper", raising=False)
    helper = tmp_path / "strange_helper.py"
    helper.write_text("factor = 1\n")
    module.write_text(HELPED.format(mark=str(tmp_path / MARK)))
    path = demo(tmp_path, ('model = "logistic"', 'model = "strange_models:model"'))
    approved(Federation.from_toml(path))
    assert Federation.from_toml(path).plan.dimension == 31
    (tmp_path / MARK).unlink()
    for name in ("strange_models", "strange_helper"):
        del sys.modules[name]
    helper.write_text("factor = 2\n")
    with pytest.raises(ApprovalError, match="nothing was imported"):
        _ = Federation.from_toml(path).plan
    assert not (tmp_path / MARK).exists()


def test_a_cached_pyc_is_not_run_in_place_of_the_source(tmp_path: Path, module: Path) -> None:
    """Python runs an unchecked .pyc whatever its source says; the owner read the source."""
    evil = tmp_path / "evil.py"
    evil.write_text(f"{module.read_text()}\nopen({str(tmp_path / 'pyc')!r}, 'w')\n")
    cached = Path(cache_from_source(str(module)))
    py_compile.compile(
        str(evil), str(cached), dfile=str(module),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip
    evil.unlink()
    path = demo(tmp_path, ('model = "logistic"', 'model = "strange_models:model"'))
    approved(Federation.from_toml(path))
    assert (tmp_path / MARK).exists()
    assert not (tmp_path / "pyc").exists()


def test_a_file_that_changes_between_its_hash_and_its_import_is_not_run(
    tmp_path: Path, module: Path
) -> None:
    package = tmp_path / "strange_study"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(CODE.format(mark=str(tmp_path / MARK)))
    factory = look_at("strange_study.models:model")
    changed = "raise SystemExit('ran')\n" + CODE.format(mark=str(tmp_path / MARK))
    (package / "models.py").write_text(changed)
    with pytest.raises(ApprovalError, match="nothing was imported"):
        ApprovedCode.of(factory).load("strange_study.models:model")
    (package / "models.py").write_text(CODE.format(mark=str(tmp_path / MARK)))
    ApprovedCode.of(factory).load("strange_study.models:model")
    late = package / "late.py"
    late.write_text("raise SystemExit('ran')\n")
    (package / "models.py").write_text(changed)
    sys.modules.pop("strange_study.models")
    for name in ("late", "models"):
        with pytest.raises(ImportError, match="approved"):
            importlib.import_module(f"strange_study.{name}")


def test_every_caller_in_privagg_says_what_code_may_run() -> None:
    """`build_model` and `load_records` import what their caller vouches for, unless told."""
    import ast

    import privagg

    missing = []
    for path in Path(privagg.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in ("build_model", "load_records"):
                assert isinstance(node, ast.Call)
                if "code" not in {keyword.arg for keyword in node.keywords}:
                    missing.append(f"{path}:{node.lineno}")
    assert not missing


def test_no_random_name_makes_a_ledger_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "12345e7890123456"[: 2 * count])
    export = b"".join(Simulation(tmp_path).ledgers["north"].bundle().to_bytes())
    assert b"12345e7890123456" in export  # its approval's
    assert check_numbers(export, what="the ledger") == export
