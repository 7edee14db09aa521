"""The words of the first page, from `words.toml`: which epsilon applies when, and what terms mean.

Figures come from the report alone. What is compared with was published by others; its source stands
beside it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from privagg.report.answered import asked_names
from privagg.report.figures import delta_text, epsilon_text
from privagg.report.language import say
from privagg.report.model import ObserverRow, Report
from privagg.report.sentences import LARGEST_TELLING_FACTOR, worst_row


@dataclass(frozen=True)
class FirstWords:
    """What a reader is told before any table.

    Attributes:
        applies: which epsilon applies when.
        factor: what the one against users of the model does to odds; empty without such a figure.
        rests: on what both rest; empty without assumptions.
        published: where an epsilon of 1 stands among those that others published.
        glossary: (term, meaning).
    """

    applies: str
    factor: str
    rests: str
    published: str
    glossary: tuple[tuple[str, str], ...]


def first_words(report: Report) -> FirstWords:
    """The first page's words for this report."""
    words = _words()
    items = [
        _sentence("deployment", **each | {"what": say(each["what"]), "source": say(each["source"])})
        for each in words["deployments"]
    ]
    return FirstWords(
        applies=_applies(report),
        factor=_factor(worst_row(report, "model-users", 0)),
        rests=_sentence("rests") if report.assumptions else "",
        published=_sentence("published", deployments=say("; ").join(items)),
        glossary=tuple((say(each["term"]), say(each["meaning"])) for each in words["glossary"]),
    )


def factor_text(epsilon: Decimal) -> str:
    """e^epsilon with three digits, never smaller than it is; `∞` if infinite.

    A guarantee at (epsilon, delta) is never worse than one that reveals everything with probability
    delta and otherwise changes odds by at most this factor (Kairouz, Oh and Viswanath 2015, "The
    composition theorem for differential privacy": the mechanism that dominates all such ones).
    """
    if epsilon.is_infinite():
        return "∞"
    if _is_large(epsilon):
        return f"> {LARGEST_TELLING_FACTOR}"
    return epsilon_text(epsilon.exp().next_plus())


def _is_large(epsilon: Decimal) -> bool:
    return epsilon > Decimal(LARGEST_TELLING_FACTOR).ln()


def _applies(report: Report) -> str:
    users = worst_row(report, "model-users", 0)
    if users is None:
        return ""
    charged = max((site.committed for site in report.sites), key=lambda row: row.epsilon)
    if users.epsilon.is_infinite() or charged.epsilon.is_infinite():
        return _sentence("applies-none")
    pooled = worst_row(report, "aggregator+key-holder", 0)
    rows = [charged, users]
    name = "applies-users"
    if pooled is not None:
        name = "applies-pooled-none" if pooled.epsilon.is_infinite() else "applies-pooled"
        rows.append(pooled)
    return _sentence(
        name,
        charged=epsilon_text(charged.epsilon),
        pooled=epsilon_text(rows[-1].epsilon),
        users=epsilon_text(users.epsilon),
        readers=say("readers of the answers" if asked_names(report) else "users of the model"),
        unit=say(_words()["units"][users.unit.value]),
        delta=delta_text(max(row.delta for row in rows)),  # what holds at less holds at more
    )


def _factor(users: ObserverRow | None) -> str:
    if users is None or users.epsilon.is_infinite():
        return ""
    large = _is_large(users.epsilon)
    return _sentence(
        "factor-large" if large else "factor",
        users=epsilon_text(users.epsilon),
        factor=str(LARGEST_TELLING_FACTOR) if large else factor_text(users.epsilon),
        unit=say(_words()["units"][users.unit.value]),
        delta=delta_text(users.delta),
    )


def _sentence(name: str, **places: str) -> str:
    return say(_words()["sentences"][name], **places)


@cache
def _words() -> Mapping[str, Any]:
    return tomllib.loads(
        resources.files("privagg.report").joinpath("words.toml").read_text("utf-8")
    )
