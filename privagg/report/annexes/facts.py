"""Sentences that follow from a report, each with the places in `report.json` it is read from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from privagg.privacy.unit import Unit
from privagg.report.annexes.lines import Fact
from privagg.report.figures import (
    byte_text,
    count_text,
    delta_text,
    epsilon_text,
    joined,
    lower_text,
)
from privagg.report.language import say, told
from privagg.report.model import BoundedEvent, Report, SiteReport
from privagg.report.plan_text import compression_text, readable_plan
from privagg.report.sentences import OBSERVER_PHRASE, UNIT_PHRASE, kept_apart, told_unprotected
from privagg.training.measures import overall

MOST_SITES = 12
MOST_COLUMNS_NAMED = 12

ADJACENCY_PHRASE = {
    "add-or-remove-one": "two data sets are neighbours where one unit is in one of them only",
    "replace-one": "two data sets are neighbours where one unit differs, at the same size",
}


def guarantee(bound: BoundedEvent) -> str:
    """`ε = 1.00 (proven to lie between 0.999 and 1.000) at δ = 10⁻⁵`."""
    delta = delta_text(bound.delta)
    if bound.epsilon.is_infinite():
        return say("ε = ∞ at δ = {delta}: nothing is guaranteed", delta=delta)
    epsilon = epsilon_text(bound.epsilon)
    if not bound.certified or bound.epsilon_lower is None:
        return say("ε = {epsilon} at δ = {delta}", epsilon=epsilon, delta=delta)
    return say(
        "ε = {epsilon} (proven to lie between {low} and {high}) at δ = {delta}",
        epsilon=epsilon,
        low=lower_text(bound.epsilon_lower, 9),
        high=epsilon_text(bound.epsilon, 9),
        delta=delta,
    )


def alike(report: Report, kind: str) -> list[tuple[list[int], SiteReport]]:
    """Sites whose `kind` (`committed`, `budget` ...) is the same, as (indices, first of them)."""
    groups: dict[object, list[int]] = {}
    for index, site in enumerate(report.sites):
        groups.setdefault(getattr(site, kind), []).append(index)
    return [(indices, report.sites[indices[0]]) for indices in groups.values()]


def named(report: Report, indices: Sequence[int]) -> str:
    """The names of these sites."""
    return joined([report.sites[i].name for i in indices], most=MOST_SITES)


def _places(indices: Iterable[int], field: str) -> tuple[str, ...]:
    return tuple(f"/sites/{i}/{field}" for i in indices)


def charged(report: Report) -> tuple[Fact, ...]:
    """What the run was charged with, by group of sites."""
    return tuple(
        Fact(
            say(
                "At {sites} this run was charged with {guarantee} (method: {method}); it holds "
                "against {observer}.",
                sites=named(report, indices),
                guarantee=guarantee(site.committed),
                method=told(site.committed.method),
                observer=_against(site.committed),
            ),
            _places(indices, "committed"),
        )
        for indices, site in alike(report, "committed")
    )


def _against(bound: BoundedEvent) -> str:
    if bound.observer == "sites":
        return count_text(bound.colluding_sites, "colluding site")
    return say(OBSERVER_PHRASE.get(bound.observer, bound.observer))


def spent(report: Report) -> tuple[Fact, ...]:
    """Spending against budget, for each site, over all runs."""
    facts = []
    for i, site in enumerate(report.sites):
        limit = say("no budget is set")
        if site.budget is not None:
            limit = say(
                "the budget is ε = {epsilon} at δ = {delta}",
                epsilon=epsilon_text(site.budget.epsilon),
                delta=delta_text(site.budget.delta),
            )
        text = say(
            "The data set {dataset} of {site} had spent ε = {before} before this run and "
            "ε = {after} after it; {limit}.",
            dataset=site.dataset,
            site=site.name,
            before=epsilon_text(site.epsilon_before_run),
            after=epsilon_text(site.epsilon_after_run),
            limit=limit,
        )
        facts.append(Fact(text, _places([i], "epsilon_after_run")))
    return tuple(facts)


def unit(report: Report) -> tuple[Fact, ...]:
    """What the guarantee hides, and the neighbouring relation."""
    facts = []
    for indices, site in alike(report, "unit"):
        relation = say(ADJACENCY_PHRASE.get(site.adjacency, site.adjacency))
        facts.append(
            Fact(
                say(
                    "At {sites} the guarantee hides {unit}; the relation is {adjacency}: "
                    "{relation}.",
                    sites=named(report, indices),
                    unit=say(UNIT_PHRASE[site.unit]),
                    adjacency=site.adjacency,
                    relation=relation,
                ),
                (*_places(indices[:1], "unit"), *_places(indices[:1], "adjacency")),
            )
        )
        if site.unit is Unit.RECORD:
            facts.append(
                Fact(
                    say(
                        "A person with several records is protected less: ε is for one record and "
                        "grows with their number."
                    ),
                    _places(indices[:1], "unit"),
                )
            )
    return tuple(facts)


def observers(report: Report) -> tuple[Fact, ...]:
    """The weakest realised guarantee against every kind of observer, alone and with one site."""
    facts = []
    seen: dict[tuple[str, int], tuple[int, int]] = {}
    for i, site in enumerate(report.sites):
        for j, row in enumerate(site.guarantees):
            key = (row.observer, row.colluding_sites)
            if row.colluding_sites > 1:
                continue
            if key not in seen or row.epsilon > _row(report, seen[key]).epsilon:
                seen[key] = (i, j)
    for (observer, colluding), (i, j) in seen.items():
        who = say(OBSERVER_PHRASE.get(observer, observer))
        if colluding and observer == "sites":
            who = say("one other institution")
        elif colluding:
            who = say("{observer}, with one institution", observer=who)
        facts.append(
            Fact(
                say(
                    "For what was really done, against {observer} the weakest guarantee of any "
                    "site is {guarantee}.",
                    observer=who,
                    guarantee=guarantee(_row(report, (i, j))),
                ),
                (f"/sites/{i}/guarantees/{j}",),
            )
        )
    return tuple(facts)


def _row(report: Report, place: tuple[int, int]) -> BoundedEvent:
    return report.sites[place[0]].guarantees[place[1]]


def assumptions(report: Report) -> tuple[Fact, ...]:
    """What has to be true for the guarantees to hold."""
    assumed = tuple(
        Fact(
            say("Assumed, not proved: {assumption}.", assumption=told(text)), (f"/assumptions/{i}",)
        )
        for i, text in enumerate(report.assumptions)
    )
    everywhere = _places(range(len(report.sites)), "records_apart")
    return assumed + tuple(Fact(text, everywhere) for text in kept_apart(report.sites))


def unprotected(report: Report) -> tuple[Fact, ...]:
    """What the run did not protect."""
    return tuple(
        Fact(say("Not protected: {item}", item=text), (f"/unprotected/{i}",))
        for i, text in enumerate(told_unprotected(report))
    )


def mechanism(report: Report) -> tuple[Fact, ...]:
    """How a round is made private: by the plan, and by the events that were charged."""
    plan = report.plan
    agreed = readable_plan(report)
    sent = say("a clipped, noised contribution")
    if agreed is not None:
        sent = told(agreed.contribution_plainly)
    facts = [
        Fact(
            say(
                "By the plan (mode {mode}) each institution sends {sent}, clipped to an L2 norm "
                "of {clip}, with a noise multiplier of {noise}.",
                mode=plan.get("mode"),
                sent=sent,
                clip=plan.get("clip_norm_l2"),
                noise=plan.get("noise_multiplier"),
            ),
            ("/plan/mode", "/plan/clip_norm_l2", "/plan/noise_multiplier"),
        ),
        Fact(
            say(
                "By the plan, contributions and noise are integers, and the L2 sensitivity is "
                "{sensitivity} grid units.",
                sensitivity=plan.get("sensitivity_grid"),
            ),
            ("/plan/sensitivity_grid",),
        ),
        Fact(
            say(
                "Noise and samples were drawn from: {generator}.", generator=told(report.generator)
            ),
            ("/generator",),
        ),
    ]
    if agreed is not None and (compressed := compression_text(agreed)):
        facts.insert(2, Fact(compressed, ("/plan/compression", "/plan/dimension")))
    for indices, site in alike(report, "committed"):
        terms = [
            say(
                "{count} × {kind} (noise multiplier {noise}, sampling rate {rate})",
                count=term.count,
                kind=term.mechanism.kind,
                noise=format(term.mechanism.noise_multiplier, "f"),
                rate=format(term.mechanism.sampling_rate, "f"),
            )
            for term in site.committed.event.terms
        ]
        text = say(
            "The event charged at {sites} is {event}.",
            sites=named(report, indices),
            event=joined(terms) or say("empty"),
        )
        facts.append(Fact(text, _places(indices, "committed/event")))
    return tuple(facts)


def accountants(report: Report) -> tuple[Fact, ...]:
    """What every accountant said about the charged total."""
    facts = []
    for indices, site in alike(report, "accountants"):
        for j, figure in enumerate(site.accountants):
            value = say("no figure")
            if figure.epsilon is not None:
                value = f"ε = {epsilon_text(figure.epsilon, 9)}"
            text = say(
                "The accountant {name} says {figure} for the event charged at {sites}: {note}.",
                name=figure.name,
                figure=value,
                sites=named(report, indices),
                note=told(figure.note),
            )
            facts.append(Fact(text, (f"/sites/{indices[0]}/accountants/{j}",)))
    return tuple(facts)


def encryption(report: Report) -> tuple[Fact, ...]:
    """The scheme, and who can open a sum."""
    scheme = report.scheme
    sentence = "Contributions were not encrypted: the scheme {scheme} protects nothing."
    if scheme.protects and scheme.security_bits:
        sentence = "Contributions were encrypted with {scheme} at {bits}-bit security."
    elif scheme.protects:
        sentence = "Contributions were encrypted with {scheme}."
    custody = say(
        "Custody is {custody}. {plainly}",
        custody=report.custody.value,
        plainly=told(report.custody_plainly),
    )
    return (
        Fact(
            say(sentence, scheme=scheme.name, bits=scheme.security_bits),
            ("/scheme/protects", "/scheme/security_bits"),
        ),
        Fact(custody, ("/custody",)),
    )


def rounds(report: Report) -> tuple[Fact, ...]:
    """How many attempts were opened, stopped, and with whom missing."""
    opened = [r for r in report.rounds if r.outcome == "opened"]
    missing = sum(len(set(r.cohort) - set(r.survivors)) for r in opened)
    stopped = len(report.rounds) - len(opened)
    return (
        Fact(
            say(
                "The run's outcome is {outcome}: {rounds} opened, {attempts} stopped and still "
                "charged, {contributions} missing from opened rounds.",
                outcome=say(report.outcome),
                rounds=count_text(len(opened), "round"),
                attempts=count_text(stopped, "attempt"),
                contributions=count_text(missing, "contribution"),
            ),
            ("/outcome", "/rounds"),
        ),
    )


def quality(report: Report) -> tuple[Fact, ...]:
    """The model's figures on the public table, or that there are none."""
    if report.public_table is None or report.model is None or not report.model.metrics:
        none = say("No figure on a public table is recorded for a released model.")
        return (Fact(none, ("/model",)),)
    whole = overall(report.model.metrics)
    figures = joined(
        [f"{say(name.replace('_', ' '))} {value:.3f}" for name, value in whole.items()]
    )
    return (
        Fact(
            say(
                "On the table “{table}”, which was declared public, the released model reached "
                "{figures}.",
                table=report.public_table.name,
                figures=figures,
            ),
            ("/model/metrics", "/public_table"),
        ),
    )


def released(report: Report) -> tuple[Fact, ...]:
    """The model that left, or that none did."""
    if report.model is None:
        return (Fact(say("The coordinator's ledger records no released model."), ("/model",)),)
    text = say(
        "The model {file} with SHA-256 {digest} was released on {day}."
        if report.model.day
        else "The model {file} with SHA-256 {digest} was released.",
        file=report.model.file,
        digest=report.model.sha256,
        day=report.model.day,
    )
    return (Fact(text, ("/model",)),)


def searches(report: Report) -> tuple[Fact, ...]:
    """Searches over hyperparameters, or that none is recorded."""
    if not report.tuning:
        none = say("No search over hyperparameters is recorded in the ledgers.")
        return (Fact(none, ("/tuning",)),)
    facts = []
    for i, search in enumerate(report.tuning):
        costs = [f"{c.site}: ε = {epsilon_text(c.epsilon)}" for c in search.costs]
        sentence = "The search {name} of {who} ({method}) has {runs}, all charged in full"
        text = say(
            f"{sentence}; {{costs}}." if costs else f"{sentence}.",
            name=repr(search.name),
            who=search.who,
            method=search.method,
            runs=count_text(len(search.runs), "run"),
            costs=say("; ").join(costs),
        )
        facts.append(Fact(text, (f"/tuning/{i}",)))
    return tuple(facts)


def participants(report: Report) -> tuple[Fact, ...]:
    """Who took part, with which declared data."""
    counted = joined(
        [say("{site} (data set {dataset}, {records})", site=s.name, dataset=s.dataset,
             records=count_text(s.declared_records, "declared record"))
         for s in report.sites], most=MOST_SITES,
    )  # fmt: skip
    facts = [
        Fact(
            say(
                "{institutions} took part: {sites}.",
                institutions=count_text(len(report.sites), "institution"),
                sites=counted,
            ),
            _places(range(len(report.sites)), "declared_records"),
        ),
        Fact(
            say(
                "Parties that pinned each other's keys: {parties}.",
                parties=joined(sorted(report.parties)),
            ),
            ("/parties",),
        ),
    ]
    return (*facts, *_attributes(report))


def _attributes(report: Report) -> tuple[Fact, ...]:
    recipe = report.plan.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    features = data.get("features") if isinstance(data, dict) else None
    if not isinstance(features, list):
        return (Fact(say("The attributes that were used are not recorded."), ("/plan",)),)
    names = [str(f["name"]) for f in features if isinstance(f, dict) and "name" in f]
    return (
        Fact(
            say(
                "The plan uses {attributes} of each record ({names}).",
                attributes=count_text(len(names), "attribute"),
                names=joined(names, most=MOST_COLUMNS_NAMED),
            ),
            ("/plan/recipe/data/features",),
        ),
    )


def model(report: Report) -> tuple[Fact, ...]:
    """What was trained, and how."""
    plan = report.plan
    size, rounds_planned = plan.get("dimension"), plan.get("rounds")
    kind = _kind(report, "model")
    first = Fact(say("The model's kind is {kind}.", kind=kind), ("/plan",))
    if isinstance(size, int) and isinstance(rounds_planned, int):
        text = say(
            "The model's kind is {kind}; it has {parameters} and was planned for {rounds}.",
            kind=kind,
            parameters=count_text(size, "parameter"),
            rounds=count_text(rounds_planned, "round"),
        )
        first = Fact(text, ("/plan/dimension", "/plan/rounds"))
    step = say(
        "After opening, a sum is decoded and the server's optimiser ({optimiser}) takes a step "
        "with it; neither looks at records.",
        optimiser=_kind(report, "optimizer"),
    )
    return (first, Fact(step, ("/plan",)))


def _kind(report: Report, part: str) -> str:
    recipe = report.plan.get("recipe")
    found = recipe.get(part) if isinstance(recipe, dict) else None
    kind = found.get("kind") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else say("not recorded")


def records(report: Report) -> tuple[Fact, ...]:
    """Ledgers, plan digest and software versions: what can be checked later."""
    versions = joined([f"{name} {version}" for name, version in sorted(report.versions.items())])
    charges = sum(point.run == report.run for site in report.sites for point in site.history)
    entries = report.coordinator.entries + sum(s.ledger.entries for s in report.sites)
    return (
        Fact(
            say(
                "{ledgers} with together {entries} hold the history, and {charges} of this run.",
                ledgers=count_text(len(report.sites) + 1, "signed ledger"),
                entries=count_text(entries, "entry", "entries"),
                charges=count_text(charges, "charge"),
            ),
            ("/coordinator", *_places(range(len(report.sites)), "ledger")),
        ),
        Fact(
            say("The plan everybody pinned has the digest {digest}.", digest=report.plan_digest),
            ("/plan_digest",),
        ),
        Fact(say("Software: {versions}.", versions=versions), ("/versions",)),
    )


def traffic(report: Report) -> tuple[Fact, ...]:
    """What went over the wire."""
    sent = sum(sum(r.bytes_up.values()) for r in report.rounds)
    return (
        Fact(
            say(
                "The institutions sent {bytes} in {attempts} at a round.",
                bytes=byte_text(sent),
                attempts=count_text(len(report.rounds), "attempt"),
            ),
            ("/rounds",),
        ),
    )
