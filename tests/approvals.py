"""Owners' approvals for tests: one person decides for everybody, as on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.config.setup import TRAINING
from privagg.federation import Federation
from privagg.flower.deploy.trial import Trial
from privagg.identity.owner import read_owner_key
from privagg.party.approving import Approver, Terms, approve, last_day
from privagg.party.open import open_federation
from privagg.privacy.ledger import Approval, BudgetKey, Ledger, sign_approval

OWNER = Ed25519PrivateKey.from_private_bytes(b"an owner's key, for tests alone.")
FOR_EVER = "9999-12-31"

_Made = TypeVar("_Made", bound=Federation)


def approved(federation: _Made, sites: Sequence[str] | None = None) -> _Made:
    """The federation, its job approved for all sites with whatever budget it is configured for."""
    federation.approve(
        who="tester", why="a test", sites=sites, without_guarantee=True, overlaps="a test"
    )
    return federation


def approved_trial(trial: Trial, job: str = TRAINING, model: Path | None = None) -> Trial:
    """A trial, a job approved in every site's folder with whatever budget is configured."""
    folders = [folder.party for folder in trial.parties.values()]
    for folder in folders if model else ():
        shutil.copyfile(model, folder.evaluated)
    terms = Terms("tester", "a test", last_day(), without_guarantee=True, overlaps="a test")
    approve(
        [Approver(f, read_owner_key(f.owner_key), open_federation(f, job)) for f in folders], terms
    )
    return trial


def approve_plan(
    ledger: Ledger,
    key: BudgetKey,
    plan_digest: str,
    budget: Decimal,
    delta: Decimal = Decimal("1e-5"),
    *,
    owner: Ed25519PrivateKey = OWNER,
    until: str = FOR_EVER,
    who: str = "officer",
    acted_for: Sequence[str] = (),
    runs: int | None = None,
) -> Approval:
    """One owner's approval of a plan, with a budget, in a ledger that stands alone."""
    act = sign_approval(
        owner, ledger.origin, who=who, why="a test", until=until, job="plan",
        plans=[plan_digest], total=Decimal(0), dataset=key.dataset, unit=key.unit, epsilon=budget,
        delta=delta, code=[], acted_for=list(acted_for), overlaps="",
        runs=runs,
    )  # fmt: skip
    ledger.decide(act)
    return act
