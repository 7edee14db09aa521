"""A scorecard as SQL: an expression that gives a row's points, for a database without privagg.

It reads columns as they are declared: numbers as numbers, gaps as NULL or a code for "not
measured", texts without outer blanks and in any letters.
"""

from __future__ import annotations

from collections.abc import Sequence

from privagg.errors import ConfigError
from privagg.programs.scorecard.card import DECIMALS, Card, CardBlock
from privagg.programs.scorecard.cards import Cards
from privagg.training.features import (
    CategoricalFeature,
    Category,
    NumericFeature,
    as_number,
)


def sql_of(card: Card) -> str:
    """The points of a row: an expression of standard SQL, a `CASE` for each block.

    Args:
        card: the card.

    Raises:
        ConfigError: a column holds dates, which databases count differently.
    """
    kinds = {feature.name: feature for feature in card.data.features}
    terms = [_case(block, kinds) for block in card.blocks]
    return f"ROUND({card.start!r}\n+ " + "\n+ ".join(terms) + f", {DECIMALS})"


def sql_of_cards(cards: Cards) -> str:
    """The points of a row on the card of each class: columns of a `SELECT`, `points CLASS` each.

    Args:
        cards: of the classes.

    Raises:
        ConfigError: as `sql_of`.
    """
    return ",\n".join(
        f"{sql_of(each)} AS {_quoted(f'points {each.label}')}" for each in cards.cards
    )


def _case(block: CardBlock, kinds: dict[str, NumericFeature | CategoricalFeature]) -> str:
    first, *rest = [_conditions(block, place, kinds) for place in range(len(block.columns))]
    points = [repr(each) for each in block.points]
    if not rest:
        return _chosen(first, points)
    inner = len(points) // len(block.labels[0])
    parts = [points[at : at + inner] for at in range(0, len(points), inner)]
    return _chosen(first, [_chosen(rest[0], part) for part in parts])


def _chosen(conditions: Sequence[str], values: Sequence[str]) -> str:
    """The value of the first condition that holds; the last value where none does."""
    whens = " ".join(
        f"WHEN {when} THEN {then}" for when, then in zip(conditions, values, strict=False)
    )
    return f"CASE {whens} ELSE {values[-1]} END"


def _conditions(
    block: CardBlock, place: int, kinds: dict[str, NumericFeature | CategoricalFeature]
) -> list[str]:
    """Of each bin of a column but the last, which is what is missing."""
    name, edges = block.columns[place], block.edges[place]
    feature, column = kinds[name], _quoted(name)
    if isinstance(feature, NumericFeature):
        if feature.since is not None:
            raise ConfigError(
                f"column {name!r} holds dates, which databases count differently; take `privagg "
                "predict` for this card"
            )
        known = f"{column} IS NOT NULL"
        if feature.not_measured:
            codes = ", ".join(f"{each!r}" for each in feature.not_measured)
            known += f" AND {column} NOT IN ({codes})"
        return [*(f"{known} AND {column} <= {edge!r}" for edge in edges or ()), known]
    texts = [str(each).strip() for each in feature.categories if as_number(each) is None]
    exact = len({text.casefold() for text in texts}) < len(texts)
    return [_equals(column, each, exact=exact) for each in feature.categories]


def _equals(column: str, category: Category, *, exact: bool) -> str:
    number = as_number(category)
    if number is not None:
        return f"{column} = {number!r}"
    text = str(category).strip()
    if exact:
        return f"TRIM({column}) = {_text(text)}"
    return f"LOWER(TRIM({column})) = {_text(text.lower())}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
