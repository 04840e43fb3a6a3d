"""The main job on real X-rays: 169 pictures of the RSNA challenge, split by person."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from harness import plan, records, registry, settings
from harness.data import locate, task_data
from harness.records import Record
from tests import fakes
from tests.harness.command import harness

SAMPLE = Path(__file__).parents[2] / "docs" / "chestxray14_sample.py"


@pytest.mark.slow
def test_real_pictures_take_the_road(realdata: Path, tmp_path: Path) -> None:
    untrained = replace(fakes.PROFILE, recipe=None, text=None)
    floor = replace(fakes.CARD, profiles={"demo": untrained, "paper": untrained}, trained_on=())
    method = fakes.write_method(tmp_path, floor)
    command = [sys.executable, "-m", "harness", "run", "--method", str(method), "--task", "rsna", "--json"]
    command += ["--data-root", str(realdata), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PHANTOM" not in done.stderr
    assert f"rsna in {realdata / 'rsna'} has the counts of no known release" in done.stderr  # 169 pictures
    assert f"python -m harness data doctor rsna --data-root {realdata}\n" in done.stderr
    assert done.stderr.count("is of the demo profile, which is for trying things out") == 1
    record = Record.model_validate(json.loads(done.stdout))
    assert (record.data.kind, record.data.persons_known) == ("real", True)
    [(path, stored)] = records.read_all(tmp_path / "results")
    assert stored == record
    assert path.is_relative_to(tmp_path / "results" / "real" / "rsna-linear")

    predictions = records.predictions(path)
    assert record.metrics["macro_auroc"].value == pytest.approx(
        roc_auc_score(predictions.arrays["truth"][:, 0], predictions.arrays["scores"][:, 0])
    )
    train, validation, test = (record.parts[part] for part in ("train", "validation", "test"))
    assert train.images + validation.images + test.images == 169
    labels = (
        pd.read_csv(realdata / "rsna" / "stage_2_train_labels.csv").groupby("patientId")["Target"].first()
    )
    images = pd.Series(records.hashed(labels.index), index=labels.index)
    tested = images.isin(predictions.images)
    assert tested.sum() == test.images
    assert labels[tested].sum() == test.positives["Pneumonia"]

    people = pd.read_csv(realdata / "rsna_person_map.csv.gz", dtype=str).set_index("patientId")["nih_patient"]
    of_test, of_others = (set(people[labels.index[rows]]) for rows in (tested, ~tested))
    assert len(of_test) == test.persons
    assert not of_test & of_others


@pytest.mark.slow
def test_a_sample_without_some_labels_is_refused_and_can_have_a_task_of_its_own(
    realdata: Path, tmp_path: Path
) -> None:
    floor = replace(
        fakes.CARD, profiles={"demo": replace(fakes.PROFILE, recipe=None, text=None)}, trained_on=()
    )
    common = ("--method", fakes.write_method(tmp_path, floor), "--data-root", realdata)
    whole = harness("run", *common, "--task", "chestxray14", "--results", tmp_path / "results")
    assert whole.code == 1 and "'Hernia' has no positive" in whole.err

    own = harness("run", *common, "--task", SAMPLE, "--results", tmp_path / "results", "--json")
    assert own.code == 0, own.err
    record = Record.model_validate_json(own.out)
    assert (record.cell.task, record.task.labels) == ("chestxray14_sample:linear", ("Pneumonia",))
    folder = realdata / "chestxray14"
    rows = pd.read_csv(folder / "Data_Entry_2017_v2020.csv").set_index("Image Index")
    tested = rows.loc[(folder / "test_list.txt").read_text().split()]
    ill = tested["Finding Labels"].str.split("|").map(lambda names: "Pneumonia" in names)
    test = record.parts["test"]
    assert (test.images, test.positives["Pneumonia"]) == (len(tested), ill.sum())
    assert test.persons == tested["Patient ID"].nunique()


def test_every_real_person_is_in_one_part(realdata: Path) -> None:
    cell = plan.cell("random_init", "rsna", profile="demo", protocol="clean", fraction=0.5, seed=0)
    where = locate.real("rsna", cell.dataset_card, settings.load(realdata))
    reader = registry.load("tasks", "rsna")
    data = task_data.load(where, reader, cell.dataset_card, cell.task, "clean").draw(0.5, 0)
    people = pd.read_csv(realdata / "rsna_person_map.csv.gz", dtype=str).set_index("patientId")["nih_patient"]
    parts = [set(people[data.frame["image_id"].iloc[rows]].astype(int)) for rows in data.parts]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert np.array_equal(np.sort(np.concatenate(data.parts)), np.arange(169))
    assert set(people[data.frame["image_id"].iloc[data.used]].astype(int)) < parts[0]
