"""What an owner should know about a table before it takes part; for the owner's eyes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from privagg.client.features import (
    CategoricalFeature,
    NumericFeature,
    TableSchema,
    equals_category,
    numeric_values,
)


@dataclass(frozen=True)
class Finding:
    """One thing about a column that the declaration does not lead to expect.

    Args:
        column: name of the column, or `""` for the whole table.
        severity: `error` where taking part makes no sense, `warning` where it works but loses
            something, `note` for a plain fact.
        message: what was found and what can be done.
        count: number of records concerned.
    """

    column: str
    severity: Literal["error", "warning", "note"]
    message: str
    count: int


def check_table(schema: TableSchema, frame: pd.DataFrame) -> list[Finding]:
    """Compares a table with its declaration, for its owner.

    The result depends on the records, so it must stay with their owner: it is never sent, and a
    round never asks for it.

    Args:
        schema: the public declaration.
        frame: the table as read, n records.

    Returns:
        The findings, whole table first, then by column; errors say that no round should use it.

    Raises:
        DataError: a declared column is missing.
    """
    schema.require_columns(frame)
    findings = _check_whole(schema, frame)
    for feature in schema.features:
        column = frame[feature.name]
        if isinstance(feature, NumericFeature):
            findings += _check_numeric(feature, column)
        else:
            findings += _check_categorical(feature, column)
    return findings + _check_target(schema, frame)


def _check_whole(schema: TableSchema, frame: pd.DataFrame) -> list[Finding]:
    kept = int(schema.usable(frame).sum())
    dropped = len(frame) - kept
    findings = [Finding("", "note", f"{kept} of {len(frame)} records are usable", kept)]
    if kept == 0:
        return [Finding("", "error", "no record is usable; see the other findings", len(frame))]
    if dropped:
        reason = "lack a class" + (" or a declared value" if schema.drop_missing else "")
        findings.append(Finding("", "warning", f"{dropped} records {reason} and drop out", dropped))
    return findings


def _check_numeric(feature: NumericFeature, column: pd.Series) -> list[Finding]:
    name, findings = feature.name, []
    raw, values = numeric_values(column), feature.read(column)
    blank = int(column.isna().sum())
    unreadable = int(np.isnan(raw).sum()) - blank
    if unreadable:
        example = column[np.isnan(raw) & ~column.isna().to_numpy(dtype=bool)].iloc[0]
        severity: Literal["error", "warning"] = (
            "error" if unreadable + blank == len(column) else "warning"
        )
        message = (
            f"{unreadable} cells are not numbers (for example {example!r}) and count as missing; "
            "declare `categories` if the column holds a choice"
        )
        findings.append(Finding(name, severity, message, unreadable))
    if blank:
        findings.append(Finding(name, "note", f"{blank} cells are missing", blank))
    low, high = feature.range
    outside = int(((values < low) | (values > high)).sum())
    if outside:
        message = f"{outside} values lie outside the public range [{low:g}, {high:g}] and clamp"
        findings.append(Finding(name, "warning", message, outside))
    return findings


def _check_categorical(feature: CategoricalFeature, column: pd.Series) -> list[Finding]:
    blank = column.isna().to_numpy(dtype=bool)
    known = np.any([equals_category(column, c) for c in feature.categories], axis=0)
    findings = []
    if blank.any():
        count = int(blank.sum())
        findings.append(Finding(feature.name, "note", f"{count} cells are missing", count))
    strange = ~known & ~blank
    if strange.any():
        count = int(strange.sum())
        message = (
            f"{count} cells hold a value that is not declared (for example "
            f"{column[strange].iloc[0]!r}) and encode to zero"
        )
        severity: Literal["error", "warning"] = "warning" if known.any() else "error"
        findings.append(Finding(feature.name, severity, message, count))
    return findings


def _check_target(schema: TableSchema, frame: pd.DataFrame) -> list[Finding]:
    target = schema.target
    labels = target.encode(frame[target.name])
    findings = []
    strange = int(((labels < 0) & ~frame[target.name].isna().to_numpy(dtype=bool)).sum())
    if strange:
        message = f"{strange} cells hold no declared class; these records drop out"
        findings.append(Finding(target.name, "warning", message, strange))
    present = np.unique(labels[labels >= 0])
    if len(present) == 1:
        message = (
            f"all records have class {int(present[0])}; the site can take part, but check the rule "
            "of the target"
        )
        findings.append(Finding(target.name, "warning", message, int((labels >= 0).sum())))
    return findings
