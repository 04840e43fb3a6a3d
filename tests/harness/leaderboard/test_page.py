"""The page is a pure function of the records, and numbers that do not belong together never share a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from harness import failures, leaderboard, plan, records, registry, stats
from harness.errors import BadRecord
from harness.failures import Tried
from harness.leaderboard import costs, tables
from harness.metrics import score
from harness.records import Record
from harness.settings import load
from tests import fakes
from tests.harness.leaderboard.pages import section_of, tables_of

TABLE = "chexpert:linear · macro AUROC · clean"
RSNA = "rsna:linear · macro AUROC · clean"
COSTS = "Checkpoints and what they cost"


def test_a_cell_is_the_mean_over_seeds(tmp_path: Path) -> None:
    expected = []
    for seed in (0, 1, 2):
        found = records.predictions(fakes.write(tmp_path, seed=seed)).arrays
        expected.append(
            np.mean([roc_auc_score(found["truth"][:, label], found["scores"][:, label]) for label in (0, 1)])
        )
    [row] = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert row[:2] == ["imitate", "imitate-demo-1a2b3c4d"]
    assert row[2].startswith(f"{np.mean(expected) * 100:.1f} [")
    assert row[2].endswith("(3 runs)")
    assert row[3:] == ["1"]


def test_weights_of_others_are_marked(tmp_path: Path) -> None:
    fakes.write(tmp_path, imported_from="theirs.ckpt")
    [row] = tables_of(leaderboard.build(tmp_path))[COSTS]
    assert row[:3] == ["imitate-demo-1a2b3c4d", "mimic_cxr (phantom), imported", "–"]  # nobody knows how long
    assert "Trained by others" not in leaderboard.build(tmp_path)


def test_weights_that_may_have_seen_the_test_pictures_are_named(tmp_path: Path) -> None:
    fakes.write(tmp_path, family="ours", corpus="chexpert")
    fakes.write(tmp_path, family="theirs", corpus="mimic_cxr+chexpert", imported_from="theirs.ckpt")
    assert "Trained by others, maybe on these pictures: theirs.\n" in leaderboard.build(tmp_path)


def test_weights_that_saw_the_pictures_under_another_name_are_named(tmp_path: Path) -> None:
    """RSNA's are ChestX-ray14's."""
    for family, corpus, task in (
        ("nih", "chestxray14+openi", "rsna:linear"),
        ("other", "openi", "rsna:linear"),
        ("nih", "chestxray14+openi", "object_cxr:linear"),
    ):
        made = fakes.record(family=family, corpus=corpus, task=task, imported_from="theirs.ckpt")
        card = registry.dataset_card(task.split(":")[0])
        data = made.data.model_copy(update={"shares_pictures": card.shares_pictures})
        fakes.store(tmp_path, made.model_copy(update={"data": data}))
    page = leaderboard.build(tmp_path)
    assert "Trained by others, maybe on these pictures: nih.\n" in section_of(page, RSNA)
    assert page.count("Trained by others") == 1


def test_the_best_stand_on_top_and_holes_are_shown(tmp_path: Path) -> None:
    fakes.write(tmp_path, skill=0.0, method="floor", family="floor-x", fraction=1.0)
    fakes.write(tmp_path, skill=9.0, method="best", family="best-x", fraction=1.0)
    fakes.write(tmp_path, skill=9.0, method="best", family="best-x", fraction=0.01)
    rows = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert [row[0] for row in rows] == ["best", "floor"]
    assert rows[0][2].startswith("100.0 [100.0, 100.0]")
    assert rows[1][2] == "–"


def test_what_is_beaten_is_a_checkpoint_and_not_a_method(tmp_path: Path) -> None:
    for task in ("chexpert:linear", "rsna:linear"):
        for family, skill in (("first-x", 9.0), ("second-x", 0.0)):
            fakes.write(tmp_path, skill, family=family, task=task)
    [head] = [line for line in leaderboard.build(tmp_path).splitlines() if "beats first" in line]
    assert [cell.strip() for cell in head.split("|")[3:5]] == ["beats first-x", "beats second-x"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (9.4, "9.4"), (99.6, "100"), (5400.0, "5400"), (None, "–")]
)
def test_costs_are_not_written_in_powers_of_ten(value: float | None, shown: str) -> None:
    assert costs._median([value]) == shown


def test_memory_is_the_largest_of_the_cells_and_of_a_gpu_where_there_was_one(tmp_path: Path) -> None:
    for seed, gpu in enumerate((None, 900.4, 800.0)):
        made = fakes.record(seed=seed, checkpoint=0, family="first-x")
        cost = made.cost.model_copy(update={"peak_gpu_memory_mib": gpu, "peak_memory_mib": 10.0 * seed})
        fakes.store(tmp_path, made.model_copy(update={"cost": cost}))
    fakes.write(tmp_path, family="second-x")
    first, second = tables_of(leaderboard.build(tmp_path))[COSTS]
    assert first[-2:] == ["20", "900"] and second[-2:] == ["500", "–"]


def test_costs_say_on_what_they_were_measured(tmp_path: Path) -> None:
    told = ["", " Pre-trained on: NVIDIA H100.", " Pre-trained on: AMD EPYC, NVIDIA H100."]
    for seed, trained_on in enumerate((None, "NVIDIA H100", "AMD EPYC")):
        made = fakes.record(seed=seed)
        origin = made.pretraining.model_copy(update={"device": trained_on})
        fakes.store(tmp_path, made.model_copy(update={"pretraining": origin}))
        assert f"Computed on: cpu.{told[seed]}\n" in leaderboard.build(tmp_path)


def test_phantom_and_real_never_meet(tmp_path: Path) -> None:
    fakes.write(tmp_path, method="drawn", kind="phantom")
    fakes.write(tmp_path, method="measured", kind="real")
    page = leaderboard.build(tmp_path)
    phantom, real = page.index("## Phantom track"), page.index("## Real track")
    assert phantom < page.index("| drawn") < real < page.index("| measured")


def test_a_table_says_where_persons_are_not_known(tmp_path: Path) -> None:
    known = fakes.write(tmp_path)
    assert "of 10 persons." in leaderboard.build(tmp_path)
    known.write_text(known.read_text().replace('"persons_known": true', '"persons_known": false'))
    said = "of persons who are not all known: splits and intervals are by the best ids there are."
    assert said in leaderboard.build(tmp_path)


def test_a_table_of_real_data_says_of_which_release_they_are(tmp_path: Path) -> None:
    path = fakes.write(tmp_path, kind="real")
    assert "Its counts are of no known release." in leaderboard.build(tmp_path)
    path.write_text(path.read_text().replace('"release": ""', '"release": "stage 2"'))
    assert "Release stage 2." in leaderboard.build(tmp_path)
    fakes.write(tmp_path / "drawn")
    assert "elease" not in leaderboard.build(tmp_path / "drawn")


def test_other_data_is_another_table(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    fakes.write(tmp_path, family="other", fingerprint="e" * 64)
    assert leaderboard.build(tmp_path).count("\n#### chexpert:linear") == 2


def test_versions_of_a_task_are_never_mixed(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    fakes.write(tmp_path, family="other", version=2)
    with pytest.raises(BadRecord, match="are of two versions of chexpert:linear: they answer different"):
        leaderboard.build(tmp_path)


def test_rules_of_a_table_are_never_mixed(tmp_path: Path) -> None:
    def write(seed: int, *rules: str) -> Path:
        made = fakes.record(seed=seed, protocol="published")
        task = made.task.model_copy(update={"rules": rules})
        return fakes.store(tmp_path, made.model_copy(update={"task": task}))

    write(0, "parts-drawn-by-image", "last-batch-dropped")
    write(1, "last-batch-dropped", "parts-drawn-by-image")  # in another order
    leaderboard.build(tmp_path)
    other = write(2, "parts-drawn-by-image")
    with pytest.raises(BadRecord, match=f"{other} and .* are of two sets of rules"):
        leaderboard.build(tmp_path)


def test_code_that_nobody_can_check_out_is_marked(tmp_path: Path) -> None:
    fakes.write(tmp_path, seed=0)
    fakes.write(tmp_path, seed=1, dirty=True)
    fakes.write(tmp_path, seed=0, fraction=1.0)
    [row] = tables_of(leaderboard.build(tmp_path))[TABLE]
    assert row[2].endswith("(2 runs) *") and row[3].endswith("(1 run)")
    made = fakes.record(seed=1, fraction=1.0)
    nowhere = made.model_copy(update={"code": made.code.model_copy(update={"commit": ""})})
    fakes.store(tmp_path, nowhere)
    assert tables_of(leaderboard.build(tmp_path))[TABLE][0][3].endswith("(2 runs) *")


def test_weights_that_nobody_can_train_again_are_marked(tmp_path: Path) -> None:
    made = fakes.record()
    changed = made.model_copy(update={"pretraining": made.pretraining.model_copy(update={"dirty": True})})
    fakes.store(tmp_path, changed)
    assert tables_of(leaderboard.build(tmp_path))[TABLE][0][2].endswith("(1 run) *")


def test_a_search_is_a_table_of_its_own(tmp_path: Path) -> None:
    fakes.write(tmp_path, skill=0.0)
    fakes.write(tmp_path, skill=9.0, tuned=8)
    tables = tables_of(leaderboard.build(tmp_path))
    [plain], [tuned] = tables[TABLE], tables[f"{TABLE} · best of 8 settings on validation"]
    assert plain[2].endswith("(1 run)") and tuned[2] == "100.0 [100.0, 100.0] (1 run)"


def test_cut_validation_labels_are_a_table_of_their_own_and_not_ranked(tmp_path: Path) -> None:
    for name, whole, cut in (("first-x", 9.0, 0.0), ("second-x", 0.0, 9.0)):
        for task in ("chexpert:linear", "rsna:linear"):
            fakes.write(tmp_path, whole, family=name, task=task)
            fakes.write(tmp_path, cut, family=name, task=task, cut_validation=True)
    tables = tables_of(leaderboard.build(tmp_path))
    assert tables[TABLE][0][1] == "first-x"
    assert tables[f"{TABLE} · validation labels cut too"][0][1] == "second-x"
    assert [row[:2] for row in tables["All kinds"]] == [["first-x", "1.00"], ["second-x", "2.00"]]


def test_the_page_does_not_depend_on_the_machine_or_the_order(tmp_path: Path) -> None:
    cells = [{"seed": seed, "fraction": fraction} for seed in (0, 1) for fraction in (0.01, 1.0)]
    for name, order in (("a", cells), ("b", cells[::-1])):
        for cell in order:
            fakes.write(tmp_path / name, **cell)
    assert leaderboard.build(tmp_path / "a") == leaderboard.build(tmp_path / "b")


def test_a_broken_record_stops_the_page(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    broken = fakes.write(tmp_path, seed=1)
    broken.write_text(broken.read_text().replace('"schema_version": 3', '"schema_version": 9'))
    with pytest.raises(BadRecord, match="schema_version"):
        leaderboard.build(tmp_path)


def test_two_versions_of_a_method_are_not_averaged_where_they_are_known(tmp_path: Path) -> None:
    """Imported weights keep their name and their hash when what is computed with them changes."""
    for seed, version in enumerate((None, 1, 2)):
        assert leaderboard.build(tmp_path)  # a record from before versions were kept is like any
        made = fakes.record(seed=seed, checkpoint=0, named=True)
        pretraining = made.pretraining.model_copy(update={"method_version": version})
        fakes.store(tmp_path, made.model_copy(update={"pretraining": pretraining}))
    with pytest.raises(BadRecord, match=r"s2\.json and .*s1\.json are of two versions of the method under"):
        leaderboard.build(tmp_path)


def test_two_trainings_under_one_name_are_not_averaged(tmp_path: Path) -> None:
    def write(**changes: Any) -> Path:
        made = fakes.record(seed=1, checkpoint=0, **changes)
        origin = made.pretraining.model_copy(update={"weights": "e" * 64})
        return fakes.store(tmp_path, made.model_copy(update={"pretraining": origin}))

    first = fakes.write(tmp_path)
    write(kind="real")  # never meets it
    leaderboard.build(tmp_path)
    second = write()
    with pytest.raises(BadRecord, match=f"{second} and {first} are of two trainings under one name"):
        leaderboard.build(tmp_path)


def test_runs_of_one_checkpoint_say_so(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        fakes.write(tmp_path, seed=seed, checkpoint=0)
    assert tables_of(leaderboard.build(tmp_path))[TABLE][0][2].endswith("(3 runs of 1 checkpoint)")


def test_cells_that_run_while_the_page_is_built_did_not_fail(tmp_path: Path) -> None:
    fakes.write(tmp_path)
    before = leaderboard.build(tmp_path)
    cell = plan.cell("imitate", "rsna", profile="demo", protocol="clean", fraction=0.1, seed=0)
    failures.begin(load(results=tmp_path), Tried("phantom", cell, "imitate-demo-1a2b3c4d-s0", "demo"))
    assert leaderboard.build(tmp_path) == before


def test_a_stale_page_is_shown_as_a_diff(tmp_path: Path) -> None:
    page, path = leaderboard.build(tmp_path), tmp_path / "leaderboard.md"
    assert "+# Leaderboard" in leaderboard.difference(path, page)
    path.write_text(page, encoding="utf-8")
    assert leaderboard.difference(path, page) == ""
    fakes.write(tmp_path)
    difference = leaderboard.difference(path, leaderboard.build(tmp_path))
    assert "-No records yet." in difference
    assert "+| imitate" in difference


def test_holes_are_named(tmp_path: Path) -> None:
    for seed in (0, 1):
        fakes.write(tmp_path, method="whole", family="whole-x", seed=seed)
    fakes.write(tmp_path, method="half", family="half-x", seed=1)
    assert "- chexpert:linear clean, half-x at 1 %: seeds 0\n" in leaderboard.build(tmp_path)
    fakes.write(tmp_path, method="whole", family="whole-x", task="rsna:linear", fraction=1.0)
    assert "- chexpert:linear clean, nobody at 100 %\n" in leaderboard.build(tmp_path)
    fakes.write(tmp_path, method="whole", family="whole-x", tuned=4)  # one share of the labels is enough
    assert leaderboard.build(tmp_path).count("- chexpert:linear clean, nobody at 100 %\n") == 1
    assert "- rsna:linear clean, nobody at 1 %\n" in leaderboard.build(tmp_path)
    for checkpoint, seed in ((0, 0), (0, 1), (1, 0)):
        fakes.write(
            tmp_path, method="crossed", family="crossed-x", seed=seed, checkpoint=checkpoint, named=True
        )
    assert "- chexpert:linear clean, crossed-x-s1 at 1 %: seeds 1\n" in leaderboard.build(tmp_path)


def test_a_single_run_has_the_interval_that_it_printed(tmp_path: Path) -> None:
    found = records.predictions(fakes.write(tmp_path, seed=3))
    [row] = tables_of(leaderboard.build(tmp_path))[TABLE]
    own = score.of("linear", found.arrays, fakes.LABELS)
    printed = stats.person_bootstrap(own, found.persons, replicates=1000, seed=3).metrics["macro_auroc"]
    value, low, high = (f"{number * 100:.1f}" for number in printed)
    assert row[2] == f"{value} [{low}, {high}] (1 run)"


def test_masks_that_are_there_have_an_interval_too(tmp_path: Path) -> None:
    truth = np.array([40, 0, 25, 60, 0, 10, 80, 30, 0, 5] * 4)
    predicted = np.array([30, 5, 25, 0, 0, 20, 70, 10, 0, 9] * 4)
    arrays = {"truth_area": truth, "predicted_area": predicted, "overlap": np.minimum(truth, predicted)}
    images = [f"image {row}" for row in range(40)]
    found = records.sorted_predictions(images, images, arrays)
    own = score.of("segmentation", found.arrays, ["pneumothorax"])
    printed = stats.person_bootstrap(own, found.persons, replicates=1000, seed=0).metrics
    raw = fakes.record(task="siim:segmentation").model_dump(mode="json")
    raw["task"].update(metric="dice", labels=["pneumothorax"])
    raw["metrics"] = {name: interval._asdict() for name, interval in printed.items()}
    records.write(tmp_path, Record.model_validate(raw), found)
    [row] = tables_of(leaderboard.build(tmp_path))["siim:segmentation · dice · clean"]
    pairs = zip(truth.tolist(), predicted.tolist(), strict=True)
    expected = np.mean([2 * min(pair) / sum(pair) for pair in pairs if pair[0]]) * 100
    low, high = (number * 100 for number in printed["dice_positives"][1:])
    assert row[-1] == f"{expected:.1f} [{low:.1f}, {high:.1f}]"


def test_predicting_nothing_has_more_where_masks_may_vanish(tmp_path: Path) -> None:
    """Half of the pictures have no mask in their own pixels; in those of the network's input maybe more."""
    arrays = {name: np.arange(20) % 2 for name in ("truth_area", "predicted_area", "overlap")}
    images = [f"image {row}" for row in range(20)]
    raw = fakes.record(task="siim:segmentation").model_dump(mode="json")
    raw["task"].update(metric="dice", labels=["pneumothorax"])
    raw["metrics"] = {"dice": {"value": 1.0, "low": 1.0, "high": 1.0}}
    raw["parts"]["test"].update(positives={"pneumothorax": 10}, negatives={"pneumothorax": 10})
    for protocol, said in {"clean": "has 50.0.", "published": "has at least 50.0."}.items():
        raw["cell"]["protocol"] = protocol
        found = records.sorted_predictions(images, images, arrays)
        records.write(tmp_path, Record.model_validate(raw), found)
        assert f"Predicting nothing {said}" in leaderboard.build(tmp_path)


def test_seeds_of_other_pixels_are_not_averaged(tmp_path: Path) -> None:
    fakes.write(tmp_path, seed=0)
    other = fakes.write(tmp_path, seed=1)
    images = records.read(other).data.images
    other.write_text(other.read_text().replace(images, "9" * 64))
    with pytest.raises(BadRecord, match=f"{other.name} and .*-s0.json are of two sets of pixels"):
        leaderboard.build(tmp_path)


def test_rows_of_other_pixels_are_named(tmp_path: Path) -> None:
    for name in ("first-x", "second-x", "third-x"):
        path = fakes.write(tmp_path, family=name)
    assert "Of other pixels" not in leaderboard.build(tmp_path)
    path.write_text(path.read_text().replace("a" * 64, "9" * 64))
    assert "Of other pixels than most, under the same names: third-x." in leaderboard.build(tmp_path)
    path.write_text(
        path.read_text().replace('"stored": 72', '"stored": 99')
    )  # of another size they always are
    assert "Of other pixels" not in leaderboard.build(tmp_path)


@pytest.mark.parametrize(
    ("protocol", "drawn", "differs"),
    [
        ("clean", True, "draws of labels"),
        ("published", False, "seeds of the head"),
        ("published", True, "draws of labels"),  # where it has the parts of the clean one
    ],
)
def test_training_and_labels_are_told_apart_where_they_are_crossed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, drawn: bool, differs: str
) -> None:
    for checkpoint in (0, 1):
        for seed in (0, 1):
            made = fakes.record(seed=seed, checkpoint=checkpoint, named=True, protocol=protocol)
            data = made.data.model_copy(update={"fraction": f"{seed if drawn else 0:064x}"})
            fakes.store(tmp_path, made.model_copy(update={"data": data}), skill=float(checkpoint))
    monkeypatch.setattr(tables.stats, "spread", lambda *_: stats.Spread(training=0.04, seeds=0.02, rest=0.01))
    told = f"4.0 between checkpoints, 2.0 between {differs}, 1.0 beyond both"
    assert f"imitate-demo-1a2b3c4d at 1 %: standard deviation {told}.\n" in leaderboard.build(tmp_path)


def test_a_seed_s_own_checkpoint_replaces_the_one_it_was_lent(tmp_path: Path) -> None:
    """Else the lent one would count once for every seed, and the mean would depend on what was run first."""
    for seed in range(3):
        fakes.write(tmp_path / "own", skill=float(seed), seed=seed, checkpoint=seed)
        fakes.write(tmp_path / "both", skill=0.0, seed=seed, checkpoint=0)
    [alone] = tables_of(leaderboard.build(tmp_path / "both"))[TABLE]
    assert "(3 runs of 1 checkpoint)" in alone[2]
    for seed in (1, 2):
        fakes.write(tmp_path / "both", skill=float(seed), seed=seed, checkpoint=seed)
    own, both = (leaderboard.build(tmp_path / name) for name in ("own", "both"))
    assert tables_of(own)[TABLE] == tables_of(both)[TABLE]
    told = (
        "Without the earlier runs of seeds that have checkpoints of their own by now: imitate-demo-1a2b3c4d."
    )
    assert told in both and told not in own


def test_the_page_says_what_it_was_made_from(tmp_path: Path) -> None:
    """A changed digit in any file of results makes the stored page stale."""
    path = fakes.write(tmp_path)
    page = leaderboard.build(tmp_path)
    assert "Made from 2 files, sha256 `" in page
    for name in ("phantom/.DS_Store", "phantom/chexpert-linear/Thumbs.db", "failures/phantom/x.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("left by a system, or for its owner alone")
    assert leaderboard.build(tmp_path) == page
    path.write_text(path.read_text().replace('"seconds": 60.0', '"seconds": 61.0'))
    before, after = page.splitlines(), leaderboard.build(tmp_path).splitlines()
    assert before[-1] != after[-1] and before[-1].startswith("Made from")
