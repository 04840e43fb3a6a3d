"""Printed numbers keep their digits and their sources, and meet ours only where both are about one thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import leaderboard
from harness.errors import BadRecord
from tests import fakes
from tests.harness.leaderboard.pages import section_of, tables_of

COMMITTED = Path(__file__).resolve().parents[3] / "results" / "reported"


def test_published_numbers_keep_their_source_and_their_doubts(tmp_path: Path) -> None:
    (tmp_path / "reported").mkdir()
    (tmp_path / "reported" / "linear.csv").write_text(
        "method,variant,task,fraction,metric,value,std,setting,source,note\n"
        "gloria,,chexpert:linear,1%,AUC,86.6,,frozen,Paper A Table 4,Paper B prints 87.1\n"
        "gloria,,chexpert:linear,100%,AUC,88.1,0.2,frozen,Paper A Table 4,\n"
        "mgca,ViT-B/16,chexpert:linear,1%,AUC,88.8,,probe,Paper B,\n"
    )
    page = leaderboard.build(tmp_path)
    assert tables_of(page)["linear"] == [
        ["chexpert:linear", "AUC", "gloria", "[1]", "86.6", "88.1 ± 0.2"],
        ["chexpert:linear", "AUC", "mgca (ViT-B/16)", "[2]", "88.8", "–"],
    ]
    assert "1. Paper A Table 4. Setting: frozen\n2. Paper B. Setting: probe\n" in page
    assert "- chexpert:linear, gloria, 1%: 86.6 here; Paper B prints 87.1" in page


def test_committed_numbers_all_reach_the_page(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED, tmp_path / "reported")
    page = leaderboard.build(tmp_path)
    for path in COMMITTED.glob("*.csv"):
        values = sum(len(row) - 4 - row.count("–") for row in tables_of(page)[path.stem])
        assert values == len(path.read_text(encoding="utf-8").splitlines()) - 1, path.name


def test_the_numbers_of_others_may_lie_elsewhere(tmp_path: Path) -> None:
    """A user's records lie in a folder of their own, the printed numbers in the project's."""
    shutil.copytree(COMMITTED, tmp_path / "ours" / "reported")
    fakes.write(tmp_path / "ours", **OURS)  # type: ignore[arg-type]
    fakes.write(tmp_path / "mine", **OURS)  # type: ignore[arg-type]
    ours = leaderboard.build(tmp_path / "ours")
    assert "| gloria" in section_of(ours, "Beside ours")
    assert leaderboard.build(tmp_path / "mine", printed=COMMITTED) == ours
    assert "Published numbers" not in leaderboard.build(tmp_path / "mine")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b"gloria,,chexpert:linear,one,AUC,86.6,,frozen,Paper A,",
            "could not convert string to float: 'one'",
        ),
        (b"gloria,,chexpert:linear,1%,AUC,?,,frozen,Paper A,", "could not convert string to float: '\\?'"),
        (b"gloria,,chexpert:linear,1%,AUC,86.6", "a row needs the columns method,variant,task"),
        (b"gloria,,chexpert:linear,1%,AUC,86.6,,frozen,M\xfcller,", "can't decode byte 0xfc"),
    ],
    ids=["fraction", "value", "columns", "encoding"],
)
def test_a_line_that_is_no_printed_number_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    (tmp_path / "reported").mkdir()
    header = b"method,variant,task,fraction,metric,value,std,setting,source,note\n"
    (tmp_path / "reported" / "linear.csv").write_bytes(header + line)
    with pytest.raises(BadRecord, match=rf"linear\.csv, line \d: .*{reason}"):
        leaderboard.build(tmp_path)


@pytest.mark.parametrize("text", ["{", "[{}]", "[1]"], ids=["no JSON", "no method", "no object"])
def test_variants_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "reported").mkdir()
    shutil.copy(COMMITTED / "linear.csv", tmp_path / "reported")
    (tmp_path / "reported" / "variants.json").write_text(text)
    with pytest.raises(BadRecord, match=r"variants\.json: .*Mend it: a list of objects with method, variant"):
        leaderboard.build(tmp_path)


def beside_ours(results: Path, *printed: str, **record: object) -> tuple[list[list[str]], str]:
    """The verdicts on lines of a file of printed numbers, and the text around them."""
    (results / "reported").mkdir(parents=True)
    shutil.copy(COMMITTED / "variants.json", results / "reported")
    header = "method,variant,task,fraction,metric,value,std,setting,source,note"
    (results / "reported" / "linear.csv").write_text("\n".join([header, *printed]), encoding="utf-8")
    fakes.write(results, **record)  # type: ignore[arg-type]
    page = leaderboard.build(results)
    return tables_of(page)["Beside ours"], section_of(page, "Beside ours")


GLORIA = 'gloria,,chexpert:linear,1%,AUC,{},,"frozen encoder, linear",Paper A,'
OURS = {
    **{"method": "gloria", "family": "gloria-x", "corpus": "chexpert"},
    **{"kind": "real", "protocol": "published", "profile": "paper"},
}


def test_a_printed_number_lies_inside_our_interval_or_not(tmp_path: Path) -> None:
    table, _ = beside_ours(tmp_path, GLORIA.format("75.0"), GLORIA.format("12.0"), **OURS)
    low, high = map(float, table[0][5].split("[")[1].rstrip("]").split(","))
    assert 12.0 < low < 75.0 < high
    assert [row[-1] for row in table] == ["inside", "outside"]
    assert table[0][:5] == ["chexpert:linear", "gloria", "1%", "AUC", "75.0"]


@pytest.mark.parametrize(("variant", "ours"), [("ResNet-50", "mgca"), ("ViT-B/16", "mgca_vit")])
def test_a_variant_is_laid_beside_the_method_that_it_is(tmp_path: Path, variant: str, ours: str) -> None:
    row = GLORIA.format("75.0").replace("gloria,,", f"mgca,{variant},")
    other = "mgca" if ours == "mgca_vit" else "mgca_vit"
    fakes.write(tmp_path, **{**OURS, "method": other, "family": "other-x", "corpus": "mimic_cxr"})
    table, _ = beside_ours(tmp_path, row, **{**OURS, "method": ours, "corpus": "mimic_cxr"})
    assert [(found[1], found[-2]) for found in table] == [(f"mgca ({variant})", "gloria-x")]


def test_each_checkpoint_of_the_method_has_a_verdict(tmp_path: Path) -> None:
    fakes.write(tmp_path, 9.0, **{**OURS, "family": "gloria-y"})
    table, _ = beside_ours(tmp_path, GLORIA.format("100.0"), **OURS)
    assert {row[-2]: row[-1] for row in table} == {"gloria-x": "outside", "gloria-y": "inside"}


def test_each_table_of_a_checkpoint_has_a_verdict(tmp_path: Path) -> None:
    """Of two releases of the data, say."""
    fakes.write(tmp_path, 9.0, **{**OURS, "fingerprint": "e" * 64, "seed": 1})
    table, _ = beside_ours(tmp_path, GLORIA.format("100.0"), **OURS)
    assert sorted(row[-1] for row in table) == ["inside", "outside"]


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    for change, reason in (
        ({"kind": "phantom"}, "no record on the real data"),
        ({"protocol": "clean"}, "only a record of the clean protocol"),
        ({"profile": "demo"}, "only a record of a demo-sized encoder"),
        ({"method": "mgca"}, "no record on the real data"),
        ({"fraction": 1.0}, "no record on the real data"),
        ({"corpus": "mimic_cxr"}, "only a record of an encoder that was trained on another corpus"),
    ):
        table, text = beside_ours(tmp_path / str(change), GLORIA.format("75.0"), **{**OURS, **change})
        assert table == [] and f"- 1: {reason}" in text, change


def test_a_metric_or_value_that_ours_is_not_is_left_alone(tmp_path: Path) -> None:
    printed = [GLORIA.format("75.0").replace("AUC", "F1"), GLORIA.format("<1")]
    table, text = beside_ours(tmp_path, *printed, **OURS)
    assert table == []
    assert "- 1: the metric is computed in another way" in text and "- 1: no value is printed" in text


def test_a_setting_or_variant_that_ours_is_not_is_left_alone(tmp_path: Path) -> None:
    row = GLORIA.format("75.0")
    printed = [
        row.replace("frozen encoder, linear", "frozen encoder, linear; backbone inferred"),
        row.replace("frozen encoder, linear", "linear probe, parts of its own"),
        row.replace("gloria,,", "gloria,pre-trained on MIMIC-CXR,"),
        row.replace("gloria,,", "gloria,ViT-B/16,"),
    ]
    table, text = beside_ours(tmp_path, *printed, **OURS)
    assert [row[1] for row in table] == ["gloria"]
    assert "- 1: another setting than" in text
    assert "- 1: only a record of an encoder that was trained on another corpus" in text
    assert "- 1: a variant of the method" in text
