"""What a command asks for, checked by name before anything heavy is imported or loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from harness import registry
from harness.contracts import (
    NEEDS_TEXT,
    DatasetCard,
    Kind,
    MethodCard,
    Profile,
    ProfileName,
    ProtocolName,
    Split,
    Task,
    file_words,
    options,
)
from harness.errors import ImpossiblePairing, UnknownName, UsageError


@dataclass(frozen=True)
class MethodPlan:
    """A method at one size. `source` is what the registry loads: a name, or the absolute path of a file."""

    source: str
    name: str
    card: MethodCard
    profile_name: ProfileName

    @property
    def profile(self) -> Profile:
        return self.card.profiles[self.profile_name]


@dataclass(frozen=True)
class CorpusPlan:
    """Pictures with reports to pre-train on; `source` as in MethodPlan."""

    source: str
    name: str
    card: DatasetCard
    split: Split


@dataclass(frozen=True)
class CellPlan:
    """One cell whose checkpoint may not exist yet."""

    method: MethodPlan
    source: str  # of the dataset, as in MethodPlan
    dataset: str
    dataset_card: DatasetCard
    task_id: str  # `chexpert:linear`
    kind: Kind
    task: Task
    protocol: ProtocolName
    fraction: float
    seed: int
    tuned: int = 0  # configurations of a trained head to compare; 0: the default settings
    cut_validation: bool = False  # whether the fraction is of the validation labels too

    @property
    def key(self) -> dict[str, Any]:
        """The fields of a record's `cell`, without the checkpoint."""
        return {
            "method": self.method.name,
            "task": self.task_id,
            "protocol": self.protocol,
            "fraction": self.fraction,
            "seed": self.seed,
            "tuned": self.tuned,
            "cut_validation": self.cut_validation,
        }

    @property
    def options(self) -> tuple[str, ...]:
        return options(self.cut_validation, self.tuned)

    @property
    def name(self) -> str:
        """`imitate chexpert:linear clean 1pct s0`"""
        own = file_words(self.protocol, self.fraction, self.seed, self.options)
        return " ".join((self.method.name, self.task_id, *own))

    @property
    def labels_used(self) -> float | None:
        """The fraction; None for a kind that looks at no training label."""
        return None if self.kind in NEEDS_TEXT else self.fraction


def method(source: str, profile: str, *, official: bool = False) -> MethodPlan:
    """`official` turns on what `Profile.official` says. Raises UnknownName for the method or the profile."""
    found = registry.entry("methods", source)
    card = registry.method_card(source)
    if profile not in card.profiles:
        raise UnknownName(f"profile of {found.name}", profile, card.profiles)
    name = cast(ProfileName, profile)
    if official:
        profiles = {**card.profiles, name: replace(card.profiles[name], official=True)}
        card = replace(card, profiles=profiles)
    return MethodPlan(found.source, found.name, card, name)


def usable(profile: str, *, official: bool = False) -> tuple[list[MethodPlan], dict[str, str]]:
    """Every method whose card has this profile, and why others cannot be used: what nobody named must not
    stop the rest. Raises UnknownName for a profile that there never is."""
    if profile not in get_args(ProfileName):
        raise UnknownName("profile", profile, get_args(ProfileName))
    entries = registry.entries("methods").items()
    cards = {name: entry.card for name, entry in entries if isinstance(entry.card, MethodCard)}
    able = [name for name, card in cards.items() if profile in card.profiles]
    without = {name: f"it has no {profile} profile" for name in cards if name not in able}
    without |= {name: entry.error for name, entry in entries if entry.error}
    return [method(name, profile, official=official) for name in able], without


def trainable(profile: str, *, official: bool = False) -> list[MethodPlan]:
    """The usable methods that have something to train at this size."""
    return [item for item in usable(profile, official=official)[0] if item.profile.recipe]


def cell(
    source: str,
    task: str,
    *,
    profile: str,
    protocol: str,
    fraction: float,
    seed: int,
    cut_validation: bool = False,
) -> CellPlan:
    """Raises UsageError for anything that no data could cure."""
    chosen = method(source, profile)
    found = registry.task_of(task)
    registry.check_pairing(chosen.name, chosen.card.has_text, found.id, found.kind)
    require_share(fraction)
    if found.kind in NEEDS_TEXT and fraction != 1:
        raise UsageError(
            f"{found.id} learns from no label, so that --fraction {fraction:g} would change nothing. "
            "Leave --fraction out"
        )
    if protocol not in found.task.splits:
        raise UnknownName(f"protocol of {found.id}", protocol, found.task.splits)
    name = cast(ProtocolName, protocol)
    if cut_validation and not validation_can_be_cut(found.kind, name):
        raise UsageError(
            f"{found.id} under the {name} protocol takes no fraction of the validation labels. "
            "Leave --cut-validation out"
        )
    return CellPlan(
        method=chosen,
        source=found.source,
        dataset=found.dataset,
        dataset_card=registry.dataset_card(found.source),
        task_id=found.id,
        kind=found.kind,
        task=found.task,
        protocol=name,
        fraction=fraction,
        seed=seed,
        cut_validation=cut_validation,
    )


def require_share(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UsageError(f"a fraction is a share in (0, 1], not {fraction:g}. One per cent is 0.01")


def validation_can_be_cut(kind: Kind, protocol: ProtocolName) -> bool:
    """Where labels are learnt from; the code that the published protocol repeats selects on all of them."""
    return kind not in NEEDS_TEXT and protocol == "clean"


def corpus(chosen: MethodPlan, source: str | None) -> CorpusPlan:
    """What to pre-train on: the corpus named, else the first that the method's authors used, else the first
    of ours: no plug-in changes what others are trained on.

    Raises ImpossiblePairing when the dataset has no reports, or the method nothing to train.
    """
    if chosen.profile.recipe is None:
        raise ImpossiblePairing(
            f"{chosen.name} is not trained: its initial weights are its checkpoint, which run and sweep make"
        )
    cards = {name: entry.card for name, entry in registry.entries("tasks").items()}
    corpora = [name for name, card in cards.items() if isinstance(card, DatasetCard) and card.corpus]
    if source is None:
        source = next((name for name in chosen.card.trained_on if name in corpora), corpora[0])
    found, card = registry.entry("tasks", source), registry.dataset_card(source)
    if card.corpus is None:
        raise ImpossiblePairing(
            f"{found.name} has no reports to pre-train with. Corpora: {', '.join(corpora)}"
        )
    return CorpusPlan(found.source, found.name, card, card.corpus)
