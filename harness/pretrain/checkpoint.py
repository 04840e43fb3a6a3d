"""The store of trained weights: a folder each, with `weights.safetensors` and `card.json`.

Apart because listing and choosing a checkpoint needs neither torch nor the method: everything that says
what the weights are lies in the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from harness.contracts import DataKind, Profile, ProfileName
from harness.errors import CheckpointError, UnknownName
from harness.files import file_hash, hash_of, write_text

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, CARD = "weights.safetensors", "card.json"


class CheckpointCard(BaseModel):
    """What the weights are and where they come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    written: AwareDatetime
    method: str
    method_version: int
    profile_name: ProfileName
    profile: Profile  # backbones, pre-processing and recipe, whole
    seed: int
    corpus: str | None  # None: nothing was trained
    corpus_kind: DataKind | None
    corpus_fingerprint: str | None
    weights: str  # sha256 of the weights' file
    steps: int
    loss: dict[str, float]  # what the log holds of a step, mean over the last epoch
    retrieval: dict[str, float]  # validation, "recall@1" and so on, and the same by chance
    seconds: float
    images_per_second: float | None
    device: str
    commit: str
    dirty: bool
    packages: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """One folder of the store. `error` is set for a broken one, and says why."""

    folder: Path
    card: CheckpointCard | None
    error: str = ""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def family(self) -> str:
        """The name without its seed: checkpoints that differ in nothing else."""
        return self.name.rpartition("-s")[0]

    def summary(self) -> dict[str, object]:
        if self.card is None:
            return {"name": self.name, "method": "", "pre-trained on": "", "written": "", "error": self.error}
        corpus = f"{self.card.corpus} ({self.card.corpus_kind})" if self.card.corpus else "nothing"
        written = f"{self.card.written:%Y-%m-%d %H:%M}"
        return {
            "name": self.name,
            "method": self.card.method,
            "pre-trained on": corpus,
            "written": written,
            "error": "",
        }


def name_of(
    method: str, version: int, profile_name: ProfileName, profile: Profile, corpus: str | None, seed: int
) -> str:
    """`imitate-demo-1a2b3c4d-s0`: the hash stands for the profile, the method's version and the corpus."""
    return f"{method}-{profile_name}-{hash_of(method, version, asdict(profile), corpus)[:8]}-s{seed}"


def listing(store: Path) -> list[Checkpoint]:
    """All folders of the store, newest first; unfinished trainings (hidden folders) are not among them."""
    found = [_open(folder) for folder in store.glob("[!.]*/")]
    return sorted(found, key=lambda item: item.card.written.timestamp() if item.card else 0.0, reverse=True)


def named(store: Path, name: str) -> Checkpoint:
    """Raises UnknownName when there is none, CheckpointError when it is broken."""
    known = {item.name: item for item in listing(store)}
    if name not in known:
        raise UnknownName("checkpoint", name, known)
    if known[name].error:
        raise CheckpointError(f"checkpoint {name} cannot be used: {known[name].error}")
    return known[name]


def fitting(
    store: Path, method: str, version: int, profile_name: ProfileName, profile: Profile
) -> list[Checkpoint]:
    """Those made by this method as it is now, newest first."""
    wanted = hash_of(asdict(profile))  # as JSON: a tuple that was stored comes back as a list
    return [
        item
        for item in listing(store)
        if item.card
        and (item.card.method, item.card.method_version, item.card.profile_name)
        == (method, version, profile_name)
        and hash_of(asdict(item.card.profile)) == wanted
    ]


def save(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes both files into `folder`, which is not yet in its place: the caller moves it when done."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / WEIGHTS)
    whole = CheckpointCard.model_validate({**card, "weights": file_hash(folder / WEIGHTS)})
    write_text(folder / CARD, whole.model_dump_json(indent=1) + "\n")


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises CheckpointError when the file is broken or belongs to another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert checkpoint.card is not None
    path = checkpoint.folder / WEIGHTS
    cure = f"Delete {checkpoint.folder} and pre-train again"
    if file_hash(path) != checkpoint.card.weights:
        raise CheckpointError(f"{path} is not the file its card was written for. {cure}")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}. {cure}") from error


def _open(folder: Path) -> Checkpoint:
    try:
        card = CheckpointCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except OSError as error:
        return Checkpoint(folder, None, f"{error.filename}: {error.strerror}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return Checkpoint(folder, None, f"{CARD}: {first['loc']}: {first['msg']}")
    missing = "" if (folder / WEIGHTS).is_file() else f"{WEIGHTS} is missing"
    return Checkpoint(folder, card, missing)
