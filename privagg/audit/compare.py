"""A report held against the one that follows from the evidence, value by value.

Every value of `report.json` belongs to exactly one group here; a group is one line of the table,
and each value in it that differs is a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from privagg.audit.answered import first_difference
from privagg.audit.charges import TOLERANCE
from privagg.audit.claims import Findings
from privagg.report.figures import count_text, epsilon_text

MOST_DIFFERENCES = 6
ABSENT = "(absent)"
STATED_ONLY = frozenset({"generated"})
"""Nothing in the evidence says when the report was made; the signature alone covers it."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Values that make one line of the table.

    Attributes:
        subject: the line's name.
        keys: of the report, or of a site in it.
        headline: what stands for the group in the table.
        bounds: True where epsilons are computed anew and may differ by the tolerance.
        figures: True where floats are, and may differ in their last digits.
    """

    subject: str
    keys: tuple[str, ...]
    headline: Callable[[Facts], str]
    bounds: bool = False
    figures: bool = False


def _epsilon(value: str) -> str:
    return epsilon_text(Decimal(value), 9)


def _run(r: Facts) -> str:
    return f"{r['outcome']}, custody: {r['custody']}, {len(r['parties'])} parties"


def _rounds(r: Facts) -> str:
    opened = sum(each["outcome"] == "opened" for each in r["rounds"])
    return f"{count_text(len(r['rounds']), 'attempt')}, {opened} opened"


def _released(r: Facts) -> str:
    return f"SHA-256 {r['model']['sha256'][:16]}" if r["model"] else "none"


def _answered(r: Facts) -> str:
    found = r["answers"]["answers"] if r["answers"] else ()
    return count_text(len(found), "answer")


def _budget(s: Facts) -> str:
    budget = s["budget"]
    return f"ε = {_epsilon(budget['epsilon'])} at δ = {budget['delta']}" if budget else "none"


def _spent(s: Facts) -> str:
    return f"{_epsilon(s['epsilon_before_run'])} → {_epsilon(s['epsilon_after_run'])}"


def _matrix(s: Facts) -> str:
    worst = max((Decimal(row["epsilon"]) for row in s["guarantees"]), default=Decimal(0))
    return f"{len(s['guarantees'])} rows, ε up to {epsilon_text(worst, 9)}"


RUN_GROUPS = (
    Group("what was run, as recorded", (
        "format", "federation", "run", "outcome", "reason", "custody", "custody_plainly", "opener",
        "parties", "public_table", "attestations", "versions", "generator",
    ), _run),
    Group("plan", ("plan", "plan_digest"), lambda r: f"digest {r['plan_digest'][:16]}"),
    Group("scheme, as recorded", ("scheme",), lambda r: f"{r['scheme']['name']}, "
          f"{r['scheme']['security_bits'] or 0} bits"),
    Group("rounds, survivors, metrics, as recorded", ("rounds", "rosters"), _rounds),
    Group("released model, as recorded", ("model",), _released),
    Group("answers, as recorded", ("answers",), _answered, figures=True),
    Group("searches over settings", ("tuning",), lambda r: f"{len(r['tuning']) or 'none'}",
          bounds=True),
    Group("coordinator's ledger facts", ("coordinator",),
          lambda r: f"{r['coordinator']['entries']} entries"),
    Group("assumptions", ("assumptions",), lambda r: count_text(len(r["assumptions"]), "sentence")),
    Group("summary and what is unprotected", ("summary", "unprotected"),
          lambda r: count_text(len(r["summary"]) + len(r["unprotected"]), "sentence")),
)  # fmt: skip

SITE_GROUPS = (
    Group("declared facts, as recorded", (
        "name", "dataset", "declared_records", "unit", "adjacency",
    ),
          lambda s: f"{s['declared_records']} records, unit: {s['unit']}"),
    Group("budget, as recorded", ("budget",), _budget),
    Group("ε spent before → after the run, as recorded",
          ("epsilon_before_run", "epsilon_after_run"), _spent),
    Group("history of charges, as recorded", ("history",),
          lambda s: count_text(len(s["history"]), "charge")),
    Group("ε charged by this run", ("committed",),
          lambda s: f"ε = {_epsilon(s['committed']['epsilon'])}", bounds=True),
    Group("observer matrix", ("guarantees",), _matrix, bounds=True),
    Group("accountant of the budget", ("accountants",),
          lambda s: f"{s['accountants'][0]['name']}, ε = "
          f"{_epsilon(s['accountants'][0]['epsilon'])}", bounds=True),
    Group("records kept apart, as recorded", ("records_apart",),
          lambda s: count_text(len(s.get("records_apart", ())), "statement")),
    Group("owners' approvals, as recorded", ("approvals",),
          lambda s: count_text(len(s.get("approvals", ())), "approval")),
    Group("ledger facts", ("ledger",), lambda s: f"{s['ledger']['entries']} entries"),
)  # fmt: skip


def compare(findings: Findings, claimed: Facts, expected: Facts) -> None:
    """Compare two reports as JSON values; `accountants` holds the budget's own figure only.

    Args:
        findings: gets the claims.
        claimed: the report in hand.
        expected: the report that follows from the evidence.
    """
    findings.section = "run"
    _compare_groups(findings, RUN_GROUPS, claimed, expected, STATED_ONLY | {"sites"})
    findings.attested(
        "when the report was made",
        str(claimed["generated"]),
        by="whoever made it",
        settle="a time stamp by somebody else; nothing here gives the time",
    )
    named = [site["name"] for site in claimed["sites"]]
    wanted = [site["name"] for site in expected["sites"]]
    findings.check("institutions", ", ".join(named), ", ".join(wanted), named == wanted)
    for site, other in zip(claimed["sites"], expected["sites"], strict=False):
        findings.section = other["name"]
        _compare_groups(findings, SITE_GROUPS, site, other, frozenset())


def _compare_groups(
    findings: Findings,
    groups: Sequence[Group],
    claimed: Facts,
    expected: Facts,
    elsewhere: frozenset[str],
) -> None:
    covered = {key for group in groups for key in group.keys}
    left = set(claimed) | set(expected)
    rest = tuple(sorted(left - covered - elsewhere))
    for group in (*groups, Group("other values", rest, lambda _: ", ".join(rest))):
        if not group.keys:
            continue
        mine = {key: claimed.get(key, ABSENT) for key in group.keys}
        theirs = {key: expected.get(key, ABSENT) for key in group.keys}
        if group.figures and not any((*mine.values(), *theirs.values())):
            continue  # a run that asked nothing claims nothing
        found = list(differences(mine, theirs, bounds=group.bounds))
        if group.figures and not first_difference(mine, theirs):
            found = []
        for path, is_, should in found[:MOST_DIFFERENCES]:
            findings.check(path, is_, should, False, "edited, or not what the evidence gives")
        if len(found) > MOST_DIFFERENCES:
            more = len(found) - MOST_DIFFERENCES
            findings.contradicted(
                group.subject,
                "",
                f"and {count_text(more, 'value')} more of this group",
            )
        if not found:
            findings.check(group.subject, group.headline(claimed), group.headline(expected), True,
                           compared=leaves(theirs))  # fmt: skip


def differences(
    claimed: Any, expected: Any, path: str = "", *, bounds: bool = False
) -> Iterator[tuple[str, str, str]]:
    """(path, claimed, expected) of every single value that differs.

    Args:
        claimed: a JSON value.
        expected: the one that follows from the evidence.
        path: where both stand.
        bounds: epsilons were computed anew, and may differ by `TOLERANCE`.
    """
    if isinstance(claimed, Mapping) and isinstance(expected, Mapping):
        for key in dict.fromkeys((*expected, *claimed)):
            one, other = claimed.get(key, ABSENT), expected.get(key, ABSENT)
            if bounds and key == "epsilon" and _same_bound(one, other, expected):
                continue
            if bounds and key == "epsilon_lower" and _close(one, other):
                continue
            yield from differences(one, other, f"{path}.{key}" if path else key, bounds=bounds)
    elif isinstance(claimed, list) and isinstance(expected, list):
        if len(claimed) != len(expected):
            yield f"{path} (length)", str(len(claimed)), str(len(expected))
        for number, (one, other) in enumerate(zip(claimed, expected, strict=False)):
            yield from differences(one, other, f"{path}[{number}]", bounds=bounds)
    # To Python 1, 1.0 and True are equal; in a report they are three different claims.
    elif type(claimed) is not type(expected) or claimed != expected:
        yield path, _short(claimed), _short(expected)


def leaves(value: Any) -> int:
    """How many single values there are in a JSON value."""
    if isinstance(value, Mapping):
        return sum(map(leaves, value.values()))
    if isinstance(value, list):
        return sum(map(leaves, value))
    return 1


def _same_bound(claimed: Any, expected: Any, beside: Facts) -> bool:
    lower = beside.get("epsilon_lower")
    if not _close(claimed, expected):
        return False
    return lower is None or Decimal(claimed) >= Decimal(lower)


def _close(claimed: Any, expected: Any) -> bool:
    if not (isinstance(claimed, str) and isinstance(expected, str)):
        return False
    try:
        one, other = Decimal(claimed), Decimal(expected)
    except InvalidOperation:
        return False
    if not (one.is_finite() and other.is_finite()):
        return one == other
    return abs(one - other) <= TOLERANCE * other


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
