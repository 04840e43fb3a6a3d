"""The record of one cell: its schema, its file, and the predictions beside it.

Apart because this is what outlives a run. Everything is typed, unknown keys, NaN and infinity are refused
on writing and on reading, and nothing of torch or pandas is needed to read a record years later.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.contracts import DataKind, Geometry, Kind, ProfileName, ProtocolName, file_words, options
from harness.errors import BadRecord, NewerRecord, first_of, of_another_version
from harness.files import below, file_hash, hash_bytes, hash_of, replacing, sync, write_json

Share = Annotated[float, Field(ge=0, le=1)]

ADDRESS = re.compile(r"(?<![\w/])~?/[\w.~]|\b[A-Za-z]:[\\/]|\\\\|://|\b(home|users)/", re.IGNORECASE)
"""Address of a folder, a file or a machine, of which nothing that anybody may see holds one. A slash inside a
word is none: `ViT-B/16`."""

ROUNDING = 1e-9  # by which a number computed again on another machine differs, at most

Argument = str | int | float | bool | None  # not Any: NaN and infinity would pass through it


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CellBlock(_Block):
    """The unit of work."""

    method: str
    checkpoint: str  # its folder's name in the checkpoint store
    task: str  # full id, `chexpert:linear`
    protocol: ProtocolName
    fraction: float = Field(gt=0, le=1)  # share of the training persons whose labels were used
    seed: int  # of the label draw, the head and the bootstrap
    tuned: int = 0  # configurations of a trained head that were compared; 0: it has the default settings
    cut_validation: bool = False  # whether the fraction is of the validation labels too

    @property
    def options(self) -> tuple[str, ...]:
        return options(self.cut_validation, self.tuned)


class TaskBlock(_Block):
    """What was asked: anything here that changes asks for a new version."""

    kind: Kind
    version: int
    metric: str
    labels: tuple[str, ...]
    frontal_only: bool
    uncertain: dict[str, int]  # what -1 counted as, per label
    blank: int | None  # what "not mentioned" counted as
    exclusive: bool = False  # one label was true of each image
    split: dict[str, Argument]  # what made train, validation and test
    rules: tuple[str, ...] = ()  # of harness/data/published.py, which explains each; none under "clean"

    @property
    def metric_title(self) -> str:
        return self.metric.replace("_", " ").replace("auroc", "AUROC")


class Measured(_Block):
    """A value in 0..1 with its 95 % interval over the test persons."""

    value: Share
    low: Share
    high: Share

    @property
    def text(self) -> str:
        """As in `67.7 [65.6, 69.9]`, in percent."""
        return f"{self.value * 100:.1f} [{self.low * 100:.1f}, {self.high * 100:.1f}]"


class IntervalBlock(_Block):
    """How the intervals were made."""

    level: float
    replicates: int  # resamples of the test persons
    undefined: int  # replicates in which a metric was undefined, because a label had one class only


class Part(_Block):
    """Size of one split."""

    images: int
    persons: int
    positives: dict[str, int]  # per label
    negatives: dict[str, int]  # the same; of all other images the label is unknown


class DrawsBlock(_Block):
    """Choices of test images, as many of each class, that scores are means over: draw 0, 1, ..."""

    per_class: int  # images
    hashes: tuple[str, ...]  # of the ids in each


class DataBlock(_Block):
    """Which data, as hashes: two records with the same values saw the same images and labels."""

    kind: DataKind
    release: str  # the known variant whose counts the data has, or "" when none fits
    fingerprint: str  # of sorted image ids with their labels, and the boxes, masks or reports scored
    images: str  # of the decoded pixels
    reading: tuple[int, int, int] = (2, 1, 1)
    """Versions of what decodes, resizes and views pictures. The default stays when they are raised: it is of
    records from before they were kept."""
    split: str  # of the ids in train, validation and test
    draws: DrawsBlock | None = None  # None: all of the test part counts
    fraction: str  # of the ids whose labels the fraction leaves
    persons_known: bool  # false where the dataset does not say whose picture an image is
    shares_pictures: tuple[str, ...] = ()  # datasets that have some of its pictures too


class PretrainingBlock(_Block):
    """Where the encoder comes from."""

    profile: ProfileName
    family: str  # the checkpoint without its seed: what a leaderboard row is made of
    seed: int
    imported_from: str | None = None  # file of someone else's weights; None: made by this project
    corpus: str | None  # None: not trained
    data_kind: DataKind | None
    weights: str  # sha256
    images_per_second: float | None
    seconds: float | None
    method_version: int | None = None  # of the checkpoint's card; None: of a record from before it was kept
    device: str | None = None  # that trained them; None: none did here, or it is not known
    commit: str = ""  # of the code that made the weights; "": not known
    dirty: bool = False  # whether it was changed since that commit


class InputBlock(_Block):
    """Pre-processing, taken from the checkpoint, never from the task."""

    size: int
    stored: int
    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    upsample: int | None


class TrialBlock(_Block):
    """One configuration of a search, fitted on the training images."""

    settings: dict[str, float]
    steps: int  # of training until it ended
    value: float | None  # its best on validation; None: there is none
    ended: str  # "trained", "stopped" early because others were better, or the error that ended it


class SearchBlock(_Block):
    """How the settings of a trained head were found: on validation only, with the same list of configurations
    for every method."""

    space: dict[str, tuple[float, float]]  # drawn between these, evenly in the logarithm
    best: Literal["max", "min"]  # which of the values
    stopping: str  # when a trial ended early
    trials: tuple[TrialBlock, ...]  # the first has the default settings
    chosen: int  # position among the trials

    @property
    def configuration(self) -> dict[str, float]:
        return self.trials[self.chosen].settings


class HeadBlock(_Block):
    """What was put on the encoder, and how its free parameters were chosen: on validation only."""

    name: str  # "logistic regression"
    version: int = 1  # of the code that fits and applies it
    settings: dict[str, Argument]  # what it was trained with; `steps`: done, of fine-tuning planned
    chosen: dict[str, Argument]  # by what validation said
    candidates: tuple[float, ...] = ()  # what was compared: strengths, or the steps done at each validation
    validation: tuple[float, ...] = ()  # per candidate, the task's metric on validation or the loss there
    search: SearchBlock | None = None  # of the settings; None: they are the default ones


class CodeBlock(_Block):
    """What ran."""

    commit: str  # "" outside a git checkout
    dirty: bool
    version: str
    python: str
    platform: str
    packages: dict[str, str]
    arguments: dict[str, Argument]  # as given by the user
    defaults: dict[str, Argument]  # what was not given


class CostBlock(_Block):
    """What it cost here; cached steps say so and cost nothing."""

    device: str  # where the features were computed
    seconds: dict[str, float]  # per step
    peak_memory_mib: float  # of the process
    peak_gpu_memory_mib: float | None = None  # of its tensors on the GPU
    images_per_second: float | None  # of the encoder; None when its features came from the cache
    cached: dict[str, bool]  # step -> taken from the cache

    @property
    def of_cell(self) -> float:
        """Seconds of fitting and testing, without what a cache answers."""
        return sum(self.seconds.get(step, 0.0) for step in ("search", "head", "comparison", "test"))


class Record(_Block):
    schema_version: Literal[3]
    written: AwareDatetime
    cell: CellBlock
    task: TaskBlock
    metrics: dict[str, Measured]  # the task's own among them; names as in harness/metrics/
    interval: IntervalBlock
    parts: dict[Literal["train", "used", "validation", "test"], Part]  # used: the drawn fraction of train
    data: DataBlock
    pretraining: PretrainingBlock
    preprocessing: InputBlock
    head: HeadBlock
    code: CodeBlock
    cost: CostBlock
    predictions: str = ""  # sha256 of the file beside it; "" until both are written

    @model_validator(mode="after")
    def _has_its_metric(self) -> Self:
        if self.task.metric not in self.metrics:
            raise ValueError(f"metrics lack {self.task.metric!r}, which task.metric names")
        return self

    @property
    def lent(self) -> bool:
        """Whether its checkpoint is that of another seed, and nobody asked for it."""
        given = (self.code.arguments.get(option) for option in ("checkpoint", "checkpoints"))
        named = [name.strip() for names in given for name in str(names or "").split(",")]
        return self.pretraining.seed != self.cell.seed and self.cell.checkpoint not in named


class Predictions(NamedTuple):
    """Per test image, in the order of the hashed ids: kept so that every metric and any paired test can be
    computed later."""

    images: np.ndarray  # [N] uint64, hashed ids
    persons: np.ndarray  # [N] uint64, hashed ids
    arrays: dict[str, np.ndarray]  # what the kind's score is made of: see harness/metrics/score.py


def place_of(results: Path, data: DataKind, cell: CellBlock) -> Path:
    """`results/phantom/chexpert-linear/imitate-demo-1a2b3c4d-s0/clean-1pct-s0.json`"""
    task = cell.task.replace(":", "-")
    name = "-".join(file_words(cell.protocol, cell.fraction, cell.seed, cell.options))
    return results / data / task / cell.checkpoint / f"{name}.json"


def path_of(results: Path, record: Record) -> Path:
    return place_of(results, record.data.kind, record.cell)


def write(results: Path, record: Record, predictions: Predictions) -> Path:
    """Moved into place when both files are written, predictions first. An old record goes before that: a kill
    in between leaves a cell that is not done, not a record beside the predictions of another."""
    path = path_of(results, record)
    with replacing(path) as text, replacing(path.with_suffix(".npz")) as arrays:
        with arrays.open("wb") as file:
            ids = {"images": predictions.images, "persons": predictions.persons}
            np.savez_compressed(file, allow_pickle=False, **ids, **predictions.arrays)
        kept = record.model_copy(update={"predictions": file_hash(arrays)})
        write_json(text, kept.model_dump(mode="json"))
        sync(arrays)  # what can fail for want of room has failed by now
        path.unlink(missing_ok=True)
    return path


def read(path: Path) -> Record:
    """Raises BadRecord naming the file, the field and what is wrong with it; NewerRecord where it is this
    harness that is out of date."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        if other := of_another_version(error, Record):
            raise NewerRecord(f"{path}: {other}, or move it away to run the cell again") from error
        raise BadRecord(
            f"{path}: {first_of(error)}. Records are never edited by hand: delete it and run the cell again"
        ) from error


def files(results: Path) -> Iterator[Path]:
    """The files of all records in a folder of results, track by track, sorted."""
    for kind in sorted(get_args(DataKind)):
        yield from below(results / kind, ".json")


def read_all(results: Path) -> Iterator[tuple[Path, Record]]:
    """Raises BadRecord at the first that cannot be read, or lies in another's place."""
    for path in files(results):
        record = read(path)
        if path != path_of(results, record):
            raise BadRecord(
                f"{path} holds the record of another cell, which belongs to {path_of(results, record)}. "
                "Move it there"
            )
        yield path, record


def predictions(path: Path) -> Predictions:
    """The predictions beside a record. Raises BadRecord when they are missing, are not those that it was
    written with, are not numbers, or do not fit together."""
    file = path.with_suffix(".npz")
    try:
        content = file.read_bytes()
        if hash_bytes(content) != read(path).predictions:
            raise BadRecord(f"{file} is not the one that {path.name} was written with. Run the cell again")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = dict(arrays)
            images, persons = found.pop("images"), found.pop("persons")
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadRecord(f"{file}: {error}. Run the cell of {path.name} again") from error
    for name, array in [("images", images), ("persons", persons), *found.items()]:
        if not (isinstance(array, np.ndarray) and array.ndim and array.dtype.kind in "biuf"):
            raise BadRecord(f"{file}: {name} is no array of numbers. Run the cell of {path.name} again")
    lengths = {len(array) for name, array in found.items() if not name.startswith(_ragged(found))}
    if lengths | {len(persons)} != {len(images)}:
        raise BadRecord(f"{file}: its arrays have different lengths. Run the cell of {path.name} again")
    return Predictions(images, persons, found)


def hashed(ids: Iterable[str]) -> np.ndarray:
    """[N] uint64: enough to match two records. No secret: whoever tries all ids finds them."""
    return np.array([int(hash_of("prediction", name)[:16], 16) for name in ids], dtype=np.uint64)


def sorted_predictions(
    images: Sequence[str], persons: Sequence[str], arrays: Mapping[str, np.ndarray]
) -> Predictions:
    """Ordered by hashed id, so that the order tells nothing and two records align row by row.

    `arrays` have a row per image. Those named `box_...` have any number of rows where a `box_image` among
    them says which image each belongs to; so with any other word.
    """
    hashes = hashed(images)
    order = np.argsort(hashes)
    place = np.argsort(order)  # of each image in the new order
    ragged = _ragged(arrays)
    ordered = {}
    for name, array in arrays.items():
        if not name.startswith(ragged):
            ordered[name] = array[order]
            continue
        prefix = next(prefix for prefix in ragged if name.startswith(prefix))
        owner = place[arrays[f"{prefix}image"]]
        rows = np.argsort(owner, kind="stable")
        ordered[name] = owner[rows].astype(np.int32) if name == f"{prefix}image" else array[rows]
    return Predictions(hashes[order], hashed(persons)[order], ordered)


def _ragged(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(name.removesuffix("image") for name in arrays if name.endswith("_image"))


def contradiction(path: Path, record: Record, computed: float) -> str:
    """Where the task's metric is not what was `computed` from the predictions beside the record; or ""."""
    metric = record.task.metric
    said = record.metrics[metric].value
    if abs(said - computed) <= ROUNDING:
        return ""
    return f"{path} says {metric} {said:.6f}, its predictions give {computed:.6f}. Run the cell again"


def same_test(first: Predictions, second: Predictions) -> bool:
    """Whether two cells scored the same images of the same persons against the same truth."""
    one, other = (
        {name: array for name, array in side.arrays.items() if name.startswith("truth")}
        | {"images": side.images, "persons": side.persons}
        for side in (first, second)
    )
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
