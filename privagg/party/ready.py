"""What must hold before a local run costs anything: files, owners' approvals, room in the budgets.

Looks and refuses; spends and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from shlex import quote
from typing import NamedTuple

from privagg.config.data import TableData
from privagg.config.evaluating import (
    EvaluateSetup,
    ForeseenEvaluation,
    HeldOutSetup,
    RoundsSetup,
)
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ApprovalError, BudgetExceededError, ConfigError
from privagg.party.local import local_folder
from privagg.party.open import decided_folder, ledger_here, recogniser_in
from privagg.party.released import require_released
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Released
from privagg.protocol.names import COORDINATOR
from privagg.report.figures import count_text, lower_text
from privagg.report.selected import looks_run


def require_ready(setup: Setup, run: str | None = None) -> None:
    """Everything that can be refused before a run costs anything.

    Args:
        setup: what is run.
        run: a run that is resumed; None asks for a new one.

    Raises:
        ConfigError, DataError: a file cannot be read as declared.
        ApprovalError: an owner has not approved the plan.
        DataError: nor the records that lie at its site now.
        BudgetExceededError: a budget is too small for the whole job.
        ConfigError, ModelError: a site cannot train this model on the device that it names.
    """
    require_data(setup, joins=run is None)
    require_approvals(setup, run)
    require_approved_data(setup, run)
    if setup.job == TRAINING and RoundsSetup.configured(setup.config):
        require_approvals(RoundsSetup.of(setup), looks_run(run) if run else None)
    require_room(setup, run)
    if setup.job == TRAINING:
        setup.rehearse()


def require_data(setup: Setup, *, joins: bool = True) -> None:
    """Read every file that the configuration names.

    Args:
        setup: what is run.
        joins: the sites join a run now; one that has started stops for nothing that is in the data.

    Raises:
        ConfigError, DataError: one cannot be read as declared, a model is none to evaluate, or
            answers that class weights rest on were charged to nobody here.
        DataError: a site does not join with its records as they are; one text for all causes.
    """
    if isinstance(setup, EvaluateSetup):
        require_released(setup)
    _require_charged(setup)
    if setup.job != TRAINING:
        setup.rehearse()
    for site in setup.config.sites:
        setup.records_of(site)
        if joins:
            setup.require_joining(site)
    _ = setup.public_records


def _require_charged(setup: Setup) -> None:
    """Refuse counts that no run of this federation released: nobody was charged for them."""
    data = setup.config.data
    if setup.job != TRAINING or not isinstance(data, TableData):
        return
    digest = data.target.settled_by
    if digest is None:
        return
    data.target.settled(setup.base)
    path = local_folder(setup.output, COORDINATOR).ledger
    said = [entry.payload for entry in Ledger.open(path).entries()] if path.exists() else []
    if not any(isinstance(p, Released) and p.facts.get("answers_sha256") == digest for p in said):
        raise ConfigError(
            f"no run here released answers with the SHA-256 {digest}, so nobody was charged for "
            "the counts that class_weights rest on; ask them first (privagg ask), or declare the "
            "weights as numbers"
        )


def require_approvals(setup: Setup, run: str | None = None) -> str:
    """Refuse to go on unless every site's owner has approved this plan.

    Args:
        setup: what is run.
        run: a run that is resumed; None asks for a new one.

    Returns:
        The last day (`YYYY-MM-DD`) on which all of them do.

    Raises:
        ApprovalError: some have not; the text names all of them and says what to type.
    """
    days, missing, digest = [], [], setup.plan.digest
    for name in setup.plan.names:
        try:
            ledger = Ledger.open(decided_folder(setup, name).ledger)
            ledger.require_approval(setup.budget_key(name), digest, run)
            days.append(ledger.approved_until(digest))
        except ApprovalError:
            missing.append(name)
    if missing:
        raise setup.unapproved(missing, "none in force covers one more run of it")
    return min(days)


def require_approved_data(setup: Setup, run: str | None = None) -> None:
    """Refuse to go on with other records than those that each site's owner approved.

    Args:
        setup: what is run.
        run: as for `require_approvals`.

    Raises:
        ApprovalError: a plan is not approved.
        DataError: a site's records are others, or count under another data set's name.
    """
    for name in setup.plan.names:
        folder = decided_folder(setup, name)
        recognise = recogniser_in(folder, setup)
        if recognise is not None:
            key = setup.budget_key(name)
            recognise(Ledger.open(folder.ledger).require_approval(key, setup.plan.digest, run))


class Room(NamedTuple):
    """What a job would do to a site's budget.

    Attributes:
        before: epsilon spent so far.
        after: epsilon with the whole job.
        budget: epsilon of the budget.
    """

    before: Decimal
    after: Decimal
    budget: Decimal


def require_room(setup: Setup, run: str | None = None) -> dict[str, Room]:
    """What the whole job would do to every data set's budget, by site; of a training with the
    evaluations that it is planned with.

    Args:
        setup: what is run.
        run: a run that is resumed; a data set that was charged for it is not looked at again.

    Raises:
        BudgetExceededError: some budgets are too small for the whole job; all of them are named.
    """
    found, beyond, together = {}, {}, evaluations_with(setup)
    for name in setup.plan.names:
        if run is not None and ledger_here(setup, name).was_charged(run):
            continue
        event = setup.plan.total_committed(name)
        for other in together:
            if name in other.plan.names:  # who leaves the training is asked for no evaluation
                event += other.plan.total_committed(name)
        *figures, fits = project(setup, name, event)
        found[name] = Room(*figures)
        if not fits:
            beyond[name] = found[name]
    if beyond:
        raise beyond_budgets(setup, beyond)
    return found


def evaluations_with(setup: Setup) -> list[HeldOutSetup]:
    """Evaluations that a training's budget is to have room for before it begins.

    They are those between its rounds, and one of its model that has a share of its epsilon.

    Args:
        setup: what is run.
    """
    if setup.job != TRAINING or not HeldOutSetup.configured(setup.config):
        return []
    found: list[HeldOutSetup] = []
    if RoundsSetup.configured(setup.config):
        found.append(RoundsSetup.of(setup))
    private = setup.config.private_evaluation
    if private is not None and private.share is not None and not setup.given:
        found.append(ForeseenEvaluation.of(setup))
    return found


def project(setup: Setup, site: str, event: DpEvent) -> tuple[Decimal, Decimal, Decimal, bool]:
    """What charging `event` would do to a site's budget: epsilon before, after, budget, fits.

    A ledger that does not exist yet is not made for this.

    Args:
        setup: gives accountant and privacy settings.
        site: whose budget.
        event: what would be charged on top.
    """
    if not local_folder(setup.output, site).ledger.exists():
        privacy = setup.config.privacy
        after = setup.accountant.epsilon(event, privacy.delta).upper
        return Decimal(0), after, privacy.budget, after <= privacy.budget
    projection = ledger_here(setup, site).project(setup.budget_key(site), event)
    return (
        projection.epsilon_before,
        projection.epsilon_after,
        projection.epsilon_budget,
        projection.fits,
    )


def beyond_budgets(setup: Setup, rooms: Mapping[str, Room]) -> BudgetExceededError:
    """The refusal of a job that sites' budgets have no room for, with the ways out.

    Args:
        setup: gives plan and privacy settings, and the file for advice.
        rooms: every site whose budget is too small.
    """
    privacy, told = setup.config.privacy, []
    for site, room in rooms.items():
        spent = f", of which earlier runs spent {room.before:f}" if room.before else ""
        told.append(
            f"data set {setup.budget_key(site).dataset!r} of {site!r} to epsilon "
            f"{room.after:f}{spent}, beyond its budget of {room.budget:f}"
        )
    left = min(room.budget - room.before for room in rooms.values())
    if privacy.noise_multiplier is not None and setup.job == TRAINING:
        way = "Plan fewer rounds, a lower sampling rate or a larger noise multiplier, or have"
    elif left > max(room.budget for room in rooms.values()) / 100:  # room for a job at all
        way = (
            f"Set {setup.epsilon_key} to what is left, {lower_text(left)} or a little less, or have"
        )
    else:
        way = "As good as nothing is left of it. Have"
    path = quote(str(setup.source)) if setup.source else "CONFIG"
    sites = " ".join(f"--site {quote(site)}" for site in rooms)
    beside = " and their evaluations" if evaluations_with(setup) else ""
    return BudgetExceededError(
        f"{count_text(setup.plan.rounds, 'round')}{beside} would bring {'; '.join(told)}; nothing "
        f"was spent. {way} the owner of the data approve a larger budget: privagg approve {path} "
        f"{sites} --budget NEW{'' if setup.job == TRAINING else f' --job {setup.job}'}"
    )


def beyond_all(
    candidates: int, site: str, before: Decimal, after: Decimal, budget: Decimal
) -> BudgetExceededError:
    """The refusal of a search that a site's budget has no room for, with the ways out.

    Args:
        candidates: how many.
        site: whose budget is too small.
        before: epsilon spent so far.
        after: epsilon with all candidates.
        budget: epsilon of the budget.
    """
    return BudgetExceededError(
        f"{candidates} candidates, each charged in full, would bring {site!r} from epsilon "
        f"{before} to {after}, beyond its budget of {budget}; nothing was spent. privacy.epsilon "
        "is what one candidate may cost: lower it, shorten the grid, or agree with the owners on a "
        "larger budget (privacy.budget_epsilon, or `privagg approve --budget`)"
    )
