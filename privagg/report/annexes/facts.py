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
from privagg.report.model import BoundedEvent, Report, SiteReport
from privagg.report.plan_text import compression_text, readable_plan
from privagg.report.sentences import OBSERVER_PHRASE, UNIT_PHRASE, kept_apart
from privagg.training.measures import overall

MOST_SITES = 12
MOST_COLUMNS_NAMED = 12

ADJACENCY_PHRASE = {
    "add-or-remove-one": "two data sets are neighbours where one unit is in one of them only",
    "replace-one": "two data sets are neighbours where one unit differs, at the same size",
}


def guarantee(bound: BoundedEvent) -> str:
    """`ε = 1.00 (proven to lie between 0.999 and 1.000) at δ = 10⁻⁵`."""
    if bound.epsilon.is_infinite():
        return f"ε = ∞ at δ = {delta_text(bound.delta)}: nothing is guaranteed"
    proven = (
        f" (proven to lie between {lower_text(bound.epsilon_lower, 9)} and "
        f"{epsilon_text(bound.epsilon, 9)})"
        if bound.certified and bound.epsilon_lower is not None
        else ""
    )
    return f"ε = {epsilon_text(bound.epsilon)}{proven} at δ = {delta_text(bound.delta)}"


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
            f"At {named(report, indices)} this run was charged with {guarantee(site.committed)} "
            f"(method: {site.committed.method}); it holds against {_against(site.committed)}.",
            _places(indices, "committed"),
        )
        for indices, site in alike(report, "committed")
    )


def _against(bound: BoundedEvent) -> str:
    who = OBSERVER_PHRASE.get(bound.observer, bound.observer)
    if bound.observer == "sites":
        return f"{count_text(bound.colluding_sites, 'colluding site')}"
    return who


def spent(report: Report) -> tuple[Fact, ...]:
    """Spending against budget, for each site, over all runs."""
    facts = []
    for i, site in enumerate(report.sites):
        limit = (
            "no budget is set"
            if site.budget is None
            else f"the budget is ε = {epsilon_text(site.budget.epsilon)} at "
            f"δ = {delta_text(site.budget.delta)}"
        )
        facts.append(
            Fact(
                f"The data set {site.dataset} of {site.name} had spent "
                f"ε = {epsilon_text(site.epsilon_before_run)} before this run and "
                f"ε = {epsilon_text(site.epsilon_after_run)} after it; {limit}.",
                _places([i], "epsilon_after_run"),
            )
        )
    return tuple(facts)


def unit(report: Report) -> tuple[Fact, ...]:
    """What the guarantee hides, and the neighbouring relation."""
    facts = []
    for indices, site in alike(report, "unit"):
        relation = ADJACENCY_PHRASE.get(site.adjacency, site.adjacency)
        facts.append(
            Fact(
                f"At {named(report, indices)} the guarantee hides {UNIT_PHRASE[site.unit]}; "
                f"the relation is {site.adjacency}: {relation}.",
                (*_places(indices[:1], "unit"), *_places(indices[:1], "adjacency")),
            )
        )
        if site.unit is Unit.RECORD:
            facts.append(
                Fact(
                    "A person with several records is protected less: ε is for one record and "
                    "grows with their number.",
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
        who = OBSERVER_PHRASE.get(observer, observer)
        if colluding:
            who = "one other institution" if observer == "sites" else f"{who}, with one institution"
        facts.append(
            Fact(
                f"For what was really done, against {who} the weakest guarantee of any site is "
                f"{guarantee(_row(report, (i, j)))}.",
                (f"/sites/{i}/guarantees/{j}",),
            )
        )
    return tuple(facts)


def _row(report: Report, place: tuple[int, int]) -> BoundedEvent:
    return report.sites[place[0]].guarantees[place[1]]


def assumptions(report: Report) -> tuple[Fact, ...]:
    """What has to be true for the guarantees to hold."""
    assumed = tuple(
        Fact(f"Assumed, not proved: {text}.", (f"/assumptions/{i}",))
        for i, text in enumerate(report.assumptions)
    )
    everywhere = _places(range(len(report.sites)), "records_apart")
    return assumed + tuple(Fact(text, everywhere) for text in kept_apart(report.sites))


def unprotected(report: Report) -> tuple[Fact, ...]:
    """What the run did not protect."""
    return tuple(
        Fact(f"Not protected: {text}", (f"/unprotected/{i}",))
        for i, text in enumerate(report.unprotected)
    )


def mechanism(report: Report) -> tuple[Fact, ...]:
    """How a round is made private: by the plan, and by the events that were charged."""
    plan = report.plan
    agreed = readable_plan(report)
    sent = agreed.contribution_plainly if agreed is not None else "a clipped, noised contribution"
    facts = [
        Fact(
            f"By the plan (mode {plan.get('mode')}) each institution sends {sent}, clipped to an "
            f"L2 norm of {plan.get('clip_norm_l2')}, with a noise multiplier of "
            f"{plan.get('noise_multiplier')}.",
            ("/plan/mode", "/plan/clip_norm_l2", "/plan/noise_multiplier"),
        ),
        Fact(
            "By the plan, contributions and noise are integers, and the L2 sensitivity is "
            f"{plan.get('sensitivity_grid')} grid units.",
            ("/plan/sensitivity_grid",),
        ),
        Fact(f"Noise and samples were drawn from: {report.generator}.", ("/generator",)),
    ]
    if agreed is not None and (compressed := compression_text(agreed)):
        facts.insert(2, Fact(compressed, ("/plan/compression", "/plan/dimension")))
    for indices, site in alike(report, "committed"):
        terms = [
            f"{term.count} × {term.mechanism.kind} (noise multiplier "
            f"{format(term.mechanism.noise_multiplier, 'f')}, sampling rate "
            f"{format(term.mechanism.sampling_rate, 'f')})"
            for term in site.committed.event.terms
        ]
        facts.append(
            Fact(
                f"The event charged at {named(report, indices)} is {joined(terms) or 'empty'}.",
                _places(indices, "committed/event"),
            )
        )
    return tuple(facts)


def accountants(report: Report) -> tuple[Fact, ...]:
    """What every accountant said about the charged total."""
    facts = []
    for indices, site in alike(report, "accountants"):
        for j, figure in enumerate(site.accountants):
            value = (
                "no figure" if figure.epsilon is None else f"ε = {epsilon_text(figure.epsilon, 9)}"
            )
            facts.append(
                Fact(
                    f"The accountant {figure.name} says {value} for the event charged at "
                    f"{named(report, indices)}: {figure.note}.",
                    (f"/sites/{indices[0]}/accountants/{j}",),
                )
            )
    return tuple(facts)


def encryption(report: Report) -> tuple[Fact, ...]:
    """The scheme, and who can open a sum."""
    scheme = report.scheme
    protects = (
        f"Contributions were encrypted with {scheme.name}"
        + (f" at {scheme.security_bits}-bit security." if scheme.security_bits else ".")
        if scheme.protects
        else f"Contributions were not encrypted: the scheme {scheme.name} protects nothing."
    )
    return (
        Fact(protects, ("/scheme/protects", "/scheme/security_bits")),
        Fact(f"Custody is {report.custody.value}. {report.custody_plainly}", ("/custody",)),
    )


def rounds(report: Report) -> tuple[Fact, ...]:
    """How many attempts were opened, stopped, and with whom missing."""
    opened = [r for r in report.rounds if r.outcome == "opened"]
    missing = sum(len(set(r.cohort) - set(r.survivors)) for r in opened)
    stopped = len(report.rounds) - len(opened)
    return (
        Fact(
            f"The run's outcome is {report.outcome}: {count_text(len(opened), 'round')} opened, "
            f"{count_text(stopped, 'attempt')} stopped and still charged, "
            f"{count_text(missing, 'contribution')} missing from opened rounds.",
            ("/outcome", "/rounds"),
        ),
    )


def quality(report: Report) -> tuple[Fact, ...]:
    """The model's figures on the public table, or that there are none."""
    if report.public_table is None or report.model is None or not report.model.metrics:
        return (Fact("No figure on a public table is recorded for a released model.", ("/model",)),)
    whole = overall(report.model.metrics)
    figures = joined([f"{name.replace('_', ' ')} {value:.3f}" for name, value in whole.items()])
    return (
        Fact(
            f"On the table “{report.public_table.name}”, which was declared public, the released "
            f"model reached {figures}.",
            ("/model/metrics", "/public_table"),
        ),
    )


def released(report: Report) -> tuple[Fact, ...]:
    """The model that left, or that none did."""
    if report.model is None:
        return (Fact("The coordinator's ledger records no released model.", ("/model",)),)
    day = f" on {report.model.day}" if report.model.day else ""
    return (
        Fact(
            f"The model {report.model.file} with SHA-256 {report.model.sha256} was released{day}.",
            ("/model",),
        ),
    )


def searches(report: Report) -> tuple[Fact, ...]:
    """Searches over hyperparameters, or that none is recorded."""
    if not report.tuning:
        return (Fact("No search over hyperparameters is recorded in the ledgers.", ("/tuning",)),)
    return tuple(
        Fact(
            f"The search {search.name!r} of {search.who} ({search.method}) has "
            f"{count_text(len(search.runs), 'run')}, all charged in full"
            + "".join(f"; {c.site}: ε = {epsilon_text(c.epsilon)}" for c in search.costs)
            + ".",
            (f"/tuning/{i}",),
        )
        for i, search in enumerate(report.tuning)
    )


def participants(report: Report) -> tuple[Fact, ...]:
    """Who took part, with which declared data."""
    counted = joined(
        [f"{s.name} (data set {s.dataset}, {count_text(s.declared_records, 'declared record')})"
         for s in report.sites], most=MOST_SITES,
    )  # fmt: skip
    facts = [
        Fact(
            f"{count_text(len(report.sites), 'institution')} took part: {counted}.",
            _places(range(len(report.sites)), "declared_records"),
        ),
        Fact(
            f"Parties that pinned each other's keys: {joined(sorted(report.parties))}.",
            ("/parties",),
        ),
    ]
    return (*facts, *_attributes(report))


def _attributes(report: Report) -> tuple[Fact, ...]:
    recipe = report.plan.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    features = data.get("features") if isinstance(data, dict) else None
    if not isinstance(features, list):
        return (Fact("The attributes that were used are not recorded.", ("/plan",)),)
    names = [str(f["name"]) for f in features if isinstance(f, dict) and "name" in f]
    return (
        Fact(
            f"The plan uses {count_text(len(names), 'attribute')} of each record "
            f"({joined(names, most=MOST_COLUMNS_NAMED)}).",
            ("/plan/recipe/data/features",),
        ),
    )


def model(report: Report) -> tuple[Fact, ...]:
    """What was trained, and how."""
    plan = report.plan
    size, rounds_planned = plan.get("dimension"), plan.get("rounds")
    facts = [Fact(f"The model's kind is {_kind(report, 'model')}.", ("/plan",))]
    if isinstance(size, int) and isinstance(rounds_planned, int):
        facts = [
            Fact(
                f"The model's kind is {_kind(report, 'model')}; it has "
                f"{count_text(size, 'parameter')} and was planned for "
                f"{count_text(rounds_planned, 'round')}.",
                ("/plan/dimension", "/plan/rounds"),
            )
        ]
    return (
        *facts,
        Fact(
            f"After opening, a sum is decoded and the server's optimiser "
            f"({_kind(report, 'optimizer')}) takes a step with it; neither looks at records.",
            ("/plan",),
        ),
    )


def _kind(report: Report, part: str) -> str:
    recipe = report.plan.get("recipe")
    found = recipe.get(part) if isinstance(recipe, dict) else None
    kind = found.get("kind") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else "not recorded"


def records(report: Report) -> tuple[Fact, ...]:
    """Ledgers, plan digest and software versions: what can be checked later."""
    versions = joined([f"{name} {version}" for name, version in sorted(report.versions.items())])
    charges = sum(point.run == report.run for site in report.sites for point in site.history)
    entries = report.coordinator.entries + sum(s.ledger.entries for s in report.sites)
    return (
        Fact(
            f"{count_text(len(report.sites) + 1, 'signed ledger')} with together "
            f"{count_text(entries, 'entry', 'entries')} hold the history, and "
            f"{count_text(charges, 'charge')} of this run.",
            ("/coordinator", *_places(range(len(report.sites)), "ledger")),
        ),
        Fact(f"The plan everybody pinned has the digest {report.plan_digest}.", ("/plan_digest",)),
        Fact(f"Software: {versions}.", ("/versions",)),
    )


def traffic(report: Report) -> tuple[Fact, ...]:
    """What went over the wire."""
    sent = sum(sum(r.bytes_up.values()) for r in report.rounds)
    return (
        Fact(
            f"The institutions sent {byte_text(sent)} in "
            f"{count_text(len(report.rounds), 'attempt')} at a round.",
            ("/rounds",),
        ),
    )
