"""The plain-language part of a report: sentences that follow from its figures and nothing else.

A verifier can call `summarise` and `unprotected` on a report again and must get the same text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from privagg.privacy.plan import load_plan
from privagg.privacy.unit import Custody, Unit
from privagg.report.answered import asked_names
from privagg.report.approvals import approval_text
from privagg.report.figures import count_text, delta_text, epsilon_text, joined
from privagg.report.language import ENGLISH, say, spoken, told
from privagg.report.model import ObserverRow, PublicTable, RecordsApart, Report, SiteReport
from privagg.report.plan_text import compression_text, readable_plan
from privagg.training.measures import BASES, chief, figure_text

MOST_SITES_ONE_BY_ONE = 4
LARGEST_TELLING_FACTOR = 1000

UNIT_PHRASE = {
    Unit.RECORD: "one record",
    Unit.SITE: "a whole site",
    Unit.PERSON: "one person",
}

OBSERVER_PHRASE = {
    "model-users": "anybody who uses the model and sees every opened sum",
    "answers": "anybody who reads the answers and sees every opened sum",
    "sites": "the other institutions",
    "aggregator": "the aggregator",
    "key-holder": "the key holder",
    "aggregator+key-holder": "the aggregator and the key holder together",
    "personal": "whoever is served a site's own model",
}


def summarise(report: Report) -> tuple[str, ...]:
    """The one-page summary: what was trained, by whom, what it cost, against whom it holds."""
    return tuple(
        sentence
        for sentence in (
            _what_and_who(report),
            _went_on(report),
            _who_came_and_went(report),
            _how_it_ended(report),
            _what_left(report),
            _approved(report),
            compression_text(load_plan(report.plan)),
            *_spending(report),
            *_holding(report),
            _searched(report),
            _selected(report),
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
    questions = asked_names(report)
    if questions:
        return say(
            "{institutions} ({names}) were asked {questions} in the federation {federation}, run "
            "{run}: {asked}.",
            institutions=count_text(len(names), "institution"),
            names=joined(names),
            questions=count_text(len(questions), "question"),
            federation=report.federation,
            run=report.run,
            asked=joined([f"“{name}”" for name in questions], most=12),
        )
    return say(
        "{institutions} ({names}) trained {what} in the federation {federation}, run {run}.",
        institutions=count_text(len(names), "institution"),
        names=joined(names),
        what=_what(report),
        federation=report.federation,
        run=report.run,
    )


def went_on_with(report: Report) -> tuple[str, str] | None:
    """The run whose model the training began with, and its file's SHA-256; None without one.

    Args:
        report: whose plan says it.
    """
    recipe = report.plan.get("recipe")
    before = recipe.get("continues") if isinstance(recipe, dict) else None
    if not isinstance(before, dict):
        return None
    return str(before.get("run")), str(before.get("sha256"))


def _went_on(report: Report) -> str:
    before = went_on_with(report)
    if before is None:
        return ""
    return say(
        "It went on with the model of run {run} (SHA-256 {sha256}), whose charges stand in the "
        "same ledgers.",
        run=before[0],
        sha256=before[1][:16],
    )


def _who_came_and_went(report: Report) -> str:
    changes = []
    for each in report.rosters:
        came, went = joined(list(each.joined)), joined(list(each.left))
        if came:
            changes.append(say("{names} joined in round {n}", names=came, n=each.round))
        if went:
            changes.append(say("{names} left after round {n}", names=went, n=each.round - 1))
    if not changes:
        return ""
    return say(
        "Who took part changed as the plan says: {changes}. Each was charged for its own rounds "
        "alone.",
        changes=say("; ").join(changes),
    )


def _what(report: Report) -> str:
    model, size = _model_name(report), report.plan.get("dimension")
    if not isinstance(size, int):
        return say("one {model} model", model=model) if model else say("one model")
    parameters = count_text(size, "parameter")
    recipe = report.plan.get("recipe")
    facts = recipe if isinstance(recipe, dict) else {}
    algorithm = facts.get("algorithm")
    kind = algorithm.get("kind") if isinstance(algorithm, dict) else None
    if kind == "class-logits":
        return say(
            "one table of class logits with {parameters}, beside which each site's network, of "
            "whatever kind, stays at the site",
            parameters=parameters,
        )
    if model and kind in ("fedper", "fedrep"):
        return say(
            "{parameters} of one {model} model, whose other values stay at their sites",
            model=model,
            parameters=parameters,
        )
    if model and facts.get("frozen_sha256"):
        return say(
            "{parameters} of one {model} model, whose other values are frozen",
            model=model,
            parameters=parameters,
        )
    if model:
        return say("one {model} model with {parameters}", model=model, parameters=parameters)
    return say("one model with {parameters}", parameters=parameters)


def _model_name(report: Report) -> str:
    recipe = report.plan.get("recipe")
    model = recipe.get("model") if isinstance(recipe, dict) else None
    if isinstance(model, dict):
        model = model.get("name") or model.get("kind")
    return model if isinstance(model, str) else ""


def _how_it_ended(report: Report) -> str:
    opened = sum(r.outcome == "opened" for r in report.rounds)
    stopped = len(report.rounds) - opened
    ending = _ending(report)
    if not stopped:
        return say("{opened}; {ending}.", opened=_opened(report, opened), ending=ending)
    return say(
        "{opened}, {attempts} stopped before anything was opened and stayed charged; {ending}.",
        opened=_opened(report, opened),
        attempts=count_text(stopped, "attempt was", "attempts were"),
        ending=ending,
    )


def _opened(report: Report, opened: int) -> str:
    planned = report.plan.get("rounds")
    if not isinstance(planned, int):
        return count_text(opened, "sum was opened", "sums were opened")
    of = count_text(planned, "planned round")
    if opened == 1:
        return say("1 of {planned} was opened", planned=of)
    return say("{n} of {planned} were opened", n=opened, planned=of)


def _ending(report: Report) -> str:
    ending = {
        "finished": say("the run finished"),
        "stopped": say("the run was stopped"),
        "failed": say("the run failed"),
        "unfinished": say("the coordinator's ledger does not record the end of the run"),
    }[report.outcome]
    if report.reason and report.outcome != "unfinished":
        return say("{ending}: {reason}", ending=ending, reason=told(report.reason))
    return ending


def _selected(report: Report) -> str:
    selection = report.model.selection if report.model is not None else None
    if selection is None:
        return ""
    return say(
        "The released model is that of round {round}: of the evaluated rounds it has the best "
        "figure, by the opened sums of {run}, a job of its own with its own charges.",
        round=selection.round,
        run=selection.looks,
    )


def _what_left(report: Report) -> str:
    plan, scheme = load_plan(report.plan), report.scheme
    sent = told(plan.contribution_plainly)
    if not scheme.protects:
        return say(
            "By the plan each institution sent {sent}. The scheme {scheme} does not encrypt: "
            "the aggregator could read every single contribution.",
            sent=sent,
            scheme=scheme.name,
        )
    if plan.custody is Custody.EVERY_SITE and len(plan.epochs) > 1:
        return say(
            "By the plan each institution sent {sent}, under masks at {bits}-bit security that "
            "cancel in the sum; enough of the institutions asked in its round had to agree before "
            "a sum was opened, and {n} would have to collude with the aggregator to read an "
            "upload.",
            sent=sent,
            bits=scheme.security_bits,
            n=plan.colluders + 1,
        )
    if plan.custody is Custody.EVERY_SITE:
        return say(
            "By the plan each institution sent {sent}, under masks at {bits}-bit security that "
            "cancel in the sum; at least {n} of the {n2} institutions asked had to agree before a "
            "sum was opened, and {n3} would have to collude with the aggregator to read an upload.",
            sent=sent,
            bits=scheme.security_bits,
            n=plan.in_round(1).minimum_survivors,
            n2=plan.addends,
            n3=plan.colluders + 1,
        )
    name = scheme.name.upper()
    if scheme.security_bits:
        name = say("{scheme} at {bits}-bit security", scheme=name, bits=scheme.security_bits)
    return say(
        "By the plan each institution sent {sent}, encrypted with {scheme}; "
        "the aggregator added what it could not read, and only the sum was opened.",
        sent=sent,
        scheme=name,
    )


def _approved(report: Report) -> str:
    """Who let the data be used; reports of plans of version 1 keep the words they had."""
    nobody = say("No ledger records that an owner approved this use of its data.")
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
    amount = f"ε = {high}"
    if low != high:
        amount = say("between ε = {low} and ε = {high}", low=low, high=high)
    closest = max(report.sites, key=share_of_budget)
    return [
        say(
            "This run was charged with {amount} at every institution. Closest to its budget is "
            "{site}: {spent}",
            amount=amount,
            site=closest.name,
            spent=_spent_by([closest]),
        )
    ]


def share_of_budget(site: SiteReport) -> Decimal:
    """What was spent over the budget; 0 where there is no finite budget, infinite as epsilon is."""
    if site.epsilon_after_run.is_infinite():
        return Decimal("Infinity")
    if site.budget is None or site.budget.epsilon.is_infinite() or site.budget.epsilon == 0:
        return Decimal(0)
    return site.epsilon_after_run / site.budget.epsilon


def _spent_by(sites: Sequence[SiteReport]) -> str:
    spent = _spent(sites)
    limit = sites[0].budget
    if limit is None:
        return say("{spent}; no budget is set.", spent=spent)
    before = sites[0].epsilon_before_run
    if 0 < before < sites[0].epsilon_after_run:
        spent = say("{spent}, {before} of it before", spent=spent, before=epsilon_text(before))
    if limit.epsilon.is_infinite():
        return say("{spent}; the budget set no limit.", spent=spent)
    return say(
        "{spent}, of a budget of ε = {budget} at δ = {delta}.",
        spent=spent,
        budget=epsilon_text(limit.epsilon),
        delta=delta_text(limit.delta),
    )


def _spent(sites: Sequence[SiteReport]) -> str:
    site, several = sites[0], len(sites) > 1
    if site.epsilon_after_run.is_infinite():
        sentence = (
            "{names} have no privacy guarantee left on their data sets (ε = ∞)"
            if several
            else "{names} has no privacy guarantee left on its data set {dataset} (ε = ∞)"
        )
    else:
        sentence = (
            "{names} had each spent ε = {epsilon} on their data sets after this run"
            if several
            else "{names} had spent ε = {epsilon} on its data set {dataset} after this run"
        )
    return say(
        sentence,
        names=joined([each.name for each in sites]),
        dataset=site.dataset,
        epsilon=epsilon_text(site.epsilon_after_run),
    )


def _holding(report: Report) -> list[str]:
    headline = worst_row(report, "model-users", 0)
    if headline is None:
        return []
    unit = say(UNIT_PHRASE[headline.unit])
    if headline.epsilon.is_infinite():
        return [
            say(
                "No privacy guarantee holds for what was released (ε = ∞): noise was missing, or "
                "it did not come from the operating system's secure generator."
            )
        ]
    sentences = [
        say(
            "For what was really done, the guarantee about {unit} against {observer} is "
            "ε = {epsilon} at δ = {delta}. {meaning}",
            unit=unit,
            observer=say(OBSERVER_PHRASE["answers" if asked_names(report) else "model-users"]),
            epsilon=epsilon_text(headline.epsilon),
            delta=delta_text(headline.delta),
            meaning=meaning(headline.epsilon, unit),
        )
    ]
    weaker = _weaker_rows(report, headline)
    if weaker:
        sentences.append(
            say("It is weaker against {observers}.", observers=joined(weaker, most=10))
        )
    return sentences


def meaning(epsilon: Decimal, unit: str) -> str:
    """What an epsilon says, exactly, in one sentence without a formula."""
    if epsilon <= Decimal(math.log(LARGEST_TELLING_FACTOR)):
        return say(
            "This means: whether {unit} is in the data or not changes the probability of anything "
            "that can be seen by at most a factor of {factor}, plus δ.",
            unit=unit,
            factor=epsilon_text(Decimal(math.exp(float(epsilon)))),
        )
    return say(
        "This means: whether {unit} is in the data or not changes the probability of anything "
        "that can be seen by a factor that may exceed {factor}, plus δ: this promises little.",
        unit=unit,
        factor=LARGEST_TELLING_FACTOR,
    )


def _weaker_rows(report: Report, headline: ObserverRow) -> list[str]:
    phrases = []
    for observer, colluding in (("sites", 1), ("aggregator", 0), ("aggregator", 1),
                                ("key-holder", 0), ("aggregator+key-holder", 0)):  # fmt: skip
        row = worst_row(report, observer, colluding)
        if row is None or row.epsilon <= headline.epsilon:
            continue
        who = say(OBSERVER_PHRASE[observer])
        if observer == "sites":
            who = say("one other institution, which knows its own share of the noise")
        elif colluding:
            who = say("{observer} with one institution", observer=who)
        phrases.append(
            say("{observer} (ε = {epsilon})", observer=who, epsilon=epsilon_text(row.epsilon))
        )
    return phrases


def _searched(report: Report) -> str:
    if not report.tuning:
        return ""
    costs = [cost.epsilon for search in report.tuning for cost in search.costs]
    sentence = (
        "The ledgers record {searches} over settings ({names}) with {runs}, at a cost of at most "
        "ε = {cost} a search and site; every one of these runs stays charged."
        if costs
        else "The ledgers record {searches} over settings ({names}) with {runs}; every one of "
        "these runs stays charged."
    )
    return say(
        sentence,
        searches=count_text(len(report.tuning), "search", "searches"),
        names=joined([search.name for search in report.tuning]),
        runs=count_text(len({run for search in report.tuning for run in search.runs}), "run"),
        cost=epsilon_text(max(costs)) if costs else "",
    )


def _public_metric(report: Report) -> str:
    final = next((r.metrics for r in reversed(report.rounds) if r.metrics), None)
    metrics = report.model.metrics if report.model and report.model.metrics else final
    if not metrics or report.public_table is None:
        return ""
    name = chief(metrics) or min(metrics)
    labels = {"auc": say("an AUC"), "accuracy": say("an accuracy")}
    places = {
        "table": table_text(report.public_table),
        "metric": labels.get(name) or say("a value of {metric}", metric=name),
        "value": figure_text(name, metrics[name]),
    }
    base = metrics.get(BASES.get(name, ""))
    if name == "rmse" and base is not None:
        return say(
            "On the table {table}, which was declared public, the model's predictions are off by "
            "{value} (root of the mean square); always naming the mean would be off by {base}.",
            table=places["table"],
            value=places["value"],
            base=figure_text(name, base),
        )
    if name == "accuracy" and base is not None:
        return say(
            "On the table {table}, which was declared public, the model reached {metric} of "
            "{value}; always naming its largest class would reach {base}.",
            **places,
            base=f"{base:.3f}",
        )
    if name == "c_index":
        return say(
            "On the table {table}, which was declared public, the model put {value} of the pairs "
            "in the right order (C-index); any order without a model has 0.5.",
            table=places["table"],
            value=places["value"],
        )
    return say(
        "On the table {table}, which was declared public, the model reached {metric} of {value}.",
        **places,
    )


def table_text(table: PublicTable) -> str:
    """A public table by its name, and how many rows it has where that is recorded."""
    if table.rows is None:
        return say("“{table}”", table=table.name)
    return say("“{table}” ({rows})", table=table.name, rows=count_text(table.rows, "row"))


def unprotected(report: Report) -> tuple[str, ...]:
    """What the run did not protect, as far as privagg knows it; not a closed list."""
    counted = joined([f"{s.name}: {s.declared_records}" for s in report.sites], most=12)
    kind = report.sites[0].unit if report.sites else Unit.RECORD
    unit = say(UNIT_PHRASE[kind])
    items = [
        say("Who took part in which round, when, and the number of bytes sent: visible to the "
            "aggregator and to anybody on the network's path."),
        say("How long a site took to answer: visible to the aggregator and the network; it is "
            "neither recorded nor charged to any budget."),
        say("The plan itself, and the declared numbers of records ({counted}): public by "
            "agreement.", counted=counted),
        _released(report, unit),
        say("What holds of many at once: the guarantee hides {unit}, not a pattern that a group "
            "or the whole population shares.", unit=unit),
        _misleading(report),
        say("The sites' own machines: disks, memory, keys and staff are outside what privagg "
            "protects."),
        told(report.custody_plainly),
    ]  # fmt: skip
    if not report.scheme.protects:
        items.insert(0, say("Single contributions: the scheme does not encrypt them."))
    if kind is Unit.RECORD:
        items.insert(4, say("A person with several records, or with records at several sites: ε "
                            "is for one record and grows with their number."))  # fmt: skip
    if worst_row(report, "personal", 0) is not None:
        items.append(say("A site's own model, trained on at home from the opened one: it is as "
                         "private as the site's records, and no ledger charges who is served "
                         "it."))  # fmt: skip
    if report.public_table is not None:
        items.append(say("The table “{table}”: it was declared public and is not protected in any "
                         "way.", table=report.public_table.name))  # fmt: skip
    return tuple(items)


def told_summary(report: Report) -> tuple[str, ...]:
    """The report's summary; in another language its sentences follow from the facts again."""
    return summarise(report) if _told_again(report) else report.summary


def told_unprotected(report: Report) -> tuple[str, ...]:
    """What the report says is not protected; in another language from the facts again."""
    return unprotected(report) if _told_again(report) else report.unprotected


def _told_again(report: Report) -> bool:
    return spoken().name != ENGLISH and readable_plan(report) is not None


def _released(report: Report, unit: str) -> str:
    masked = report.custody is Custody.EVERY_SITE
    if asked_names(report):
        return say(
            "The answers and the opened sum: the noise protects what they say about {unit}, "
            "masks do not; they can be copied and kept for ever."
            if masked
            else "The answers and the opened sum: the noise protects what they say about {unit}, "
            "encryption does not; they can be copied and kept for ever.",
            unit=unit,
        )
    return say(
        "The released model and every opened sum: the noise protects what they say about "
        "{unit}, masks do not; they can be copied and kept for ever."
        if masked
        else "The released model and every opened sum: the noise protects what they say about "
        "{unit}, encryption does not; they can be copied and kept for ever.",
        unit=unit,
    )


def _misleading(report: Report) -> str:
    """How far a dishonest site gets; reports of plans of version 1 keep the words they had."""
    plan = load_plan(report.plan)
    if plan.version == 1:
        return say(
            "The correctness of contributions: a site that sends misleading numbers within the "
            "clip is not detected."
        )
    return say(
        "The correctness of contributions: a site that sends misleading numbers is not detected; "
        "it can set any coordinate of a sum to {clips} times the clip.",
        clips=f"{plan.reach_of_one_site / plan.sensitivity_grid:,.0f}",
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
        apart_text(stated, joined(names, most=12)) for stated, names in by_statement.items()
    )


def apart_text(stated: RecordsApart | None, names: str) -> str:
    """What sites state of how a record's gradient is its own alone, and where they train.

    Args:
        stated: by all of them; None where they state nothing.
        names: of the sites.
    """
    if stated is None:
        return say(
            "That no bit of a record's gradient depends on the records beside it is stated "
            "without a test by {names}.",
            names=names,
        )
    if stated.engine == "exact-dense":
        return say(
            "That no bit of a record's contribution depends on other records follows from exact "
            "arithmetic at {names} (engine exact-dense): its owner can recompute a site's integers "
            "before noise bit for bit on any machine. Held against batches of {batch} on {date}, "
            "on {device}, torch {torch}.",
            names=names,
            date=stated.date,
            batch=stated.physical_batch,
            device=stated.device,
            torch=stated.torch,
        )
    text = say(
        "That no bit of a record's gradient depends on the records beside it was {how} at "
        "{names} on {date}, for batches of {batch}, engine {engine}, on {device}, {threads}, "
        "torch {torch}, Opacus {opacus}.",
        how=told(stated.how),
        engine=stated.engine,
        names=names,
        date=stated.date,
        batch=stated.physical_batch,
        device=stated.device,
        threads=count_text(stated.threads, "thread"),
        torch=stated.torch,
        opacus=stated.opacus,
    )
    if not stated.placed:
        return text
    drawn = say("As they state, the row of each sampled record is drawn at random.")
    return say(" ").join((text, drawn))


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
