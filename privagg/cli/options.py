"""Option types: exact decimals, and groups of equal rounds."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from privagg.errors import ConfigError
from privagg.privacy.events import DpEvent, Mechanism

LanguageName = Annotated[
    str,
    typer.Option(
        "--language",
        envvar="PRIVAGG_LANGUAGE",
        metavar="NAME",
        help="For people: en, zh, … Errors, JSON and report.json are English.",
    ),
]


def exact(text: Any) -> Decimal:
    """A number digit for digit, as the accountants take it; `inf` is allowed."""
    if isinstance(text, Decimal):
        return text
    try:
        value = Decimal(str(text))
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is not a number; write 0.2 or 1e-5") from error
    if value.is_nan():
        raise typer.BadParameter("NaN is not a number to compute with")
    return value


def spread(values: Sequence[Any], groups: int, name: str) -> list[Any]:
    """One value for each group: the given ones, or the only one for all groups.

    Args:
        values: as the option was given, at least once.
        groups: how many values are wanted.
        name: the option's, for the message.

    Raises:
        ConfigError: another number of values than groups.
    """
    if len(values) == 1:
        return list(values) * groups
    if len(values) != groups:
        raise ConfigError(
            f"--{name} was given {len(values)} times for {groups} groups of rounds; give it once "
            "for all groups, or once for each"
        )
    return list(values)


def positive(value: Decimal, name: str, *, most: Decimal | None = None) -> Decimal:
    """`value` where it is finite, above 0 and at most `most`.

    Args:
        value: as given.
        name: the option's, for the message.
        most: the largest that is allowed; None for no limit.

    Raises:
        ConfigError: it is not.
    """
    if not value.is_finite() or value <= 0 or (most is not None and value > most):
        limit = f" and at most {most}" if most is not None else ""
        raise ConfigError(f"--{name} must be above 0{limit} and finite, got {value}")
    return value


def check_delta(value: Decimal) -> Decimal:
    """`value` where it lies strictly between 0 and 1.

    Raises:
        ConfigError: it does not.
    """
    if not 0 < value < 1:
        raise ConfigError(f"--delta must lie strictly between 0 and 1, got {value}; try 1e-5")
    return value


def mixed_rounds(
    rates: Sequence[Decimal], multipliers: Sequence[Decimal], counts: Sequence[int]
) -> DpEvent:
    """The composition of groups of equal rounds.

    Args:
        rates: sampling rates in (0, 1], one for each group or one for all.
        multipliers: noise multipliers, positive; likewise.
        counts: numbers of rounds, 1 to 10^12; likewise.

    Raises:
        ConfigError: the options' numbers do not match, or a value is out of range.
    """
    groups = max(len(rates), len(multipliers), len(counts))
    event = DpEvent()
    for rate, multiplier, count in zip(
        spread(rates, groups, "sampling-rate"),
        spread(multipliers, groups, "noise-multiplier"),
        spread(counts, groups, "rounds"),
        strict=True,
    ):
        positive(rate, "sampling-rate", most=Decimal(1))
        positive(multiplier, "noise-multiplier")
        if not 1 <= count <= 10**12:
            raise ConfigError(f"--rounds must lie between 1 and 10^12, got {count}")
        event += DpEvent.once(Mechanism.of(rate, multiplier), count=count)
    return event
