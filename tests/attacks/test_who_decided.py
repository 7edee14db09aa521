"""One person who decides for several institutions is named, however it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.audit import Methods, Verdict
from privagg.federation import Federation
from privagg.report import FORMATS, Report
from tests.approvals import approve_plan
from tests.attacks.test_approval import demo
from tests.audit.conftest import Evidence, bundle_of
from tests.report.worlds import World, distributed

FOR_ALL = "One person (Dr. Ito) approved the use of the data of all 3 institutions"


def summary(report: Report) -> str:
    return " ".join(report.summary)


def test_page_one_says_that_one_person_decided_for_all(tmp_path: Path) -> None:
    world = World(tmp_path, distributed(rounds=2), decided="together").play()
    report = world.report()
    assert FOR_ALL in summary(report)
    assert [site.approvals[0].acted_for for site in report.sites] == [world.plan.names] * 3
    assert FOR_ALL in str(FORMATS["html"][1](report))


def test_owners_who_decided_apart_are_named_and_not_called_one(tmp_path: Path) -> None:
    report = World(tmp_path, distributed(rounds=2)).play().report()
    assert "Each institution's owner approved" in summary(report)
    assert "st-anna (Dr. St-Anna)" in summary(report)


def test_a_run_without_any_approval_says_so(tmp_path: Path) -> None:
    report = World(tmp_path, distributed(rounds=2), decided="never").play().report()
    assert "No ledger records that an owner approved" in summary(report)


def test_an_approval_given_after_the_run_covers_nothing_of_it(
    tmp_path: Path, methods: Methods
) -> None:
    """Afterwards each site records an approval of the same plan that names nobody beside it."""
    world = World(tmp_path, distributed(rounds=2), decided="together").play()
    owner_of = {}
    for name, ledger in world.sites.items():
        (first,) = ledger.approvals()
        owner_of[name] = first.owner_key
    assert len(set(owner_of.values())) == 3
    for name, ledger in world.sites.items():
        approve_plan(
            ledger, world._key(name), world.plan.digest, world.budget, owner=world.owners[name],
            who=f"Dr. {name}",
        )  # fmt: skip
    made = Evidence(world, bundle_of(world), methods).verify()
    assert made.holds
    said = [c.claimed for c in made.claims if c.subject == "its owner approved this use"]
    assert len(said) == 3
    assert all("one person acted for st-anna, charite, leuven" in claim for claim in said)
    assert FOR_ALL in summary(world.report())


class OneKey(World):
    """Every site's approval names another person, and nobody beside it; one key signed all."""

    def _decide(self, name: str, ledger: object) -> None:
        self.owners.setdefault(name, next(iter(self.owners.values()), Ed25519PrivateKey.generate()))
        super()._decide(name, ledger)  # type: ignore[arg-type]


def test_one_owners_key_in_several_ledgers_is_one_person(tmp_path: Path) -> None:
    report = OneKey(tmp_path, distributed(rounds=2)).play().report()
    assert "none of them decided for itself" in summary(report)


def test_one_after_the_other_on_one_machine_is_together(tmp_path: Path) -> None:
    federation = Federation.from_toml(demo(tmp_path))
    first, *others = federation.plan.names
    assert federation.approve(who="A", why="study", sites=[first])[first].acted_for == ()
    for name in others:
        federation.approve(who=name, why="study", sites=[name])
    written = federation.run().report_json
    assert written is not None
    words = summary(Report.from_json(written.read_bytes()))
    assert "approved the use of the data of all 3 institutions" in words


@pytest.mark.parametrize("decided", ["together", "apart"])
def test_who_decided_is_somebodys_word_and_never_proved(
    tmp_path: Path, methods: Methods, decided: str
) -> None:
    world = World(tmp_path, distributed(rounds=2), decided=decided).play()  # type: ignore[arg-type]
    made = Evidence(world, bundle_of(world), methods).verify()
    said = [c for c in made.claims if c.subject == "its owner approved this use"]
    assert [c.verdict for c in said] == [Verdict.ATTESTED] * 3
    assert made.holds
