"""Honesty rule 7: a published number has one source and one setting, and the digits it was printed with."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from harness import registry
from harness.contracts import Kind

FILES = sorted((Path(__file__).resolve().parent.parent / "results" / "reported").glob("*.csv"))

COLUMNS = "method variant task fraction metric value std setting source note".split()
METHODS = {"convirt", "gloria", "imagenet", "imitate", "mgca", "random_init"}
DATASETS = {"chestxray14", "chexpert", "covidx", "mimic_5x200", "object_cxr", "rsna", "siim"}
FRACTIONS = ["", "1%", "10%", "100%"]  # "": the kind uses no labels

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        assert reader.fieldnames == COLUMNS
        return list(reader)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def table(request: pytest.FixtureRequest) -> tuple[str, list[Row]]:
    return request.param.stem, rows_of(request.param)


def test_variants_are_of_printed_methods_and_name_methods_and_corpora_of_ours() -> None:
    variants = json.loads(FILES[0].with_name("variants.json").read_bytes())
    printed = {(row["method"], row["variant"]) for path in FILES for row in rows_of(path)}
    assert {(one["method"], one["variant"]) for one in variants} <= printed
    assert {one["ours"] for one in variants} <= registry.entries("methods").keys()
    corpora = {corpus for one in variants for corpus in one["corpora"]}
    assert corpora <= {None, "imagenet", *registry.entries("tasks")}


def test_there_is_a_table_per_kind() -> None:
    assert {path.stem for path in FILES} == set(get_args(Kind))


def test_names_are_known(table: tuple[str, list[Row]]) -> None:
    kind, rows = table
    for row in rows:
        assert row["method"] in METHODS, row
        assert row["task"].split(":") in [[dataset, kind] for dataset in DATASETS], row
        assert (row["fraction"] == "") == (kind in ("zero-shot", "retrieval")), row
        assert row["fraction"] in FRACTIONS, row


def test_every_number_has_a_source_and_a_setting(table: tuple[str, list[Row]]) -> None:
    for row in table[1]:
        assert row["source"] and row["setting"] and row["metric"], row
        assert not any(value != value.strip() for value in row.values()), row


def test_numbers_are_percentages_as_printed(table: tuple[str, list[Row]]) -> None:
    for row in table[1]:
        assert row["value"] == "<1" or re.fullmatch(r"\d{1,2}\.\d{1,2}", row["value"]), row
        assert not row["std"] or re.fullmatch(r"\d\.\d{1,2}", row["std"]), row


def test_one_source_per_cell(table: tuple[str, list[Row]]) -> None:
    cells = Counter(tuple(row[column] for column in COLUMNS[:5]) for row in table[1])
    assert [cell for cell, count in cells.items() if count > 1] == []


def test_rows_are_sorted(table: tuple[str, list[Row]]) -> None:
    places = [
        (row["task"], row["method"], row["variant"], row["metric"], FRACTIONS.index(row["fraction"]))
        for row in table[1]
    ]
    assert places == sorted(places)


def test_a_disagreement_disagrees(table: tuple[str, list[Row]]) -> None:
    for row in table[1]:
        if printed := re.search(r" prints (\d\S*?)(,| |$)", row["note"]):
            assert float(printed[1]) != float(row["value"]), row
            assert not row["note"].startswith(row["source"]), row
