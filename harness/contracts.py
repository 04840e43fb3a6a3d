"""The project's vocabulary as types: what a method, a dataset and a task are.

Imports nothing of ours and nothing heavy, so that the command line can check names, options and
pairings before torch or pandas are loaded. Cards are *data*: a method's or dataset's `CARD` is built
from literals only, so that the registry reads it from the file's syntax tree without importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from torch import Tensor

    from harness.phantom import Cohort

Kind = Literal["linear", "finetune", "segmentation", "detection", "zero-shot", "retrieval"]
ProtocolName = Literal["clean", "published"]
ProfileName = Literal["demo", "paper"]
DataKind = Literal["real", "phantom"]
Geometry = Literal["pad", "stretch"]
Metric = Literal["macro_auroc", "accuracy", "dice", "mean_average_precision", "precision_at_5", "recall_at_5"]
"""What a kind of task is ranked by; everything else that it measures stands beside it."""

METRICS: Mapping[Kind, tuple[Metric, ...]] = {
    "linear": ("macro_auroc", "accuracy"),
    "finetune": ("macro_auroc", "accuracy"),
    "segmentation": ("dice",),
    "detection": ("mean_average_precision",),
    "zero-shot": ("macro_auroc", "accuracy"),
    "retrieval": ("precision_at_5", "recall_at_5"),
}
"""By which of them tasks of each kind may be ranked."""

NEEDS_TEXT: frozenset[Kind] = frozenset({"zero-shot", "retrieval"})
"""Kinds that compare pictures with words: a method without a text side is refused at the door. They learn
nothing from a task: no label of its training part is looked at."""

WITH_FIGURES: frozenset[Kind] = frozenset({"segmentation", "detection"})
"""Kinds that say where something is: their predictions can be drawn over the picture."""


# --- methods ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocessing:
    """How a stored picture becomes the network's input. Travels with the weights, never with the task."""

    size: int  # side of the network's input in pixels; a crop of the stored picture
    stored: int  # side of the square picture in the image cache
    geometry: Geometry  # "pad": keep the aspect ratio, zero borders; "stretch": to a square
    mean: tuple[float, float, float]  # per channel, of values in 0..1; grey fills all three channels
    std: tuple[float, float, float]
    upsample: int | None = None  # bilinear resize inside the encoder (299 for GLoRIA and MGCA's ResNet)

    @property
    def seen(self) -> int:
        """Side of what the encoder's maps are of."""
        return self.upsample or self.size


@dataclass(frozen=True)
class ImageBackbone:
    """A timm architecture: `timm.create_model(name, **options)`."""

    name: str
    pretrained: bool = False  # start from timm's ImageNet weights (needs the hub or a local copy)
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class TextBackbone:
    """A BERT: a hub id, a folder, or `package:NAME/FOLDER` for weights inside an installed package."""

    source: str
    width: int  # of its hidden states
    max_length: int  # tokens, special ones included
    lower_case: bool  # explicit, because the hub's default has changed between library versions
    pooling: Literal["cls", "mean"] = "cls"  # of a frozen one: which last hidden state stands for the text
    layers: int | None = None  # the first so many of its layers; None: all
    frozen_layers: int = 0  # of these, the first so many and the embeddings stay as they are; 0: none
    positions: Literal["normal", "zero"] = "normal"  # "zero": blind to order, as MGCA's released weights


@dataclass(frozen=True)
class Recipe:
    """How a method is pre-trained. Every field is stored in the checkpoint's card.

    How many processes share the work is not part of it: a step is the same step for any number of them,
    dropout aside, and without `gather` the running averages of batch norms.
    """

    # length and size
    epochs: int
    batch: int  # pairs per optimiser step
    accumulate: int  # micro-batches per optimiser step; a pair is contrasted with those of its own
    # what a step does
    learning_rate: float
    weight_decay: float
    schedule: Literal["cosine", "plateau", "constant"]
    # what a step sees
    views: int  # augmented pictures per pair and step
    augmentation: tuple[str, ...]  # names in harness/data/transforms.py
    # report columns: "findings", or several joined "impression+findings"; the last is the one that
    # zero-shot tasks and retrieval speak in: what `ImageFeatures.embedding` is compared with
    text_units: tuple[str, ...]
    # what most recipes leave as it is
    optimizer: Literal["adamw", "adam"] = "adamw"  # "adam" adds the weight decay to the gradient
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None  # norm that a gradient is scaled down to
    warm_up: float = 0.0  # share of the steps in which the rate first rises, linearly; "cosine" only
    halve_after: int = 5  # epochs without a lower validation loss that halve the rate; "plateau" only
    patience: int | None = None  # such epochs that end the training; the best epoch's weights are then kept
    gather: bool = False  # several processes may share a micro-batch; else each takes whole ones of a step
    same_study_positives: bool = False  # pictures of one study are right answers to each other's report


@dataclass(frozen=True)
class Profile:
    """One size of a method. `demo` and `paper` differ in data, not in code."""

    image: ImageBackbone
    preprocessing: Preprocessing
    text: TextBackbone | None = None
    recipe: Recipe | None = None  # None: nothing to train, the initial weights are the checkpoint
    official: bool = False  # behave as the authors' code, its faults included; the docstring names them


@dataclass(frozen=True)
class MethodCard:
    title: str
    version: int  # counts changes of the code that change trained weights; older checkpoints stop fitting
    citation: str
    year: int
    source: str  # where the authors' code is, with the commit that was read
    licence: str  # of the authors' code and weights
    trained_on: tuple[str, ...]  # corpora of the published weights: the leakage question as a field
    profiles: Mapping[ProfileName, Profile]

    @property
    def has_text(self) -> bool:
        return all(profile.text is not None for profile in self.profiles.values())


@dataclass(frozen=True)
class Layout:
    """A kind of files with a method's weights that others have written: what is in them, under which keys.

    A method's file lists its own as `LAYOUTS`. Every key of such a file is dropped or else renamed.
    """

    title: str
    profile: Profile  # what the weights are part of; without `text`: the image encoder alone
    markers: tuple[str, ...]  # keys that tell these files from others: all are there
    renamed: Mapping[str, str]  # how a key begins in the file -> in our network; the longest that fits counts
    dropped: Mapping[str, str] = field(default_factory=dict)  # pattern of keys -> why they are not needed
    zeros: tuple[str, ...] = ()  # keys of ours that the files lack, because they act as zero


class ImageFeatures(NamedTuple):
    pooled: Tensor  # [B, D] what probes and heads read
    embedding: Tensor | None  # [B, d] in the space shared with text
    local: Tensor | None  # [B, P, d] patches in that space
    pyramid: dict[int, Tensor]  # stride -> [B, C, H/stride, W/stride]


class TextFeatures(NamedTuple):
    embedding: Tensor  # [B, d]
    local: Tensor | None  # [B, W, d] words
    mask: Tensor | None  # [B, W] true where there is a word


def _call(encode: Callable[..., Any], *rows: Tensor) -> Any:
    return encode(*rows)


class Batch(NamedTuple):
    """What a method's loss sees. Rows of all fields belong together."""

    ids: Sequence[str]  # B image ids, for error messages
    views: tuple[Tensor, ...]  # each [B, 3, size, size], normalised
    text: Mapping[str, Tensor]  # text unit -> prepared rows [B, ...], see TextMethod.prepare_text
    present: Mapping[str, Tensor]  # text unit -> [B] bool, false where the report has nothing there to read
    epoch: int = 0  # how often training has seen every pair before
    study: Tensor | None = None  # [B] int64, alike where pairs count as positives; None: only itself
    spread: Callable[..., Any] = _call
    """`spread(encode, x, ...)` is `encode(x, ...)`, which several processes may compute together, each for
    a share of the rows. `encode` treats rows alone, batch norm aside, and returns tensors with as many rows,
    or (named) tuples of them. What is not spread, every process computes for all rows."""


@runtime_checkable
class Method(Protocol):
    """A `torch.nn.Module` made by `build(profile, initialise=...)` of a file in `methods/`."""

    def encode_image(self, x: Tensor) -> ImageFeatures:
        """`x` [B, 3, H, W], normalised as the profile's `preprocessing` says."""
        ...


@runtime_checkable
class TextMethod(Method, Protocol):
    """A method that was pre-trained with reports."""

    @property
    def text_key(self) -> str:
        """A hash of everything that shapes `prepare_text`: settings, files and rules."""
        ...

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        """What is constant about each text, [len(texts), ...] on the CPU: features of a frozen encoder, or
        token ids of a trained one, padded with zeros. A text in which the method finds nothing to read is
        zero throughout. Computed once per corpus and cached."""
        ...

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        """Embeddings of prepared rows [B, ...]."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and its named, detached terms."""
        ...

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings (image [b, d], text [b, d]) of the rows that have text: retrieval as a health signal."""
        ...

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Scores [n_images, n_texts]; higher means more alike."""
        ...


# --- datasets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Which rows are train, validation and test: a name takes an official part, a number draws that share
    of the training part's persons (with `seed`). None: there is no such part, nothing is trained."""

    test: str | float
    validation: str | float | None
    train: str | None = ""  # official part; "" takes all rows. Rows of no named part are in none
    seed: int = 0
    drop_shared: bool = False
    """Whether persons of a held-out part leave the parts before it, where official parts are known to share
    some. Otherwise such parts are refused."""


@dataclass(frozen=True)
class PublishedSplit:
    """The parts that someone's released code makes, its faults included. Each is named by a rule, which
    `harness/data/published.py` follows and says in a sentence; a record lists those that were in force."""

    source: str  # whose code: repository, commit and file
    rules: tuple[str, ...]  # names of RULES in harness/data/published.py
    held_out: int | float  # of the training part: a number, or a share below 1 that is rounded up
    test: str = ""  # official part; "": half of what is held out. The rest of it is for validation
    train: str = ""  # official part; "" takes all rows
    seed: int = 0
    set_aside: int = 0  # images of each label that are kept for another benchmark
    size: int | None = None  # images of the official training part, by which numbers are scaled to the table
    batch: int | None = None  # pictures in a step of a decoder or detector, where their scripts set it


@dataclass(frozen=True)
class Balanced:
    """Test images that show one of the task's labels and nothing else, as many of each, in several draws:
    CheXpert 5x200 and its like. Scores are means over the draws."""

    absent: tuple[str, ...]  # labels that have to be 0, beside the task's other ones
    per_class: int = 200  # where a class has fewer, that many of every class
    draws: int = 5  # with the seeds 0, 1, ..., the same for every method


@dataclass(frozen=True)
class Task:
    """A dataset used in one way, or in several that share all of this. Anything that changes a number here
    asks for a new `version`."""

    kinds: tuple[Kind, ...]
    labels: tuple[str, ...]  # scored columns, in the order of the published tables
    metric: Metric
    version: int
    splits: Mapping[ProtocolName, Split | PublishedSplit]
    exclusive: bool = False  # one of the labels is true of each image, and one is decided for
    frontal_only: bool = True
    uncertain: Mapping[str, Literal[0, 1]] = field(default_factory=dict)  # what -1 counts as, per label
    blank: Literal[0] | None = None  # what "not mentioned" counts as; None: never blank in this dataset
    name: str = ""  # follows the kind in its id, where a dataset has two tasks of a kind
    reports: bool = False  # only images with both findings and impression, whichever a method reads
    balanced: Balanced | None = None  # the test images are a choice of the test part; None: all of it
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For zero-shot tasks: how a report would name each label, in as many wordings for each. They become
    sentences in harness/evaluate/zero_shot.py."""


@dataclass(frozen=True)
class Variant:
    """A release of a dataset and the counts that prove it complete."""

    name: str
    images: int  # rows of the table after reading
    parts: Mapping[str, int] = field(default_factory=dict)  # official split -> images
    positives: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Official split, "" for all of it -> label -> images that have it, as counted on the official files."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """What else there is in all of it, by the names of `TOTALS` in harness/data/doctor.py."""


@dataclass(frozen=True)
class PhantomSize:
    """How large the stand-in of a dataset is."""

    persons: int
    height: int  # of a picture in pixels
    width: int


@dataclass(frozen=True)
class DatasetCard:
    title: str
    source: str  # how to obtain it
    licence: str
    citation: str
    folders: tuple[str, ...]  # names the official download gives its folder
    markers: tuple[str, ...]  # file patterns that all must match in the dataset's folder; "a or b": either
    variants: tuple[Variant, ...]
    tasks: tuple[Task, ...]  # the first is the default kind
    shares_pictures: tuple[str, ...] = ()  # datasets that have, or may have, some of its pictures too
    corpus: Split | None = None  # set for datasets with reports that methods can be pre-trained on
    phantom: Mapping[ProfileName, PhantomSize] = field(default_factory=dict)
    dials: tuple[str, ...] = ()  # of harness/phantom's Dials, that its phantom has beside contrast and noise

    @property
    def by_name(self) -> dict[str, tuple[Kind, Task]]:
        """What stands behind the colon of an id: `linear`, or with a task's own name `zero-shot-5x200`."""
        return {
            f"{kind}-{task.name}" if task.name else kind: (kind, task)
            for task in self.tasks
            for kind in task.kinds
        }


def options(cut_validation: bool, tuned: int) -> tuple[str, ...]:
    """What of a cell is not as by default, in words that stand in names of files."""
    return (*(["cut"] if cut_validation else []), *([f"tuned{tuned}"] if tuned else []))


def file_words(protocol: str, fraction: float, seed: int, more: tuple[str, ...]) -> tuple[str, ...]:
    """All words of a cell's file name: cells of one method and task that share them are one cell."""
    return (protocol, f"{fraction * 100:g}pct", f"s{seed}", *more)


def trained_on(datasets: Iterable[str], corpus: str | None) -> bool:
    """Whether one of them is among the corpora of weights, which are joined by `+`."""
    return not set(datasets).isdisjoint((corpus or "").split("+"))


TABLE_COLUMNS: tuple[str, ...] = (
    "image_id",  # unique, stable across machines: the official relative path or id
    "path",  # absolute; need not be there: whoever opens it says so
    "person_id",  # the best known identity of the person: splits and intervals group by it
    "study_id",  # of one person alone; pictures that share it have one report
    "split",  # official part, or "" where the dataset has none
    "view",  # "PA", "AP", "LATERAL", "LL", "RL" or "" when unknown
    "frontal",  # bool
    "sex",  # "F", "M" or ""
    "age",  # years, float, NaN when unknown
)
"""Columns every dataset's table has. Labels follow as `label:NAME` (1, 0, -1 or NA, Int8), reports as
`findings` and `impression` (str, "" when missing), boxes as `boxes` (list of xyxy in native pixels), masks as
`mask` (str, "" for none, absolute if it is the path of a file; the dataset's `read_mask` makes pixels of it).
`rows` (tuple of int) are the places of an image's rows in the official file of its part, counted from 0:
splits of others follow that order.
`table.attrs["persons_known"]` is False where `person_id` may give one person several names;
`table.attrs["notes"]` says in sentences what is not in the table and is good to know of what was found."""


class Dataset(Protocol):
    """A file in `tasks/`: a card and two functions, and where it has masks a third:
    `read_mask(cell, height, width)`, [H, W] bool in native pixels, of a value of the column `mask`."""

    CARD: DatasetCard

    def read(self, root: Path) -> pd.DataFrame:
        """One row per image, columns as `TABLE_COLUMNS`, sorted by `image_id`. No pixels."""
        ...

    def write_phantom(self, root: Path, cohort: Cohort, workers: int) -> None:
        """The official layout, byte for byte, from a synthetic cohort, drawn by `workers` processes."""
        ...
