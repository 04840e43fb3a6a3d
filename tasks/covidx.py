"""COVIDx with three classes: COVID-19, another pneumonia, or neither (versions up to 5, 7A, 8A, 9A, CXR-3A).

Beware what a score here means: the class is the source. In the training list of version 9A every normal image
and all but 52 of the 5,555 with pneumonia come from RSNA, and none of the 16,490 with COVID-19; most of these
are JPEGs and the others PNGs. An encoder that tells hospitals apart looks like one that tells diseases apart.

Ranked by accuracy over the three classes, as in papers; each class against the rest stands beside it.
Facts about the layout: the lists of COVID-Net's authors, counted.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from harness.contracts import DatasetCard, PhantomSize, PublishedSplit, Split, Task, Variant
from harness.phantom import Cohort
from tasks import _covidx

PUBLISHED = PublishedSplit(
    source="MGCA 680fe4a, mgca/preprocess/covidx.py",
    rules=("parts-drawn-by-image", "fraction-sampled-by-image"),
    train="train",
    test="test",
    held_out=0.2,
)
CARD = DatasetCard(
    title="COVIDx (three classes)",
    source="pictures: https://www.kaggle.com/datasets/andyczhao/covidx-cxr2 in the version that has those of "
    "the lists; lists train_COVIDx9A.txt and test_COVIDx9A.txt, or another version ending in A, from "
    "https://github.com/lindawangg/COVID-Net/tree/master/labels, laid beside its folders train and test",
    licence="lists AGPL-3.0; pictures as their sources allow: RSNA, RICORD (CC BY-NC), BIMCV and others",
    citation="Wang et al., COVID-Net: a tailored deep convolutional neural network design for detection of "
    "COVID-19 cases from chest X-ray images, Scientific Reports 2020",
    folders=("covidx-cxr2",),
    markers=("train.txt or train_COVIDx*.txt", "train", "test or competition_test"),
    variants=(
        Variant("3", 13_970, {"train": 13_670, "test": 300}),
        Variant("4", 14_198, {"train": 13_898, "test": 300}),
        Variant(
            "5",
            14_258,
            {"train": 13_958, "test": 300},
            {"": {"COVID-19": 617, "Pneumonia": 5_575, "Normal": 8_066}},
        ),
        Variant("7A", 15_411, {"train": 15_111, "test": 300}),
        Variant(
            "8A",
            15_999,
            {"train": 15_599, "test": 400},
            {"": {"COVID-19": 2_358, "Pneumonia": 5_575, "Normal": 8_066}},
        ),
        Variant(
            "9A",
            30_530,
            {"train": 30_130, "test": 400},
            {"": {"COVID-19": 16_690, "Pneumonia": 5_655, "Normal": 8_185}},
        ),
        Variant("CXR-3A", 30_034, {"train": 29_634, "test": 400}),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=("COVID-19", "Pneumonia", "Normal"),
            metric="accuracy",
            # 1: ranked by macro AUROC, which also chose the probe's strength
            # 2: persons of test stood in train, where a map of RSNA's persons shows it
            version=3,
            exclusive=True,
            # the share of MGCA, which draws it by image: 90 % of its COVID-19 images share an id with train
            splits={
                "clean": Split(test="test", validation=0.2, train="train", drop_shared=True),
                "published": PUBLISHED,
            },
            prompts={
                "COVID-19": ("COVID-19 pneumonia", "bilateral ground-glass opacity", "viral pneumonia"),
                "Pneumonia": ("pneumonia", "bacterial pneumonia", "lobar consolidation"),
                "Normal": ("no acute abnormality", "no active disease", "normal aeration of both lungs"),
            },
        ),
    ),
    shares_pictures=("chestxray14", "rsna", "siim", "covidx_binary"),
    phantom={"demo": PhantomSize(1_200, 128, 156), "paper": PhantomSize(12_000, 320, 390)},
    dials=("label_noise", "confound"),
)


def read(root: Path) -> pd.DataFrame:
    """The table, with `label:COVID-19`, `label:Pneumonia` and `label:Normal`, one of them 1 in each row."""
    return _covidx.read(root, "covidx")


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """Under the names of version 9A's lists."""
    _covidx.write_phantom(root, cohort, workers, {"train": "train_COVIDx9A.txt", "test": "test_COVIDx9A.txt"})
