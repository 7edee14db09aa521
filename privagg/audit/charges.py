"""What sites charged and realised: events by the plan, epsilon after each charge by computation.

The ledger's rules (no charge beyond its budget, every figure continued from the one before) have
been replayed already; here the figures themselves are computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any

from privagg.audit.claims import Findings
from privagg.audit.methods import Methods, is_enclosed
from privagg.audit.replayed import Charged, ReplayedLedger
from privagg.audit.work import growing_price
from privagg.privacy.accountant import EpsilonBound
from privagg.privacy.events import DpEvent
from privagg.privacy.ledger import BudgetKey
from privagg.privacy.ledger.composition import compose, event_to_json
from privagg.privacy.ledger.entries import Charge, Realised
from privagg.privacy.plan import Plan
from privagg.report.figures import delta_text, epsilon_text

TOLERANCE = Decimal("1e-6")
"""Relative. Two machines may choose different contours and prove bounds a few 10^-9 apart."""

ALL_UP_TO = 250
RATIO = 1.05
"""Of more charges than these, one in each step of 5 per cent is recomputed, and the last one."""


def agrees(claimed: Decimal, bound: EpsilonBound) -> bool:
    """True where a recorded figure is the one computed here, never below the proven lower end."""
    if not (claimed.is_finite() and bound.upper.is_finite()):
        return claimed == bound.upper
    if bound.lower is not None and claimed < bound.lower:
        return False
    return abs(claimed - bound.upper) <= TOLERANCE * bound.upper


def check_epsilons(
    findings: Findings, ledger: ReplayedLedger, methods: Methods, *, every_charge: bool
) -> None:
    """Bound every budget of a ledger, and epsilon after its charges, by the certified accountant.

    Which accountant a ledger names is its owner's word, and decides nothing.

    Args:
        findings: gets the claims.
        ledger: replayed.
        methods: the accountants, and what all of this may cost.
        every_charge: recompute all charges, not a selection of many.
    """
    by_key: dict[BudgetKey, list[Charged]] = {}
    for each in ledger.charged:
        by_key.setdefault(each.charge.key, []).append(each)
    # Budgets come first, and no data set spends the work that another's claims need.
    with methods.work.portion(2):
        for place, (key, charged) in enumerate(by_key.items()):
            with methods.work.portion(len(by_key) - place):
                _check_budgets(findings, key, charged, methods)
    for place, (key, charged) in enumerate(by_key.items()):
        subject = f"ε after each charge to {key.dataset}"
        with (
            methods.work.portion(len(by_key) - place),
            findings.guarded(subject, f"{len(charged)} charges"),
        ):
            _check_epsilons_of(findings, subject, charged, methods, every_charge)


def _check_budgets(
    findings: Findings, key: BudgetKey, charged: Sequence[Charged], methods: Methods
) -> None:
    """Each budget that was ever in force, against the last charge that was held against it."""
    ends = [
        one
        for one, other in pairwise((*charged, None))
        if one is not None and (other is None or _budget(one) != _budget(other))
    ]
    for end in ends:
        epsilon, delta = _budget(end)
        subject = f"within the budget of {key.dataset} (unit: {key.unit})"
        claimed = f"ε ≤ {epsilon_text(epsilon, 9)} at δ = {delta_text(delta)}"
        with findings.guarded(subject, claimed):
            if not epsilon.is_finite():
                findings.check(subject, "no bound", "no bound", True, "a budget of infinity")
                continue
            bound = _certified(end, methods)
            if bound.upper <= epsilon:
                findings.check(subject, claimed, _interval(bound), True)
            elif bound.lower is not None and bound.lower > epsilon:
                findings.check(subject, claimed, _interval(bound), False, "spent beyond the budget")
            else:
                findings.undecided(subject, claimed, f"proved is only {_interval(bound)}")


def _budget(each: Charged) -> tuple[Decimal, Decimal]:
    return each.charge.epsilon_budget, each.charge.delta


def _check_epsilons_of(
    findings: Findings,
    subject: str,
    charged: Sequence[Charged],
    methods: Methods,
    every_charge: bool,
) -> None:
    last = charged[-1].charge
    claimed = f"{len(charged)} charges, up to ε = {epsilon_text(last.epsilon_after, 9)}"
    chosen = list(range(len(charged)))
    if not every_charge:
        chosen = affordable(charged, spread(len(charged)), methods.work.left)
    doubts: list[Charged] = []
    for place in chosen:
        each = charged[place]
        latest = _certified(each, methods)
        answer = _follows(each, latest, methods)
        if answer is False:
            note = f"entry {each.index} records ε = {each.charge.epsilon_after}"
            findings.check(subject, claimed, _interval(latest), False, note)
            return
        doubts += [each] if answer is None else []
    falls = next((b for a, b in pairwise(charged) if _falls(a.charge, b.charge)), None)
    if falls is not None:
        note = f"entry {falls.index} records a smaller ε than the charge before it"
        findings.contradicted(subject, claimed, note)
        return
    if doubts:
        by = doubts[-1].charge.accountant
        findings.undecided(subject, claimed, f"bounded by {by!r}; proved is {_interval(latest)}")
        return
    note = ""
    if len(chosen) < len(charged):
        note = (
            f"{len(chosen)} recomputed, the others lie between neighbours that were; "
            "--every-charge recomputes all"
        )
    findings.check(subject, claimed, _interval(latest), True, note, compared=len(charged))


def _follows(each: Charged, bound: EpsilonBound, methods: Methods) -> bool | None:
    """Whether a charge's figure is what its events cost; None where that is not decided here.

    The certified accountant's figure is recomputed; whoever else's must be an upper bound.
    """
    claimed = each.charge.epsilon_after
    if bound.lower is not None and claimed < bound.lower:
        return False
    certified = each.charge.accountant == methods.certified.name
    recomputed = certified and not is_enclosed(each.total, each.charge.delta)
    if recomputed and (agrees(claimed, bound) or _is_sharp(bound)):
        return agrees(claimed, bound)
    return True if claimed >= bound.upper else None


def _is_sharp(bound: EpsilonBound) -> bool:
    """Whether a growing composition cannot well have been given another bound than this one.

    Where the work allowed proves a wide interval only, its upper end depends on the way there.
    """
    if not bound.upper.is_finite() or bound.lower is None:
        return True
    return bound.upper - bound.lower <= TOLERANCE * bound.upper


def affordable(charged: Sequence[Charged], chosen: list[int], most: int) -> list[int]:
    """So many of the chosen charges that their price fits into `most`; the last one always.

    Args:
        charged: all charges of a budget, in order.
        chosen: ascending indices of those to be recomputed.
        most: milliseconds of processor time.
    """
    while len(chosen) > 1 and growing_price([charged[k].total for k in chosen]) > most:
        chosen = chosen[-1::-2][::-1]
    return chosen


def spread(count: int) -> list[int]:
    """Which of `count` charges are recomputed: all of a few, of many in steps of 5 per cent."""
    if count <= ALL_UP_TO:
        return list(range(count))
    chosen, place = [], 0
    while place < count:
        chosen.append(place)
        place = max(place + 1, int(place * RATIO))
    return chosen if chosen[-1] == count - 1 else [*chosen, count - 1]


def _falls(one: Charge, other: Charge) -> bool:
    same = (one.delta, one.accountant) == (other.delta, other.accountant)
    return same and other.epsilon_after < one.epsilon_after * (1 - TOLERANCE)


def _certified(each: Charged, methods: Methods) -> EpsilonBound:
    if not each.total.is_private:
        # Exactly infinite, so a lower end too: no finite budget or figure is left undecided.
        endless = Decimal("Infinity")
        return EpsilonBound(endless, endless, "no guarantee", certified=True)
    return methods.bracket(each.total, each.charge.delta)


def _interval(bound: EpsilonBound) -> str:
    if bound.lower is None or bound.lower == bound.upper:
        return f"ε = {epsilon_text(bound.upper, 9)}"
    if not bound.upper.is_finite():
        return f"ε ≥ {bound.lower}"
    return f"ε in [{bound.lower}, {bound.upper}]"


def check_events(
    findings: Findings,
    ledger: ReplayedLedger,
    site: str,
    plan: Plan,
    run: str,
    opener: str | None,
) -> None:
    """Hold a run's charges and realised events against the plan.

    An event without any guarantee may stand for any other: it promises less.

    Args:
        findings: gets the claims.
        ledger: the site's, replayed.
        site: its name.
        plan: the run's.
        run: its name.
        opener: the party whose word counts on what was opened.
    """
    key = BudgetKey.of(plan, site)
    charges = [c for c in ledger.charged if c.charge.run == run and c.charge.key == key]

    @cache
    def due(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        planned = plan.in_round(number)
        return _spelled(planned.committed_event(site)), planned.charge_facts

    def is_due(charge: Charge) -> bool:
        if charge.round > plan.rounds:
            return False
        event, facts = due(plan.first_like(charge.round))
        return (not charge.event.is_private or _spelled(charge.event) == event) and all(
            charge.facts.get(name, value) == value for name, value in facts.items()
        )

    wrong = [c.index for c in charges if not is_due(c.charge)]
    claimed = f"{len(charges)} charges of this run"
    note = f"entry {wrong[0]} charges what the plan does not say" if wrong else ""
    findings.check("charged: the plan's committed event", claimed, f"{len(charges) - len(wrong)} "
                   "as planned", not wrong, note, compared=max(1, len(charges)))  # fmt: skip
    realised = [
        (entry.index, entry.payload)
        for entry in ledger.entries()
        if isinstance(entry.payload, Realised)
        and (entry.payload.run, entry.payload.key) == (run, key)
    ]
    strange = _strange(realised, plan, site, opener)
    note = f"entry {strange[0]} is not what these survivors give" if strange else ""
    findings.check("realised: the plan's event of the survivors", f"{len(realised)} opened sums",
                   f"{len(realised) - len(strange)} as they follow", not strange, note,
                   compared=max(1, len(realised)))  # fmt: skip


def _strange(
    realised: Sequence[tuple[int, Realised]], plan: Plan, site: str, opener: str | None
) -> list[int]:
    """The entries that record what the plan and the opener's statement cannot give."""

    @cache
    def due(number: int, survivors: tuple[str, ...]) -> dict[str, Any]:
        return _spelled(plan.in_round(number).realised_event(site, survivors))

    found = []
    for index, payload in realised:
        survivors = tuple(payload.facts["survivors"])
        fits = (
            payload.round <= plan.rounds
            and plan.in_round(payload.round).is_quorum(survivors)
            and payload.attested_by == opener
            and (
                not payload.event.is_private
                or _spelled(payload.event) == due(plan.first_like(payload.round), survivors)
            )
        )
        if not fits:
            found.append(index)
    return found


def _spelled(event: DpEvent) -> dict[str, Any]:
    return event_to_json(compose(DpEvent(), event))
