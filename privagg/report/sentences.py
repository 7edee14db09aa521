"""The plain-language part of a report: sentences that follow from its figures and nothing else.

A verifier can call `summarise` and `unprotected` on a report again and must get the same text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from privagg.privacy.plan import load_plan
from privagg.privacy.unit import Unit
from privagg.report.approvals import approval_text
from privagg.report.figures import count_text, delta_text, epsilon_text, joined
from privagg.report.model import ObserverRow, RecordsApart, Report, SiteReport
from privagg.report.plan_text import compression_text
from privagg.training.measures import BASE_RATE

MOST_SITES_ONE_BY_ONE = 4
LARGEST_TELLING_FACTOR = 1000

UNIT_PHRASE = {
    Unit.RECORD: "one record",
    Unit.SITE: "a whole site",
    Unit.PERSON: "one person",
}

OBSERVER_PHRASE = {
    "model-users": "anybody who uses the model and sees every opened sum",
    "sites": "the other institutions",
    "aggregator": "the aggregator",
    "key-holder": "the key holder",
    "aggregator+key-holder": "the aggregator and the key holder together",
}


def summarise(report: Report) -> tuple[str, ...]:
    """The one-page summary: what was trained, by whom, what it cost, against whom it holds."""
    return tuple(
        sentence
        for sentence in (
            _what_and_who(report),
            _how_it_ended(report),
            _what_left(report),
            _approved(report),
            compression_text(load_plan(report.plan)),
            *_spending(report),
            *_holding(report),
            _searched(report),
            _public_metric(report),
        )
        if sentence
    )


def worst_row(report: Report, observer: str, colluding_sites: int) -> ObserverRow | None:
    """The weakest guarantee of any site against this observer, or None without such a row.

    Args:
        report: whose sites are looked at.
        observer: an observer's identifier.
        colluding_sites: k, exactly.
    """
    rows = [
        row
        for site in report.sites
        for row in site.guarantees
        if row.observer == observer and row.colluding_sites == colluding_sites
    ]
    return max(rows, key=lambda row: row.epsilon, default=None)


def _what_and_who(report: Report) -> str:
    names = [site.name for site in report.sites]
    model = _model_name(report)
    what = f"one {model} model" if model else "one model"
    size = report.plan.get("dimension")
    parameters = f" with {count_text(size, 'parameter')}" if isinstance(size, int) else ""
    return (
        f"{count_text(len(names), 'institution')} ({joined(names)}) trained {what}{parameters} "
        f"in the federation {report.federation}, run {report.run}."
    )


def _model_name(report: Report) -> str:
    recipe = report.plan.get("recipe")
    model = recipe.get("model") if isinstance(recipe, dict) else None
    if isinstance(model, dict):
        model = model.get("name") or model.get("kind")
    return model if isinstance(model, str) else ""


def _how_it_ended(report: Report) -> str:
    opened = sum(r.outcome == "opened" for r in report.rounds)
    stopped = len(report.rounds) - opened
    planned = report.plan.get("rounds")
    of_planned = f"of {count_text(planned, 'planned round')} " if isinstance(planned, int) else ""
    attempts = (
        f", {count_text(stopped, 'attempt was', 'attempts were')} stopped before anything was "
        "opened and stayed charged"
        if stopped
        else ""
    )
    reason = f": {report.reason}" if report.reason else ""
    ending = {
        "finished": "the run finished",
        "stopped": f"the run was stopped{reason}",
        "failed": f"the run failed{reason}",
        "unfinished": "the coordinator's ledger does not record the end of the run",
    }[report.outcome]
    return f"{opened} {of_planned}{'was' if opened == 1 else 'were'} opened{attempts}; {ending}."


def _what_left(report: Report) -> str:
    sent = load_plan(report.plan).contribution_plainly
    scheme = report.scheme
    if not scheme.protects:
        return (
            f"By the plan each institution sent {sent}. The scheme {scheme.name} does not encrypt: "
            "the aggregator could read every single contribution."
        )
    bits = f" at {scheme.security_bits}-bit security" if scheme.security_bits else ""
    return (
        f"By the plan each institution sent {sent}, encrypted with {scheme.name.upper()}{bits}; "
        "the aggregator added what it could not read, and only the sum was opened."
    )


def _approved(report: Report) -> str:
    """Who let the data be used; reports of plans of version 1 keep the words they had."""
    nobody = "No ledger records that an owner approved this use of its data."
    return approval_text(report.sites) or ("" if load_plan(report.plan).version == 1 else nobody)


def _spending(report: Report) -> list[str]:
    alike: dict[object, list[SiteReport]] = {}
    for site in report.sites:
        alike.setdefault((site.epsilon_after_run, site.budget), []).append(site)
    groups = list(alike.values())
    if len(groups) <= MOST_SITES_ONE_BY_ONE:
        return [_spent_by(group) for group in groups]
    charged = sorted(site.committed.epsilon for site in report.sites)
    low, high = epsilon_text(charged[0]), epsilon_text(charged[-1])
    amount = f"ε = {high}" if low == high else f"between ε = {low} and ε = {high}"
    closest = max(report.sites, key=share_of_budget)
    return [
        f"This run was charged with {amount} at every institution. Closest to its budget is "
        f"{closest.name}: {_spent_by([closest])}"
    ]


def share_of_budget(site: SiteReport) -> Decimal:
    """What was spent over the budget; 0 where there is no finite budget, infinite as epsilon is."""
    if site.epsilon_after_run.is_infinite():
        return Decimal("Infinity")
    if site.budget is None or site.budget.epsilon.is_infinite() or site.budget.epsilon == 0:
        return Decimal(0)
    return site.epsilon_after_run / site.budget.epsilon


def _spent_by(sites: Sequence[SiteReport]) -> str:
    site, names = sites[0], joined([s.name for s in sites])
    several = len(sites) > 1
    on = "their data sets" if several else f"its data set {site.dataset}"
    if site.epsilon_after_run.is_infinite():
        spent = f"{names} {'have' if several else 'has'} no privacy guarantee left on {on} (ε = ∞)"
    else:
        spent = (
            f"{names} had {'each ' if several else ''}spent ε = "
            f"{epsilon_text(site.epsilon_after_run)} on {on} after this run"
        )
    if site.budget is None:
        return f"{spent}; no budget is set."
    budget = epsilon_text(site.budget.epsilon)
    before = site.epsilon_before_run
    earlier = (
        f", {epsilon_text(before)} of it before" if 0 < before < site.epsilon_after_run else ""
    )
    if site.budget.epsilon.is_infinite():
        return f"{spent}{earlier}; the budget set no limit."
    return f"{spent}{earlier}, of a budget of ε = {budget} at δ = {delta_text(site.budget.delta)}."


def _holding(report: Report) -> list[str]:
    headline = worst_row(report, "model-users", 0)
    if headline is None:
        return []
    unit = UNIT_PHRASE[headline.unit]
    if headline.epsilon.is_infinite():
        return [
            "No privacy guarantee holds for what was released (ε = ∞): noise was missing, or it "
            "did not come from the operating system's secure generator."
        ]
    sentences = [
        f"For what was really done, the guarantee about {unit} against "
        f"{OBSERVER_PHRASE['model-users']} is ε = {epsilon_text(headline.epsilon)} at "
        f"δ = {delta_text(headline.delta)}. {meaning(headline.epsilon, unit)}"
    ]
    weaker = _weaker_rows(report, headline)
    if weaker:
        sentences.append(f"It is weaker against {joined(weaker, most=10)}.")
    return sentences


def meaning(epsilon: Decimal, unit: str) -> str:
    """What an epsilon says, exactly, in one sentence without a formula."""
    start = f"This means: whether {unit} is in the data or not changes the probability of anything "
    if epsilon <= Decimal(math.log(LARGEST_TELLING_FACTOR)):
        factor = epsilon_text(Decimal(math.exp(float(epsilon))))
        return f"{start}that can be seen by at most a factor of {factor}, plus δ."
    return (
        f"{start}that can be seen by a factor that may exceed {LARGEST_TELLING_FACTOR}, plus δ: "
        "this promises little."
    )


def _weaker_rows(report: Report, headline: ObserverRow) -> list[str]:
    phrases = []
    for observer, colluding in (("sites", 1), ("aggregator", 0), ("aggregator", 1),
                                ("key-holder", 0), ("aggregator+key-holder", 0)):  # fmt: skip
        row = worst_row(report, observer, colluding)
        if row is None or row.epsilon <= headline.epsilon:
            continue
        who = OBSERVER_PHRASE[observer]
        if observer == "sites":
            who = "one other institution, which knows its own share of the noise"
        elif colluding:
            who += " with one institution"
        phrases.append(f"{who} (ε = {epsilon_text(row.epsilon)})")
    return phrases


def _searched(report: Report) -> str:
    if not report.tuning:
        return ""
    names = joined([search.name for search in report.tuning])
    runs = len({run for search in report.tuning for run in search.runs})
    costs = [cost.epsilon for search in report.tuning for cost in search.costs]
    spent = (
        f", at a cost of at most ε = {epsilon_text(max(costs))} a search and site" if costs else ""
    )
    return (
        f"The ledgers record {count_text(len(report.tuning), 'search', 'searches')} over settings "
        f"({names}) with {count_text(runs, 'run')}{spent}; every one of these runs stays charged."
    )


def _public_metric(report: Report) -> str:
    final = next((r.metrics for r in reversed(report.rounds) if r.metrics), None)
    metrics = report.model.metrics if report.model and report.model.metrics else final
    if not metrics or report.public_table is None:
        return ""
    name = next((m for m in ("accuracy", "auc") if m in metrics), min(metrics))
    label = {"auc": "an AUC", "accuracy": "an accuracy"}.get(name, f"a value of {name}")
    table = report.public_table
    size = f" ({count_text(table.rows, 'row')})" if table.rows is not None else ""
    guessed = (
        f"; always naming its largest class would reach {metrics[BASE_RATE]:.3f}"
        if name == "accuracy" and BASE_RATE in metrics
        else ""
    )
    return (
        f"On the table “{table.name}”{size}, which was declared public, the model reached {label} "
        f"of {metrics[name]:.3f}{guessed}."
    )


def unprotected(report: Report) -> tuple[str, ...]:
    """What the run did not protect, as far as privagg knows it; not a closed list."""
    counted = joined([f"{s.name}: {s.declared_records}" for s in report.sites], most=12)
    unit = report.sites[0].unit if report.sites else Unit.RECORD
    items = [
        "Who took part in which round, when, and the number of bytes sent: visible to the "
        "aggregator and to anybody on the network's path.",
        "How long a site took to answer: visible to the aggregator and the network; it is neither "
        "recorded nor charged to any budget.",
        f"The plan itself, and the declared numbers of records ({counted}): public by agreement.",
        "The released model and every opened sum: the noise protects what they say about "
        f"{UNIT_PHRASE[unit]}, encryption does not; they can be copied and kept for ever.",
        f"What holds of many at once: the guarantee hides {UNIT_PHRASE[unit]}, not a pattern that "
        "a group or the whole population shares.",
        _misleading(report),
        "The sites' own machines: disks, memory, keys and staff are outside what privagg protects.",
        report.custody_plainly,
    ]
    if not report.scheme.protects:
        items.insert(0, "Single contributions: the scheme does not encrypt them.")
    if unit is Unit.RECORD:
        items.insert(4, "A person with several records, or with records at several sites: ε is for "
                        "one record and grows with their number.")  # fmt: skip
    if report.public_table is not None:
        items.append(f"The table “{report.public_table.name}”: it was declared public and is not "
                     "protected in any way.")  # fmt: skip
    return tuple(items)


def _misleading(report: Report) -> str:
    """How far a dishonest site gets; reports of plans of version 1 keep the words they had."""
    plan = load_plan(report.plan)
    if plan.version == 1:
        return (
            "The correctness of contributions: a site that sends misleading numbers within the "
            "clip is not detected."
        )
    clips = plan.reach_of_one_site / plan.sensitivity_grid
    return (
        "The correctness of contributions: a site that sends misleading numbers is not detected; "
        f"it can set any coordinate of a sum to {clips:,.0f} times the clip."
    )


def kept_apart(sites: Sequence[SiteReport]) -> tuple[str, ...]:
    """How each site found that not a bit of a record's gradient depends on the records beside it.

    Sites that state the same stand in one sentence. Empty at client level, where nothing rests on
    it.
    """
    by_statement: dict[RecordsApart | None, list[str]] = {}
    for site in sites:
        if site.unit is Unit.RECORD:
            for statement in site.records_apart or (None,):
                by_statement.setdefault(statement, []).append(site.name)
    return tuple(
        "That no bit of a record's gradient depends on the records beside it "
        + (
            f"was {stated.how} at {joined(names, most=12)} on {stated.date}, for batches of "
            f"{stated.physical_batch}, on {stated.device}, "
            f"{count_text(stated.threads, 'thread')}, torch {stated.torch}, Opacus {stated.opacus}"
            if stated
            else f"is stated without a test by {joined(names, most=12)}"
        )
        + "."
        for stated, names in by_statement.items()
    )


def distinct_assumptions(sites: Sequence[SiteReport]) -> tuple[str, ...]:
    """Every assumption that some guarantee needs, each once, in order of first mention."""
    return tuple(
        dict.fromkeys(
            assumption
            for site in sites
            for row in (site.committed, *site.guarantees)
            for assumption in row.assumptions
        )
    )
