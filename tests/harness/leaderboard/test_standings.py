"""What is compared with what: groups, ranks and protocols are by what both sides have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from harness import leaderboard, records
from harness.errors import BadRecord
from harness.leaderboard import standings
from tests import fakes
from tests.harness.leaderboard.pages import tables_of

TABLE = "chexpert:linear · macro AUROC · clean"


def test_clean_stands_beside_published_with_the_difference(tmp_path: Path) -> None:
    fakes.write(tmp_path, skill=1.0)
    fakes.write(tmp_path, skill=9.0, protocol="published")
    page = leaderboard.build(tmp_path)
    clean = float(tables_of(page)[TABLE][0][2].split()[0])
    [row] = tables_of(page)["Clean beside published"]
    assert row[:2] == ["chexpert:linear", "imitate-demo-1a2b3c4d"]
    assert row[2] == f"{clean:.1f} → 100.0 ({100 - clean:+.1f}, 1 run)"
    assert "The same under both protocols" not in page


def test_of_several_releases_the_same_one_stands_beside_the_published_number(tmp_path: Path) -> None:
    for letter, skill in (("a", 0.0), ("b", 9.0), ("c", 0.0)):
        fakes.write(tmp_path, skill, fingerprint=letter * 64, family=f"imitate-{letter}")
    fakes.write(tmp_path, 9.0, protocol="published", fingerprint="b" * 64, family="imitate-b")
    fakes.write(tmp_path, 1.0, protocol="published", fingerprint="b" * 64, family="imitate-c")
    page = leaderboard.build(tmp_path)
    assert tables_of(page)["Clean beside published"] == []
    assert "The same under both protocols: chexpert:linear." in page


def test_a_published_number_is_beside_no_clean_one_of_other_data(tmp_path: Path) -> None:
    fakes.write(tmp_path, 0.0, fingerprint="a" * 64)
    fakes.write(tmp_path, 9.0, protocol="published", fingerprint="b" * 64)
    assert "Clean beside published" not in leaderboard.build(tmp_path)


def test_where_no_checkpoint_has_both_protocols_nothing_is_said_to_be_the_same(tmp_path: Path) -> None:
    fakes.write(tmp_path, family="imitate-a")
    fakes.write(tmp_path, protocol="published", family="imitate-b")
    assert "The same under both protocols" not in leaderboard.build(tmp_path)


def test_a_protocol_that_changes_nothing_is_named_and_takes_no_row(tmp_path: Path) -> None:
    for protocol in ("clean", "published"):
        fakes.write(tmp_path, protocol=protocol)
    page = leaderboard.build(tmp_path)
    assert tables_of(page)["Clean beside published"] == []
    assert "The same under both protocols: chexpert:linear." in page


def test_ranks_are_over_what_all_have_in_common(tmp_path: Path) -> None:
    skills = {"best": 9.0, "middle": 1.5, "floor": 0.0}
    for task in ("chexpert:linear", "rsna:linear"):
        for name, skill in skills.items():
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", task=task)
        for name, skill in zip(skills, (8.0, 1.0, 0.0), strict=True):  # no task counts twice
            fakes.write(
                tmp_path, skill, method=name, family=f"{name}-x", task="chexpert:linear", fraction=0.1
            )
    fakes.write(tmp_path, 9.0, method="floor", family="floor-x", fraction=1.0)  # the others are not there
    fakes.write(tmp_path, 9.0, method="floor", family="floor-x", task="siim:linear")
    page = leaderboard.build(tmp_path)
    table = tables_of(page)
    assert [row[:2] for row in table["All kinds"]] == [
        ["best-x", "1.00"],
        ["middle-x", "2.00"],
        ["floor-x", "3.00"],
    ]
    assert [row[2:] for row in table["All kinds"]] == [
        ["–", "100 %", "100 %"],
        ["0 %", "–", "100 %"],
        ["0 %", "0 %", "–"],
    ]
    assert (
        "Ranks of the clean protocol at default settings, over the 2 tasks in which all 3 stand (1 more lack "
        "one of them, or runs of common seeds), in each by the mean over the fractions and seeds that they "
        "share. The tasks of a dataset are one block, by their mean rank: 2 blocks. "
        "Ranks over 2 blocks cannot tell 3 apart (Nemenyi)." in page
    )
    best = table["linear"][0]
    assert best == ["best-x", "1.00", "100.0 / 100.0 / –", "100.0 / – / –", "– / – / –"]
    assert "\nMeans at 1 % / 10 % / 100 % of the labels. " in page


def test_a_dataset_is_one_block_however_many_tasks_it_has(tmp_path: Path) -> None:
    datasets = ["rsna", "siim", "covidx", "object_cxr"]
    for name, skill in (("best", 9.0), ("middle", 1.5), ("floor", 0.0)):
        for dataset in datasets:
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", task=f"{dataset}:linear")
        for kind, other in (("linear", skill), ("finetune", skill), ("zero-shot", 9.0 - skill)):
            fakes.write(tmp_path, other, method=name, family=f"{name}-x", task=f"chexpert:{kind}")
    page = leaderboard.build(tmp_path)
    # in CheXpert best and floor have the ranks 1, 1, 3 and 3, 3, 1
    expected = [(4 * 1 + 1) / 5, (4 * 2 + 2) / 5, (4 * 3 + 3) / 5]
    assert [row[:2] for row in tables_of(page)["All kinds"]] == [
        [f"{name}-x", f"{mean:.2f}"] for name, mean in zip(("best", "middle", "floor"), expected, strict=True)
    ]
    p = friedmanchisquare([1] * 5, [2] * 5, [3] * 5).pvalue
    assert (
        "at default settings, over the 7 tasks in which all 3 stand, " in page
        and "their mean rank: 5 blocks" in page
    )
    assert f"That all are alike: p = {p:.2g} (Friedman)" in page
    assert "Not told apart from best-x: middle-x." in page


@pytest.mark.parametrize(
    ("kind", "related", "said"),
    [
        (
            "real",
            ("rsna",),
            "and so are those of datasets with test persons in common (chestxray14 with rsna): 2 blocks.",
        ),
        ("real", (), "The tasks of a dataset are one block, by their mean rank: 3 blocks."),
        ("phantom", ("rsna",), "The tasks of a dataset are one block, by their mean rank: 3 blocks."),
    ],
)
def test_datasets_with_test_persons_in_common_are_one_block(
    tmp_path: Path, kind: str, related: tuple[str, ...], said: str
) -> None:
    """As RSNA's pictures are ChestX-ray14's. Strangers may have the same ids, and people of phantoms do."""
    for name, skill in (("best", 9.0), ("floor", 0.0)):
        for dataset in ("rsna", "siim", "chestxray14"):
            made = fakes.record(method=name, family=f"{name}-x", task=f"{dataset}:linear", kind=kind)
            if dataset == "chestxray14":
                data = made.data.model_copy(update={"shares_pictures": related})
                made = made.model_copy(update={"data": data})
            path = fakes.store(tmp_path, made, skill)
            if dataset == "chestxray14":
                found, first = records.predictions(path), fakes.predictions(dataset="rsna")
                persons = found.persons.copy()
                persons[:2] = first.persons[0]
                records.write(tmp_path, records.read(path), found._replace(persons=persons))
    page = leaderboard.build(tmp_path)
    assert said in page


@pytest.mark.parametrize("seed", [0, 7])
def test_a_row_of_few_or_other_seeds_changes_no_rank_of_others(tmp_path: Path, seed: int) -> None:
    """By the first seed alone, the second method would be the best."""
    for task in ("chexpert:linear", "rsna:linear"):
        for number, (first, second) in enumerate([(0.0, 9.0), (9.0, 1.0), (9.0, 1.0)]):
            fakes.write(tmp_path, first, method="first", family="first-x", task=task, seed=number)
            fakes.write(tmp_path, second, method="second", family="second-x", task=task, seed=number)
    before = tables_of(leaderboard.build(tmp_path))["All kinds"]
    assert [row[0] for row in before] == ["first-x", "second-x"]
    for task in ("chexpert:linear", "rsna:linear"):
        fakes.write(tmp_path, 2.0, method="new", family="new-x", task=task, seed=seed)
    page = leaderboard.build(tmp_path)
    assert tables_of(page)["All kinds"] == before
    assert "Not ranked, for want of tasks or runs that these have: new-x." in page


def test_two_methods_over_few_datasets_are_told_apart_by_no_luck(tmp_path: Path) -> None:
    """One that wins each of four is seen in one of eight cases where both are alike."""
    for dataset in ("rsna", "siim", "covidx", "object_cxr"):
        for name, skill in (("best", 9.0), ("floor", 0.0)):
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", task=f"{dataset}:linear")
    assert "4 blocks. Ranks over 4 blocks cannot tell 2 apart (sign test)." in leaderboard.build(tmp_path)


def test_blocks_that_may_share_persons_are_named(tmp_path: Path) -> None:
    for dataset in ("rsna", "siim"):
        for name, skill in (("best", 9.0), ("floor", 0.0)):
            made = fakes.record(
                method=name,
                family=f"{name}-x",
                task=f"{dataset}:linear",
                kind="real",
                known=dataset != "rsna",
            )
            fakes.store(tmp_path, made, skill)
    page = leaderboard.build(tmp_path)
    assert "2 blocks. Of rsna not all persons are known: some may be in other blocks too." in page


def test_ranks_are_by_the_seeds_that_all_have(tmp_path: Path) -> None:
    """Else who ran an easy draw more would stand higher."""
    for task in ("chexpert:linear", "rsna:linear"):
        for seed, skill in ((0, 0.0), (1, 9.0)):
            fakes.write(tmp_path, skill, method="both", family="both-x", task=task, seed=seed)
        fakes.write(tmp_path, 0.3, method="one", family="one-x", task=task, seed=0)
    page = leaderboard.build(tmp_path)
    assert [row[:2] for row in tables_of(page)["All kinds"]] == [["one-x", "1.00"], ["both-x", "2.00"]]
    both, one = tables_of(page)[TABLE]
    assert (both[0], one[0]) == ("both", "one")  # by all of its runs


def test_a_row_stands_in_no_group_below_one_that_it_beats(tmp_path: Path) -> None:
    """`lucky` is first by its twenty runs, and last by those that both have."""
    skills = {"lucky": (*[-9.0] * 4, *[9.0] * 16), "steady": [0.0] * 4}
    for name, of_seed in skills.items():
        for seed, skill in enumerate(of_seed):
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", fraction=1.0, seed=seed)
    [standing] = standings.read(tmp_path)["phantom"]
    assert [row.method for row in standing.order] == ["lucky", "steady"]
    assert {row.method: group for row, group in standing.groups.items()} == {"steady": 1, "lucky": 2}


def test_where_no_two_rows_have_runs_of_the_same_seeds_there_are_no_groups(tmp_path: Path) -> None:
    for name, seeds in (("one", (0, 1)), ("other", (2, 3))):
        for seed in seeds:
            fakes.write(tmp_path, method=name, family=f"{name}-x", fraction=1.0, seed=seed)
    page = leaderboard.build(tmp_path)
    assert [row[-1] for row in tables_of(page)[TABLE]] == ["–", "–"]
    assert "No groups: no two rows have two seeds alike at 100 %, and by one run each" in page


def test_a_row_without_the_largest_share_stands_below_those_that_have_it(tmp_path: Path) -> None:
    fakes.write(tmp_path, 9.0, method="few", family="few-x", fraction=0.01)
    fakes.write(tmp_path, 0.0, method="all", family="all-x", fraction=1.0)
    assert [row[0] for row in tables_of(leaderboard.build(tmp_path))[TABLE]] == ["all", "few"]


def test_tie_groups_are_of_the_runs_that_most_have_be_it_beside_others(tmp_path: Path) -> None:
    for name, skill, seeds in (("more", 9.0, 4), ("second", 0.0, 3), ("third", 0.0, 3), ("fewer", 0.0, 2)):
        for seed in range(seeds):
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", fraction=1.0, seed=seed)
    page = leaderboard.build(tmp_path)
    groups = {row[0]: row[-1] for row in tables_of(page)[TABLE]}
    assert groups == {"more": "1", "second": "2", "third": "2", "fewer": "–"}
    assert "No group, for want of the runs that others share at 100 %: fewer-x." in page
    again = tmp_path / "again"  # what more runs of one row would be worth does not change its group
    for name, skill in (("more", 9.0), ("second", 0.0), ("third", 0.0)):
        for seed in range(3):
            fakes.write(again, skill, method=name, family=f"{name}-x", fraction=1.0, seed=seed)
    assert [row[-1] for row in tables_of(leaderboard.build(again))[TABLE]] == ["1", "2", "2"]


def test_rows_are_grouped_by_what_they_share_however_much_one_has(tmp_path: Path) -> None:
    for name, skill, seeds in (("much", 9.0, range(5)), ("little", 0.0, range(3, 7))):
        for seed in seeds:
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", seed=seed)
    page = leaderboard.build(tmp_path)
    assert [(row[0], row[-1]) for row in tables_of(page)[TABLE]] == [("much", "1"), ("little", "2")]
    assert "No group" not in page


def test_rows_of_one_run_take_no_group_from_those_of_several(tmp_path: Path) -> None:
    for name, skill in (("best", 9.0), ("floor", 0.0)):
        for seed in range(3):
            fakes.write(tmp_path, skill, method=name, family=f"{name}-x", fraction=1.0, seed=seed)
    for number in range(5):
        fakes.write(tmp_path, 1.0, method=f"new{number}", family=f"new{number}-x", fraction=1.0)
    page = leaderboard.build(tmp_path)
    groups = {row[0]: row[-1] for row in tables_of(page)[TABLE]}
    assert (groups["best"], groups["floor"], groups["new0"]) == ("1", "2", "–")
    assert "No group, for want of the runs that others share at 100 %: new0-x, new1-x" in page


def test_a_group_of_one_checkpoint_is_of_that_and_not_of_its_method(tmp_path: Path) -> None:
    for seed in range(3):
        fakes.write(tmp_path, 9.0, method="best", family="best-x", seed=seed)
        fakes.write(tmp_path, 0.0, method="named", family="named-x", seed=seed, checkpoint=0)
    page = leaderboard.build(tmp_path)
    assert [row[-1] for row in tables_of(page)[TABLE]] == ["1", "2"]
    assert "Of one checkpoint, so that its group tells of that and not of its method: named-x." in page


def test_one_run_each_makes_no_groups(tmp_path: Path) -> None:
    """Two runs of one method differ more often than the level says by the persons alone."""
    for name, skill in (("best", 9.0), ("floor", 0.0)):
        fakes.write(tmp_path, skill, method=name, family=f"{name}-x")
    page = leaderboard.build(tmp_path)
    assert [row[-1] for row in tables_of(page)[TABLE]] == ["–", "–"]
    assert "No groups: no two rows have two seeds alike at 1 %, and by one run each a test would tell" in page


def test_other_persons_of_the_same_test_images_are_refused(tmp_path: Path) -> None:
    paths = []
    for family in ("one-x", "other-x"):
        for seed in (0, 1):
            paths.append(fakes.write(tmp_path, family=family, method=family[:-2], seed=seed))
    for path in paths[2:]:
        found = records.predictions(path)
        records.write(tmp_path, records.read(path), found._replace(persons=found.persons + np.uint64(1)))
    with pytest.raises(BadRecord, match="have other persons for the same test images"):
        leaderboard.build(tmp_path)


def test_a_number_that_its_predictions_do_not_give_stops_the_page(tmp_path: Path) -> None:
    path = fakes.write(tmp_path)
    read = records.read(path)
    value = read.metrics["macro_auroc"].model_copy(update={"value": 0.999})
    records.write(tmp_path, read.model_copy(update={"metrics": {"macro_auroc": value}}), fakes.predictions())
    with pytest.raises(BadRecord, match=r"says macro_auroc 0\.999000, its predictions give 0\."):
        leaderboard.build(tmp_path)


def test_protocols_are_compared_by_the_runs_that_both_have(tmp_path: Path) -> None:
    for seed, skill in ((0, 9.0), (1, 0.0), (2, 0.0)):
        fakes.write(tmp_path, skill, seed=seed)
    path = fakes.write(tmp_path, 0.0, seed=0, protocol="published")
    published = records.read(path).metrics["macro_auroc"].value * 100
    fakes.write(tmp_path, 0.0, family="imitate-b", seed=1)
    fakes.write(tmp_path, 9.0, family="imitate-b", seed=0, protocol="published")
    by_family = {row[1]: row[2] for row in tables_of(leaderboard.build(tmp_path))["Clean beside published"]}
    change = f"100.0 → {published:.1f} ({published - 100:+.1f}, 1 run)"
    assert by_family == {"imitate-demo-1a2b3c4d": change, "imitate-b": "–"}


def test_a_protocol_that_changes_nothing_is_named_also_where_clean_has_more_runs(tmp_path: Path) -> None:
    for seed in (0, 1):
        fakes.write(tmp_path, seed=seed)
    fakes.write(tmp_path, seed=0, protocol="published")
    assert "The same under both protocols: chexpert:linear." in leaderboard.build(tmp_path)


def test_releases_and_uncommitted_code_are_marked_in_the_overview(tmp_path: Path) -> None:
    for letter in "ab":
        fakes.write(tmp_path, 9.0, family=letter, fingerprint=letter * 64, dirty=letter == "b")
    assert tables_of(leaderboard.build(tmp_path))["linear"] == [["a", "100.0", "–"], ["b", "–", "100.0 *"]]
    assert "| chexpert aaaaaa   | chexpert bbbbbb   |" in leaderboard.build(tmp_path)


@pytest.mark.parametrize(
    "cells", [[("chexpert:linear", 1.0)], [("chexpert:linear", 0.01), ("rsna:linear", 0.01)]]
)
def test_a_row_of_which_little_was_run_changes_no_rank_of_others(
    tmp_path: Path, cells: list[tuple[str, float]]
) -> None:
    for task in ("chexpert:linear", "rsna:linear"):
        for fraction in (0.01, 1.0):
            for name, skill in (("first", 1.5 * fraction + 1), ("second", 1.5 - fraction)):
                fakes.write(tmp_path, skill, method=name, family=f"{name}-x", task=task, fraction=fraction)
    before = tables_of(leaderboard.build(tmp_path))["linear"]
    for task, fraction in cells:
        fakes.write(tmp_path, 2.0, method="new", family="new-x", task=task, fraction=fraction)
    page = leaderboard.build(tmp_path)
    found = tables_of(page)["linear"]
    assert [row[:2] for row in found] == [*(row[:2] for row in before), ["new-x", "–"]]
    assert [row[0] for row in tables_of(page)["All kinds"]] == ["first-x", "second-x"]
    assert "Not ranked, for want of tasks or runs that these have: new-x." in page
