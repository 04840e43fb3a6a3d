"""Label files, read strictly: what a format does not allow is an error that names the file, line and column.

Apart because every dataset needs it, and because a table that is quietly misread becomes a wrong number.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from harness.contracts import TABLE_COLUMNS
from harness.errors import BadTable, DataError, few
from harness.parallel import parallel_map, workers

Item = TypeVar("Item")
Result = TypeVar("Result")

UNSAID = {"split": "", "view": "", "sex": "", "age": math.nan}
"""Columns that many datasets say nothing of, and what stands there instead."""

LABEL_CELLS = {"1.0": 1, "0.0": 0, "-1.0": -1, "1": 1, "0": 0, "-1": -1, "": pd.NA}
"""How CheXpert's labeller writes asserted, denied, hedged and not mentioned; a spreadsheet drops the `.0`."""

BLOCK = 256  # small files read per task of a worker process: one alone costs less than sending it there

RESTORE = "Restore the file from the download"


def find_csv(root: Path, *names: str) -> Path:
    """The first of `names` that lies under `root`, plain or as `name.gz`. Raises DataError for none."""
    for path in (root / f"{name}{end}" for name in names for end in ("", ".gz")):
        if path.is_file():
            return path
    raise DataError(f"{root} has no {' or '.join(names)}, nor one that ends in .gz. Complete the download")


def read_cells(
    path: Path,
    columns: Sequence[str],
    *,
    exact: bool = True,
    skip_spaces: bool = False,
    spellings: Mapping[str, str] | None = None,
    filled: bool = False,
) -> pd.DataFrame:
    """All cells as text, blank as "", indexed by their line in the file.

    With `exact` the header must be `columns` in that order; otherwise it must hold them. `spellings` are
    other names of columns. With `skip_spaces` those after a comma do not count, in the header neither.
    Commas that only pad the end of a line are no cells. With `filled` a header alone is refused. Raises
    BadTable.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # utf-8-sig: a spreadsheet puts a byte-order mark before the first column's name
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=skip_spaces)
            header = next(reader, [])
            while header and not header[-1]:
                header.pop()
            header = [(spellings or {}).get(name, name) for name in header]
            _check_header(path, header, columns, exact)
            width = len(header)
            lines, cells = [], []  # one flat list: lists of rows would cost more in garbage collection
            for row in reader:
                line = reader.line_num
                if not row and not any(reader):  # blank lines at the end are no rows
                    break
                if len(row) != width and (len(row) < width or any(row[width:])):
                    raise BadTable(
                        f"{path}, line {line}: {len(row)} cells where the header has {width}. {RESTORE}"
                    )
                lines.append(line)
                cells.extend(row[:width])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Complete the download") from error
    except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadTable(f"{path} cannot be read: {error}. {RESTORE}") from error
    if filled and not lines:
        raise BadTable(f"{path} has a header and no row. {RESTORE}")
    table = np.array(cells, dtype=object).reshape(-1, width)
    return pd.DataFrame(table, columns=header, index=lines, dtype=str)


def read_lines(path: Path) -> pd.Series:
    """The lines of a text without header, indexed by their number; blank ones at the end are none. Raises
    DataError, BadTable."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Complete the download") from error
    except UnicodeDecodeError as error:
        raise BadTable(f"{path} cannot be read: {error}. {RESTORE}") from error
    return pd.Series(lines, index=range(1, len(lines) + 1), dtype=str)


def translate(cells: pd.Series, meaning: Mapping[str, object], path: Path) -> pd.Series:
    """What each cell stands for. Raises BadTable at the first cell that is not a key of `meaning`."""
    return one_of(list(meaning), cells, path).map(meaning)


def one_of(known: Sequence[str], cells: pd.Series, path: Path) -> pd.Series:
    """`cells` as they are. Raises BadTable at the first that is not `known`."""
    refuse(cells, ~cells.isin(known), path, f"is not one of {', '.join(map(repr, known))}")
    return cells


def once(cells: pd.Series, path: Path) -> pd.Series:
    """`cells` as they are. Raises BadTable at the first that stands in an earlier line as well."""
    refuse(cells, cells.duplicated(), path, "occurs twice")
    return cells


def numbers(cells: pd.Series, path: Path) -> pd.Series:
    """Floats, NaN for a blank cell. Raises BadTable at the first cell that is neither."""
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    refuse(cells, values.isna() & (cells != ""), path, "is not a number")
    return values


def label_columns(rows: pd.DataFrame, names: Sequence[str], path: Path) -> dict[str, pd.Series]:
    """`label:NAME` for each of `names`: 1, 0, -1 or NA."""
    return {f"label:{name}": translate(rows[name], LABEL_CELLS, path).astype("Int8") for name in names}


def one_each(rows: pd.DataFrame) -> pd.Series:
    """`rows` of a table whose file has one row per image."""
    return pd.Series([(place,) for place in range(len(rows))], index=rows.index)


def refuse(cells: pd.Series, wrong: pd.Series, path: Path, problem: str) -> None:
    """Raises BadTable for the first of `cells`, indexed by line, where `wrong` holds."""
    if wrong.any():
        line, cell = next(cells[wrong].items())
        column = f", column {cells.name!r}" if cells.name else ""
        raise BadTable(
            f"{path}, line {line}{column}: {cell!r} {problem} ({wrong.sum()} such rows). {RESTORE}"
        )


def refuse_files(paths: Iterable[object], problem: str) -> None:
    """Raises DataError naming the first of `paths`, if there are any."""
    if found := list(paths):
        raise DataError(f"{few(found)}: {problem}")


def finish(
    columns: Mapping[str, object],
    *,
    persons_known: bool = True,
    notes: Sequence[str] = (),
) -> pd.DataFrame:
    """The dataset's table: contract columns first, sorted by id. What of `UNSAID` is missing, it does not
    say."""
    frame = pd.DataFrame({**UNSAID, **columns})
    rest = [name for name in frame.columns if name not in TABLE_COLUMNS]
    frame = frame[[*TABLE_COLUMNS, *rest]].sort_values("image_id", ignore_index=True)
    frame.attrs["persons_known"] = persons_known
    frame.attrs["notes"] = tuple(notes)
    return frame


def read_files(function: Callable[[Path], Result], paths: Sequence[Path], label: str) -> list[Result]:
    """`function` of many small files, in their order, by as many processes as there may be. `function` must
    pickle. What it says of the first few that it refuses with a DataError is raised in one, with how many
    there are."""
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    read = partial(_each, function)
    parts = parallel_map(read, blocks, workers=workers(), label=label, unit=f"blocks of {BLOCK} files")
    results = [result for part in parts for result in part]
    refused = [result for result in results if isinstance(result, DataError)]
    if refused:
        raise type(refused[0])(few(refused, "; "))
    return [result for result in results if not isinstance(result, DataError)]


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | DataError]:
    return [_attempt(function, item) for item in items]


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | DataError:
    try:
        return function(item)
    except DataError as error:
        return error


def _check_header(path: Path, header: list[str], columns: Sequence[str], exact: bool) -> None:
    missing = [name for name in columns if name not in header]
    extra = [name for name in header if name not in columns]
    if missing or (exact and list(columns) != header):
        difference = "; ".join(
            f"{word} {', '.join(map(repr, names))}"
            for word, names in (("missing", missing), ("unexpected", extra if exact else []))
            if names
        )
        raise BadTable(
            f"{path}, line 1: the header is not that of the official file ({difference or 'other order'}). "
            f"Expected {','.join(columns)}"
        )
