"""The page is a pure function of the records, and numbers that do not belong together never share a table."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from harness import leaderboard, records
from harness.errors import BadRecord
from tests import fakes


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Rows of the first table below each heading, without head and rule."""
    found = {}
    for block in page.split("\n#")[1:]:
        heading, *lines = block.strip("# ").splitlines()
        rows = [line.strip("| ").split("|") for line in lines if line.startswith("|")][2:]
        found[heading] = [[cell.strip() for cell in row] for row in rows]
    return found


TABLE = "chexpert:linear · macro AUROC · clean · version 1"


def test_a_cell_is_the_mean_over_seeds(tmp_path: Path) -> None:
    expected = []
    for seed in (0, 1, 2):
        found = records.predictions(fakes.write(tmp_path, seed=seed)).arrays
        expected.append(
            np.mean([roc_auc_score(found["truth"][:, label], found["scores"][:, label]) for label in (0, 1)])
        )
    [row] = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert row[:3] == ["imitate", "imitate-demo-1a2b3c4d", "mimic_cxr (phantom)"]
    assert row[3].startswith(f"{np.mean(expected) * 100:.1f} [")
    assert row[3].endswith("(3 seeds)")
    assert row[4:] == ["1", "20 / 10"]


def test_weights_of_others_are_marked(tmp_path: Path) -> None:
    fakes.write(tmp_path, imported_from="theirs.ckpt")
    [row] = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert row[2] == "mimic_cxr (phantom), imported"


def test_the_best_stand_on_top_and_holes_are_shown(tmp_path: Path) -> None:
    fakes.write(tmp_path, skill=0.0, method="floor", family="floor-x", fraction=1.0)
    fakes.write(tmp_path, skill=9.0, method="best", family="best-x", fraction=1.0)
    fakes.write(tmp_path, skill=9.0, method="best", family="best-x", fraction=0.01)
    rows = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert [row[0] for row in rows] == ["best", "floor"]
    assert rows[0][3].startswith("100.0 [100.0, 100.0]")
    assert rows[1][3] == "–"


def test_phantom_and_real_never_meet(tmp_path: Path) -> None:
    fakes.write(tmp_path, method="drawn", kind="phantom")
    fakes.write(tmp_path, method="measured", kind="real")
    page = leaderboard.build(tmp_path)
    phantom, real = page.index("## Phantom track"), page.index("## Real track")
    assert phantom < page.index("| drawn") < real < page.index("| measured")


@pytest.mark.parametrize("change", [{"fingerprint": "e" * 64}, {"version": 2}])
def test_other_data_or_another_version_is_another_table(tmp_path: Path, change: dict[str, object]) -> None:
    fakes.write(tmp_path)
    fakes.write(tmp_path, family="other", **change)
    assert leaderboard.build(tmp_path).count("\n### chexpert:linear") == 2


def test_a_search_is_a_table_of_its_own(tmp_path: Path) -> None:
    fakes.write(tmp_path, skill=0.0)
    fakes.write(tmp_path, skill=9.0, tuned=8)
    tables = tables_of(leaderboard.build(tmp_path))
    [plain], [tuned] = tables[TABLE], tables[f"{TABLE} · best of 8 settings on validation"]
    assert plain[3].endswith("(1 seed)") and tuned[3] == "100.0 [100.0, 100.0] (1 seed)"


def test_the_page_does_not_depend_on_the_machine_or_the_order(tmp_path: Path) -> None:
    cells = [{"seed": seed, "fraction": fraction} for seed in (0, 1) for fraction in (0.01, 1.0)]
    for name, order in (("a", cells), ("b", cells[::-1])):
        for cell in order:
            fakes.write(tmp_path / name, **cell)
    assert leaderboard.build(tmp_path / "a") == leaderboard.build(tmp_path / "b")


def test_a_broken_record_stops_the_page(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    broken = fakes.write(tmp_path, seed=1)
    broken.write_text(broken.read_text().replace('"schema_version": 2', '"schema_version": 9'))
    with pytest.raises(BadRecord, match="schema_version"):
        leaderboard.build(tmp_path)


def test_a_stale_page_is_shown_as_a_diff(tmp_path: Path) -> None:
    page, path = leaderboard.build(tmp_path), tmp_path / "leaderboard.md"
    assert "+# Leaderboard" in leaderboard.difference(path, page)
    path.write_text(page, encoding="utf-8")
    assert leaderboard.difference(path, page) == ""
    fakes.write(tmp_path)
    difference = leaderboard.difference(path, leaderboard.build(tmp_path))
    assert "-No records yet." in difference
    assert "+| imitate" in difference


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
    source = Path(__file__).resolve().parents[2] / "results" / "reported"
    shutil.copytree(source, tmp_path / "reported")
    page = leaderboard.build(tmp_path)
    for path in source.glob("*.csv"):
        values = sum(len(row) - 4 - row.count("–") for row in tables_of(page)[path.stem])
        assert values == len(path.read_text(encoding="utf-8").splitlines()) - 1, path.name
