"""A task of your own in one file: what a sample of 150 pictures of ChestX-ray14 can be scored by.

    python -m harness run --method random_init --task docs/chestxray14_sample.py --data-root /data/xrays

The task of all 14 labels refuses such a sample, and names the labels that no picture of some part shows.
Records and tables of this one stand under the file's name.
"""

from __future__ import annotations

from harness.contracts import DatasetCard, Split, Task
from tasks.chestxray14 import read, write_phantom

CARD = DatasetCard(
    title="ChestX-ray14, a sample",
    source="https://nihcc.app.box.com/v/ChestXray-NIHCC: some pictures of it in the official layout",
    licence="NIH Clinical Center: no restrictions, with a link to the download, the citation and credit",
    citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
    "Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017",
    folders=("ChestXray-NIHCC", "CXR8", "nih-chest-xrays", "chestxray14"),
    markers=("Data_Entry_2017*.csv*", "test_list.txt", "images or images_*"),
    variants=(),
    tasks=(
        Task(
            kinds=("linear", "finetune"),
            labels=("Pneumonia",),
            metric="macro_auroc",
            version=1,
            splits={"clean": Split(test="test", validation=0.25, train="train_val")},
        ),
    ),
    shares_pictures=("chestxray14", "rsna", "siim", "covidx", "covidx_binary"),
)

__all__ = ["CARD", "read", "write_phantom"]
