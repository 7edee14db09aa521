"""A table read as its site says that it is written: the same records, or a refusal."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from privagg.errors import ConfigError, DataError, MissingDependencyError
from privagg.training.declared import TableSource
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.inspection import check_table
from privagg.training.known import rows_as_bytes
from privagg.training.reading import declared, lying, read_frame, with_gaps
from privagg.training.table import TableSchema
from privagg.training.tablefile import ENCODINGS, Database, TableFile
from privagg.training.targets import Target
from tests.privacy.ledger import postgres

SCHEMA = TableSchema(
    features=(
        NumericFeature(name="weight", range=(0, 2000)),
        NumericFeature(name="admitted", range=(0, 9000), since=date(2000, 1, 1)),
        NumericFeature(name="smokes", range=(0, 1)),
        CategoricalFeature(name="ward", categories=("surgery", "medicine", "Übergang")),
    ),
    target=Target(name="ill", classes=("no", "yes")),
)
GERMAN = TableFile(
    delimiter=";",
    decimal=",",
    thousands=".",
    encoding="latin-1",
    missing=("k.A.", "-9"),
    true=("ja",),
    false=("nein",),
    dates="%d.%m.%Y",
    columns={"weight": "Gewicht", "admitted": "Aufnahme", "ill": "krank"},
    aliases={"ward": {"Chir.": "surgery", "Innere": "medicine"}, "ill": {"j": "yes", "n": "no"}},
)


def written(path: Path, rows: list[list[str]], *, encoding: str = "utf-8", sign: str = ",") -> Path:
    """A CSV file of these cells, by Python's own writer."""
    out = io.StringIO()
    csv.writer(out, delimiter=sign, lineterminator="\n").writerows(rows)
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def encoded(source: TableSource, path: Path) -> tuple[bytes, bytes]:
    """A table's records as they are learned from."""
    x, y = source.schema.encode(declared(source, path))
    return x.tobytes(), y.tobytes()


records = st.lists(
    st.tuples(
        st.none() | st.decimals(0, 2000, places=2),
        st.none() | st.dates(date(2000, 1, 1), date(2024, 1, 1)),
        st.none() | st.booleans(),
        st.sampled_from([None, "surgery", "medicine", "Übergang"]),
        st.sampled_from([None, "no", "yes"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(rows=records, zipped=st.booleans())
def test_two_spellings_of_a_table_are_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], zipped: bool
) -> None:
    folder = tmp_path_factory.mktemp("spelt")
    plain, german = [[*SCHEMA.source_columns]], [["krank", "ward", "Aufnahme", "Gewicht", "smokes"]]
    for weight, admitted, smokes, ward, ill in rows:
        plain.append(
            ["" if cell is None else str(cell) for cell in (weight, admitted, smokes, ward, ill)]
        )
        grouped = "" if weight is None else f"{weight:,}".translate(str.maketrans(",.", ".,"))
        german.append(
            [
                {None: "k.A.", "no": "N", "yes": "j"}[ill],
                {None: "-9", "surgery": "chir.", "medicine": " Innere"}.get(ward, str(ward)),
                "" if admitted is None else admitted.strftime("%d.%m.%Y"),
                grouped,
                {None: "", True: "Ja", False: "nein"}[smokes],
            ]
        )
    first = written(folder / "plain.csv", plain)
    second = written(folder / "german.csv", german, encoding="latin-1", sign=";")
    third = folder / "plain.parquet"
    typed = pd.DataFrame(rows, columns=list(SCHEMA.source_columns)).astype({"weight": float})
    typed.to_parquet(third)
    expected = encoded(TableSource(SCHEMA), first)
    assert encoded(TableSource(SCHEMA, GERMAN), second) == expected
    assert encoded(TableSource(SCHEMA), third) == expected
    bom = folder / "bom.csv"
    bom.write_bytes(b"\xef\xbb\xbf" + first.read_bytes())
    assert encoded(TableSource(SCHEMA, TableFile(encoding="utf-8-sig")), bom) == expected


numbers = st.one_of(
    st.decimals(-(10**7), 10**7, places=3).map(str),
    st.from_regex(r"[+-]?[0-9]{1,3}([.,' ][0-9]{3}){0,2}([.,][0-9]{0,3})?", fullmatch=True),
    st.text("0123456789.,' -+eE", max_size=9),
)


@settings(max_examples=300, deadline=None)
@given(
    cell=numbers, signs=st.sampled_from([(".", ""), (",", ""), (",", "."), (".", ","), (",", " ")])
)
@example(cell="12.5", signs=(",", "."))
@example(cell="1.234", signs=(",", ""))
@example(cell="1,23", signs=(".", ","))
@example(cell="1.234,5", signs=(".", ","))
@example(cell="0.0", signs=(",", ""))
def test_a_number_is_read_as_pandas_reads_it_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, cell: str, signs: tuple[str, str]
) -> None:
    """pandas also drops thousands' signs between other groups than three; such text is none."""
    decimal, thousands = signs
    path = written(tmp_path_factory.mktemp("number") / "t.csv", [["v", "t"], [cell, "1"]], sign=";")
    schema = TableSchema(
        features=(NumericFeature(name="v", range=(-1, 1)),), target=Target(name="t", positive="==1")
    )
    file = TableFile(delimiter=";", decimal=decimal, thousands=thousands)
    frame = declared(TableSource(schema, file), path)
    (value,) = schema.features[0].read(frame["v"])
    if np.isnan(value):
        return
    peer = pd.read_csv(path, sep=";", decimal=decimal, thousands=thousands or None)["v"]
    np.testing.assert_allclose(float(peer[0]), value, rtol=1e-15)


def test_a_decimal_point_in_a_file_of_commas_is_told_and_never_a_number(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.csv", [["v", "t"], ["12.5", "1"], ["1.234", "0"], ["7", "0.0"]], sign=";"
    )
    schema = TableSchema(
        features=(NumericFeature(name="v", range=(0, 99)),),
        target=Target(name="t", positive="!= 0"),
    )
    frame = declared(TableSource(schema, TableFile(delimiter=";", decimal=",")), path)
    assert frame["v"].tolist() == [None, None, "7"]
    assert schema.target.encode(frame["t"]).tolist() == [1, 0, -1]  # not "other than 0"
    told = [f for f in check_table(schema, frame) if "`decimal` is a comma" in f.message]
    assert [(f.column, f.severity, f.count) for f in told] == [
        ("v", "error", 2),
        ("t", "warning", 1),
    ]


@given(day=st.dates(date(1900, 1, 1), date(2100, 1, 1)), since=st.dates(date(1900, 1, 1)))
def test_a_date_is_the_days_that_pandas_counts(day: date, since: date) -> None:
    feature = NumericFeature(name="d", range=(-1, 1), since=since)
    years = feature.model_copy(update={"date_unit": "years"})
    expected = (day - since) / timedelta(days=1)
    spelt: list[Any] = [
        day.isoformat(),
        f"{day} 12:00",
        f" {day}T12:00:00+05:00 ",
        pd.Timestamp(day),
        day,
    ]
    found = feature.read(pd.Series(spelt, dtype=object))
    assert found.tolist() == [expected, expected + 0.5, expected + 0.5, expected, expected]
    assert years.read(pd.Series([day], dtype=object))[0] == expected / 365.2425


def test_an_ambiguous_date_is_none() -> None:
    feature = NumericFeature(name="d", range=(-1, 1), since=date(2000, 1, 1))
    cells = [
        "03/04/2020",
        "3.4.2020",
        "2020",
        "20200403",
        "2020-13-01",
        "2020-02-30",
        "",
        "43831",
        pd.NaT,
        7,
    ]
    assert np.isnan(feature.read(pd.Series(cells, dtype=object))).all()
    for form in ("%d.%m.%y", "%d.%m", "%B %Y", "", "%Y", "%d.%m.%Y %Z", "%Y%m%d%d"):
        with pytest.raises(ValidationError, match="should say how a date is written"):
            TableFile(dates=form)


HEADER = b"weight,admitted,smokes,ward,ill\n"
LINE = b"1.5,2020-01-01,1,surgery,yes\n"


@pytest.mark.parametrize(
    ("data", "file", "says"),
    [
        (b"\xef\xbb\xbf" + HEADER + LINE, {"encoding": "latin-1"}, "is UTF-8, as its first line"),
        ("Größe,weight\n".encode() + LINE, {"encoding": "cp1252"}, "is UTF-8, as its first line"),
        ("Größe,weight\n".encode("latin-1") + LINE, {}, "is not UTF-8"),
        ((HEADER + LINE).decode().encode("utf-16"), {}, "is not UTF-8"),
        ((HEADER + LINE).decode().encode("utf-16"), {"encoding": "latin-1"}, "bytes of value 0"),
        ((HEADER + LINE).decode().encode("utf-16-le"), {}, "bytes of value 0"),
        (HEADER.replace(b",", b";") + LINE, {}, "separated by ';', not by ','"),
        (HEADER + LINE, {"delimiter": ";"}, "separated by ',', not by ';'"),
        (HEADER.replace(b",", b"\t") + LINE, {"delimiter": ";"}, r'delimiter = "\\t"'),
        (HEADER + LINE, {"columns": {"weight": "Gewicht"}}, r"'weight' \(here 'Gewicht'\)"),
        (HEADER.replace(b"ward", b"weight") + LINE, {}, "'weight' appear more than once"),
    ],
)
def test_a_file_that_is_another_than_it_is_said_to_be_is_refused(
    tmp_path: Path, data: bytes, file: dict[str, Any], says: str
) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=says):
        declared(TableSource(SCHEMA, TableFile(**file)), tmp_path / "t.csv")


def test_lines_of_another_encoding_are_told_by_their_numbers(tmp_path: Path) -> None:
    """Latin-1 reads every byte, so that UTF-8 in it would only be misspelt."""
    rows = [
        LINE,
        "1,2020-01-01,0,Übergang,no\n".encode(),
        "1,2020-01-01,0,Übergang,yes\n".encode("latin-1"),
    ]
    path = tmp_path / "t.csv"
    path.write_bytes(HEADER + b"".join(rows) + b"1,2\x00,3,surgery,yes\n")
    frame = declared(TableSource(SCHEMA, TableFile(encoding="latin-1")), path)
    told = {f.message: f for f in check_table(SCHEMA, frame)}
    (other,) = [f for f in told.values() if "would be whole UTF-8" in f.message]
    assert (other.severity, other.count) == ("error", 1)
    assert "(3)" in other.message
    assert any("1 line (5) is no record" in message for message in told)
    frame = declared(TableSource(SCHEMA), path)
    assert any("2 lines (4, 5) are no record" in f.message for f in check_table(SCHEMA, frame))


@settings(max_examples=150, deadline=None)
@given(
    line=st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    encoding=st.sampled_from(ENCODINGS),
    place=st.integers(0, 3),
)
@example(line=b"\x81", encoding="gb18030", place=1)
@example(line=b'1;"\x81";\xff', encoding="cp932", place=0)
@example(line=b"\xef\xbb\xbf1;2", encoding="latin-1", place=0)
def test_one_line_changes_no_other_in_any_encoding(
    tmp_path_factory: pytest.TempPathFactory, line: bytes, encoding: str, place: int
) -> None:
    others = [b"1,5;a;x", b"2.000,25;b;y", b"ja;;z"]
    path = tmp_path_factory.mktemp("line") / "t.csv"
    schema = TableSchema(
        features=(
            NumericFeature(name="v", range=(0, 9)),
            CategoricalFeature(name="w", categories=("a", "b")),
        ),
        target=Target(name="t", classes=("x", "y", "z")),
    )
    file = TableFile(delimiter=";", decimal=",", thousands=".", true=("ja",), encoding=encoding)

    def read(*lines: bytes) -> list[list[Any]]:
        path.write_bytes(b"\n".join((b"v;w;t", *lines, b"")))
        return declared(TableSource(schema, file), path).astype(object).values.tolist()

    alone = read(*others)
    assert alone == [["1.5", "a", "x"], ["2000.25", "b", "y"], ["true", None, "z"]]
    found = read(*others[:place], line, *others[place:])
    assert found[:place] == alone[:place]
    assert found[len(found) - 3 + place :] == alone[place:]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_keeps_lines_and_cells_apart(tmp_path: Path, encoding: str) -> None:
    """Signs of two bytes may hold those of `|` and of letters, never a line feed or a comma."""
    signs = {"g": "岡表十", "b": "功許蓋", "c": "表ソ能", "s": "表ソ能", "e": "表ソ能"}
    text = signs.get(encoding[0], "") if not encoding.startswith("cp12") else ""
    text += "Übergang" if encoding in ("latin-1", "cp1252", "utf-8") else ""
    keep = "".join(sign for sign in text if sign.encode(encoding, "ignore"))
    rows = [["v", "t", keep or "c"], ["1", "0", keep], ["2", "1", f"a{keep}"]]
    path = written(tmp_path / "t.csv", rows, encoding=encoding)
    frame = read_frame(path, TableFile(encoding=encoding))
    assert [list(frame.columns), *frame.fillna("").values.tolist()] == rows


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"encoding": "utf-16"}, "should be one of utf-8"),
        ({"encoding": "no such"}, "should be one of utf-8"),
        ({"delimiter": "ab"}, "one sign between two cells"),
        ({"delimiter": "\n"}, "one sign between two cells"),
        ({"decimal": ",", "thousands": ","}, "are both ','"),
        ({"true": ["J"], "false": ["j "]}, "'j' is under true and under false"),
        ({"columns": {"a": "x", "b": "x"}}, "'x' of the file twice"),
        ({"delimter": ";"}, "Extra inputs"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(file: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TableFile(**file)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"columns": {"age": "Alter"}}, "columns names column 'age', which is not declared"),
        ({"aliases": {"Ward": {"x": "surgery"}}}, "aliases names column 'Ward'"),
        ({"aliases": {"ward": {"x": "surgry"}}}, "lead to 'surgry', which is not declared"),
        ({"aliases": {"weight": {"x": "heavy"}}}, "the column holds numbers"),
        ({"missing": {"age": ["-9"]}}, "missing names column 'age'"),
        ({"dates": {"weight": "%d.%m.%Y"}}, "is not declared as dates"),
    ],
)
def test_what_is_not_declared_is_not_spelt(file: dict[str, Any], says: str) -> None:
    assert says in next(TableFile(**file).strange_to(SCHEMA))


def test_settings_replace_one_another_one_by_one() -> None:
    shared = TableFile(delimiter=";", decimal=",", missing=("-",))
    own = TableFile(decimal=".", columns={"weight": "W"})
    assert own.over(shared) == TableFile(
        delimiter=";", decimal=".", missing=("-",), columns={"weight": "W"}
    )
    with pytest.raises(ValidationError, match="are both"):
        TableFile(thousands=",").over(TableFile(decimal=","))


def test_a_category_may_be_called_none_where_the_file_says_so(tmp_path: Path) -> None:
    schema = TableSchema(
        features=(CategoricalFeature(name="grade", categories=("None", "Mild")),),
        target=Target(name="t", positive=">0"),
    )
    path = written(tmp_path / "t.csv", [["grade", "t"], ["None", "1"], ["", "0"], ["Mild", "0"]])
    kept = declared(TableSource(schema, TableFile(usual_missing=False)), path)
    assert schema.features[0].encode(kept["grade"]).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert declared(TableSource(schema), path)["grade"].tolist() == [None, None, "Mild"]


def test_what_a_column_declares_stays_what_it_is(tmp_path: Path) -> None:
    """`ja` is true elsewhere, and here a class; a dose with a comma is a category, no number."""
    schema = TableSchema(
        features=(
            CategoricalFeature(name="dose", categories=("1,5", "2,5")),
            CategoricalFeature(name="sign", categories=("-", "+")),
            NumericFeature(name="smokes", range=(0, 1)),
        ),
        target=Target(name="t", positive="== Ja"),
    )
    rows = [["dose", "sign", "smokes", "t"], ["1,5", "+", "ja", "ja"], ["2,5", "?", "NEIN", "nein"]]
    file = TableFile(
        delimiter=";", decimal=",", true=("ja",), false=("nein",), aliases={"sign": {"?": "-"}}
    )
    path = written(tmp_path / "t.csv", rows, sign=";")
    frame = declared(TableSource(schema, file), path)
    x, y = schema.encode(frame)
    assert x.tolist() == [[1, 0, 0, 1, 1], [0, 1, 1, 0, -1]]
    assert y.tolist() == [1, 0]


# --- the records are recognised whatever is said of the file -------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from(["1,5", "1.5", "Ü", "ja", "k.A.", "", "1.234,5", "x"]),
                           min_size=3, max_size=3), min_size=1, max_size=4),
    encoding=st.sampled_from(["utf-8", "latin-1", "cp1252"]),
    said=st.sampled_from(["latin-1", "cp1252", "cp1250", "gb18030", "mac-roman"]),
    decimal=st.sampled_from([".", ","]),
)  # fmt: skip
def test_no_setting_makes_known_records_look_new(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]], encoding: str, said: str, decimal: str,
) -> None:  # fmt: skip
    """Whoever writes the shared file could otherwise give known people a second budget."""
    path = written(
        tmp_path_factory.mktemp("known") / "t.csv",
        [["a", "b", "c"], *rows],
        encoding=encoding,
        sign=";",
    )

    def recognised(file: TableFile) -> list[bytes]:
        return rows_as_bytes(with_gaps(lying(TableSource(SCHEMA, file), path)), file.encoding)

    right = recognised(TableFile(delimiter=";", encoding=encoding))
    other = TableFile(
        delimiter=";", encoding=said, decimal=decimal, missing=("ja",), true=("x",),
        aliases={"ward": {"Ü": "surgery"}}, columns={"weight": "a"}, usual_missing=False,
    )  # fmt: skip
    for known, again in zip(right, recognised(other), strict=True):
        assert again in (known, b"")  # a line that the encoding cannot read is no record


def test_a_record_is_known_again_when_it_is_saved_with_commas_as_latin_1(tmp_path: Path) -> None:
    rows = [["a", "größe", "c"], ["1.50", "Übergang", "12345.5"], ["-0.5", "ja", ""]]
    german = [["a", "größe", "c"], ["1,5", "ÜBERGANG", "12.345,50"], ["-0,50", "Ja", "NA"]]
    first = read_frame(written(tmp_path / "a.csv", rows))
    file = TableFile(delimiter=";", decimal=",", thousands=".", encoding="latin-1")
    second = read_frame(written(tmp_path / "b.csv", german, encoding="latin-1", sign=";"), file)
    assert rows_as_bytes(second, file.encoding) == rows_as_bytes(first)


# --- databases -----------------------------------------------------------------------------------


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A SQLite file with two patients."""
    path = tmp_path / "clinic.sqlite"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(text("CREATE TABLE visits (weight, admitted, smokes, ward, ill)"))
        connection.execute(text(
            "INSERT INTO visits VALUES (1.5, '2020-01-01', 1, 'surgery', 'yes'), "
            "(NULL, '2021-05-06', 0, NULL, 'no')"
        ))  # fmt: skip
    return path


QUERY = "SELECT weight, admitted, smokes, ward, ill FROM visits ORDER BY weight DESC"


def asked(path: Path, **values: Any) -> TableSource:
    """A table that is a query's answer."""
    database = Database(**{"url": f"sqlite:///{path.name}", "query": QUERY, **values})
    return TableSource(SCHEMA, database=database, folder=path.parent)


def test_a_query_gives_the_records_of_the_same_table_in_a_file(clinic: Path) -> None:
    rows = [[*SCHEMA.source_columns], ["1.5", "2020-01-01", "1", "surgery", "yes"],
            ["", "2021-05-06", "0", "", "no"]]  # fmt: skip
    file = written(clinic.with_name("t.csv"), rows)
    assert encoded(asked(clinic), Path("no file")) == encoded(TableSource(SCHEMA), file)
    peer = pd.read_sql(QUERY, f"sqlite:///{clinic}").astype(object)
    pd.testing.assert_frame_equal(lying(asked(clinic), Path()).fillna(np.nan), peer.fillna(np.nan))


def test_a_query_changes_nothing(clinic: Path) -> None:
    before, there = clinic.read_bytes(), sorted(clinic.parent.iterdir())
    other = clinic.with_name("other.sqlite")
    for query in (
        "DELETE FROM visits",
        "DELETE FROM visits RETURNING *",
        "DROP TABLE visits",
        "PRAGMA journal_mode = WAL",
        "PRAGMA query_only = OFF",
        f"ATTACH '{other}' AS other",
        f"VACUUM INTO '{other}'",
        "SELECT load_extension('anything')",
    ):
        with pytest.raises(DataError, match=r"the query of \[database\]"):
            lying(asked(clinic, query=query), Path())
    assert clinic.read_bytes() == before
    assert sorted(clinic.parent.iterdir()) == there


def test_a_query_may_join_count_and_recur(clinic: Path) -> None:
    query = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) "
        "SELECT max(weight) AS weight, '2020-01-01' AS admitted, 1 AS smokes, upper('a') AS ward, "
        "'no' AS ill FROM visits JOIN n GROUP BY i"
    )
    assert len(lying(asked(clinic, query=query), Path())) == 3


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"url": "sqlite:///missing.sqlite"}, ConfigError, "which is not there"),
        ({"url": "hunter2"}, ConfigError, "is none; it reads"),
        ({"url": "postgresql+psycopg://u:hunter2@[::1]:1/d"}, DataError, "cannot be connected to"),
        ({"url": "nosuch://u:hunter2@h/d"}, ConfigError, "SQLAlchemy does not know"),
        ({"url": "mysql+pymysql://u:hunter2@h/d"}, MissingDependencyError, "a driver that is not"),
        ({"url": "", "url_variable": "PRIVAGG_NONE"}, ConfigError, "'PRIVAGG_NONE' is not set"),
        ({"query": "SELECT weigth FROM visits"}, DataError, "no such column: weigth"),
        ({"query": "SELECT 1 AS a, 2 AS a"}, DataError, "'a' appear more than once"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_without_its_password(
    clinic: Path, values: dict[str, Any], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as raised:
        lying(asked(clinic, **values), Path())
    shown = repr(asked(clinic, **values))
    assert "hunter2" not in str(raised.value) + shown
    assert raised.value.__cause__ is None


def test_the_url_may_be_kept_in_the_environment(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_URL", f"sqlite:///{clinic}")
    assert len(lying(asked(clinic, url="", url_variable="CLINIC_URL"), Path())) == 2
    with pytest.raises(ValidationError, match="give either url or url_variable"):
        Database(url="sqlite://", url_variable="CLINIC_URL", query=QUERY)


def test_a_postgresql_table_is_read_and_cannot_be_changed() -> None:
    """A real server: its numerics, dates and booleans; a query that writes is refused by it."""
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL server: install Debian's package `postgresql`")
    with postgres.running() as server:
        url = server.database()
        with create_engine(url).begin() as connection:
            connection.execute(text(
                "CREATE TABLE visits (weight numeric(8, 2), admitted date, smokes boolean, "
                "ward text, ill char(5))"
            ))  # fmt: skip
            connection.execute(text(
                "INSERT INTO visits VALUES (1.50, '2020-01-01', true, 'surgery', 'yes'), "
                "(NULL, '2021-05-06', false, NULL, 'no')"
            ))  # fmt: skip
        source = TableSource(SCHEMA, database=Database(url=url, query=QUERY.replace(" DESC", "")))
        x, y = SCHEMA.encode(declared(source, Path()))
        plain = pd.DataFrame(
            [[1.5, date(2020, 1, 1), True, "surgery", "yes"],
             [None, date(2021, 5, 6), False, None, "no"]], columns=[*SCHEMA.source_columns],
        )  # fmt: skip
        expected = SCHEMA.encode(plain)
        np.testing.assert_array_equal(x, expected[0])
        np.testing.assert_array_equal(y, expected[1])
        for query in ("DELETE FROM visits RETURNING *", "DROP TABLE visits"):
            writing = TableSource(SCHEMA, database=Database(url=url, query=query))
            with pytest.raises(DataError, match="read-only transaction"):
                lying(writing, Path())
        assert len(lying(source, Path())) == 2
