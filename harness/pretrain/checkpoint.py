"""The store of trained weights: a folder each, with `weights.safetensors` and `card.json`.

Apart because listing and choosing a checkpoint needs neither torch nor the method: everything that says
what the weights are lies in the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from harness.contracts import DataKind, Profile, ProfileName
from harness.errors import CheckpointError, UnknownName, UsageError, few, first_of, of_another_version
from harness.files import file_hash, hash_of, sync, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, CARD = "weights.safetensors", "card.json"
CLOSE = 1e-4, 1e-6  # relative and absolute: draws of one seed differ less between kinds of processors

SEED = re.compile(r"-s(\d+)$")  # at the end of a checkpoint's name


class Imported(BaseModel):
    """The file that weights were taken over from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str  # its name, without the folder it lay in
    sha256: str
    layout: str  # whose kind of file it is
    dropped: dict[str, list[str]]  # why -> keys that were left behind


class CheckpointCard(BaseModel):
    """What the weights are and where they come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    written: AwareDatetime
    method: str
    method_version: int
    profile_name: ProfileName
    profile: Profile  # backbones, pre-processing and recipe, whole
    imported: Imported | None = None  # None: made here
    seed: int
    corpus: str | None  # None: nothing was trained
    corpus_kind: DataKind | None
    corpus_fingerprint: str | None
    weights: str  # sha256 of the weights' file
    steps: int
    loss: dict[str, float]  # what the log holds of a step, mean over the last epoch
    retrieval: dict[str, float]  # validation, "recall@1" and so on, and the same by chance
    text_sample: tuple[float, ...] = ()  # how it read texts, see pretrain/reading.py
    warnings: tuple[str, ...] = ()  # what makes the weights doubtful
    processes: int = 1  # that shared the training
    seconds: float
    images_per_second: float | None
    device: str
    commit: str
    dirty: bool
    packages: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """One folder of the store."""

    folder: Path
    card: CheckpointCard

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def family(self) -> str:
        """The name without its seed: checkpoints that differ in nothing else."""
        return SEED.sub("", self.name)


@dataclass(frozen=True)
class Broken:
    """A folder of the store that cannot be used, and why."""

    folder: Path
    reason: str


def name_of(
    method: str, version: int, profile_name: ProfileName, profile: Profile, corpus: str | None, seed: int
) -> str:
    """`imitate-demo-1a2b3c4d-s0`: the hash stands for the profile, the method's version and the corpus."""
    size = f"{profile_name}-official" if profile.official else profile_name
    return f"{method}-{size}-{hash_of(method, version, asdict(profile), corpus)[:8]}-s{seed}"


def read(folder: Path) -> Checkpoint:
    """Raises CheckpointError when the card is broken, or one of the files is missing or not for us to read.
    The weights are read later, see `load_weights`."""
    cure = f"Delete {folder} and pre-train again"
    try:
        card = CheckpointCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / CARD} is missing. {cure}") from error
    except OSError as error:  # another user's, in a home that they share
        raise CheckpointError(f"{folder / CARD}: {error.strerror}. Let its owner open it") from error
    except ValidationError as error:
        if other := of_another_version(error, CheckpointCard):
            raise CheckpointError(
                f"{folder / CARD}: {other}, or move {folder} away to pre-train again"
            ) from error
        raise CheckpointError(f"{folder / CARD}: {first_of(error)}. {cure}") from error
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder / WEIGHTS} is missing. {cure}")
    return Checkpoint(folder, card)


def listing(store: Path) -> list[Checkpoint | Broken]:
    """All folders of the store, newest first; unfinished trainings (hidden folders) are not among them."""
    good: list[Checkpoint] = []
    broken: list[Broken] = []
    for folder in _folders(store):
        try:
            good.append(read(folder))
        except CheckpointError as error:
            broken.append(Broken(folder, str(error)))
    return [*sorted(good, key=lambda item: item.card.written, reverse=True), *broken]


def found(store: Path, name: str) -> Checkpoint:
    """The one asked for. Raises UnknownName when there is none, CheckpointError when it is broken."""
    known = [folder.name for folder in _folders(store)]
    if name not in known:
        cure = (
            f"They lie in {store}: train one (pretrain), import one (checkpoints import), or set HARNESS_HOME"
        )
        raise UnknownName("checkpoint", name, known, cure)
    return read(store / name)


def named(store: Path, name: str, *, method: str, version: int, profile: str | None = None) -> Checkpoint:
    """The same. Raises UsageError, too, when another method or version made it, or when it is of another
    `profile` than somebody asks for."""
    chosen = found(store, name)
    if (chosen.card.method, chosen.card.method_version) != (method, version):
        theirs = chosen.card.imported and chosen.card.method == method
        cure = "Delete it and import its file again" if theirs else "Name another, or none to have one made"
        raise UsageError(
            f"checkpoint {name} is of {chosen.card.method}, version {chosen.card.method_version}, not of "
            f"{method}, version {version}. {cure}"
        )
    if profile not in (None, chosen.card.profile_name):
        raise UsageError(
            f"checkpoint {name} is of the {chosen.card.profile_name} profile, not of {profile}. Leave "
            "--profile out, or name another checkpoint"
        )
    return chosen


def fitting(
    store: Path, method: str, version: int, profile_name: ProfileName, profile: Profile
) -> list[Checkpoint]:
    """Checkpoints made by this method as it is now, newest first. Imported ones are left out: they are used
    when they are named."""
    wanted = hash_of(asdict(profile))  # as JSON: a tuple that was stored comes back as a list
    return [
        item
        for item in listing(store)
        if isinstance(item, Checkpoint)
        and not item.card.imported
        and (item.card.method, item.card.method_version, item.card.profile_name)
        == (method, version, profile_name)
        and hash_of(asdict(item.card.profile)) == wanted
    ]


def save(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes both files into `folder`, which is not yet in its place: the caller moves it when done."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / WEIGHTS)
    sync(folder / WEIGHTS)
    whole = CheckpointCard.model_validate({**card, "weights": file_hash(folder / WEIGHTS)})
    write_text(folder / CARD, whole.model_dump_json(indent=1) + "\n")


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises CheckpointError when the file is broken or belongs to another model."""
    state = _state(checkpoint)
    if unlike := differing(state, model.state_dict(), values=False):
        raise CheckpointError(
            f"{checkpoint.folder / WEIGHTS} is of another network than the method's file builds: they differ "
            f"in {few(unlike)}. Raise the version of its card, or delete {checkpoint.folder}"
        )
    model.load_state_dict(state)


def require_same(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises CheckpointError where a checkpoint of initial weights has others than the `model` that is built
    now: neither name nor version tells that a method's file, or what it reads, has changed."""
    if unlike := differing(_state(checkpoint), model.state_dict()):
        raise CheckpointError(
            f"{checkpoint.folder} has other weights than the method's file builds now, itself or by another "
            f"library: they differ in {few(unlike)}. Raise the version of its card, or delete the folder; to "
            f"use the stored ones, name them: {checkpoint.name} (--checkpoint, --checkpoints of a sweep)"
        )


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, values: bool = True) -> list[str]:
    """Names of tensors that are not in both, or not of one shape, or not of the same `values`."""
    import torch

    common = one.keys() & other.keys()
    unlike = {name for name in common if one[name].shape != other[name].shape}
    if values:
        unlike |= {
            name
            for name in common - unlike
            if not torch.allclose(one[name].double(), other[name].cpu().double(), *CLOSE, equal_nan=True)
        }
    return sorted((one.keys() ^ other.keys()) | unlike)


def _state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Raises CheckpointError when the file is broken, or not the one of the card."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint.folder / WEIGHTS
    cure = f"Delete {checkpoint.folder} and pre-train again"
    if file_hash(path) != checkpoint.card.weights:
        raise CheckpointError(f"{path} is not the file its card was written for. {cure}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {error}. {cure}") from error


def _folders(store: Path) -> list[Path]:
    return sorted(store.glob("[!.]*/"))
