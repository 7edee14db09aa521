"""`epsilon` and `calibrate`: numbers without training. They need neither torch nor data."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Context, Decimal
from typing import Annotated, Any

import typer

from privagg.cli import console
from privagg.cli.options import check_delta, exact, mixed_rounds, positive, spread
from privagg.cli.releases import GAUSSIAN, LAPLACE, MECHANISMS, TREE, described
from privagg.errors import CertificationError, ConfigError, PrivacyError, UnknownEventError
from privagg.privacy.events import DpEvent, Mechanism
from privagg.privacy.releases import IntegerLaplaceSum, Release

_DOWNWARD = Context(prec=60, rounding=ROUND_FLOOR)
"""For noise multipliers: as many digits as an event takes, and none is rounded up."""

ADJACENCIES = ("add-or-remove-one", "replace-one")

Rates = Annotated[
    list[Decimal],
    typer.Option(
        "--sampling-rate", "-q", parser=exact, metavar="Q", help="Probability of a unit to be in."
    ),
]
Rounds = Annotated[
    list[int], typer.Option("--rounds", "-n", metavar="N", help="How many such rounds.")
]
Delta = Annotated[
    Decimal, typer.Option("--delta", "-d", parser=exact, metavar="D", help="δ, in (0, 1).")
]
AdjacencyName = Annotated[
    str,
    typer.Option("--adjacency", help=f"Neighbouring relation: {' or '.join(ADJACENCIES)}."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def epsilon(
    noise_multiplier: Annotated[
        list[Decimal],
        typer.Option(
            "--noise-multiplier",
            "-s",
            parser=exact,
            metavar="SIGMA",
            help="Noise standard deviation over L2 sensitivity; integer-laplace: the noise's scale "
            "over the sum of the moves.",
        ),
    ],
    rounds: Rounds,
    delta: Delta,
    sampling_rate: Rates = [Decimal(1)],  # noqa: B006 - typer copies it
    adjacency: AdjacencyName = ADJACENCIES[0],
    mechanism: Annotated[
        str, typer.Option(help=f"What a round releases: {', '.join(MECHANISMS)}.")
    ] = GAUSSIAN,
    shares: Annotated[
        int,
        typer.Option(
            help="discrete-gaussian: independent shares, each with SIGMA; integer-laplace: shares "
            "that make the noise together."
        ),
    ] = 1,
    sensitivity_grid: Annotated[
        Decimal | None,
        typer.Option(
            parser=exact, metavar="S", help="discrete-gaussian: L2 sensitivity, integers."
        ),
    ] = None,
    dimension: Annotated[int, typer.Option(help="discrete-gaussian: coordinates.")] = 1,
    steps: Annotated[
        int | None, typer.Option(help="tree-aggregation: leaves of a tree; --rounds are trees.")
    ] = None,
    move: Annotated[
        list[int],
        typer.Option(
            metavar="K", help="integer-laplace: the most a unit moves an integer by; for each."
        ),
    ] = [],  # noqa: B006 - typer copies it
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Also ask dp-accounting's RDP and PLD.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Prove an interval for the ε of Gaussian or Poisson-sampled Gaussian rounds.

    The upper end is what budgets are held against. Repeat the options for mixed rounds; each
    repetition is a group of equal rounds, and an option given once holds for all groups.

    [bold]Examples[/bold]

      privagg epsilon --sampling-rate 0.2 --noise-multiplier 10 --rounds 10000 --delta 1e-9

      privagg epsilon -q 0.01 -s 1.1 -n 1000  -q 1 -s 40 -n 10  --delta 1e-6 --json

      privagg epsilon --mechanism tree-aggregation --steps 1000 -s 8 -n 3 --delta 1e-6

      privagg epsilon --mechanism discrete-gaussian --sensitivity-grid 64 --shares 10 --dimension 99
      -s 1.5 -n 20 --delta 1e-6

      privagg epsilon --mechanism integer-laplace --move 1 --move 1 --shares 3 -s 2 -n 1 --delta
      1e-6
    """  # fmt: skip
    check_delta(delta)
    moved = _sensitivity(sampling_rate, adjacency)
    multipliers = [_DOWNWARD.divide(value, Decimal(moved)) for value in noise_multiplier]
    event: DpEvent | None
    observers: list[dict[str, Any]] = []
    if move and mechanism != LAPLACE:
        raise ConfigError(f"--move belongs to --mechanism {LAPLACE}")
    if mechanism == GAUSSIAN:
        rounds_event = mixed_rounds(sampling_rate, multipliers, rounds)
        event, figures = rounds_event, _figures(rounds_event, delta, peers)
    else:
        release = described(
            mechanism, rates=sampling_rate, multipliers=multipliers, rounds=rounds, shares=shares,
            sensitivity_grid=sensitivity_grid, dimension=dimension, steps=steps, moves=move,
        )  # fmt: skip
        event, figures = _release_figures(release, delta, peers)
        if mechanism == TREE and moved == 1:
            adjacency += ", a zero in its place"
        if isinstance(release, IntegerLaplaceSum):
            if moved != 1:
                raise ConfigError(f"{LAPLACE} is proved for {ADJACENCIES[0]} only")
            observers = _of_unknown_shares(release, delta)
    if as_json:
        _print_epsilon_json(event, delta, adjacency, figures, observers)
    else:
        _print_epsilon(delta, adjacency, figures)
        _print_observers(observers)


def _of_unknown_shares(release: IntegerLaplaceSum, delta: Decimal) -> list[dict[str, Any]]:
    """What it costs against those who know some of the noise: all but n - 1 shares, and all but 1.

    Of a Gaussian's shares one has 1/n of the variance; of Laplace noise one protects far less.
    """
    counts = sorted({release.shares - 1, 1} - {0, release.shares}, reverse=True)
    bounds = [(count, release.epsilon(delta, count)) for count in counts]
    return [{"unknown": count, "epsilon": b.upper, "lower": b.lower} for count, b in bounds]


def _print_observers(observers: list[dict[str, Any]]) -> None:
    from privagg.report.figures import epsilon_text

    if not observers:
        return
    out = console.console()
    out.print()
    rows = [(str(each["unknown"]), epsilon_text(each["epsilon"], 9)) for each in observers]
    console.table(out, ("shares that an observer does not know", "ε ≤"), rows, left=())


def _sensitivity(rates: list[Decimal], adjacency: str) -> int:
    """How many clip norms one step of the relation moves a sum by, at most.

    Replacing one unit moves a full-participation sum by up to twice the clip norm. Under
    subsampling no such step is proved here, and it is refused.
    """
    if adjacency == "add-or-remove-one":
        return 1
    if adjacency != "replace-one":
        raise ConfigError(f"unknown adjacency {adjacency!r}; choose {' or '.join(ADJACENCIES)}")
    if any(rate != 1 for rate in rates):
        raise ConfigError(
            "replace-one is proved for full participation only (--sampling-rate 1), where it is "
            "twice the sensitivity; under Poisson sampling no dominating pair is proved: use "
            "add-or-remove-one"
        )
    return 2


def _figures(event: DpEvent, delta: Decimal, peers: bool) -> list[dict[str, Any]]:
    """What each accountant says: name, upper, lower, method or why there is none."""
    from privagg.privacy.accountant import Accountant
    from privagg.privacy.accountants import PldAccountant, RdpAccountant, default_accountant

    asked: list[Accountant] = [default_accountant()]
    if peers:
        asked += [RdpAccountant(), PldAccountant()]
    found: list[dict[str, Any]] = []
    for accountant in asked:
        try:
            bound = accountant.epsilon(event, delta)
        except (UnknownEventError, CertificationError) as error:
            if not found:
                raise
            found.append({"name": accountant.name, "epsilon": None, "note": str(error)})
            continue
        found.append(
            {
                "name": accountant.name, "epsilon": bound.upper, "lower": bound.lower,
                "certified": bound.certified, "note": bound.method,
            }
        )  # fmt: skip
    return found


def _release_figures(
    release: Release, delta: Decimal, peers: bool
) -> tuple[DpEvent | None, list[dict[str, Any]]]:
    """The event that covers a release, where one does, and figures; peers are asked about it."""
    bound = release.epsilon(delta)
    own = {"name": "certified", "epsilon": bound.upper, "lower": bound.lower,
           "certified": bound.certified, "note": bound.method}  # fmt: skip
    try:
        event = release.event()
    except PrivacyError:
        return None, [own]
    return event, [own, *(_figures(event, delta, peers=True)[1:] if peers else [])]


def _below(figure: dict[str, Any], proven: dict[str, Any]) -> bool:
    lower = proven["lower"]
    return figure["epsilon"] is not None and lower is not None and figure["epsilon"] < lower


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def _print_epsilon_json(
    event: DpEvent | None,
    delta: Decimal,
    adjacency: str,
    figures: list[dict[str, Any]],
    observers: list[dict[str, Any]],
) -> None:
    proven = figures[0]
    against = [
        {
            "unknown_shares": each["unknown"],
            "epsilon": _plain(each["epsilon"]),
            "epsilon_lower": _plain(each["lower"]),
        }
        for each in observers
    ]
    console.print_json(
        {
            "epsilon": _plain(proven["epsilon"]),
            "epsilon_lower": _plain(proven["lower"]),
            "delta": _plain(delta),
            "adjacency": adjacency,
            "sensitivity_in_clip_norms": 2 if adjacency == "replace-one" else 1,
            "certified": proven["certified"],
            "method": proven["note"],
            "event": None if event is None else event.model_dump(mode="json"),
            "peers": [
                {
                    "name": f["name"],
                    "epsilon": _plain(f["epsilon"]),
                    "below_proven": _below(f, proven),
                    "note": f["note"],
                }
                for f in figures[1:]
            ],
            **({"observers": against} if against else {}),
        }
    )


def _print_epsilon(delta: Decimal, adjacency: str, figures: list[dict[str, Any]]) -> None:
    from privagg.report.figures import delta_text, epsilon_text, lower_text, relative_text

    out, proven = console.console(), figures[0]
    upper = proven["epsilon"]
    out.print(f"[bold]ε ≤ {epsilon_text(upper, 9)}[/bold]   at δ = {delta_text(delta)}, "
              f"{adjacency}, proven")  # fmt: skip
    if proven["lower"] is not None and upper.is_finite():
        out.print(f"ε ≥ {lower_text(proven['lower'], 9)}   proven lower end")
    rows = []
    for figure in figures[1:]:
        value = figure["epsilon"]
        if value is None:
            rows.append((figure["name"], "no figure", "", figure["note"]))
            continue
        remark = figure["note"]
        if _below(figure, proven):
            remark = f"below the proven lower end: it understates ε ({remark})"
        rows.append((figure["name"], epsilon_text(value, 9), relative_text(value, upper), remark))
    if rows:
        out.print()
        console.table(out, ("peer", "ε", "against proven", "how"), rows, left=(0, 3))


def calibrate(
    epsilon: Annotated[
        Decimal, typer.Option("--epsilon", "-e", parser=exact, metavar="E", help="Target ε.")
    ],
    delta: Delta,
    rounds: Rounds,
    sampling_rate: Rates = [Decimal(1)],  # noqa: B006 - typer copies it
    adjacency: AdjacencyName = ADJACENCIES[0],
    as_json: AsJson = False,
) -> None:
    """Find the smallest noise multiplier, to 10⁻⁶, whose proven ε fits.

    Repeat the sampling rate and the rounds for groups of rounds that share one multiplier.

    [bold]Examples[/bold]

      privagg calibrate --epsilon 1 --delta 1e-5 --sampling-rate 0.2 --rounds 40

      privagg calibrate -e 3 -d 1e-6  -q 0.01 -n 5000  -q 1 -n 5  --json
    """
    from privagg.privacy.accountants import default_accountant
    from privagg.privacy.calibration import SMALLEST
    from privagg.privacy.calibration import calibrate as search

    positive(epsilon, "epsilon")
    check_delta(delta)
    moved = _sensitivity(sampling_rate, adjacency)
    groups = max(len(sampling_rate), len(rounds))
    rates, counts = spread(sampling_rate, groups, "sampling-rate"), spread(rounds, groups, "rounds")
    mixed_rounds(rates, [Decimal(1)], counts)  # refuses what is out of range before the search

    def event_of(multiplier: Decimal) -> DpEvent:
        event = DpEvent()
        for rate, count in zip(rates, counts, strict=True):
            event += DpEvent.once(
                Mechanism.of(rate, _DOWNWARD.divide(multiplier, Decimal(moved))), count=count
            )
        return event

    accountant = default_accountant()
    multiplier = search(event_of, epsilon=epsilon, delta=delta, accountant=accountant)
    bound = accountant.epsilon(event_of(multiplier), delta)
    if as_json:
        console.print_json(
            {
                "noise_multiplier": _plain(multiplier), "epsilon": _plain(bound.upper),
                "epsilon_target": _plain(epsilon), "delta": _plain(delta), "adjacency": adjacency,
                "certified": bound.certified, "method": bound.method,
                "event": event_of(multiplier).model_dump(mode="json"),
            }
        )  # fmt: skip
        return
    out = console.console()
    out.print(f"[bold]noise multiplier {multiplier:f}[/bold]")
    least = ("the search goes no lower" if multiplier == SMALLEST else
             "a multiplier smaller by 10⁻⁶ would not fit")  # fmt: skip
    out.print(f"ε ≤ {bound.upper:f} of {epsilon:f} at δ = {delta:f}, {adjacency}, proven; {least}")
