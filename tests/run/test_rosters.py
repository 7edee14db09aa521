"""Whole runs whose sites join and leave between rounds: the same model, and what is told of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privagg import Federation
from privagg.audit.bundle import ReportBundle
from privagg.audit.claims import Verdict
from privagg.audit.continued import BEGAN_WITH
from privagg.audit.verify import Brought, verify_bundle, verify_file
from privagg.cli.planview import describe
from privagg.errors import ConfigError, LedgerError, ParameterError, WrongRoundError
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge, RosterChanged
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.names import COORDINATOR
from privagg.protocol.transport import Reply
from privagg.report.build import build_report
from privagg.report.model import Report
from privagg.run import local
from privagg.run.results import RunResult
from privagg.training.models import ParameterLayout
from privagg.training.saving import read_tensors
from tests.approvals import approved
from tests.faults import Fragile, Killed
from tests.run.small import RUN, ledgers_of, run_small, told, write_small

pytestmark = pytest.mark.usefixtures("no_page")

SITES = {"north": 30, "south": 24, "east": 28, "west": 26}
SPANS = {"east": "first_round = 2\n", "south": "last_round = 2\n"}
EPOCHS = {1: ("north", "south", "west"), 2: tuple(SITES), 3: ("north", "east", "west")}
SCHEDULE = "who joined, left and was asked: as the plan says"


def weights(result: RunResult) -> bytes:
    """What was trained; the file's header names the plan, and so the scheme."""
    assert result.model is not None
    tensors, _ = read_tensors(result.model)
    return b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))


def changing(
    folder: Path, scheme: str, rounds: int = 3, spans: Mapping[str, str] = SPANS
) -> Federation:
    path = write_small(folder, rounds=rounds, scheme=scheme, sites=SITES, spans=spans)
    return approved(Federation.from_toml(path))


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, no_page: None
) -> dict[str, tuple[Federation, RunResult]]:
    found = {}
    for scheme in ("plaintext", "masked"):
        federation = changing(tmp_path_factory.mktemp("r") / scheme, scheme)
        found[scheme] = federation, run_small(federation)
    return found


@pytest.mark.parametrize("scheme", ["plaintext", "masked"])
def test_every_round_is_of_whoever_is_there_and_everything_tells_it(
    runs: dict[str, tuple[Federation, RunResult]], scheme: str
) -> None:
    federation, result = runs[scheme]
    assert {r.outcome.round: r.outcome.survivors for r in result.rounds} == EPOCHS
    assert result.bundle is not None
    assert result.report_json is not None
    verified = verify_file(result.bundle, Brought())
    assert verified.holds
    assert {c.verdict for c in verified.claims if c.subject == SCHEDULE} == {Verdict.PROVED}
    report = json.loads(result.report_json.read_text())
    assert [(r["round"], r["joined"], r["left"]) for r in report["rosters"]] == [
        (2, ["east"], []), (3, [], ["south"]),
    ]  # fmt: skip
    keys = {report["scheme"]["key_id"], *(each["key_id"] for each in report["rosters"])}
    assert len(keys) == (3 if scheme == "masked" else 1)
    assert any("east joined in round 2; south left after round 2" in s for s in report["summary"])
    plan = federation.setup.plan
    for name, ledger in local_ledgers(federation.setup.output).items():
        charges = [e.payload for e in ledger.entries() if isinstance(e.payload, Charge)]
        if name in SITES:
            assert [charge.round for charge in charges] == list(plan.rounds_of(name))
        else:
            changes = [e.payload for e in ledger.entries() if isinstance(e.payload, RosterChanged)]
            assert [c.first_round for c in changes] == ([2, 3] if name == COORDINATOR else [])


def test_every_scheme_gives_the_same_model(runs: dict[str, tuple[Federation, RunResult]]) -> None:
    assert len({weights(result) for _, result in runs.values()}) == 1


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["bfv", "ckks", "paillier"])
def test_one_joins_at_5_and_one_leaves_after_8_of_12_under(scheme: str, tmp_path: Path) -> None:
    spans = {"east": "first_round = 5\n", "south": "last_round = 8\n"}
    models = set()
    for name in ("plaintext", "masked", scheme):
        result = run_small(changing(tmp_path / name, name, 12, spans))
        assert result.bundle is not None
        models.add(weights(result))
        assert [len(r.outcome.survivors) for r in result.rounds] == [3] * 4 + [4] * 4 + [3] * 4
        assert verify_file(result.bundle, Brought()).holds
    assert len(models) == 1


@pytest.mark.parametrize(("lives", "before"), [(4, True), (4, False), (8, True), (9, True)])
def test_a_run_is_resumed_across_a_change(
    runs: dict[str, tuple[Federation, RunResult]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lives: int,
    before: bool,
) -> None:
    """Killed around the cards, the farewell and the round of a change."""
    whole, _ = runs["masked"]
    federation = changing(tmp_path / "again", "masked")

    def dying(handlers: Mapping[str, Any]) -> Any:
        return Fragile(LocalTransport(handlers), lives, before=before)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        run_small(federation)
    result = run_small(Federation.from_toml(tmp_path / "again" / "small.toml"), resume=RUN)
    again, first = told(result), told(runs["masked"][1])
    assert again["model"] == first["model"]
    assert again["report"]["rosters"] == first["report"]["rosters"]
    found, expected = ledgers_of(federation), ledgers_of(whole)
    for name in SITES:
        kinds = [[kind for kind, _ in story if kind == "charge"] for story in
                 (found[name], expected[name])]  # fmt: skip
        assert kinds[0] == kinds[1]


def test_who_left_may_be_gone_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger is the one that it sent as it left."""

    class Leaving(LocalTransport):
        """Carries nothing to `south` once it has sent its ledger."""

        gone = False

        def exchange(self, requests: Mapping[str, bytes]) -> Any:
            there = {n: f for n, f in requests.items() if not (n == "south" and self.gone)}
            yield from super().exchange(there)
            self.gone |= set(requests) == {"south"}

    monkeypatch.setattr(local, "LocalTransport", Leaving)
    result = run_small(changing(tmp_path, "plaintext"))
    assert result.bundle is not None
    assert verify_file(result.bundle, Brought()).holds


def test_nobody_is_asked_to_approve_rounds_whose_sum_no_scheme_may_open(tmp_path: Path) -> None:
    """Of two sites, one may collude: the other's upload would be what is left of the sum."""
    three = {name: SITES[name] for name in ("north", "south", "east")}
    spans = {"south": "last_round = 2\n"}
    path = write_small(tmp_path, rounds=3, scheme="masked", sites=three, spans=spans)
    with pytest.raises(ParameterError, match=r"in round 3 \(north, east\)"):
        approved(Federation.from_toml(path))
    assert not (tmp_path / "out" / "parties").exists()


def test_check_tells_who_is_there_when(runs: dict[str, tuple[Federation, RunResult]]) -> None:
    facts = describe(runs["masked"][0].setup)
    assert [(r["first_round"], r["last_round"], tuple(r["sites"])) for r in facts["rosters"]] == [
        (first, first, names) for first, names in EPOCHS.items()
    ]
    shares = [r["noise_share_stddev_grid"] for r in facts["rosters"]]
    assert shares[0] == shares[2] > shares[1]
    assert "2 of 3 in round 1" not in facts["custody_plainly"]
    assert "3 of 3 in round 1, 4 of 4 in round 2, 3 of 3 in round 3" in facts["custody_plainly"]


@pytest.mark.parametrize(
    "lie",
    [{"joined": ["west"]}, {"left": ["south"]}, {"facts": {"sites": ["north"]}}, None],
    ids=["joined", "left", "sites", "nothing"],
)
def test_a_coordinator_that_records_other_changes_contradicts_the_plan(
    runs: dict[str, tuple[Federation, RunResult]], lie: dict[str, Any] | None, tmp_path: Path
) -> None:
    _, result = runs["plaintext"]
    assert result.report_json is not None
    report = json.loads(result.report_json.read_text())
    changed = dict(report["rosters"][0])
    if lie is None:
        report["rosters"] = report["rosters"][1:]
    else:
        report["rosters"][0] = {**changed, **lie.get("facts", lie)}
    assert result.bundle is not None
    bundle = ReportBundle.read(result.bundle)
    files = {**bundle.files, "report.json": json.dumps(report).encode()}
    told_lie = ReportBundle(files, bundle.attestation)
    claims = verify_bundle(told_lie, Brought()).claims
    assert {c.verdict for c in claims if c.subject == SCHEDULE} == {Verdict.CONTRADICTED}


def test_an_observer_row_is_of_the_sites_own_rounds(
    runs: dict[str, tuple[Federation, RunResult]],
) -> None:
    federation, result = runs["masked"]
    assert result.report_json is not None
    report = Report.from_json(result.report_json.read_text())
    for site in report.sites:
        rounds = len(federation.setup.plan.rounds_of(site.name))
        for row in site.guarantees:
            assert sum(term.count for term in row.event.terms) == rounds


@pytest.mark.parametrize("scheme", ["plaintext", "masked"])
def test_who_was_to_join_later_does_not_hold_up_the_report_of_a_run_that_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """And whoever was there does: of those no ledger may be missing."""
    federation = changing(tmp_path, scheme, 3, {"east": "first_round = 2\n"})
    exchange, gone, leaves = LocalTransport.exchange, {"east"}, set[str]()

    def unreachable(self: LocalTransport, requests: Mapping[str, bytes]) -> Any:
        asked = {party: frame for party, frame in requests.items() if party not in gone}
        yield from exchange(self, asked)
        yield from (Reply(party, None, "not reachable") for party in requests.keys() - asked.keys())

    def stop(_: object) -> None:
        gone.update(leaves)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalTransport, "exchange", unreachable)
    result = run_small(federation, on_round=stop)
    assert result.outcome == "stopped"
    assert result.bundle is not None
    assert result.report_json is not None
    assert verify_file(result.bundle, Brought()).holds
    report = Report.from_json(result.report_json.read_text())
    assert [site.name for site in report.sites] == ["north", "south", "west"]
    ledgers = local_ledgers(federation.setup.output)
    coordinator = ledgers.pop(COORDINATOR)
    for name in ("north", "south", "west"):
        rest = {each: one for each, one in ledgers.items() if each not in (name, "east")}
        with pytest.raises(LedgerError, match=f"names the site '{name}', whose ledger was not"):
            build_report(run=RUN, coordinator=coordinator, sites=rest)
    leaves.add("north")
    with pytest.raises(LedgerError, match="without the ledger of 'north'"):
        run_small(federation, run_id="small-2", on_round=stop)


def refuses_another_beginning(
    federation: Federation, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that begins elsewhere, by one bit, is refused by every site, uncharged."""
    begin = federation.setup.program().begin()
    require_state = federation.setup.require_state
    moved = begin.copy()
    moved[0] = np.nextafter(moved[0], np.inf)
    require_state(1, begin)
    require_state(2, moved)
    for state in (moved, -begin, begin[:-1], np.full_like(begin, np.nan)):
        with pytest.raises(WrongRoundError, match="brings another model than the plan goes on"):
            require_state(1, state)
    aside = model.rename(model.with_name("elsewhere"))
    with pytest.raises(WrongRoundError, match="this site cannot read it"):
        require_state(1, begin)
    aside.rename(model)
    program = type(federation.setup).program

    def lying(setup: Any) -> Any:
        made = program(setup)
        monkeypatch.setattr(made, "begin", lambda: moved)
        return made

    before = charges(federation)
    with monkeypatch.context() as patch:
        patch.setattr(type(federation.setup), "program", lying)
        outcome = run_small(federation, run_id="small-lie").rounds[0].outcome
    assert outcome.outcome == "stopped"
    assert all("another model than the plan" in why for why in outcome.refusals.values())
    assert len(outcome.refusals) == len(outcome.cohort)
    assert charges(federation) == before


def charges(federation: Federation) -> int:
    """Of all sites, in all runs."""
    ledgers = local_ledgers(federation.setup.output).values()
    return sum(isinstance(e.payload, Charge) for one in ledgers for e in one.entries())


def test_another_roster_goes_on_with_an_opened_model(
    runs: dict[str, tuple[Federation, RunResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, result = runs["plaintext"]
    assert result.model is not None
    path = federation.setup.base / "more.toml"
    text = (federation.setup.base / "small.toml").read_text().replace("last_round = 2\n", "")
    sha256 = hashlib.sha256(result.model.read_bytes()).hexdigest()

    def write(digest: str) -> Federation:
        section = (
            f'\n[training.continues]\nrun = "{RUN}"\nmodel = "{result.model}"\n'
            f'sha256 = "{digest}"\n'
        )
        path.write_text(text.replace("\n[secure]", f"{section}\n[secure]").replace(
            "rounds = 3", "rounds = 2"))  # fmt: skip
        return Federation.from_toml(path)

    with pytest.raises(ConfigError, match="the plan pins 0000"):
        write("0" * 64).setup.program()
    again = approved(write(sha256))
    assert again.plan.digest != federation.plan.digest
    layout = ParameterLayout.of(again.setup.model)
    tensors, _ = read_tensors(result.model)
    assert np.array_equal(again.setup.program().begin(), layout.from_tensors(tensors))
    refuses_another_beginning(again, result.model, monkeypatch)
    gone_on = run_small(again, run_id="small-2")
    assert gone_on.bundle is not None
    verified = verify_file(gone_on.bundle, Brought())
    assert verified.holds
    assert {c.verdict for c in verified.claims if c.subject == BEGAN_WITH} == {Verdict.PROVED}
    assert gone_on.report_json is not None
    summary = json.loads(gone_on.report_json.read_text())["summary"]
    assert any(f"went on with the model of run {RUN}" in sentence for sentence in summary)
