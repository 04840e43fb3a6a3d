"""COVIDx with two classes: COVID-19 or not (versions 6, 7B, 8B, 9B, CXR-3B, and CXR-4, the current one).

Apart from covidx.py because "not" takes in other pneumonia as well as health. The same warning holds: what
an image shows and where it comes from are nearly the same question. Facts about the layout: the lists of
COVID-Net's authors, counted; of CXR-4 its counts only.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from harness.contracts import DatasetCard, PhantomSize, Split, Task, Variant
from harness.phantom import Cohort
from tasks import _covidx

CARD = DatasetCard(
    title="COVIDx (two classes)",
    source="https://www.kaggle.com/datasets/andyczhao/covidx-cxr2, with the lists that come with it",
    licence="lists AGPL-3.0; pictures as their sources allow: RSNA, RICORD (CC BY-NC), BIMCV and others",
    citation="Wu et al., COVIDx CXR-4: An Expanded Multi-Institutional Open-Source Benchmark Dataset for "
    "Chest X-ray Image-Based Computer-Aided COVID-19 Diagnostics, 2023, arXiv 2311.17677",
    folders=("covidx-cxr2",),
    markers=("train.txt or train_COVIDx*.txt", "train", "test or competition_test"),
    variants=(
        Variant("6", 14_511, {"train": 14_311, "test": 200}, {"train": {"COVID-19": 517}}),
        Variant("7B", 15_664, {"train": 15_464, "test": 200}),
        Variant("8B", 16_352, {"train": 15_952, "test": 400}),
        Variant("9B", 30_882, {"train": 30_482, "test": 400}, {"": {"COVID-19": 16_690}}),
        Variant("CXR-3B", 30_386, {"train": 29_986, "test": 400}),
        Variant("CXR-4", 84_818, {"train": 67_863, "val": 8_473, "test": 8_482}),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=("COVID-19",),
            metric="macro_auroc",
            version=2,  # 1: persons of test stood in train, where a map of RSNA's persons shows it
            # drawn from train in every version, because only CXR-4 has an official validation part
            splits={"clean": Split(test="test", validation=0.2, train="train", drop_shared=True)},
            prompts={"COVID-19": ("COVID-19 pneumonia", "bilateral ground-glass opacity", "viral pneumonia")},
        ),
    ),
    shares_pictures=("chestxray14", "rsna", "siim", "covidx"),
    phantom={"demo": PhantomSize(1_200, 128, 156), "paper": PhantomSize(12_000, 320, 390)},
    dials=("label_noise", "confound"),
)


def read(root: Path) -> pd.DataFrame:
    """The table, with `label:COVID-19`."""
    return _covidx.read(root, "covidx_binary")


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """In CXR-4's layout."""
    lists = {part: f"{part}.txt" for part in ("train", "val", "test")}
    _covidx.write_phantom(root, cohort, workers, lists)
