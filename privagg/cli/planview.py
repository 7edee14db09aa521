"""What a plan means, before anyone trains: facts for a machine, and the same for a person."""

from __future__ import annotations

from decimal import Decimal
from math import log2, sqrt
from typing import Any

from rich.console import Console
from rich.text import Text

from privagg.cli import console
from privagg.config.data import AppData
from privagg.config.plan import charged_most
from privagg.config.setup import Setup
from privagg.errors import PrivaggError
from privagg.party.ready import Room, beyond_budgets
from privagg.privacy.events import plain_decimal
from privagg.privacy.plan import TrainingPlan
from privagg.privacy.unit import Unit
from privagg.training.ghost.grids import USUAL_GRID

MOST_ROUNDS_SHOWN = 12
LARGEST_SUM_BITS = 62
BAR_WIDTH = 24


def describe(setup: Setup) -> dict[str, Any]:
    """The plan, its cost round by round, its observers, sizes and room; JSON-ready."""
    from privagg.report.accounting import Bounds

    bounds = Bounds(setup.accountant)
    plan = setup.training_plan
    noise, observers = plan.in_round(1).noise, _observers(setup, bounds)
    return {
        "federation": setup.config.federation.name,
        "mode": plan.mode,
        "unit": plan.unit.value,
        "plan_digest": plan.digest,
        "rounds": plan.rounds,
        "parameters": plan.dimension,
        "frozen_sha256": plan.recipe.get("frozen_sha256"),
        "target": _target(setup),
        "clip_norm_l2": format(plan.clip_norm_l2, "f"),
        "noise_multiplier": format(plan.noise_multiplier, "f"),
        "noise_share_stddev_grid": float(noise.stddev_grid) if noise else 0.0,
        "sensitivity_grid": plan.sensitivity_grid,
        "grid": _grid(setup),
        "sampling_rate": None if plan.record_rate is None else format(plan.record_rate, "f"),
        "delta": format(plan.delta, "f"),
        "sites": [site.model_dump() for site in plan.sites],
        "rosters": _rosters(plan),
        "asked_in_a_round": plan.addends,
        "minimum_survivors": plan.minimum_survivors,
        "dropouts": plan.dropouts,
        "colluders": plan.colluders,
        "colluders_cost": _colluders_cost(plan, observers),
        "proposed": [
            {"setting": one.key, "value": one.written, "why": one.why}
            for one in setup.config.proposed
        ],
        "custody": plan.custody.value,
        "custody_plainly": plan.custody_plainly,
        "epsilon_by_round": _by_round(setup, bounds),
        "observers": observers,
        "scheme": _scheme(setup),
        "compression": _compression(setup),
        "batches": _batches(setup),
        "records_apart": _apart(setup),
        "room": {
            "upload_bound_grid": plan.upload_bound,
            "sum_bound_grid": plan.sum_bound,
            "sum_bits": round(log2(plan.sum_bound), 2),
            "largest_sum_bits": LARGEST_SUM_BITS,
            "one_dishonest_site": _reach(plan),
        },
        "budgets": budgets(setup),
        "remarks": _remarks(setup),
    }


def _scheme(setup: Setup) -> dict[str, Any]:
    """How sums are added unread, and how much is sent for it."""
    plan, parameters = setup.training_plan, setup.parameters
    upload = parameters.payload_bytes + parameters.attachment_bytes
    return {
        "name": plan.scheme,
        "protects": setup.scheme.protects,
        "security_bits": parameters.security_bits,
        "explanation": parameters.explain(),
        "upload_bytes": upload,
        "round_bytes_up": upload * plan.addends,
        "job_bytes_up": upload * plan.addends * plan.rounds,
    }


def _rosters(plan: TrainingPlan) -> list[dict[str, Any]]:
    """Who takes part in which rounds, and what is sized to that; nothing where all always do."""
    if not plan.changes:
        return []
    return [
        {
            "first_round": epoch.first,
            "last_round": epoch.last,
            "sites": list(epoch.names),
            "asked_in_a_round": part.addends,
            "minimum_survivors": part.minimum_survivors,
            "noise_share_stddev_grid": float(part.noise.stddev_grid) if part.noise else 0.0,
        }
        for epoch, part in zip(plan.epochs, plan.parts, strict=True)
    ]


def _apart(setup: Setup) -> list[dict[str, Any]]:
    """How the sites keep records apart, by a test here and now; each statement once."""
    found: dict[Any, list[str]] = {}
    for site in setup.plan.names:
        if apart := setup.kept_apart(site):
            found.setdefault(apart, []).append(site)
    return [{"sites": sites, **apart.facts()} for apart, sites in found.items()]


def _target(setup: Setup) -> dict[str, Any] | None:
    """What is predicted, and what that rests on besides public facts; None for a Flower app's."""
    data, loss = setup.config.data, setup.config.training.loss
    if isinstance(data, AppData):
        return None
    spent, weights = data.target.spent(setup.base), data.target.settled(setup.base)
    return {
        **data.target.describe(),
        "loss": loss,
        "class_weights": getattr(weights, "class_weights", None),
        "counted": None if spent is None else {
            "run": spent.run,
            "epsilon": format(spent.epsilon, "f"),
            "delta": format(spent.delta, "f"),
        },
    }  # fmt: skip


def _target_text(facts: dict[str, Any]) -> str:
    from privagg.report.figures import epsilon_text
    from privagg.report.language import say

    declared, weights, counted = facts["target"], facts["class_weights"], facts["counted"]
    kind = declared.get("kind", "multiclass")
    parts = [say("{name} ({kind}), {predictions}", name=declared["name"], kind=kind,
                 predictions=say(facts["predictions"]))]  # fmt: skip
    if "ends" in facts:
        ends = [f"{end:.6g}" for end in facts["ends"]]
        parts.append(
            say("intervals that end at {ends}; a person's intervals are clipped as one",
                ends=", ".join(ends))
        )  # fmt: skip
    if facts["loss"]:
        parts.append(say("by a loss of your own, {loss}", loss=facts["loss"]))
    if weights:
        listed = ", ".join(f"{weight:.4g}" for weight in weights)
        parts.append(
            say("class weights {weights}, declared", weights=listed)
            if counted is None
            else say(
                "class weights {weights} from the counts of {run}, for which ε = {epsilon} was "
                "charged then",
                weights=listed,
                run=counted["run"],
                epsilon=epsilon_text(Decimal(counted["epsilon"])),
            )
        )
    return say("; ").join(parts)


def _reach(plan: Any) -> dict[str, Any]:
    """How far one dishonest site can move an opened sum, in clips of one unit's contribution."""
    clips = plan.reach_of_one_site / plan.sensitivity_grid
    return {
        "coordinate_grid": plan.reach_of_one_site,
        "coordinate_clips": round(clips, 1),
        "l2_clips": round(clips * sqrt(plan.upload_dimension), 1),
    }


def _colluders_cost(plan: TrainingPlan, observers: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What allowing for colluding sites costs; None where none is allowed for.

    Noise shares that colluders know protect nobody, so all shares are larger, by the root of how
    many are known over how many are left.
    """
    largest = max(plan.parts, key=lambda part: part.addends)
    if largest.noise is None or not plan.colluders:
        return None
    nobody = next(row for row in observers if row["colluding_sites"] == 0)
    return {
        "noise_times": round(sqrt(largest.minimum_survivors / largest.counted_shares), 3),
        "epsilon_without": nobody["epsilon"],
    }


def _remarks(setup: Setup) -> list[str]:
    """What is allowed and hardly meant."""
    plan, found = setup.plan, []
    records = sum(site.records for site in plan.sites)
    if plan.unit is Unit.RECORD and plan.delta * records >= 1:
        found.append(
            f"δ = {plan.delta} is not below 1 / {records}, one over the number of declared "
            "records: such a δ allows that one whole record is published; choose it well below"
        )
    side, steps = setup.coarsest_side, setup.training_plan.sensitivity_grid
    if side is not None and steps < side.grid:
        found.append(
            f"sensitivity_grid = {steps} is coarse for this model: it rounds a record's gradient "
            f"of {side.parameter} by about {_percent(side.error(steps))}, {side.grid} by "
            f"{_percent(side.error(side.grid))}; leave privacy.sensitivity_grid out to have it "
            "chosen"
        )
    own = {site.name: setup.network_at(site.name) for site in setup.config.sites}
    if told := [f"{name} ({spec.kind})" for name, spec in own.items() if spec is not None]:
        found.append(f"networks of their own, in the place of training.model's: {', '.join(told)}")
    return found


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %"


def _grid(setup: Setup) -> dict[str, Any] | None:
    """Why the clip norm has so many grid units, and what that costs; None where nothing asks."""
    side, steps = setup.coarsest_side, setup.training_plan.sensitivity_grid
    if side is None:
        return None
    return {
        "chosen": "sensitivity_grid" not in setup.config.privacy.model_fields_set,
        "steps": steps,
        "parameter": side.parameter,
        "positions": side.positions,
        "width": side.width,
        "rounding": side.error(steps),
        "more_bits": log2(steps / USUAL_GRID),
    }


def _grid_text(grid: dict[str, Any]) -> list[tuple[str, str]]:
    from privagg.report.language import say

    if not grid["chosen"] or not grid["more_bits"]:
        return []
    text = say(
        "{steps} units of the clip norm, chosen from the model's shape: {parameter} has {n} × {n2} "
        "values a record and is rounded by {rounding}; {bits} bits more a number of an upload than "
        "with {usual}",
        steps=grid["steps"],
        parameter=grid["parameter"],
        n=grid["positions"],
        n2=grid["width"],
        rounding=_percent(grid["rounding"]),
        bits=f"{grid['more_bits']:g}",
        usual=USUAL_GRID,
    )
    return [(say("grid"), text)]


def _batches(setup: Setup) -> list[dict[str, Any]] | None:
    """The public number of batches of a step at each site, and rows for each record expected."""
    plan, size = setup.training_plan, setup.config.training.physical_batch
    found = []
    for site in plan.sites:
        batches = plan.step_batches(site.name, size)
        if batches is None or plan.record_rate is None:
            return None
        rows = batches * size
        overhead = rows / float(plan.record_rate * site.records)
        found.append({"site": site.name, "batches": batches, "rows": rows, "overhead": overhead})
    return found


def _compression(setup: Setup) -> dict[str, Any] | None:
    """What compression sends, says and saves; None where the configuration has none."""
    from privagg.config.plan import uncompressed
    from privagg.report.plan_text import compression_text

    plan = setup.training_plan
    if plan.compression is None:
        return None
    try:
        plain = setup.parameters_for(uncompressed(setup.config, plan)).payload_bytes
    except PrivaggError:  # a job may be possible only because of its compression
        plain = None
    return {
        **plan.compression.model_dump(mode="json"),
        "upload_dimension": plan.upload_dimension,
        "plainly": compression_text(plan),
        "upload_bytes": setup.parameters.payload_bytes,
        "upload_bytes_without": plain,
    }


def _charged_most(setup: Setup, bounds: Any) -> str:
    """The site that is charged most."""
    plan, sites = setup.plan, charged_most(setup.plan)
    if len(sites) == 1:
        return sites[0]
    return max(sites, key=lambda s: bounds.epsilon(plan.total_committed(s), plan.delta).upper)


def _by_round(setup: Setup, bounds: Any) -> list[dict[str, Any]]:
    """Committed epsilon after some rounds, always the first and the last, at the site charged most.

    The figures are for a data set of which nothing was spent before.
    """
    plan, site = setup.plan, _charged_most(setup, bounds)
    if plan.rounds <= MOST_ROUNDS_SHOWN:
        shown = list(range(1, plan.rounds + 1))
    else:
        step = (plan.rounds - 1) / (MOST_ROUNDS_SHOWN - 1)
        shown = sorted({1 + round(i * step) for i in range(MOST_ROUNDS_SHOWN)})

    def epsilon(number: int) -> str:
        spent = plan.total_committed(site, range(1, number + 1))
        return format(bounds.epsilon(spent, plan.delta).upper, "f")

    return [{"round": number, "epsilon": epsilon(number)} for number in shown]


def _observers(setup: Setup, bounds: Any) -> list[dict[str, Any]]:
    """Epsilon of the whole job against every observer when everybody survives every round."""
    from privagg.report.accounting import ChargedAttempt, observer_matrix

    plan, site = setup.plan, _charged_most(setup, bounds)
    attempts = [
        ChargedAttempt(number, plan.in_round(number).addends, private=True)
        for number in plan.rounds_of(site)
    ]
    return [
        {
            "observer": row.observer,
            "colluding_sites": row.colluding_sites,
            "epsilon": format(row.epsilon, "f"),
            "sees": row.sees,
            "assumptions": list(row.assumptions),
        }
        for row in observer_matrix(plan, site, attempts, bounds)
    ]


def budgets(setup: Setup) -> list[dict[str, Any]]:
    """What the job would do to each data set's budget. Opens ledgers for reading, creates none."""
    from privagg.party.local import local_folder
    from privagg.privacy.ledger import BudgetKey, Ledger

    plan, privacy, found = setup.plan, setup.config.privacy, []
    for site in plan.sites:
        key, path = BudgetKey.of(plan, site.name), local_folder(setup.output, site.name).ledger
        total, before, budget = plan.total_committed(site.name), Decimal(0), privacy.budget
        after = None
        if path.exists():
            ledger = Ledger.open(path, accountant=setup.accountant)
            if key in set(ledger.keys()):
                projection = ledger.project(key, total)
                before, after = projection.epsilon_before, projection.epsilon_after
                budget = projection.epsilon_budget
        if after is None:
            after = setup.accountant.epsilon(total, plan.delta).upper
        found.append(
            {
                "site": site.name, "dataset": site.dataset, "epsilon_before": format(before, "f"),
                "epsilon_after": format(after, "f"), "epsilon_budget": format(budget, "f"),
                "fits": after <= budget,
            }
        )  # fmt: skip
    return found


def require_budgets(setup: Setup, facts: dict[str, Any]) -> None:
    """Raises BudgetExceededError where budgets have no room for the whole job, naming them all."""
    beyond = {
        budget["site"]: Room(
            *(Decimal(budget[f"epsilon_{what}"]) for what in ("before", "after", "budget"))
        )
        for budget in facts["budgets"]
        if not budget["fits"]
    }
    if beyond:
        raise beyond_budgets(setup, beyond)


def print_plan(out: Console, facts: dict[str, Any], plan: TrainingPlan) -> None:
    """The plan for a person, in the language that is spoken.

    Args:
        out: where it is printed.
        facts: as `describe` gives them.
        plan: the plan that they describe.
    """
    from privagg.report.language import say, told

    _print_settings(out, facts)
    _print_proposed(out, facts)
    _print_cost(out, facts)
    for remark in facts["remarks"]:
        head = Text(f"{say('warning')}  ", style="yellow")
        out.print(head.append(told(remark), style="default"), soft_wrap=True)
    _print_observers(out, facts)
    _print_uploads(out, facts, plan)


def _print_settings(out: Console, facts: dict[str, Any]) -> None:
    from privagg.report.figures import count_text
    from privagg.report.language import say, told

    sites = facts["sites"]
    mode = say("{mode}, the unit is a {unit}", mode=facts["mode"], unit=say(facts["unit"]))
    noise = say(
        "{noise}  (each site adds {share} grid units; the sensitivity is {sensitivity})",
        noise=plain_decimal(Decimal(facts["noise_multiplier"])),
        share=f"{facts['noise_share_stddev_grid']:.1f}",
        sensitivity=facts["sensitivity_grid"],
    )
    cohort = say(
        "{n} sites with {n2} declared records; a round needs {n3} contributions",
        n=facts["asked_in_a_round"],
        n2=sum(site["records"] for site in sites),
        n3=facts["minimum_survivors"],
    )
    allowed = say(
        "{dropouts}, {colluders}",
        dropouts=count_text(facts["dropouts"], "dropout"),
        colluders=count_text(facts["colluders"], "colluding site"),
    )
    custody = say(
        "{custody}: {plainly}", custody=facts["custody"], plainly=told(facts["custody_plainly"])
    )
    pairs = [
        (say("way of being private"), mode),
        (say("noise multiplier"), noise),
        (say("rounds"), f"{facts['rounds']}"),
        (say("model"), count_text(facts["parameters"], "parameter")),
        *([(say("frozen base"), facts["frozen_sha256"])] if facts["frozen_sha256"] else []),
        *([(say("predicts"), _target_text(facts["target"]))] if facts["target"] else []),
        (say("cohort"), cohort),
        *_rosters_text(facts["rosters"]),
        (say("allowed for"), allowed),
        *_colluders_text(facts["colluders_cost"]),
        (say("custody"), custody),
        *_grid_text(facts["grid"] or {"chosen": False}),
        (say("plan digest"), facts["plan_digest"]),
    ]
    if facts["sampling_rate"] is not None:
        pairs.insert(2, (say("sampling rate"), facts["sampling_rate"]))
    if facts["batches"] is not None:
        pairs.append((say("rows of a step"), _rows_text(facts["batches"])))
    pairs += [(say("records kept apart"), _apart_text(one)) for one in facts["records_apart"]]
    console.heading(out, say("Plan of {federation}", federation=facts["federation"]))
    console.facts(out, pairs)


def _rosters_text(rosters: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A line for each epoch, where sites join or leave."""
    from privagg.report.figures import joined
    from privagg.report.language import say

    return [
        (
            say("rounds {first} to {last}", first=one["first_round"], last=one["last_round"]),
            say(
                "{sites}; {n} contributions are needed, each site adds {share} grid units",
                sites=joined(one["sites"], most=12),
                n=one["minimum_survivors"],
                share=f"{one['noise_share_stddev_grid']:.1f}",
            ),
        )
        for one in rosters
    ]


def _apart_text(facts: dict[str, Any]) -> str:
    from privagg.report.figures import joined
    from privagg.report.model import RecordsApart as Stated
    from privagg.report.sentences import apart_text

    stated = Stated.model_validate({name: v for name, v in facts.items() if name != "sites"})
    return apart_text(stated, joined(facts["sites"], most=12))


def _colluders_text(cost: dict[str, Any] | None) -> list[tuple[str, str]]:
    from privagg.report.figures import epsilon_text
    from privagg.report.language import say

    if cost is None:
        return []
    text = say(
        "{times} × the noise that a round would need with colluders = 0; where nobody colludes, "
        "the job's ε is {epsilon}",
        times=f"{cost['noise_times']:.2f}",
        epsilon=epsilon_text(Decimal(cost["epsilon_without"]), 3),
    )
    return [(say("that costs"), text)]


def _print_proposed(out: Console, facts: dict[str, Any]) -> None:
    from privagg.report.language import say, told

    if not facts["proposed"]:
        return
    console.heading(out, say("Proposed, as the file leaves them out; the plan pins them"))
    pairs = [
        (one["setting"], say("{value}: {why}", value=one["value"], why=told(one["why"])))
        for one in facts["proposed"]
    ]
    console.facts(out, pairs)


def _rows_text(sites: list[dict[str, Any]]) -> str:
    """What hiding the sample's size costs: rows that always run over records expected in them."""
    from privagg.report.language import say

    least, most = min(sites, key=_overhead), max(sites, key=_overhead)
    if most["overhead"] < 1.05:
        return say("one a sampled record, at every site; their number is public")
    return say(
        "{low} to {high} × the expected sample (most at {site}: {n} in {n2} batches), so that "
        "their number tells nothing",
        low=f"{least['overhead']:.1f}",
        high=f"{most['overhead']:.1f}",
        site=most["site"],
        n=most["rows"],
        n2=most["batches"],
    )


def _overhead(site: dict[str, Any]) -> float:
    return float(site["overhead"])


def _print_cost(out: Console, facts: dict[str, Any]) -> None:
    from privagg.report.figures import delta_text, epsilon_text
    from privagg.report.language import say

    delta = delta_text(Decimal(facts["delta"]))
    console.heading(out, say("ε charged after each planned round, at δ = {delta}", delta=delta))
    rows = facts["epsilon_by_round"]
    last = Decimal(rows[-1]["epsilon"])
    lines = []
    for row in rows:
        value = Decimal(row["epsilon"])
        share = float(value / last) if last.is_finite() and last > 0 else 1.0
        bar = "━" * max(1, round(share * BAR_WIDTH))
        lines.append((str(row["round"]), epsilon_text(value, 4), bar))
    console.table(out, (say("round"), "ε", ""), lines, left=(2,))
    out.print()
    for budget in facts["budgets"]:
        before, after, limit = (
            epsilon_text(Decimal(budget[name]), 4)
            for name in ("epsilon_before", "epsilon_after", "epsilon_budget")
        )
        line = say(
            "{site}: spent {before} before, {after} after the job, budget {budget}"
            if budget["fits"]
            else "{site}: spent {before} before, {after} after the job, budget {budget}: TOO SMALL",
            site=budget["site"],
            before=before,
            after=after,
            budget=limit,
        )
        out.print(Text(line, style="" if budget["fits"] else "bold red"), soft_wrap=True)


def _print_observers(out: Console, facts: dict[str, Any]) -> None:
    from privagg.report.figures import epsilon_text
    from privagg.report.language import say, told
    from privagg.report.view import MOST_COLUMNS, OBSERVERS

    console.heading(
        out, say("Who could learn what: ε of the whole job, k sites pooling what they know")
    )
    cells: dict[str, dict[int, str]] = {}
    for row in facts["observers"]:
        label = told(OBSERVERS.get(row["observer"], row["observer"]))
        cells.setdefault(label, {})[row["colluding_sites"]] = epsilon_text(
            Decimal(row["epsilon"]), 3
        )
    every = sorted({k for by_k in cells.values() for k in by_k})[:MOST_COLUMNS]
    console.table(
        out,
        (say("observer"), *(f"k = {k}" for k in every)),
        [(label, *(by_k.get(k, "–") for k in every)) for label, by_k in cells.items()],
        left=(0,),
    )


def _print_uploads(out: Console, facts: dict[str, Any], plan: TrainingPlan) -> None:
    from privagg.report.figures import byte_text
    from privagg.report.language import say, told
    from privagg.report.plan_text import compression_text

    scheme, room, compression = facts["scheme"], facts["room"], facts["compression"]
    safety = say(
        "{scheme}, {n}-bit security"
        if scheme["protects"]
        else "{scheme}, UNSAFE: does not encrypt; for tests and comparisons",
        scheme=scheme["name"],
        n=scheme["security_bits"],
    )
    upload = say(
        "{upload} an upload, {round} a round, {job} for the job",
        upload=byte_text(scheme["upload_bytes"]),
        round=byte_text(scheme["round_bytes_up"]),
        job=byte_text(scheme["job_bytes_up"]),
    )
    within = say(
        "a sum stays within ±{bound} ({bits} of {most} bits)",
        bound=room["sum_bound_grid"],
        bits=room["sum_bits"],
        most=room["largest_sum_bits"],
    )
    reach = say(
        "can set any coordinate of a round's sum to ±{clips} clips, {l2} in L2; an honest {unit} "
        "moves it by 1",
        clips=f"{room['one_dishonest_site']['coordinate_clips']:,g}",
        l2=f"{room['one_dishonest_site']['l2_clips']:,g}",
        unit=say(facts["unit"]),
    )
    pairs = [
        (say("scheme"), safety),
        (say("parameters"), told(scheme["explanation"])),
        (say("upload"), upload),
        (say("room"), within),
        (say("a dishonest site"), reach),
    ]
    if compression is not None:
        without = compression["upload_bytes_without"]
        saves = say(
            "an upload takes {bytes}, without compression its sums would not fit"
            if without is None
            else "an upload takes {bytes}, without compression {plain}",
            bytes=byte_text(compression["upload_bytes"]),
            plain="" if without is None else byte_text(without),
        )
        pairs += [(say("compression"), compression_text(plan)), (say("saves"), saves)]
    console.heading(out, say("Uploads and room in the grid"))
    console.facts(out, pairs)
