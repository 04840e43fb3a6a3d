"""The parts and training labels that released code of others draws, with the faults that papers' numbers
rest on.

Apart because nothing here may leak into the clean protocol, and nothing of it is left unsaid: each fault is a
rule of `RULES`, and so is each departure, but for what the files of the heads name themselves. A card names
those of a dataset, and a record lists what was in force. The draws are those of that code, number by number:
numpy's `RandomState`, which never changes, is behind pandas' and scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import Kind, ProtocolName, PublishedSplit, Task
from harness.data import splits
from harness.data.splits import Parts
from harness.data.table import Labelled
from harness.errors import DataError, UsageError

BY_IMAGE = "parts-drawn-by-image"
BY_ROW = "parts-drawn-by-csv-row"
SET_ASIDE = "single-label-images-set-aside"
BY_POSITION = "valid-drawn-by-position-removed-by-label"
BALANCED = "training-negatives-drawn-down"
FRACTION_SAMPLED = "fraction-sampled-by-image"
FRACTION_CHOSEN = "fraction-chosen-by-image-twice"
SCALED = "numbers-scaled-to-the-table"
KIND_OF_OURS = "kind-not-in-the-source"
WHOLE_MASKS = "whole-masks-in-every-part"
HEADER_CONTRAST = "contrast-of-the-dicom-header"
CLEAN_PARTS = "parts-of-the-clean-protocol"
CLEAN_HEAD = "head-of-the-clean-protocol"
MINIBATCH_HEAD = "head-trained-by-minibatches"
LAST_BATCH_DROPPED = "last-batch-dropped"
DECODER = "decoder-trained-by-epochs"
DETECTOR = "yolo-trained-by-epochs"
MOVING = "statistics-of-the-encoder-move"
INPUT_PIXELS = "dice-in-pixels-of-the-input"
EVERY_STRIDE = "boxes-assigned-at-every-stride"
SURE_BOXES = "boxes-count-from-one-half"
CHOSEN_SKIPPING = "epoch-chosen-by-skipping-images"
STANDARDISED = "scores-standardised-over-the-test-images"
NO_AUGMENTATION = "features-without-augmentation"
OWN_VIEW = "picture-as-the-method-sees-it"
OWN_DECODER = "decoder-of-any-encoder"
OWN_WIDTH = "detector-of-any-encoder"
ONE_SETTING = "settings-alike-for-all-fractions"
MEAN_OF_IMAGES = "dice-is-the-mean-of-images"
TIGHT_BOXES = "boxes-tight-around-polygons"
OWN_PROMPTS = "prompts-of-the-dataset-s-card"
EVERY_WORD = "words-without-padding"

RULES: Mapping[str, str] = {
    # how the parts are made
    BY_IMAGE: "Images are dealt to the parts one by one: pictures of one person land on both sides.",
    BY_ROW: "Rows of the label file are dealt to the parts: a picture with several rows, and pictures of one "
    "person, land on both sides.",
    SET_ASIDE: "First, pictures that show one label alone are kept for a benchmark of retrieval; other "
    "pictures of their persons stay.",
    BY_POSITION: "Validation rows are drawn by position and removed from train by the table's index. Once "
    "rows were set aside these two disagree: at the official size, 98 % of validation stay in train.",
    # which labels of train are used
    BALANCED: "Train keeps every picture with the finding and draws as many without (seed 42); validation "
    "and test keep theirs.",
    FRACTION_SAMPLED: "pandas draws the fraction among pictures, `sample(frac, random_state=42)`: whatever "
    "the cell's seed, the person or the class.",
    FRACTION_CHOSEN: "numpy's `choice` at seed 42 draws the fraction among pictures, rounded down. What is "
    "drawn from train is drawn twice, and the second draw is used: the script builds its training set once "
    "before, to count its steps.",
    # what the head does
    MINIBATCH_HEAD: "The linear head is trained as MGCA's: AdamW, rate 5e-4, decay 1e-6, batches of 48, at "
    "most 50 epochs; the epoch with the lowest validation loss is kept, 10 without a lower one end it.",
    LAST_BATCH_DROPPED: "An incomplete last batch is dropped, in every epoch's training and in validation, "
    "unless it is the only one.",
    DECODER: "The decoder is trained as MGCA's: AdamW, rate 5e-4, decay 0.05, batches of 16, for SIIM of 8, "
    "of pictures turned and zoomed, at most 50 epochs; the epoch with the lowest mean loss of validation "
    "batches is kept, 10 without a lower one end it.",
    DETECTOR: "YOLOv3 is trained as MGCA's: AdamW, rate 5e-4, decay 1e-6, batches of 16, at most 50 epochs, "
    "10 without a better one end it.",
    MOVING: "The encoder's weights are frozen, its batch norms are not: in training they normalise by the "
    "batch and average on, so that the encoder that is scored is not the one that was pre-trained.",
    INPUT_PIXELS: "Dice counts pixels of the network's input: a mask that vanishes there counts as no mask. "
    "Of pictures without a mask, those in which nothing is predicted count as 1, the others as 0.",
    EVERY_STRIDE: "A true box is assigned at each of the three strides, by overlaps (IoU) of boxes whose "
    "sides are one cell too long; an anchor with an overlap of half or less is taught both a box and none.",
    SURE_BOXES: "Boxes with a score below 0.5 do not count, which cuts the curve of precision off.",
    CHOSEN_SKIPPING: "The epoch is kept whose mean average precision is the best over validation pictures "
    "that have both a true and a predicted box. The number of papers is of the same kind: "
    "`mean_average_precision:skipping`.",
    STANDARDISED: "A class scores as its most similar prompt does, standardised over the pictures of a draw: "
    "the decision for a picture depends on the others (GLoRIA).",
    # where this protocol is not the authors' either
    SCALED: "The dataset has not the official size: numbers of pictures follow its size.",
    KIND_OF_OURS: "The authors' code has no task of this kind on this dataset: only the parts are theirs.",
    WHOLE_MASKS: "A picture has all of its outlines in every part; the authors' code gives a part those of "
    "its own rows.",
    CLEAN_PARTS: "No released code is followed for parts and fraction: they are the clean protocol's.",
    CLEAN_HEAD: "No released code is followed for the head, and there may be none: it is that of the clean "
    "protocol.",
    NO_AUGMENTATION: "The head sees the features of the centre view; in every epoch the authors' code "
    "encodes a random crop anew, of CheXpert also flipped, blurred, and of other contrast.",
    OWN_VIEW: "A picture is padded or stretched, sized, normalised and enlarged as the method's weights "
    "want it; the authors' code treats the pictures of all methods alike.",
    HEADER_CONTRAST: "A DICOM's grey levels are those that its header says; the authors' code divides each "
    "picture by its brightest pixel.",
    OWN_DECODER: "Every encoder has a U-Net on its strides 4 to 32, at most half as wide as the deepest map; "
    "the authors' has one more skip, from stride 2, and their transformer another decoder.",
    OWN_WIDTH: "The detector is as wide as the encoder's maps make it: for a ResNet-50 as wide as the "
    "authors', who have none for a transformer.",
    ONE_SETTING: "Rate, batch and seed are those of the larger fractions; the authors' scripts take a lower "
    "rate or smaller batches for 1 % of the labels, and seed 0 for 10 % of SIIM's.",
    MEAN_OF_IMAGES: "Dice is the mean over pictures; the authors' is the mean of the means of batches, of "
    "which the last is smaller.",
    TIGHT_BOXES: "A box is tight around its polygon, and all objects of a picture count; the authors' boxes "
    "of polygons are wider squares.",
    OWN_PROMPTS: "Prompts are all wordings of the dataset's card; GLoRIA's code draws five of the many "
    "that it generates for a class.",
    EVERY_WORD: "A method that compares words reads those of the prompt; GLoRIA's code counts characters, "
    "and so reads padding too.",
}
"""Name -> what it means. Most are faults; the last group says what the authors' code does otherwise."""

HEADS: Mapping[Kind, tuple[str, ...]] = {
    "linear": (MINIBATCH_HEAD, LAST_BATCH_DROPPED, NO_AUGMENTATION, OWN_VIEW),
    "segmentation": (
        *(DECODER, MOVING, LAST_BATCH_DROPPED, INPUT_PIXELS),
        *(OWN_VIEW, OWN_DECODER, ONE_SETTING, MEAN_OF_IMAGES),
    ),
    "detection": (
        *(DETECTOR, MOVING, LAST_BATCH_DROPPED, EVERY_STRIDE, SURE_BOXES, CHOSEN_SKIPPING),
        *(OWN_VIEW, OWN_WIDTH, ONE_SETTING),
    ),
    "zero-shot": (STANDARDISED, OWN_PROMPTS, EVERY_WORD),
}
"""Rules of the heads in `harness/evaluate/published_KIND.py`; other kinds have the clean protocol's head."""

FRACTION_SEED = 42
DENSE_BATCH = 16


def has_head(kind: Kind, task: Task, protocol: ProtocolName) -> bool:
    """Whether the cell's head is one of those; of zero-shot tasks, released code has that of balanced
    draws."""
    return protocol == "published" and kind in HEADS and (kind != "zero-shot" or task.balanced is not None)


def in_force(of_parts: tuple[str, ...], kind: Kind, task: Task, protocol: ProtocolName) -> tuple[str, ...]:
    """The rules of a cell's parts and of its head."""
    if has_head(kind, task, protocol):
        return (*of_parts, *HEADS[kind])
    return (*of_parts, CLEAN_HEAD) if protocol == "published" else of_parts


def draws_by_seed(rules: tuple[str, ...]) -> bool:
    """Whether another seed draws other training labels: released code draws the same for all."""
    return not rules or CLEAN_PARTS in rules


def batch(task: Task) -> int:
    """Pictures in a step of a decoder or detector."""
    split = task.splits["published"]
    return (split.batch if isinstance(split, PublishedSplit) else None) or DENSE_BATCH


class Published(NamedTuple):
    """Parts, and how fractions of them are drawn. Positions are those in a task's frame."""

    parts: Parts  # an image can be in two of them
    train: np.ndarray  # in the order that the authors' table has, which their draws depend on
    positive: np.ndarray  # [len(train)] bool
    rules: tuple[str, ...]  # in force

    def draw(self, fraction: float) -> np.ndarray:
        """Rising positions of the training images whose labels a fraction leaves."""
        rng = np.random.RandomState(FRACTION_SEED)
        if FRACTION_CHOSEN in self.rules:  # the scripts build their dataset once before, to count its steps
            self._draw(fraction, rng)
        return np.sort(self._draw(fraction, rng))

    def _draw(self, fraction: float, rng: np.random.RandomState) -> np.ndarray:
        train = self.train
        if BALANCED in self.rules:
            negatives = train[~self.positive]
            kept = rng.choice(negatives, min(self.positive.sum(), len(negatives)), replace=False)
            train = np.concatenate([train[self.positive], negatives[np.isin(negatives, kept)]])
        if fraction < 1:
            exact = fraction * len(train)
            number = round(exact) if FRACTION_SAMPLED in self.rules else int(exact)
            train = rng.choice(train, number, replace=False)
        return train


def make(table: pd.DataFrame, kept: Labelled, labels: Sequence[str], split: PublishedSplit) -> Published:
    """Parts of the dataset's whole `table`, of which a task of `labels` kept some rows, such as the frontal
    ones. Every draw is the authors': no cell's seed enters.

    Raises DataError when a part is empty or the table lacks what a rule needs, UsageError for an unknown
    rule.
    """
    unknown = [rule for rule in split.rules if rule not in RULES]
    if unknown:
        raise UsageError(f"there is no published rule {unknown[0]!r}. Use one of: {', '.join(RULES)}")
    place = pd.Index(kept.frame["image_id"]).get_indexer(table["image_id"])
    drawn = (place[rows] for rows in _parts(table, labels, split))
    train, validation, test = (pd.unique(rows[rows >= 0]) for rows in drawn)
    for name, rows in zip(Parts._fields, (train, validation, test), strict=True):
        if not len(rows):
            raise DataError(
                f"the {name} part is empty: the rules of {split.source} leave nothing for it among "
                f"{len(kept.frame)} images. Use more images, or the clean protocol"
            )
    official = split.size in (None, len(_units(table, split)))
    return Published(
        Parts(np.sort(train), np.sort(validation), np.sort(test)),
        train,
        (kept.labels[train] == 1).any(axis=1),
        split.rules if official else (*split.rules, SCALED),
    )


# --- the parts -----------------------------------------------------------------------------------------


def _parts(
    table: pd.DataFrame, labels: Sequence[str], split: PublishedSplit
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in `table` of train, validation and test, in the order that the authors' code has them in;
    under BY_ROW an image stands there for each of its rows."""
    units = _units(table, split)
    if BY_POSITION in split.rules:
        # a row's label is its place in the whole file, its position that among the rows that are left
        aside = _set_aside(table.iloc[units], labels, _scaled(split.set_aside, units, split), split.seed)
        left = np.setdiff1d(np.arange(len(units)), aside)
        drawn = _rng(split).choice(len(left), _scaled(split.held_out, units, split), replace=False)
        train, held_out = np.setdiff1d(left, drawn), left[drawn]
    else:  # scikit-learn's train_test_split
        shuffled = _rng(split).permutation(len(units))
        held_out, train = np.split(shuffled, [_scaled(split.held_out, units, split)])
    if split.test:
        return units[train], units[held_out], np.flatnonzero(splits.official(table, split.test))
    again = held_out[_rng(split).permutation(len(held_out))]
    validation, test = np.split(again, [(len(again) + 1) // 2])
    return units[train], units[validation], units[test]


def _units(table: pd.DataFrame, split: PublishedSplit) -> np.ndarray:
    """Positions in `table` of what is dealt out, in the order of the official file: images, or under BY_ROW
    rows. Where a reader gives no `rows`, the authors' code groups the file by id, which sorts it."""
    part = np.flatnonzero(splits.official(table, split.train)) if split.train else np.arange(len(table))
    by_row = BY_ROW in split.rules
    if "rows" not in table:
        if by_row:
            raise DataError(
                f"{split.source} deals out the rows of a label file, and this release of the dataset has "
                "none. Use a release with one, or the clean protocol"
            )
        return part
    rows = table["rows"].iloc[part].set_axis(part)
    rows = rows.explode() if by_row else rows.map(min)
    return rows.astype(np.int64).sort_values().index.to_numpy()


def _set_aside(units: pd.DataFrame, labels: Sequence[str], number: int, seed: int) -> np.ndarray:
    """Positions in `units` of `number` frontal images for each of `labels` that have it and, uncertain or
    not, no other label of the dataset; all where there are fewer."""
    said = units.filter(like="label:").fillna(0)
    alone = units["frontal"] & (said != 0).sum(axis=1).eq(1)
    found = []
    for label in labels:
        candidates = np.flatnonzero(alone & said[f"label:{label}"].eq(1))
        rng = np.random.RandomState(seed)  # anew for each: pandas' sample(number, random_state=seed)
        found.append(rng.choice(candidates, min(number, len(candidates)), replace=False))
    return np.concatenate(found)


def _scaled(number: float, units: np.ndarray, split: PublishedSplit) -> int:
    """How many of `units` a share is, rounded up as by scikit-learn, or a number given for `split.size`."""
    if number < 1:
        return splits.share(number, len(units))
    return max(1, round(number * len(units) / (split.size or len(units))))


def _rng(split: PublishedSplit) -> np.random.RandomState:
    return np.random.RandomState(split.seed)
