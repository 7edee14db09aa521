"""Sentences that follow from a report, each with the places in `report.json` it is read from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from privagg.privacy.events import AnyMechanism, LaplaceMechanism
from privagg.privacy.plan import SumsPlan
from privagg.privacy.unit import Custody, Unit
from privagg.report.annexes.lines import Fact
from privagg.report.approvals import approval_text
from privagg.report.figures import (
    byte_text,
    count_text,
    delta_text,
    epsilon_text,
    joined,
    lower_text,
    second_text,
)
from privagg.report.language import say, told
from privagg.report.model import BoundedEvent, Report, SiteReport
from privagg.report.plan_text import (
    compression_text,
    mode_text,
    openings_text,
    readable_plan,
)
from privagg.report.sentences import OBSERVER_PHRASE, UNIT_PHRASE, kept_apart, told_unprotected
from privagg.training.measures import figure_text, overall

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
    return told(OBSERVER_PHRASE.get(bound.observer, bound.observer))


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
        relation = told(ADJACENCY_PHRASE.get(site.adjacency, site.adjacency))
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
        who = told(OBSERVER_PHRASE.get(observer, observer))
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


def users(report: Report) -> tuple[Fact, ...]:
    """What holds against whoever has the model or may query it, where the report says anything."""
    rows = [
        (row.epsilon, i, j)
        for i, site in enumerate(report.sites)
        for j, row in enumerate(site.guarantees)
        if (row.observer, row.colluding_sites) == ("model-users", 0)
    ]
    if not rows:
        return ()
    _, i, j = max(rows, key=lambda row: row[0])
    row = _row(report, (i, j))
    text = say(
        "For what was really done, about {unit} and against {observer}, the weakest guarantee of "
        "any site is {guarantee}. The model follows from the opened sums and the plan, so this "
        "holds for its parameters and for its answers alike.",
        unit=say(UNIT_PHRASE[row.unit]),
        observer=say(OBSERVER_PHRASE[row.observer]),
        guarantee=guarantee(row),
    )
    return (Fact(text, (f"/sites/{i}/guarantees/{j}",)),)


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


def contribution(report: Report) -> tuple[Fact, ...]:
    """What each institution sends in a round, by the plan."""
    plan = report.plan
    agreed = readable_plan(report)
    sent = say("a clipped, noised contribution")
    if agreed is not None:
        sent = told(agreed.contribution_plainly)
    if isinstance(agreed, SumsPlan):
        text = say("By the plan ({mode}) each institution sends {sent}.",
                   mode=mode_text(agreed, plan.get("mode")), sent=sent)  # fmt: skip
        rounds = openings_text(agreed)
        opened = [say("Round {n}: {text}.", n=n, text=what) for n, what in rounds]
        return (Fact(say(" ").join([text, *opened]), ("/plan/mode", "/plan/openings")),)
    text = say(
        "By the plan (mode {mode}) each institution sends {sent}, clipped to an L2 norm "
        "of {clip}, with a noise multiplier of {noise}.",
        mode=plan.get("mode"),
        sent=sent,
        clip=plan.get("clip_norm_l2"),
        noise=plan.get("noise_multiplier"),
    )
    return (Fact(text, ("/plan/mode", "/plan/clip_norm_l2", "/plan/noise_multiplier")),)


def noise(report: Report) -> tuple[Fact, ...]:
    """How contributions and noise are encoded, and what they were drawn from."""
    agreed = readable_plan(report)
    compressed = compression_text(agreed) if agreed is not None else ""
    integers = say(
        "By the plan, contributions and noise are integers, and the L2 sensitivity is "
        "{sensitivity} grid units.",
        sensitivity=report.plan.get("sensitivity_grid"),
    )
    place = "/plan/sensitivity_grid"
    if isinstance(agreed, SumsPlan):
        integers = say(
            "By the plan, contributions and noise are integers, and the L2 sensitivity of a round "
            "is {sensitivity} grid units at most.",
            sensitivity=agreed.sensitivity_grid,
        )
        place = "/plan/openings"
    drawn = say("Noise and samples were drawn from: {generator}.", generator=told(report.generator))
    return (
        Fact(integers, (place,)),
        *((Fact(compressed, ("/plan/compression", "/plan/dimension")),) if compressed else ()),
        Fact(drawn, ("/generator",)),
    )


def events(report: Report) -> tuple[Fact, ...]:
    """The event that was charged, by group of sites."""
    facts = []
    for indices, site in alike(report, "committed"):
        terms = [_mechanism(term.mechanism, term.count) for term in site.committed.event.terms]
        text = say(
            "The event charged at {sites} is {event}.",
            sites=named(report, indices),
            event=joined(terms) or say("empty"),
        )
        facts.append(Fact(text, _places(indices, "committed/event")))
    return tuple(facts)


def _mechanism(mechanism: AnyMechanism, count: int) -> str:
    if isinstance(mechanism, LaplaceMechanism):
        return say(
            "{count} × integer Laplace noise of scale {scale} on a coordinate that a unit moves by "
            "at most {shift} (shares {shares} of {all})",
            count=count,
            scale=format(mechanism.scale, "f"),
            shift=mechanism.shift,
            shares=mechanism.shares,
            all=mechanism.shared_by,
        )
    return say(
        "{count} × {kind} (noise multiplier {noise}, sampling rate {rate})",
        count=count,
        kind=mechanism.kind,
        noise=format(mechanism.noise_multiplier, "f"),
        rate=format(mechanism.sampling_rate, "f"),
    )


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
    if report.custody is Custody.EVERY_SITE:
        sentence = "Contributions were under masks at {bits}-bit security that cancel in the sum."
    elif scheme.protects and scheme.security_bits:
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
                "The run's outcome is {outcome}: {rounds} opened, {attempts} stopped (what was "
                "charged for them stands), {contributions} missing from opened rounds.",
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
        [
            f"{told(name.replace('_', ' '))} {figure_text(name, value)}"
            for name, value in whole.items()
        ]
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
        text = say(
            "The search {name} of {who} ({method}) has {runs}, all charged in full; {costs}."
            if costs
            else "The search {name} of {who} ({method}) has {runs}, all charged in full.",
            name=repr(search.name),
            who=search.who,
            method=search.method,
            runs=count_text(len(search.runs), "run"),
            costs=say("; ").join(costs),
        )
        facts.append(Fact(text, (f"/tuning/{i}",)))
    return tuple(facts)


def institutions(report: Report) -> tuple[Fact, ...]:
    """Who took part, with which declared data."""
    counted = joined(
        [say("{site} (data set {dataset}, {records})", site=s.name, dataset=s.dataset,
             records=count_text(s.declared_records, "declared record"))
         for s in report.sites], most=MOST_SITES,
    )  # fmt: skip
    text = say(
        "{institutions} took part: {sites}.",
        institutions=count_text(len(report.sites), "institution"),
        sites=counted,
    )
    return (Fact(text, _places(range(len(report.sites)), "declared_records")),)


def keys(report: Report) -> tuple[Fact, ...]:
    """The parties that pinned each other's keys."""
    text = say(
        "Parties that pinned each other's keys: {parties}.", parties=joined(sorted(report.parties))
    )
    return (Fact(text, ("/parties",)),)


def attributes(report: Report) -> tuple[Fact, ...]:
    """Which attributes of a record the plan uses."""
    features = _recipe(report, "data", "features")
    if not isinstance(features, list):
        return (Fact(say("The attributes that were used are not recorded."), ("/plan",)),)
    names = [str(f["name"]) for f in features if isinstance(f, dict) and "name" in f]
    text = say(
        "The plan uses {attributes} of each record ({names}).",
        attributes=count_text(len(names), "attribute"),
        names=joined(names, most=MOST_COLUMNS_NAMED),
    )
    return (Fact(text, ("/plan/recipe/data/features",)),)


def target(report: Report) -> tuple[Fact, ...]:
    """What the model is trained to predict."""
    name = _recipe(report, "data", "target", "name")
    kind = _recipe(report, "data", "target", "kind")
    if not isinstance(name, str) or not isinstance(kind, str):
        return (Fact(say("What the model predicts is not recorded."), ("/plan",)),)
    text = say(
        "What the model is trained to predict is the attribute {name} ({kind}).",
        name=name,
        kind=kind,
    )
    return (Fact(text, ("/plan/recipe/data/target",)), *_class_weights(report))


def _class_weights(report: Report) -> tuple[Fact, ...]:
    """What records of each class count in the loss, and where that is from; nothing where alike."""
    weights = _recipe(report, "data", "target", "class_weights")
    if isinstance(weights, list):
        text = say(
            "In the loss, records of the classes count {weights}, numbers that were declared.",
            weights=joined(
                [f"{weight:g}" for weight in weights if isinstance(weight, int | float)]
            ),
        )
    elif isinstance(weights, dict):
        text = say(
            "What records of the classes count in the loss follows from the answer {question}, "
            "which was charged when it was asked (answers with the SHA-256 {digest}).",
            question=str(weights.get("question")),
            digest=str(weights.get("sha256")),
        )
    else:
        return ()
    return (Fact(text, ("/plan/recipe/data/target/class_weights",)),)


def regularisation(report: Report) -> tuple[Fact, ...]:
    """What of the plan acts against overfitting."""
    decay = _recipe(report, "optimizer", "weight_decay")
    if not isinstance(decay, int | float):
        return (Fact(say("No setting of regularisation is recorded."), ("/plan",)),)
    text = say("By the plan the optimiser's weight decay is {decay}.", decay=f"{decay:g}")
    return (Fact(text, ("/plan/recipe/optimizer/weight_decay",)),)


def ratio(report: Report) -> tuple[Fact, ...]:
    """Declared records for each parameter of the model."""
    size = report.plan.get("dimension")
    records = sum(site.declared_records for site in report.sites)
    if not isinstance(size, int) or size < 1:
        none = say("The number of the model's parameters is not recorded.")
        return (Fact(none, ("/plan",)),)
    text = say(
        "The institutions declared {records} together and the model has {parameters}: {ratio} for "
        "each parameter.",
        records=count_text(records, "record"),
        parameters=count_text(size, "parameter"),
        ratio=f"{Decimal(records) / size:.3g}",
    )
    declared = _places(range(len(report.sites)), "declared_records")
    return (Fact(text, ("/plan/dimension", *declared)),)


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
    kind = _recipe(report, part, "kind")
    return kind if isinstance(kind, str) else say("not recorded")


def _recipe(report: Report, *steps: str) -> object:
    """What the plan's recipe holds there; None where it holds nothing of that form."""
    found: object = report.plan.get("recipe")
    for step in steps:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def ledgers(report: Report) -> tuple[Fact, ...]:
    """The signed logs that hold what happened."""
    charges = sum(point.run == report.run for site in report.sites for point in site.history)
    entries = report.coordinator.entries + sum(s.ledger.entries for s in report.sites)
    text = say(
        "{ledgers} with together {entries} hold the history, and {charges} of this run.",
        ledgers=count_text(len(report.sites) + 1, "signed ledger"),
        entries=count_text(entries, "entry", "entries"),
        charges=count_text(charges, "charge"),
    )
    return (Fact(text, ("/coordinator", *_places(range(len(report.sites)), "ledger"))),)


def history(report: Report) -> tuple[Fact, ...]:
    """The other runs that these data sets were used for so far."""
    runs = dict.fromkeys(point.run for site in report.sites for point in site.history)
    others = [run for run in runs if run != report.run]
    text = say("Apart from this run, the ledgers hold no charge to these data sets.")
    if others:
        text = say(
            "Apart from this run, the ledgers hold charges to these data sets of {runs}: {names}.",
            runs=count_text(len(others), "run"),
            names=joined(others),
        )
    return (Fact(text, _places(range(len(report.sites)), "history") or ("/sites",)),)


def agreement(report: Report) -> tuple[Fact, ...]:
    """The plan that everybody agreed to."""
    text = say("The plan everybody pinned has the digest {digest}.", digest=report.plan_digest)
    return (Fact(text, ("/plan_digest",)),)


def approved(report: Report) -> tuple[Fact, ...]:
    """Which owner let the data be used, for what and until when."""
    text = approval_text(report.sites)
    if not text:
        text = say("No ledger records that an owner approved this use of its data.")
    given: dict[tuple[str, str, str], list[int]] = {}
    for i, site in enumerate(report.sites):
        for a in site.approvals:
            given.setdefault((a.who, a.why, a.until), []).append(i)
    facts = [Fact(text, _places(range(len(report.sites)), "approvals") or ("/sites",))]
    for (who, why, until), indices in given.items():
        text = say(
            "By the approval of {who} for the data of {sites}, the analyst or purpose is “{why}” "
            "and the last day {until}.",
            who=who,
            sites=named(report, indices),
            why=why,
            until=until,
        )
        facts.append(Fact(text, _places(indices, "approvals")))
    return tuple(facts)


def software(report: Report) -> tuple[Fact, ...]:
    """Versions of what ran."""
    versions = joined([f"{name} {version}" for name, version in sorted(report.versions.items())])
    return (Fact(say("Software: {versions}.", versions=versions), ("/versions",)),)


def resources(report: Report) -> tuple[Fact, ...]:
    """How long uploads and sums took; training is timed nowhere."""
    took = {
        stage: second_text(sum(getattr(r.seconds, stage) for r in report.rounds))
        for stage in ("encrypt", "add", "open")
    }
    text = say(
        "In all rounds together, encrypting or masking took {encrypt} at all institutions, "
        "checking and adding {add} at the aggregator, and opening {open}. How long training takes "
        "depends on private records and is not recorded.",
        **took,
    )
    return (Fact(text, ("/rounds",)),)


def traffic(report: Report) -> tuple[Fact, ...]:
    """What went over the wire."""
    sent = sum(r.bytes_up.get(site, 0) for r in report.rounds for site in r.cohort)
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
