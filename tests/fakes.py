"""Stand-ins that tests of several rooms share: a tiny method, a toy dataset, a valid record of any cell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from harness import records
from harness.contracts import (
    Batch,
    DatasetCard,
    ImageBackbone,
    ImageFeatures,
    MethodCard,
    PhantomSize,
    Preprocessing,
    Profile,
    Recipe,
    Split,
    TextBackbone,
    TextFeatures,
)
from harness.files import hash_of
from harness.metrics import score
from harness.phantom import Cohort, stamp
from harness.pretrain.corpus import Corpus, Texts
from harness.records import Predictions, Record

# --- a method and its corpus -------------------------------------------------------------------------

LETTERS = 26  # width of a prepared text: how often each letter occurs

PROFILE = Profile(
    image=ImageBackbone("tiny"),
    preprocessing=Preprocessing(8, 10, "stretch", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    text=TextBackbone("letters", width=LETTERS, max_length=64, lower_case=True, pooling="mean"),
    recipe=Recipe(
        epochs=5,
        batch=8,
        accumulate=1,
        learning_rate=1e-2,
        weight_decay=0.05,
        schedule="cosine",
        views=2,
        augmentation=("crop", "rotation", "perspective", "autocontrast"),
        text_units=("findings",),
    ),
)
CARD = MethodCard("Tiny", 1, "nobody", 2025, "tests", "none", ("mimic_cxr",), {"demo": PROFILE})


class Tiny(nn.Module):
    """A text method of some 400 parameters that keeps the contract.

    Its batch norm has a state beside the weights; its dropout and the noise in its loss draw from torch's
    global generator. A resume that forgets any of it ends in other weights. `random=False` draws nothing.
    """

    def __init__(self, *, random: bool = True) -> None:
        super().__init__()
        self.random = random
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2 * random)
        )
        self.image_head, self.text_head = nn.Linear(8, 4), nn.Linear(LETTERS, 4)
        self.text_key = "letters"
        self.prepared: list[str] = []  # every text that was prepared
        self.trained: list[Batch] = []  # every batch that a loss was asked for
        self.compared: list[str] = []  # ids of the pictures that `pairs` was asked for

    def encode_image(self, x: Tensor) -> ImageFeatures:
        maps = self.encoder(x)
        pooled = maps.mean(dim=(2, 3))
        return ImageFeatures(pooled, self.image_head(pooled), None, {2: maps})

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        self.prepared.extend(texts)
        return torch.tensor([[float(text.count(chr(97 + i))) for i in range(LETTERS)] for text in texts])

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        return TextFeatures(self.text_head(prepared), None, None)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared distance between pictures and the texts that are there, and the size of the embeddings."""
        if self.training:
            self.trained.append(batch)
        seen = torch.stack([self.image_head(self.encoder(x).mean(dim=(2, 3))) for x in batch.views])
        noise = 0.1 * torch.randn_like(seen) if self.random else 0
        misses = (seen + noise - self.text_head(batch.text["findings"])).square()  # [views, B, 4]
        terms = {
            "match": misses[:, batch.present["findings"]].sum() / len(batch.ids),
            "size": seen.square().mean(),
        }
        return terms["match"] + terms["size"], {name: term.detach() for name, term in terms.items()}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.compared.extend(batch.ids)
        rows = batch.present["findings"]
        image = self.encode_image(batch.views[0][rows]).embedding
        assert image is not None
        return image, self.text_head(batch.text["findings"][rows])

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        assert image.embedding is not None
        return image.embedding @ text.embedding.T


def write_method(folder: Path, card: MethodCard = CARD) -> Path:
    """A method's file, as for `--method path/to/file.py`: the repr of a card is how one writes it."""
    path = folder / "tiny.py"
    path.write_text(
        "from harness.contracts import *\nfrom tests.fakes import Tiny\n\n"
        f"CARD = {card!r}\n\ndef build(profile, *, initialise=True):\n    return Tiny()\n"
    )
    return path


def corpus(count: int = 30) -> Corpus:
    """Noise with reports of three words: every fifth pair is for validation, every seventh has no text."""
    rng = np.random.default_rng(0)
    words = rng.choice(["effusion", "clear", "edema", "opacity", "normal", "line"], (count, 3))
    reports = ["" if row % 7 == 6 else " ".join(words[row]) for row in range(count)]
    distinct = sorted(set(reports) - {""})
    row = torch.tensor([distinct.index(text) if text else 0 for text in reports])
    held_out = np.arange(count) % 5 == 4
    return Corpus(
        name="noise",
        kind="phantom",
        fingerprint="f" * 64,
        ids=[f"image-{number:02d}" for number in range(count)],
        studies=torch.arange(count) // 2,
        pixels=rng.integers(0, 256, (count, 10, 10), dtype=np.uint8),
        texts={
            "findings": Texts(Tiny().prepare_text(distinct), row, torch.tensor([bool(t) for t in reports]))
        },
        train=np.flatnonzero(~held_out),
        validation=np.flatnonzero(held_out),
    )


# --- a dataset ----------------------------------------------------------------------------------------

TOY = DatasetCard(
    title="Toy X-rays",
    source="ask the authors",
    licence="none",
    citation="nobody",
    folders=(),
    markers=("reports.csv",),
    variants=(),
    tasks=(),
    corpus=Split(test=0.2, validation=0.2),
    phantom={"demo": PhantomSize(30, 10, 10)},
)


def read_toy(root: Path) -> pd.DataFrame:
    """A picture of noise per person, `NUMBER.png`, and a table of reports."""
    table = pd.read_csv(root / "reports.csv", dtype=str, keep_default_na=False)
    paths = [str(root / f"{name}.png") for name in table["image_id"]]
    same = dict.fromkeys(("person_id", "study_id"), table["image_id"])
    return table.assign(
        path=paths, split="", view="PA", frontal=True, sex="", age=40.0, impression="", **same
    )


def write_toy(root: Path, cohort: Cohort, workers: int) -> None:
    words = ["effusion", "clear", "edema", "opacity", "normal", "line"]
    rng = cohort.stream("toy")
    ids = [f"{number:02d}" for number in range(cohort.persons)]
    for name in ids:
        Image.fromarray(rng.integers(0, 256, cohort.size, dtype=np.uint8)).save(root / f"{name}.png")
    reports = [" ".join(rng.choice(words, 3)) for _ in ids]
    pd.DataFrame({"image_id": ids, "findings": reports}).to_csv(root / "reports.csv", index=False)
    stamp(root, cohort, {})


def write_dataset(folder: Path, card: DatasetCard = TOY) -> Path:
    """The dataset's file, as for `--corpus path/to/file.py`."""
    path = folder / "toy.py"
    path.write_text(
        "from harness.contracts import *\n"
        "from tests.fakes import read_toy as read, write_toy as write_phantom\n\n"
        f"CARD = {card!r}\n"
    )
    return path


# --- records -----------------------------------------------------------------------------------------

LABELS = ("Edema", "Atelectasis")


def record(
    *,
    method: str = "imitate",
    family: str = "imitate-demo-1a2b3c4d",
    kind: str = "phantom",
    fraction: float = 0.01,
    seed: int = 0,
    fingerprint: str = "f" * 64,
    version: int = 1,
    imported_from: str | None = None,
    task: str = "chexpert:linear",
    protocol: str = "clean",
    profile: str = "demo",
    dirty: bool = False,
    checkpoint: int | None = None,
    named: bool = False,
    tuned: int = 0,
    cut_validation: bool = False,
    corpus: str = "mimic_cxr",
    known: bool = True,
) -> Record:
    """A record that keeps the schema; its numbers mean nothing. `checkpoint`: its seed, default that of the
    labels; `named`: somebody asked for it; `known`: whose pictures they are. Its encoder was trained on data
    of the same `kind`."""
    trained = seed if checkpoint is None else checkpoint
    share = {"value": 0.75, "low": 0.5, "high": 1.0}
    half = dict.fromkeys(LABELS, 10)
    part = {"images": 20, "persons": 10, "positives": half, "negatives": half}
    raw: dict[str, Any] = {
        "schema_version": 3,
        "written": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "cell": {
            "method": method,
            "checkpoint": f"{family}-s{trained}",
            "task": task,
            "protocol": protocol,
            "fraction": fraction,
            "seed": seed,
            "tuned": tuned,
            "cut_validation": cut_validation,
        },
        "task": {
            "kind": task.split(":")[1],
            "version": version,
            "metric": "macro_auroc",
            "labels": LABELS,
            "frontal_only": True,
            "uncertain": {"Edema": 1},
            "blank": 0,
            "split": {"test": "valid", "validation": 0.1, "seed": 0},
        },
        "metrics": {"macro_auroc": share, **{f"auroc:{label}": share for label in LABELS}},
        "interval": {"level": 0.95, "replicates": 1000, "undefined": 0},
        "parts": dict.fromkeys(("train", "used", "validation", "test"), part),
        "data": {
            "kind": kind,
            "release": "",
            "fingerprint": fingerprint,
            "images": "a" * 64,
            "split": "b" * 64,
            "fraction": f"{seed if protocol == 'clean' and fraction < 1 else 0:064x}",
            "persons_known": known,
        },
        "pretraining": {
            "profile": profile,
            "family": family,
            "seed": trained,
            "imported_from": imported_from,
            "corpus": corpus,
            "data_kind": kind,
            "weights": hash_of(family, trained),
            "images_per_second": 100.0,
            "seconds": 60.0,
        },
        "preprocessing": {
            "size": 64,
            "stored": 72,
            "geometry": "pad",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "upsample": None,
        },
        "head": {
            "name": "logistic regression",
            "settings": {"features": 8},
            "chosen": {"strength": 1.0},
            "candidates": (0.1, 1.0),
            "validation": (0.6, 0.7),
        },
        "code": {
            "commit": "c" * 40,
            "dirty": dirty,
            "version": "0.1.0",
            "python": "3.11.0",
            "platform": "Linux x86_64",
            "packages": {"numpy": "2.0.0"},
            "arguments": {"fraction": fraction, **({"checkpoints": f"{family}-s{trained}"} if named else {})},
            "defaults": {"checkpoint": None},
        },
        "cost": {
            "device": "cpu",
            "seconds": {"head": 1.0},
            "peak_memory_mib": 500.0,
            "images_per_second": None,
            "cached": {"bank": True},
        },
    }
    return Record.model_validate(raw)


def predictions(seed: int = 0, skill: float = 1.0, dataset: str = "chexpert") -> Predictions:
    """20 test images of 10 persons of a dataset; `skill` moves the scores of positives up."""
    rng = np.random.default_rng(seed)
    truth = np.array([[row // 2 % 2, (row // 2 + row) % 2] for row in range(20)])
    scores = rng.normal(size=truth.shape) + skill * truth
    images = [f"{dataset}-image-{row}" for row in range(20)]
    persons = [f"{dataset}-person-{row // 2}" for row in range(20)]
    return records.sorted_predictions(images, persons, {"truth": truth, "scores": scores})


def write(results: Path, skill: float = 1.0, **changes: Any) -> Path:
    """A record of `record(**changes)` with its predictions in a folder of results."""
    return store(results, record(**changes), skill)


def store(results: Path, made: Record, skill: float = 1.0) -> Path:
    """A record with its predictions, and with the number that these give."""
    dataset, metric = made.cell.task.partition(":")[0], made.task.metric
    found = predictions(made.cell.seed, skill, dataset)
    own = score.of("linear", found.arrays, LABELS, metric)
    value = float(own(np.ones((len(found.images), 1)))[own.names.index(metric), 0])
    number = made.metrics[metric].model_copy(update={"value": value})
    scored = made.model_copy(update={"metrics": made.metrics | {metric: number}})
    return records.write(results, scored, found)
