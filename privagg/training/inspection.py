"""What an owner should know about a table before it takes part; for the owner's eyes only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from privagg.privacy.plan import TrainingPlan
from privagg.privacy.unit import Unit
from privagg.training.csvfile import BROKEN_LINES, OTHER_ENCODING
from privagg.training.declared import DatasetSource
from privagg.training.features import (
    CategoricalFeature,
    NumericFeature,
    equal_categories,
)
from privagg.training.reading import CONTRADICTING
from privagg.training.table import TableSchema
from privagg.training.targets.base import Remark, by_share, outside_range
from privagg.training.targets.classes import of_one_class

MOST_CATEGORIES_TOLD = 12
MOST_LINES_TOLD = 8


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing about a column that the declaration does not lead to expect.

    Args:
        column: name of the column, or `""` for the whole table.
        severity: `error` where it changes what is learned, so that the site does not join unless
            its owner accepts it; `warning` where something is lost, `note` for a plain fact.
        message: what was found and what can be done.
        count: number of records concerned.
    """

    column: str
    severity: Severity
    message: str
    count: int


def check_table(schema: TableSchema, frame: pd.DataFrame, *, trained: bool = True) -> list[Finding]:
    """Compares a table with its declaration, for its owner.

    The result depends on the records, so it must stay with their owner: it is never sent, and a
    round never asks for it.

    Args:
        schema: the public declaration.
        frame: the table as its declaration reads it, n records.
        trained: a model learns from it; False where a table of one class loses nothing.

    Returns:
        The findings, whole table first, then by column; errors say that no round should use it.

    Raises:
        DataError: a declared column is missing.
    """
    schema.require_columns(frame)
    findings = _check_whole(schema, frame) + check_features(schema, frame)
    remarks = schema.target.remarks(frame)
    return findings + _as_findings(each for each in remarks if trained or not each.of_model)


def check_features(schema: TableSchema, frame: pd.DataFrame) -> list[Finding]:
    """The same of the declared features alone; no target need be there.

    Args:
        schema, frame: as for `check_table`.
    """
    findings: list[Finding] = []
    for feature in schema.features:
        column = frame[feature.name]
        if isinstance(feature, NumericFeature):
            findings += _check_numeric(feature, column)
        else:
            findings += _check_categorical(feature, column)
    return findings + _check_signs(frame)


def _check_whole(schema: TableSchema, frame: pd.DataFrame) -> list[Finding]:
    kept = int(schema.usable(frame).sum())
    dropped = len(frame) - kept
    findings = [Finding("", "note", f"{kept} of {len(frame)} records are usable", kept)]
    if kept == 0:
        return [Finding("", "error", "no record is usable; see the other findings", len(frame))]
    if broken := frame.attrs.get(BROKEN_LINES):
        severity = by_share(len(broken), len(frame))
        findings.append(Finding("", severity, _told(broken), len(broken)))
    if others := frame.attrs.get(OTHER_ENCODING):
        text = (
            f"{_count(len(others), 'line', 'lines')} ({_listed(others)}) of the file would be "
            "whole UTF-8, and its `encoding` is said to be another: texts are read as other signs; "
            "correct `encoding` in its [file] section"
        )
        findings.append(Finding("", "error", text, len(others)))
    if dropped:
        lacking = "without a target" + (" or a declared value" if schema.drop_missing else "")
        text = _count(dropped, f"record {lacking} is left out", f"records {lacking} are left out")
        findings.append(Finding("", "warning", text, dropped))
    return findings


def _told(broken: list[int]) -> str:
    shown = _listed(broken)
    lines = _count(len(broken), f"line ({shown}) is", f"lines ({shown}) are")
    return (
        f"{lines} no record that can be read: more cells than the header, a quotation mark that "
        "is not closed on its line (a cell cannot go on over lines), bytes of another encoding or "
        "of value 0, or too long"
    )


def _listed(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:MOST_LINES_TOLD]))
    return shown + (" ..." if len(lines) > MOST_LINES_TOLD else "")


def _check_signs(frame: pd.DataFrame) -> list[Finding]:
    """Numbers with another decimal sign than the file is said to have."""
    findings = []
    for column, cells in frame.attrs.get(CONTRADICTING, {}).items():
        if cells:
            text = (
                f"{_count(len(cells), 'cell has', 'cells have')} a point (for example "
                f"{cells[0]!r}), and the file's `decimal` is a comma (counted as missing); correct "
                "`decimal`, or say `thousands` where the point separates them"
            )
            present = len(cells) + int(frame[column].notna().sum())
            findings.append(Finding(column, by_share(len(cells), present), text, len(cells)))
    return findings


def _check_numeric(feature: NumericFeature, column: pd.Series) -> list[Finding]:
    name, findings = feature.name, []
    raw, values = feature.numbers(column), feature.read(column)
    blank = int(column.isna().sum())
    unreadable = int(np.isnan(raw).sum()) - blank
    if unreadable:
        example = column[np.isnan(raw) & ~column.isna().to_numpy(dtype=bool)].iloc[0]
        what = ("cell is no number", "cells are not numbers")
        if feature.since is not None:
            what = ("cell is no date", "cells are not dates")
        message = (
            f"{_count(unreadable, *what)} (for example {example!r}; counted as missing); "
            f"{_advice(feature, str(example))}"
        )
        severity = by_share(unreadable, len(column) - blank)
        findings.append(Finding(name, severity, message, unreadable))
    if blank:
        text = _count(blank, "cell is missing", "cells are missing")
        findings.append(Finding(name, "note", text, blank))
    return findings + _as_findings(outside_range(name, values, feature.range))


def _advice(feature: NumericFeature, example: str) -> str:
    if feature.since is not None:
        return 'say how they are written: dates = "%d.%m.%Y" in the table\'s [file] section'
    if re.fullmatch(r"\s*[+-]?[\d.]*,\d+\s*", example):
        return 'say decimal = "," in the table\'s [file] section, or write decimal points'
    if re.fullmatch(r"\s*\d{4}-\d{2}-\d{2}.*", example):
        return 'declare since = "2000-01-01", a public day, if the column holds dates'
    return "declare `categories` if the column holds a choice"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _check_categorical(feature: CategoricalFeature, column: pd.Series) -> list[Finding]:
    blank = column.isna().to_numpy(dtype=bool)
    known = np.any(equal_categories(column, feature.categories), axis=0)
    findings = []
    if blank.any():
        count = int(blank.sum())
        text = _count(count, "cell is missing", "cells are missing")
        findings.append(Finding(feature.name, "note", text, count))
    strange = ~known & ~blank
    if strange.any():
        count = int(strange.sum())
        message = (
            f"{_count(count, 'cell holds', 'cells hold')} a value that is not declared (for "
            f"example {column[strange].iloc[0]!r}; encoded as zero); declared are "
            f"{', '.join(map(repr, feature.categories[:MOST_CATEGORIES_TOLD]))}"
            f"{' ...' if len(feature.categories) > MOST_CATEGORIES_TOLD else ''}; where they are "
            "spelled otherwise here, say how under `aliases` in the table's [file] section"
        )
        severity = by_share(count, len(column) - int(blank.sum()))
        findings.append(Finding(feature.name, severity, message, count))
    return findings


def _as_findings(remarks: Iterable[Remark]) -> list[Finding]:
    return [Finding(each.column, each.severity, each.message, each.count) for each in remarks]


def check_labels(labels: npt.NDArray[Any], classes: int, first_label: int) -> list[Finding]:
    """Compares labels that are numbers with their declaration, for their owner.

    Args:
        labels: as read, `(n,)`.
        classes, first_label: public number of classes, and the label of the first.

    Returns:
        The findings; for the owner's eyes only, as those of `check_table`.
    """
    last = first_label + classes - 1
    known = np.isin(labels, np.arange(first_label, last + 1))
    numbers = labels[known].astype(np.int64) - first_label
    findings = _as_findings(of_one_class(numbers, "labels", []))
    strange = int((~known).sum())
    if not strange:
        return findings
    message = (
        f"{_count(strange, 'label is', 'labels are')} none of {first_label} to {last} (for example "
        f"{labels[~known][0]!s}) and left out"
    )
    severity = by_share(strange, len(labels))
    if not (labels == first_label).any() and (labels == last + 1).any():
        severity = "error"
        message += f", and no label is {first_label}: {_next_label(first_label)}"
    elif not known.any():
        severity = "error"
        message += "; correct `classes` and `first_label` in [data], or the file"
    return [Finding("labels", severity, message, strange), *findings]


def _next_label(first: int) -> str:
    return f"if they count from {first + 1}, declare first_label = {first + 1} in [data]"


def check_items(
    left_out: int, numbers: npt.NDArray[np.int64], source: DatasetSource
) -> list[Finding]:
    """What the owner of a torch data set should know of its items; for their eyes only.

    Args:
        left_out: items that are not usable.
        numbers: class numbers of the others, `(n,)`.
        source: the public declaration.
    """
    findings = _as_findings(of_one_class(numbers, "", []))
    if left_out:
        last = "" if source.classes is None else f" to {source.first_label + source.classes - 1}"
        message = (
            f"{_count(left_out, 'item is', 'items are')} left out: no (input, class) pair, another "
            f"shape than {source.shape}, or a class that is none of {source.first_label}{last}"
        )
        if not (numbers == 0).any():
            message += f"; none has class {source.first_label}: {_next_label(source.first_label)}"
        severity = by_share(left_out, left_out + len(numbers))
        findings.append(Finding("", severity, message, left_out))
    return findings


def check_step(step: int) -> list[Finding]:
    """That of a large table only some records were looked at.

    Args:
        step: each so many-th was; 1 where all were.
    """
    if step == 1:
        return []
    text = (
        f"the table is large: one record in {step} was looked at, evenly spaced, and all that is "
        "said of its records is said of these"
    )
    return [Finding("", "note", text, 0)]


def check_count(count: int, declared: int, plan: TrainingPlan) -> list[Finding]:
    """What a count of usable records other than the declared one does; for the owner's eyes only.

    Args:
        count: usable records.
        declared: as the configuration has it, public.
        plan: whose averages divide by it, or do not.
    """
    told = f"{_count(count, 'usable record', 'usable records')}, {declared} declared"
    if count == declared:
        return []
    if plan.unit is not Unit.RECORD:
        text = f"{told}: no average divides by it here, a site counts by its weight"
        return [Finding("", "note", text, abs(count - declared))]
    if count > declared:
        text = (
            f"{told}: such a site takes part in nothing, as ε holds for at most so many records; "
            "declare at least as many as there are, or offer fewer"
        )
        return [Finding("", "error", text, count - declared)]
    text = (
        f"{told}: averages divide by the declared number, so this site's part comes out "
        f"{count / declared:.2f} times as long as it should, as if {declared - count} more records "
        "were here and pulled nowhere. The number is public: agree on one near the count, not below"
    )
    severity: Severity = "note" if 10 * count >= 9 * declared else "warning"
    return [Finding("", severity, text, declared - count)]
