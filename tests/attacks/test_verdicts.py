"""What `verify` calls proved: never what only a ledger's owner says, whatever its figures."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privagg.audit import Brought, Methods, Verdict, Verification, verify_file
from privagg.audit.methods import LARGEST_COUNT, MOST_MERGED, MOST_TERMS, merged
from privagg.cli.app import app
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.accountants import CertifiedAccountant
from privagg.privacy.events import DpEvent, Mechanism, Term
from privagg.privacy.ledger import ChargeRequest, Ledger
from tests.audit.conftest import Evidence, bundle_of
from tests.report.worlds import World, distributed

OLD = Path(__file__).parents[1] / "vectors" / "bundle-649ed6a.privagg.zip"
RUNNER = CliRunner()


class AcmeAccountant:
    """Says what its owner would like to hear, under a name that nobody knows, or a known one."""

    def __init__(self, name: str, factor: str = "0.0001") -> None:
        self.name = name
        self._factor = Decimal(factor)

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        count = sum(term.count for term in event.terms)
        return EpsilonBound(self._factor * count, None, "acme's own", certified=True)


class Acme(World):
    """Every site keeps its ledger with an accountant of its own choice."""

    accountant = AcmeAccountant("acme-dp")

    def _ledger(self, name: str) -> Ledger:
        return Ledger.create(
            self.folder / f"{name}.sqlite",
            name,
            signing_key=self.identities[name].key,
            accountant=self.accountant,
            clock=lambda: self.now,
        )


def verified(world: World, methods: Methods) -> Verification:
    return Evidence(world, bundle_of(world), methods).verify()


def of_leuven(made: Verification, words: str) -> Any:
    (claim,) = [c for c in made.claims if c.section == "leuven" and words in c.subject]
    return claim


@pytest.mark.parametrize("name", ["acme-dp", CertifiedAccountant().name])
def test_a_tiny_epsilon_of_anybodys_is_contradicted(
    tmp_path: Path, methods: Methods, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acme, "accountant", AcmeAccountant(name))
    world = Acme(tmp_path, distributed(rounds=3), budget=Decimal("0.01")).play()
    made = verified(world, methods)
    assert not made.holds
    for words in ("within the budget", "ε after each charge"):
        claim = of_leuven(made, words)
        assert claim.verdict is Verdict.CONTRADICTED
        assert "ε in [" in claim.recomputed


def test_an_unknown_accountant_that_states_enough_is_an_upper_bound(
    tmp_path: Path, methods: Methods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acme, "accountant", AcmeAccountant("acme-dp", "0.5"))
    made = verified(Acme(tmp_path, distributed(rounds=3)).play(), methods)
    assert of_leuven(made, "within the budget").verdict is Verdict.PROVED
    assert of_leuven(made, "ε after each charge").verdict is Verdict.PROVED


class Costly(Acme):
    """Every site spent on an earlier run what its accountant does not see."""

    earlier = DpEvent.once(Mechanism(kind="non-private"))

    def _charge(self, name: str, run: str, number: int) -> None:
        if run == self.run:
            super()._charge(name, run, number)
            return
        site = self.plan.site(name)
        self.sites[name].charge(
            ChargeRequest(
                run=run,
                round=number,
                attempt=1,
                dataset=site.dataset,
                unit=self.plan.unit.value,
                event=self.earlier,
                plan_digest=self.plan.digest,
                facts=self.facts(name, number),
            )
        )


@pytest.mark.parametrize(
    "earlier",
    [
        Mechanism(kind="non-private"),
        Mechanism.of(Decimal(1), Decimal("0.05")),  # below what is recomputed to the last digit
    ],
    ids=["no-noise", "little-noise"],
)
def test_what_is_beyond_recomputing_is_no_way_around_a_budget(
    tmp_path: Path, methods: Methods, earlier: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costly, "earlier", DpEvent.once(earlier))
    world = Costly(tmp_path, distributed(rounds=3), budget=Decimal("0.01"), earlier_charges=3)
    made = verified(world.play(), methods)
    for words in ("within the budget", "ε after each charge"):
        assert of_leuven(made, words).verdict is Verdict.CONTRADICTED


def test_a_run_without_noise_fits_no_finite_budget(tmp_path: Path, methods: Methods) -> None:
    world = Acme(tmp_path, distributed(rounds=3), budget=Decimal("0.01"), secure=False)
    made = verified(world.play(), methods)
    for words in ("within the budget", "ε after each charge"):
        claim = of_leuven(made, words)
        assert (claim.verdict, claim.recomputed) == (Verdict.CONTRADICTED, "ε = ∞")


@pytest.mark.parametrize(
    "event",
    [
        DpEvent.once(Mechanism.of(Decimal(1), Decimal("0.05"))),
        DpEvent.once(Mechanism.of(Decimal(1), Decimal(100)), count=2 * LARGEST_COUNT),
    ],
    ids=["little-noise", "many-rounds"],
)
def test_out_of_range_a_lower_end_is_proved_and_no_upper_one(event: DpEvent) -> None:
    bound = Methods().bracket(event, Decimal("1e-5"))
    assert bound.lower is not None
    assert bound.lower > 1
    assert not bound.upper.is_finite()


# --- events of many mechanisms --------------------------------------------------------------------


def many(count: int) -> DpEvent:
    """So many different mechanisms, as no honest plan has them and any ledger may state them."""
    event = DpEvent()
    for number in range(count):
        rate, noise = Decimal(1 + number % 17) / 100, 2 + Decimal(number) / 97
        event += DpEvent.once(Mechanism.of(rate, noise))
    return event


def test_three_hundred_mechanisms_are_bounded_as_few() -> None:
    methods, event = Methods(), many(300)
    bound = methods.bracket(event, Decimal("1e-5"))
    assert bound.lower is not None
    assert 0 < bound.lower < bound.upper < 20
    for upward in (True, False):  # what the time hangs on; one by one they took 34 s
        assert len(merged(event, upward=upward).terms) <= MOST_TERMS


@pytest.mark.parametrize("count", [MOST_TERMS + 1, 20])
def test_merged_mechanisms_enclose_the_exact_bound(count: int) -> None:
    event, delta = many(count), Decimal("1e-5")
    exact = CertifiedAccountant().epsilon(event, delta)
    bound = Methods().bracket(event, delta)
    assert exact.lower is not None
    assert bound.lower is not None
    assert bound.lower <= exact.upper
    assert bound.upper >= exact.lower
    for upward in (True, False):
        assert len(merged(event, upward=upward).terms) <= MOST_TERMS
        assert sum(t.count for t in merged(event, upward=upward).terms) == count


def test_more_mechanisms_than_are_merged_have_a_lower_end() -> None:
    rates = (Decimal(1 + number) / 10**4 for number in range(MOST_MERGED + 1))
    terms = tuple(Term(mechanism=Mechanism.of(rate, Decimal(1)), count=100) for rate in rates)
    bound = Methods().bracket(DpEvent(terms=terms), Decimal("1e-5"))
    assert bound.lower is not None
    assert bound.lower > 1
    assert not bound.upper.is_finite()


# --- what a reader asks for -----------------------------------------------------------------------


def test_a_bundle_of_before_stays_readable_and_says_what_it_lacks() -> None:
    made = verify_file(OLD, Brought())
    assert made.holds
    assert {c.by for c in made.of(Verdict.ATTESTED)} >= {"coordinator", "riverside"}
    assert all(c.settle for c in (*made.of(Verdict.ATTESTED), *made.of(Verdict.UNDECIDED)))


@pytest.mark.parametrize(
    ("required", "code"),
    [
        ("proved:riverside/within-the-budget-of-riverside-unit-record", 0),
        ("proved:plan", 0),
        ("proved:plan,riverside/history", 3),
        ("proved:metrics", 3),
        ("proved:no-such-claim", 2),
        ("attested:metrics", 2),
    ],
)
def test_what_is_required_is_proved_or_the_exit_code_says_so(required: str, code: int) -> None:
    result = RUNNER.invoke(app, ["verify", str(OLD), "--require", required])
    found = result.exit_code if result.exception is None or code in (0, 3) else 2
    assert found == code, result.output


def test_the_first_line_counts_what_rests_on_somebodys_word() -> None:
    first = RUNNER.invoke(app, ["verify", str(OLD)]).output.splitlines()[0]
    made = verify_file(OLD, Brought())
    assert first.startswith("NOTHING CONTRADICTED")
    assert f"{len(made.of(Verdict.ATTESTED))} claims are attested" in first
    assert f"{len(made.of(Verdict.UNDECIDED))} not decided" in first


def test_an_unknown_name_hides_no_contradiction(tmp_path: Path) -> None:
    world = Acme(tmp_path, distributed(rounds=2), budget=Decimal("0.01")).play()
    bundle_of(world).write(tmp_path / "lying.zip")
    arguments = ["verify", str(tmp_path / "lying.zip"), "--require", "proved:no-such-claim"]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("CONTRADICTED")
