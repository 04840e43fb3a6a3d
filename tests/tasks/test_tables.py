"""Label files as spreadsheets, broken downloads and other people leave them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import BadTable, DataError, UnreadableImage
from tasks._tables import (
    find_csv,
    label_columns,
    numbers,
    once,
    read_cells,
    read_files,
    read_lines,
)

COLUMNS = ("name", "value")
ZIPPED = gzip.compress(b"name,value\n" * 100, mtime=0)  # the same in every process that collects tests


def test_cells_are_text_indexed_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfname,value\r\n"two\nlines",NA\r\nlast,\r\n')  # with a byte-order mark
    cells = read_cells(path, COLUMNS)
    assert cells.to_dict("index") == {
        3: {"name": "two\nlines", "value": "NA"},
        4: {"name": "last", "value": ""},
    }


def test_a_table_may_have_more_columns_where_order_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("extra,value,name\n1,2,3\n")
    assert read_cells(path, COLUMNS, exact=False)["name"].tolist() == ["3"]
    with pytest.raises(BadTable, match=r"line 1.*unexpected 'extra'"):
        read_cells(path, COLUMNS)


def test_blank_lines_at_the_end_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,value\n1,2\n\n\r\n")
    assert read_cells(path, COLUMNS).to_numpy().tolist() == [["1", "2"]]
    path.write_text("name,value\n1,2\n\n3,4\n")
    with pytest.raises(BadTable, match=r"line 3: 0 cells where the header has 2"):
        read_cells(path, COLUMNS)
    path.write_text("one\n\ntwo\n \n\n")
    assert read_lines(path).to_dict() == {1: "one", 2: "", 3: "two"}


def test_commas_that_pad_the_lines_are_no_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,value,,\n1,2\n3,,,,\n")
    assert read_cells(path, COLUMNS).to_numpy().tolist() == [["1", "2"], ["3", ""]]
    path.write_text("name,value,,\n1,2,,3\n")
    with pytest.raises(BadTable, match=r"line 2: 4 cells where the header has 2"):
        read_cells(path, COLUMNS)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,amount\n1,2\n")
    assert read_cells(path, COLUMNS, spellings={"amount": "value"})["value"].tolist() == ["2"]
    with pytest.raises(BadTable, match=r"missing 'value'; unexpected 'amount'"):
        read_cells(path, COLUMNS)


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,value\n")
    cells = read_cells(path, COLUMNS)
    assert len(cells) == 0 and list(cells) == list(COLUMNS)
    with pytest.raises(BadTable, match=rf"{path} has a header and no row"):
        read_cells(path, COLUMNS, filled=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("latin.csv", b"name,value\nM\xfcller,1\n"),
        ("quote.csv", b'name,value\n"open,1\n'),
        ("page.csv.gz", b"<html>please log in</html>"),
        ("half.csv.gz", ZIPPED[:-12]),
        ("flipped.csv.gz", ZIPPED[:10] + b"\xff" * 30),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadTable, match=name):
        read_cells(tmp_path / name, COLUMNS)


def test_lines_are_numbered_from_one(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa b\r\n\r\na b")
    lines = read_lines(path)
    assert lines.to_dict() == {1: "a b", 2: "", 3: "a b"}
    with pytest.raises(BadTable, match=r"list.txt, line 3: 'a b' occurs twice \(1 such rows\)"):
        once(lines, path)
    path.write_bytes(b"M\xfcller")
    with pytest.raises(BadTable, match=r"list.txt cannot be read"):
        read_lines(path)
    with pytest.raises(DataError, match=r"other.txt does not exist"):
        read_lines(tmp_path / "other.txt")


def test_the_first_name_of_a_csv_that_is_there_counts(tmp_path: Path) -> None:
    (tmp_path / "old.csv").touch()
    assert find_csv(tmp_path, "new.csv", "old.csv").name == "old.csv"
    (tmp_path / "new.csv.gz").touch()
    assert find_csv(tmp_path, "new.csv", "old.csv").name == "new.csv.gz"
    with pytest.raises(DataError, match=r"no a.csv or b.csv, nor one that ends in .gz"):
        find_csv(tmp_path, "a.csv", "b.csv")


def test_bad_cells_are_counted_and_the_first_is_shown() -> None:
    cells = pd.Series(["1", "x", "", "y"], index=[2, 3, 4, 5], name="value")
    with pytest.raises(BadTable, match=r"a.csv, line 3, column 'value': 'x' is not a number \(2 such rows\)"):
        numbers(cells, Path("a.csv"))
    with pytest.raises(BadTable, match=r"line 5.*'1' occurs twice"):
        once(cells.replace("y", "1"), Path("a.csv"))


def test_label_cells() -> None:
    rows = pd.DataFrame({"Edema": ["1.0", "0.0", "-1.0", "", "1"]})
    labels = label_columns(rows, ["Edema"], Path("a.csv"))["label:Edema"]
    assert labels.tolist() == [1, 0, -1, pd.NA, 1] and labels.dtype == "Int8"


def test_many_files_come_back_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(600)]  # more than two blocks
    for path in paths:
        path.write_text(path.stem)
    assert read_files(Path.read_text, paths, "reading") == [path.stem for path in paths]


def even(path: Path) -> None:
    if int(path.stem) % 2:
        raise UnreadableImage(f"{path} is odd")


def test_files_that_are_refused_are_named_together() -> None:
    paths = [Path(f"{number}.txt") for number in range(600)]
    three = r"^1.txt is odd; 3.txt is odd; 5.txt is odd"
    with pytest.raises(UnreadableImage, match=f"{three} and 297 more$"):
        read_files(even, paths, "reading")
    with pytest.raises(UnreadableImage, match=f"{three}$"):
        read_files(even, paths[:6], "reading")
