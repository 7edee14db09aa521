"""Tables as they lie at a site, and as their declaration reads them; cell by cell.

`lying` is what the file or the database holds; nothing but the encoding and the sign between cells
changes it, and by it an owner recognises records. `declared` is what a declaration reads: columns
by their declared names, each cell with its declared spelling. What one cell holds never changes how
another one is read.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from privagg.errors import ConfigError, DataError
from privagg.training.csvfile import MISSING, read_csv
from privagg.training.database import read_query
from privagg.training.declared import TableSource
from privagg.training.features import CategoricalFeature, Category, NumericFeature, as_number
from privagg.training.table import TableSchema
from privagg.training.tablefile import TableFile

CONTRADICTING = "privagg contradicting cells"
"""Key of `DataFrame.attrs`: column -> cells whose decimal sign is another than declared."""

LARGE_TABLE_BYTES = 2**28
"""A Parquet file with more cells than these hold, at 8 bytes each, is read in parts."""

PART_ROWS = 2**15

TEXT_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2019": "'"})


def lying(source: TableSource, path: Path) -> pd.DataFrame:
    """A table as it lies there; the cells of a CSV file are texts, None where a line ends early.

    Args:
        source: how it is written, or the query that it comes from.
        path: of the file; not looked at where there is a query.

    Raises:
        ConfigError: no such file, or another ending; a database that cannot be used.
        DataError: the file cannot be read as what its ending says, or the query fails.
    """
    if source.database is not None:
        return read_query(source.database, source.folder)
    return read_frame(path, source.file, gaps=False)


def read_frame(
    path: str | Path, written: TableFile | None = None, *, gaps: bool = True
) -> pd.DataFrame:
    """The table in a file, each cell as it lies there.

    Args:
        path: a `.csv`, `.tsv` or `.txt` file (or one of these and `.gz`), or `.parquet`.
        written: its encoding and delimiter; UTF-8 and commas by default.
        gaps: None in place of a CSV file's texts that usually stand for a missing cell.

    Raises:
        ConfigError, DataError: as `lying`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no file {path.absolute()}; correct the path")
    try:
        if path.name.lower().endswith(TEXT_ENDINGS):
            frame = read_csv(path, written or TableFile())
            return with_gaps(frame) if gaps else frame
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path, dtype_backend="numpy_nullable")
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix}: {error}; save it anew, or correct its ending"
        ) from error
    raise ConfigError(f"{path} is no table that can be read; use a .csv or .parquet file")


def with_gaps(frame: pd.DataFrame, *, usual: bool = True) -> pd.DataFrame:
    """The same with None in place of the texts that usually stand for a missing cell.

    Args:
        frame: as it lies in a CSV file.
        usual: False keeps all of them but the empty text.
    """
    gaps = MISSING if usual else {""}
    found = {
        place: [None if cell in gaps else cell for cell in frame.iloc[:, place]]
        for place in range(frame.shape[1])
    }
    made = pd.DataFrame(found, dtype=object, index=frame.index)
    made.columns, made.attrs = frame.columns, frame.attrs
    return made


def is_text(source: TableSource, path: Path) -> bool:
    """Whether a table is a CSV file."""
    return source.database is None and path.name.lower().endswith(TEXT_ENDINGS)


def lying_parts(source: TableSource, path: Path) -> Iterator[pd.DataFrame]:
    """The same, a large Parquet file some rows at a time; each cell is read as in the whole.

    Args:
        source, path: as for `lying`.

    Yields:
        At least one part; all rows, in order.

    Raises:
        ConfigError, DataError: as `lying`.
    """
    is_parquet = path.is_file() and path.suffix.lower() == ".parquet"
    if source.database is not None or not is_parquet:
        yield lying(source, path)
        return
    with _parquet(path):
        file = parquet.ParquetFile(path, buffer_size=2**20)
        large = 8 * file.metadata.num_rows * file.metadata.num_columns > LARGE_TABLE_BYTES
    if not large:
        yield lying(source, path)
        return
    with _parquet(path):
        for batch in _batches(file):
            # Through pandas' own reader, so that no cell is another than in the whole.
            held = io.BytesIO()
            parquet.write_table(pyarrow.Table.from_batches([batch]), held, compression="none")
            yield pd.read_parquet(held, dtype_backend="numpy_nullable")


def _batches(file: parquet.ParquetFile) -> Iterator[pyarrow.RecordBatch]:
    """Group by group: read in one go, what was read of all groups so far is kept."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(PART_ROWS, row_groups=[group])


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix}: {error}; save it anew, or correct its ending"
        ) from error


def declared_parts(source: TableSource, path: Path) -> Iterator[pd.DataFrame]:
    """A table as `declared`, a large Parquet file some rows at a time.

    Args:
        source, path: as for `declared`.

    Raises:
        ConfigError, DataError: as `declared`.
    """
    for part in lying_parts(source, path):
        yield _as_declared(part, source, path, target=True)


def declared_sample(source: TableSource, path: Path) -> tuple[pd.DataFrame, int]:
    """A table as `declared`; of a large Parquet file evenly spaced rows, at most two parts long.

    Args:
        source, path: as for `declared`.

    Returns:
        The table, and that each so many-th row of the file is in it.

    Raises:
        ConfigError, DataError: as `declared`.
    """
    kept: list[pd.DataFrame] = []
    step, start = 1, 0
    for part in declared_parts(source, path):
        kept.append(part if step == 1 else part.iloc[-start % step :: step])
        start += len(part)
        if sum(map(len, kept)) > 2 * PART_ROWS:
            whole = pd.concat(kept, ignore_index=True)
            kept, step = [whole.iloc[::2]], 2 * step
    if len(kept) == 1 and step == 1:
        return kept[0], 1
    return pd.concat(kept, ignore_index=True), step


def declared(source: TableSource, path: Path, *, target: bool = True) -> pd.DataFrame:
    """A table as its declaration reads it: every declared column, by its declared name.

    Args:
        source: the declaration, and how the table is written.
        path: of the file.
        target: False where the target's column need not be there.

    Raises:
        ConfigError, DataError: as `lying`; or a declared column is missing.
    """
    return _as_declared(lying(source, path), source, path, target=target)


def _as_declared(
    lies: pd.DataFrame, source: TableSource, path: Path, *, target: bool
) -> pd.DataFrame:
    written, schema = source.file, source.schema
    frame = _named(lies, written, schema, source.place(path), target=target)
    if is_text(source, path):
        frame = with_gaps(frame, usual=written.usual_missing)
    if written.plain:
        return frame
    contradicting: dict[str, list[str]] = {}
    columns = {}
    for name in frame.columns:
        read = _reader(written, schema, name, contradicting.setdefault(name, []))
        columns[name] = pd.Series([read(cell) for cell in frame[name]], frame.index, object)
    made = pd.DataFrame(columns, index=frame.index)
    made.attrs = {**frame.attrs, CONTRADICTING: contradicting}
    return made


def _named(
    frame: pd.DataFrame, written: TableFile, schema: TableSchema, place: str, *, target: bool
) -> pd.DataFrame:
    """The declared columns alone, by their declared names."""
    features = [feature.name for feature in schema.features]
    names = list(schema.source_columns) if target else features
    present = [str(name) for name in frame.columns]
    missing = [name for name in names if written.source_of(name) not in present]
    if missing:
        told = [
            repr(name) + ("" if (own := written.source_of(name)) == name else f" (here {own!r})")
            for name in missing
        ]
        raise DataError(
            f"column(s) {', '.join(told)} declared but not in {place}, which has: "
            f"{', '.join(present)}; rename the column, name it under `columns` in the table's "
            "[file] section, or correct the declaration"
        )
    sources = [written.source_of(name) for name in names]
    repeated = sorted({name for name in sources if present.count(name) > 1})
    if repeated:
        raise DataError(
            f"column(s) {', '.join(map(repr, repeated))} appear more than once in {place}; keep "
            "one of each"
        )
    found = frame.set_axis(present, axis=1)[sources].set_axis(names, axis=1)
    found.attrs = frame.attrs
    return found


# --- one cell ------------------------------------------------------------------------------------


def _reader(
    written: TableFile, schema: TableSchema, column: str, contradicting: list[str]
) -> Callable[[Any], Any]:
    """What makes of a cell of a column what it would be in a file that needs no settings.

    Args:
        written: the settings.
        schema: the declaration.
        column: its declared name.
        contradicting: cells are added whose decimal sign is another than `written` says.
    """
    feature = next((one for one in schema.features if one.name == column), None)
    dates = isinstance(feature, NumericFeature) and feature.since is not None
    number = _number_reader(written)
    gaps = _Spellings(dict.fromkeys(written.missing_in(column)))
    aliases = _Spellings(written.aliases.get(column, {}))
    words = {**dict.fromkeys(written.true, "true"), **dict.fromkeys(written.false, "false")}
    own, truths = _Spellings({text: text for text in _own_texts(schema, column)}), _Spellings(words)
    form = written.dates_in(column)

    def read(cell: Any) -> Any:
        if pd.isna(cell) is True:
            return None
        plain = cell if dates else number(cell)
        for spellings in (gaps, aliases, own, truths):
            with suppress(KeyError):
                return spellings.of(cell, plain)
        if dates:
            return _iso(cell, form)
        if plain is None:
            contradicting.append(str(cell))
        return plain

    return read


class _Spellings:
    """Texts or numbers that stand for something; texts in capital or small letters, unless two
    differ in nothing else."""

    def __init__(self, meanings: dict[Any, Any]) -> None:
        self._numbers = {n: v for k, v in meanings.items() if (n := as_number(k)) is not None}
        texts = {str(k).strip(): v for k, v in meanings.items() if as_number(k) is None}
        self._exact = len({text.casefold() for text in texts}) < len(texts)
        self._texts = {self._key(text): meaning for text, meaning in texts.items()}

    def _key(self, text: str) -> str:
        return text if self._exact else text.casefold()

    def of(self, cell: Any, plain: Any) -> Any:
        """What a cell stands for, by its text or by the number that it plainly reads as.

        Raises:
            KeyError: it is none of them.
        """
        if (text := self._key(str(cell).strip())) in self._texts:
            return self._texts[text]
        number = as_number(plain) if self._numbers else None
        if number is None:
            raise KeyError(text)
        return self._numbers[number]


def _own_texts(schema: TableSchema, column: str) -> list[str]:
    """What a column declares as texts, which stay what they are; nothing that reads as a number."""
    own: list[Category] = []
    for feature in schema.features:
        if feature.name == column and isinstance(feature, CategoricalFeature):
            own += feature.categories
    if column in schema.target.columns:
        for name in ("classes", "positive", "event_is"):
            said = getattr(schema.target, name, None) or ()
            own += said if isinstance(said, tuple) else (said,)
    texts = [re.sub(r"^\s*(==|!=|>=|<=|>|<)", "", str(value)).strip() for value in own]
    return [text for text in texts if as_number(text) is None]


def _number_reader(written: TableFile) -> Callable[[Any], Any]:
    """Numbers of a file as Python spells them, other cells as they are, and None for a text that
    would read as a number with a sign that the file does not use so."""
    decimal, thousands = written.decimal, written.thousands
    if (decimal, thousands) == (".", ""):
        return lambda cell: cell
    groups = rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|" if thousands else ""
    form = re.compile(
        rf"[+-]?(?:(?:{groups}\d+)(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)"
        r"(?:[eE][+-]?\d+)?"
    )

    def number(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        text = cell.strip().translate(_SPACES)
        if form.fullmatch(text):
            plain = text.replace(thousands, "") if thousands else text
            return plain.replace(decimal, ".")
        return None if "." in text and decimal == "," and as_number(text) is not None else cell

    return number


def _iso(cell: Any, form: str) -> Any:
    """A date as ISO 8601 writes it; another cell as it is."""
    if not isinstance(cell, str):
        return cell
    try:
        return datetime.strptime(cell.strip(), form).isoformat(" ")
    except ValueError:
        return cell
