"""How a site's own table is written down, and what its cells mean; public words, no pandas.

None of it says what is learned: a federation declares columns, ranges and categories, and each site
says how its file spells them. What a site says in its own `party.toml` stays there. No setting
here changes by which bytes the owner recognises a record (`privagg.training.known`).
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from privagg.errors import ConfigError
from privagg.training.features import (
    UNKNOWN,
    CategoricalFeature,
    Category,
    NumericFeature,
    as_number,
)
from privagg.training.table import TableSchema

ENCODINGS = (
    *("utf-8", "latin-1", "iso8859-2", "iso8859-9", "iso8859-15"),
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1257", "mac-roman"),
    *("gb18030", "gbk", "big5", "cp932", "shift_jis", "cp949", "euc-kr", "euc-jp"),
)
"""In all of them a line feed, a quotation mark and a comma are the bytes that they are in ASCII."""

ISO = "%Y-%m-%d"
_WRITTEN = re.compile(r"%.")
_DATE_PARTS = frozenset("%" + letter for letter in "YmdjHMSf")


def _known_encoding(name: str) -> str:
    """The usual name of an encoding; `utf-8-sig` is UTF-8, whose mark is never part of a name."""
    known = {codecs.lookup(each).name: each for each in ENCODINGS}
    try:
        found = codecs.lookup("utf-8" if name.lower().replace("_", "-") == "utf-8-sig" else name)
    except (LookupError, ValueError):
        found = None
    if found is None or found.name not in known:
        raise ValueError(
            f"should be one of {', '.join(ENCODINGS)}; save a file of another encoding as UTF-8"
        )
    return known[found.name]


def _delimiter(sign: str) -> str:
    if len(sign) != 1 or sign.isalnum() or sign in "\"'\r\n\0 .-+_":
        raise ValueError('should be one sign between two cells, such as ";", "," or "\\t"')
    return sign


def _date_format(written: str) -> str:
    parts = _WRITTEN.findall(written)
    days = {"%m", "%d"} <= set(parts) or "%j" in parts
    if set(parts) - _DATE_PARTS or "%Y" not in parts or not days or len(set(parts)) < len(parts):
        raise ValueError(
            "should say how a date is written, as in '%d.%m.%Y': the year in full (%Y; two digits "
            "say no century), month and day in numbers (%m, %d) or the day of the year (%j), and "
            "%H, %M, %S, %f where there are times"
        )
    return written


DateFormat = Annotated[str, AfterValidator(_date_format)]
Texts = tuple[Category, ...]


class TableFile(BaseModel):
    """How a table is written.

    Columns are called by their declared names everywhere but in the values of `columns`.

    Args:
        encoding: of a CSV file, one of `ENCODINGS`; a UTF-8 file may begin with its mark.
        delimiter: between two cells of a CSV file.
        decimal: sign before the decimals of a number that is written as text.
        thousands: sign between groups of three digits; numbers with other groups are none.
        missing: further texts that stand for a missing cell, in every column, or by column.
        usual_missing: whether an empty cell's other usual texts (`NA`, `None`, `null` and so on)
            count as missing in a CSV file, too; False where one of them is a category.
        true, false: further texts for true and false, in columns that do not declare them as
            categories.
        dates: how dates are written that a feature counts `since` a day, for all columns or by
            column: `strftime` signs. ISO dates (`2024-12-31`) are read in any case.
        columns: declared name -> name in the file.
        aliases: column -> how the file spells a value -> the declared value; in capital or small
            letters, unless two spellings differ in nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8"
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    missing: Texts | dict[str, Texts] = ()
    usual_missing: bool = True
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    dates: DateFormat | dict[str, DateFormat] = ISO
    columns: dict[str, str] = Field(default_factory=dict)
    aliases: dict[str, dict[str, Category]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.thousands == self.decimal:
            raise ValueError(
                f"thousands and decimal are both {self.decimal!r}, so that a number would have two "
                "meanings; change one"
            )
        both = {_folded(text) for text in self.true} & {_folded(text) for text in self.false}
        if both:
            raise ValueError(f"{min(both)!r} is under true and under false; keep one")
        twice = [
            name for name in self.columns.values() if list(self.columns.values()).count(name) > 1
        ]
        if twice:
            raise ValueError(f"columns reads {twice[0]!r} of the file twice; name each column once")
        return self

    @property
    def plain(self) -> bool:
        """Whether cells are read as they would be without any of these settings."""
        fresh = TableFile(encoding=self.encoding, delimiter=self.delimiter, columns=self.columns)
        return self.model_copy(update={"usual_missing": True}) == fresh

    def over(self, before: TableFile) -> TableFile:
        """These settings in place of `before`'s, one by one; those that are not made here stay.

        Raises:
            ValidationError: they contradict each other together.
        """
        said = [
            {name: getattr(one, name) for name in one.model_fields_set} for one in (before, self)
        ]
        return TableFile(**{**said[0], **said[1]})

    def source_of(self, column: str) -> str:
        """The name in the file of a declared column."""
        return self.columns.get(column, column)

    def missing_in(self, column: str) -> Texts:
        """Further texts for a missing cell of a column."""
        return self.missing.get(column, ()) if isinstance(self.missing, dict) else self.missing

    def dates_in(self, column: str) -> str:
        """How a column's dates are written."""
        return self.dates.get(column, ISO) if isinstance(self.dates, dict) else self.dates

    def strange_to(self, schema: TableSchema) -> Iterator[str]:
        """What these settings say of columns or values that are not declared, each in a sentence.

        Args:
            schema: the public declaration.
        """
        declared = {feature.name: feature for feature in schema.features}
        by_column: Mapping[str, Mapping[str, Any]] = {
            "columns": self.columns,
            "aliases": self.aliases,
            **{n: d for n in ("missing", "dates") if isinstance(d := getattr(self, n), dict)},
        }
        for setting, named in by_column.items():
            for column in named:
                if column not in schema.source_columns:
                    yield (
                        f"{setting} names column {column!r}, which is not declared; declared are "
                        f"{', '.join(map(repr, schema.source_columns))}"
                    )
                elif setting == "dates":
                    feature = declared.get(column)
                    if not isinstance(feature, NumericFeature) or feature.since is None:
                        yield (
                            f"dates names column {column!r}, which is not declared as dates: "
                            "declare `since` under [[data.features]], or remove it"
                        )
        for column, spellings in self.aliases.items():
            known = _values(schema, column)
            for value in dict.fromkeys(spellings.values()):
                if known is not None and not any(_same(value, one) for one in known):
                    yield (
                        f"aliases of {column!r} lead to {value!r}, which is not declared; declared "
                        f"are {', '.join(map(repr, known))}"
                    )
                numeric = isinstance(declared.get(column), NumericFeature)
                if numeric and as_number(value) is None:
                    yield f"aliases of {column!r} lead to {value!r}, and the column holds numbers"


def _values(schema: TableSchema, column: str) -> tuple[Category, ...] | None:
    """The declared values of a column; None where a range or a rule stands in their place, or
    nobody knows them yet."""
    if column in schema.target.columns:
        classes: tuple[Category, ...] | None = getattr(schema.target, "classes", None)
        return classes
    found = [feature for feature in schema.features if feature.name == column]
    if not found or not isinstance(found[0], CategoricalFeature):
        return None
    return None if found[0].categories == UNKNOWN else found[0].categories


def _folded(text: object) -> str:
    return str(text).strip().casefold()


def _same(one: Category, other: Category) -> bool:
    number = as_number(other)
    return as_number(one) == number if number is not None else _folded(one) == _folded(other)


class Database(BaseModel):
    """A query in place of a file: the owner's own, so only `party.toml` holds it.

    SQLite and PostgreSQL are told to change nothing, and what the query did is rolled back in any
    case; elsewhere let the address name a user who may only read.

    Args:
        url: as SQLAlchemy reads it, `dialect+driver://user:password@host/database`; the path of a
            SQLite file is relative to the party's folder.
        url_variable: instead: the environment variable that holds the URL.
        query: SQL that returns one row a record; it is never shared, sent or stored elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(default="", repr=False)
    url_variable: str = ""
    query: str = Field(min_length=1, repr=False)

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if bool(self.url) == bool(self.url_variable):
            raise ValueError(
                "give either url or url_variable, the name of a variable that holds it"
            )
        return self

    @property
    def address(self) -> str:
        """The URL; it may hold a password.

        Raises:
            ConfigError: the variable is not set.
        """
        found = self.url or os.environ.get(self.url_variable, "")
        if not found:
            raise ConfigError(
                f"the environment variable {self.url_variable!r} is not set, and [database] in "
                "party.toml takes the database's URL from it; set it, then try again"
            )
        return found


@dataclass(frozen=True)
class OwnTable:
    """What a site's owner says of its table on its own machine, and nowhere else.

    Args:
        file: how it is written, setting by setting in place of the shared ones.
        database: a query in place of the file.
        folder: of the party; the path of a SQLite file starts there.
        accepted: the owner knows what was found in it, and takes part all the same.
    """

    file: TableFile = field(default_factory=TableFile)
    database: Database | None = None
    folder: Path = Path()
    accepted: bool = False
