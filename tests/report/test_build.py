"""Reports are read from ledgers only, and say what the ledgers say."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from privagg.errors import LedgerError
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger.composition import compose
from privagg.report import Report, build_report, runs_of, write_report
from privagg.report.accounting import UNSTEERED
from privagg.report.build import _records_apart
from privagg.report.model import ObserverRow, RecordsApart, SiteReport
from privagg.report.sentences import kept_apart, summarise, unprotected
from tests.report.worlds import World, distributed

GetReport = Callable[[str], Report]
GetWorld = Callable[[str], World]


def _row(site: SiteReport, observer: str, k: int) -> ObserverRow:
    return next(r for r in site.guarantees if (r.observer, r.colluding_sites) == (observer, k))


def test_spending_is_what_the_ledger_charged(world: GetWorld, report: GetReport) -> None:
    made = world("three-hospitals")
    for site in report("three-hospitals").sites:
        spent = made.sites[site.name].spent(made._key(site.name))
        assert site.epsilon_after_run == spent.epsilon.upper
        assert 0 < site.epsilon_before_run < site.epsilon_after_run
        assert site.committed.epsilon < site.epsilon_after_run  # an earlier run spent the rest
        assert len(site.history) == made.earlier_charges + made.plan.rounds


def test_the_committed_figure_is_the_accountants_own(world: GetWorld, report: GetReport) -> None:
    plan = world("three-hospitals").plan
    event = compose(DpEvent(), DpEvent(), *([plan.committed_event("leuven")] * plan.rounds))
    expected = CertifiedAccountant().epsilon(event, plan.delta)
    committed = report("three-hospitals").sites[2].committed
    assert (committed.epsilon, committed.epsilon_lower) == (expected.upper, expected.lower)
    assert committed.event.terms == event.terms


def test_a_stopped_round_counts_as_opened_where_nothing_proves_otherwise(
    report: GetReport,
) -> None:
    made = report("three-hospitals")
    aborted = [p for p in made.sites[0].history if p.outcome == "aborted"]
    assert [(p.round, p.attempt) for p in aborted] == [(9, 1)]
    # The coordinator's word that nothing was opened is no proof: the key holder may have.
    users = _row(made.sites[0], "model-users", 0)
    assert sum(term.count for term in users.event.terms) == 12
    both = _row(made.sites[0], "aggregator+key-holder", 0)
    assert sum(term.count for term in both.event.terms) == 12


def test_a_round_with_a_dropout_has_fewer_noise_shares(world: GetWorld, report: GetReport) -> None:
    plan = world("three-hospitals").plan
    made = report("three-hospitals")
    users = _row(made.sites[0], "model-users", 0)
    counts = {t.mechanism.noise_multiplier: t.count for t in users.event.terms}
    full, short = (plan.event_of_shares(plan.names[0], m).terms[0].mechanism for m in (3, 2))
    # One round with a dropout, and one that was stopped, which counts at its least noise.
    assert counts == {full.noise_multiplier: 10, short.noise_multiplier: 2}
    # leuven itself was the one missing, and heard nothing that proves it: counted at the worst
    away = _row(made.sites[2], "model-users", 0)
    assert {t.mechanism.noise_multiplier: t.count for t in away.event.terms} == {
        full.noise_multiplier: 10,
        short.noise_multiplier: 2,
    }


@pytest.mark.parametrize("name", ["three-hospitals", "smooth", "weighted", "plaintext"])
def test_more_colluders_never_learn_less(report: GetReport, name: str) -> None:
    for site in report(name).sites:
        for observer in {row.observer for row in site.guarantees}:
            rows = [r for r in site.guarantees if r.observer == observer]
            epsilons = [r.epsilon for r in sorted(rows, key=lambda r: r.colluding_sites)]
            assert epsilons == sorted(epsilons)


def test_with_no_dropouts_and_one_colluder_the_realised_figure_beats_the_committed(
    report: GetReport,
) -> None:
    for site in report("smooth").sites:
        assert _row(site, "model-users", 0).epsilon < site.committed.epsilon


def test_figures_for_other_rounds_than_the_plans_rest_on_nobody_having_steered_them(
    tmp_path: Path, report: GetReport
) -> None:
    """An end or a dropout chosen by the results is no composition of rounds fixed beforehand."""
    for site in report("smooth").sites:
        assert not any(UNSTEERED in row.assumptions for row in (site.committed, *site.guarantees))
    for site in report("three-hospitals").sites:
        assert all(UNSTEERED in row.assumptions for row in site.guarantees)
    made = World(tmp_path, distributed(rounds=2))
    made.start()
    made._round(1, np.random.default_rng(1))
    for site in made.report().sites:
        assert all(UNSTEERED in row.assumptions for row in (site.committed, *site.guarantees))


def test_under_plaintext_the_aggregator_reads_single_uploads(report: GetReport) -> None:
    site = report("plaintext").sites[0]
    assert _row(site, "aggregator", 0).epsilon == _row(site, "aggregator", 2).epsilon
    assert _row(site, "aggregator", 0).epsilon > _row(site, "model-users", 0).epsilon
    assert "does not encrypt" in report("plaintext").unprotected[0]


def test_a_search_costs_what_its_runs_were_charged(world: GetWorld, report: GetReport) -> None:
    (search,) = report("three-hospitals").tuning
    assert search.recorded_in == ("coordinator", "st-anna")
    assert (search.runs, search.facts) == (("earlier-run",), {"grid": "0.1, 0.5"})
    made = world("three-hospitals")
    event = made.plan.committed_event("leuven")
    total = compose(DpEvent(), DpEvent(), *[event] * made.earlier_charges)
    expected = CertifiedAccountant().epsilon(total, made.plan.delta)
    assert [c.site for c in search.costs] == list(made.plan.names)
    assert {(c.charges, c.epsilon) for c in search.costs} == {(3, expected.upper)}
    assert "(learning rate) with 1 run" in " ".join(report("three-hospitals").summary)


def test_a_search_over_other_data_sets_is_left_out(tmp_path: Path) -> None:
    made = World(tmp_path, distributed(rounds=1))
    search = {"runs": ["elsewhere"], "method": "composition", "who": "someone"}
    made.coordinator.record("tuning", {"name": "other", **search})
    made.start()
    here = {**search, "runs": ["elsewhere", made.run]}
    made.coordinator.record("tuning", {"name": "this one", **here})
    (found,) = made.report(peers=()).tuning
    assert (found.name, found.costs) == ("this one", ())


def test_the_time_training_takes_is_not_reported(report: GetReport) -> None:
    stages = report("smooth").rounds[0].seconds
    assert set(stages.model_dump()) == {"encrypt", "add", "open"}


def test_a_deterministic_source_means_no_guarantee_anywhere(report: GetReport) -> None:
    made = report("infinite")
    for site in made.sites:
        assert site.committed.epsilon.is_infinite()
        assert all(row.epsilon.is_infinite() for row in site.guarantees)
    assert any("No privacy guarantee" in sentence for sentence in made.summary)


def test_weights_give_every_site_its_own_matrix(report: GetReport) -> None:
    epsilons = [_row(site, "model-users", 0).epsilon for site in report("weighted").sites]
    assert len(set(epsilons)) == 3
    assert epsilons == sorted(epsilons)


def test_peers_stand_beside_the_proven_interval(report: GetReport) -> None:
    figures = {a.name: a for a in report("three-hospitals").sites[0].accountants}
    proven = figures["certified"]
    assert proven.certified
    assert proven.epsilon is not None
    assert proven.epsilon_lower is not None
    assert proven.epsilon_lower <= proven.epsilon
    assert set(figures) == {"certified", "rdp", "pld"}
    assert not figures["rdp"].certified


def test_a_peer_below_the_proven_lower_end_is_said_to_understate(world: GetWorld) -> None:
    class Low:
        name = "low"

        def epsilon(self, event: DpEvent, delta: Decimal) -> object:
            bound = CertifiedAccountant().epsilon(event, delta)
            return type(bound)(bound.upper / 2, None, "half of it", False)

    made = world("smooth").report(peers=(Low(),))
    note = made.sites[0].accountants[1].note
    assert "lies below the proven lower end" in note
    assert "-" not in note.split("(")[1].split("%")[0]  # a minus sign, no hyphen


def test_the_sentences_follow_from_the_figures(report: GetReport) -> None:
    for name in ("three-hospitals", "seven-sites", "plaintext", "infinite"):
        made = Report.from_json(report(name).to_json())
        assert summarise(made) == made.summary
        assert unprotected(made) == made.unprotected
        text = " ".join((*made.summary, *made.unprotected, *made.assumptions)).lower()
        assert "anonym" not in text
        assert "complian" not in text


def test_epsilons_in_sentences_are_rounded_up(report: GetReport) -> None:
    made = report("three-hospitals")
    spent = made.sites[0].epsilon_after_run
    written = next(s for s in made.summary if "had each spent" in s)
    figure = Decimal(written.split("spent ε = ")[1].split()[0])
    assert figure >= spent
    assert figure - spent < Decimal("0.01")


def test_an_unknown_run_is_refused_with_those_there_are(world: GetWorld) -> None:
    made = world("smooth")
    assert runs_of(made.coordinator) == (made.run,)
    with pytest.raises(LedgerError, match=f"it knows {made.run}"):
        build_report(run="other", coordinator=made.coordinator, sites=made.sites)


def test_a_missing_sites_ledger_is_refused(world: GetWorld) -> None:
    made = world("smooth")
    without = {name: ledger for name, ledger in made.sites.items() if name != "leuven"}
    with pytest.raises(LedgerError, match="'leuven', whose ledger was not given"):
        build_report(run=made.run, coordinator=made.coordinator, sites=without)


def test_ledgers_that_contradict_each_other_give_no_report(tmp_path: Path) -> None:
    made = World(tmp_path, distributed(rounds=2))
    made.start()
    made._charge("st-anna", made.run, 1)
    place = {"run": made.run, "round": 1, "attempt": 1}
    made._realise("st-anna", place, ["st-anna", "leuven"])
    facts = {"cohort": ["st-anna"], "survivors": ["st-anna", "charite"]}
    made.coordinator.record("round", {**place, "outcome": "opened", "facts": facts})
    with pytest.raises(LedgerError, match=r"names the survivors st-anna, leuven.*st-anna, charite"):
        made.report()


def test_a_run_that_was_killed_is_reported_as_unfinished(tmp_path: Path) -> None:
    made = World(tmp_path, distributed(rounds=2))
    made.start()
    made._charge("st-anna", made.run, 1)
    report = made.report(peers=())
    assert report.outcome == "unfinished"
    assert report.sites[0].history[0].outcome == "charged"
    assert report.sites[0].epsilon_after_run > 0
    assert report.sites[1].epsilon_after_run == 0
    # Nobody attested what became of the charged round, so it counts as opened.
    assert _row(report.sites[0], "model-users", 0).epsilon > 0
    assert _row(report.sites[1], "model-users", 0).epsilon == 0


def test_files_are_written_whole(world: GetWorld, tmp_path: Path) -> None:
    made = world("smooth")
    json_path, html_path = write_report(
        tmp_path / "out", run=made.run, coordinator=made.coordinator, sites=made.sites
    )
    assert Report.from_json(json_path.read_text()).run == made.run
    assert html_path is not None
    assert html_path.read_text().endswith("</html>\n")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


APART = {
    "how": "tested", "date": "2026-11-27", "physical_batch": 64, "threads": 1,
    "device": "cpu x86_64 AVX2", "torch": "2.13.0", "opacus": "1.6.0", "engine": "exact",
    "placed": "slots",
}  # fmt: skip


def _stating(*facts: dict[str, Any]) -> list[Any]:
    return [SimpleNamespace(facts=each) for each in facts]


def test_each_statement_of_a_sites_charges_stands_once() -> None:
    elsewhere = {**APART, "device": "cpu aarch64 DEFAULT"}
    found = _records_apart(
        "north", _stating(*({"records_apart": APART},) * 3, {"records_apart": elsewhere}, {})
    )
    assert [each.model_dump() for each in found] == [APART, elsewhere]


@pytest.mark.parametrize(
    "changed",
    [{"how": "believed"}, {"date": "yesterday"}, {"gpu": "some"}, {"threads": -1}],
    ids=str,
)
def test_a_charge_that_states_no_test_that_is_known_makes_no_report(
    changed: dict[str, Any],
) -> None:
    with pytest.raises(LedgerError, match="'north'.*records_apart"):
        _records_apart("north", _stating({"records_apart": {**APART, **changed}}))


def test_exact_arithmetic_is_told_with_what_its_owner_can_do(report: GetReport) -> None:
    facts = {**APART, "how": "proved", "engine": "exact-dense"}
    site = report("three-hospitals").sites[0]
    stated = (RecordsApart.model_validate(facts),)
    (told,) = kept_apart((site.model_copy(update={"records_apart": stated}),))
    assert f"follows from exact arithmetic at {site.name}" in told
    assert "can recompute a site's integers before noise bit for bit on any machine" in told


def test_sites_that_state_nothing_are_named(report: GetReport) -> None:
    made = report("three-hospitals")
    stated = RecordsApart.model_validate(APART)
    first = made.sites[0].model_copy(update={"records_apart": (stated,)})
    tested, untested = kept_apart((first, *made.sites[1:]))
    assert f"was tested at {first.name} on 2026-11-27, for batches of 64" in tested
    assert all(site.name in untested for site in made.sites[1:])
    assert "without a test" in untested
