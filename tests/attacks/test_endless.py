"""Bundles made to keep `verify` computing: it ends, and says what it did not compute."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privagg.audit import Brought, Methods, Verdict, Work, verify_bundle
from privagg.audit.methods import SMALLEST_DELTA, SMALLEST_RATE
from privagg.cli.app import app
from privagg.errors import CertificationError
from privagg.privacy.events import DpEvent, Mechanism, Term
from privagg.privacy.ledger import BudgetKey, ChargeRequest
from tests.attacks.test_verdicts import Acme, AcmeAccountant
from tests.audit.conftest import bundle_of
from tests.report.worlds import distributed

RUNNER = CliRunner()


class Endless(Acme):
    """One site's ledger holds many data sets, each charged with what is dear to bound."""

    accountant = AcmeAccountant("acme-dp", "1")
    datasets = 4

    def _charge(self, name: str, run: str, number: int) -> None:
        super()._charge(name, run, number)
        if name != "leuven" or number != 1:
            return
        for place in range(self.datasets):
            key = BudgetKey(f"cohort-{place}", self.plan.unit.value)
            ledger = self.sites[name]
            ledger.set_budget(key, Decimal(10**9), self.plan.delta, who="board", why="policy 7")
            ledger.charge(
                ChargeRequest(
                    run="another",
                    round=1,
                    attempt=1,
                    dataset=key.dataset,
                    unit=key.unit,
                    event=self._request(place),
                    plan_digest=self.plan.digest,
                    facts=self.facts(name, 1),
                )
            )

    def _request(self, number: int) -> DpEvent:
        """Records that hardly ever take part, with little noise: a second and more for each."""
        rate, noise = Decimal("0.0003") * (1 + number), Decimal("0.2") + Decimal(number) / 1000
        return DpEvent.once(Mechanism.of(rate, noise), count=1800 + number)


def test_many_dear_data_sets_end_within_the_limit_and_are_named(tmp_path: Path) -> None:
    plan = distributed(rounds=2)
    world = Endless(tmp_path, plan, budget=Decimal(1000), decided="never").play()
    bundle, limit, seen = bundle_of(world), 1, []
    for _ in range(2):
        methods = Methods(Work(limit))
        made = verify_bundle(bundle, Brought(methods=methods))
        assert methods.work.spent <= 1000 * limit + 9000
        seen.append(made.claims)
    left = [c for c in made.of(Verdict.UNDECIDED) if "work limit of 1" in c.settle]
    assert {"cohort" in c.subject for c in left} >= {True}
    assert all("--work 10" in c.settle for c in left)
    assert made.holds
    # By price and not by the clock: the same verdicts each time.
    assert seen[0] == seen[1]
    bundle.write(tmp_path / "dear.zip")
    result = RUNNER.invoke(app, ["verify", str(tmp_path / "dear.zip"), "--work", "1"])
    assert result.exit_code == 0
    assert "--work 10" in " ".join(result.output.split())
    # The way out that the messages name decides them in the end.
    made = verify_bundle(bundle, Brought(methods=Methods(Work(100 * limit))))
    assert not [c for c in made.claims if "work limit" in c.settle]
    proved = [c for c in made.of(Verdict.PROVED) if "within the budget of cohort" in c.subject]
    assert len(proved) == Endless.datasets


@pytest.mark.parametrize(
    ("rate", "noise", "delta"),
    [("1e-200", "0.3", "1e-5"), ("0.1", "1e300", "1e-5"), ("0.1", "1", "1e-300")],
    ids=["rate", "noise", "delta"],
)
def test_extreme_parameters_are_enclosed_at_once(rate: str, noise: str, delta: str) -> None:
    event = DpEvent.once(Mechanism.of(Decimal(rate), Decimal(noise)), count=85_821)
    methods = Methods()
    bound = methods.bracket(event, Decimal(delta))
    assert methods.work.spent < 5000  # milliseconds, as they are counted
    assert not bound.upper.is_finite()
    assert bound.lower is not None
    usual = Decimal(rate) >= SMALLEST_RATE and Decimal(noise) < 2
    assert (bound.lower > 1) is (usual and Decimal(delta) < SMALLEST_DELTA)
    with pytest.raises(CertificationError, match="are recomputed"):
        methods.certified.epsilon(event, Decimal(delta))


class Motley(Endless):
    """One site charges events of a thousand mechanisms: every total is long to add up and hash."""

    datasets = 10

    def _request(self, number: int) -> DpEvent:
        rates = (Decimal(1 + place) / 10**6 for place in range(1000))
        return DpEvent(
            terms=tuple(Term(mechanism=Mechanism.of(rate, Decimal(30)), count=1) for rate in rates)
        )


def test_a_ledger_of_motley_charges_is_left_and_named(tmp_path: Path) -> None:
    plan = distributed(rounds=2)
    world = Motley(tmp_path, plan, budget=Decimal(1000), decided="never").play()
    bundle = bundle_of(world)
    made = verify_bundle(bundle, Brought(methods=Methods(Work(1))))
    left = {c.subject: c.settle for c in made.of(Verdict.UNDECIDED) if c.section == "leuven"}
    (settle,) = [text for subject, text in left.items() if subject.startswith("ledger")]
    assert "--work 10" in settle
    (rebuilt,) = made.named("report-made-again-from-the-ledgers")
    assert rebuilt.verdict is Verdict.UNDECIDED
    assert made.holds
