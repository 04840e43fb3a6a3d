"""Weights that others have published become a checkpoint: recognised by their keys, checked, renamed.

Apart because it knows no method: which keys the files of a method have, and what becomes of each, is said in
the method's own file (`LAYOUTS`).
"""

from __future__ import annotations

import datetime
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness import provenance, registry
from harness.contracts import Layout, MethodCard
from harness.errors import CheckpointError, UnknownName, UsageError, few
from harness.files import NAME, file_hash, replacing
from harness.pretrain import checkpoint, foreign
from harness.pretrain.checkpoint import Checkpoint, Imported
from harness.pretrain.foreign import SHOWN

logger = logging.getLogger(__name__)

COUNTS = ".num_batches_tracked"  # of batch norms: files of old torch lack them, and nothing here reads them


class Candidate(NamedTuple):
    """One kind of files, and the method whose weights they hold."""

    method: str
    path: Path  # of the method's file
    card: MethodCard
    build: Callable[..., nn.Module]
    layout: Layout


class Taken(NamedTuple):
    """The weights of a file under the keys of the method's network."""

    source: Candidate
    weights: dict[str, Tensor]
    dropped: dict[str, list[str]]  # why -> keys of the file


def import_file(
    path: Path,
    store: Path,
    *,
    name: str | None = None,
    method: str | None = None,
    corpus: str | None = None,
) -> Checkpoint:
    """Writes a checkpoint with the weights of `path` and all that has to travel with them.

    Args:
        name: of the checkpoint; default after the method and the file's content.
        method: whose weights these are, where the keys leave it open; a name, or the path of a method's file.
        corpus: what they were trained on; default what the method's card says of its published weights.

    Raises UsageError when the weights are of no method or of several, or the name cannot be; CheckpointError
    when the file cannot be read, or has other keys, shapes or values than its kind.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}. Give the path of a file with weights")
    target = _free(store, name) if name else None
    taken = _recognised(path, foreign.weights_of(path), list(_candidates(method)))
    source, digest = taken.source, file_hash(path)
    target = target or _free(store, f"{source.method}-imported-{digest[:8]}-s0")
    code = provenance.code(source.path)
    with replacing(target) as folder:
        checkpoint.save(
            folder,
            taken.weights,
            {
                "written": datetime.datetime.now(datetime.UTC),
                "method": source.method,
                "method_version": source.card.version,
                "profile_name": "paper",
                # ours did not train them. Nor are they ever chosen unasked, in the place of what it trains
                "profile": replace(source.layout.profile, recipe=None),
                "imported": Imported(
                    file=path.name, sha256=digest, layout=source.layout.title, dropped=taken.dropped
                ),
                # checkpoints of one family are told apart by their seeds
                "seed": int(seed[1]) if (seed := checkpoint.SEED.search(target.name)) else 0,
                "corpus": _datasets(corpus) if corpus else "+".join(source.card.trained_on),
                "corpus_kind": "real",
                "corpus_fingerprint": None,
                "steps": 0,
                "loss": {},
                "retrieval": {},
                "seconds": 0.0,
                "images_per_second": None,
                "device": "cpu",
                "commit": code.commit,
                "dirty": code.dirty,
                "packages": code.packages,
            },
        )
    return checkpoint.read(target)


def _free(store: Path, name: str) -> Path:
    if not re.fullmatch(NAME, name, re.ASCII):
        raise UsageError(
            f"{name!r} cannot be a checkpoint's name. Give --as letters (a to z) and digits, in between also "
            "dots, +, - and _"
        )
    if (store / name).exists():
        raise UsageError(f"there is a checkpoint {name} already. Use it, or give another name with --as")
    return store / name


# --- recognising -------------------------------------------------------------------------------------


def _candidates(method: str | None) -> Iterator[Candidate]:
    usable = [name for name, item in registry.entries("methods").items() if not item.error]
    for source in [method] if method else usable:
        found, card = registry.entry("methods", source), registry.method_card(source)
        try:
            module = registry.load("methods", source)
        except UsageError as error:
            if method:
                raise
            logger.warning("left out: %s", error)
            continue
        for layout in getattr(module, "LAYOUTS", ()):
            yield Candidate(found.name, found.path, card, module.build, layout)


def _datasets(corpus: str) -> str:
    """The corpus with datasets named as ours are, so that a task on one of them is told. Raises UnknownName
    for what is nearly one."""
    known = registry.entries("tasks")
    names = [name.strip().lower() for name in corpus.split("+")]
    for name in names:
        if name not in known and get_close_matches(name, known):
            raise UnknownName("dataset", name, known)
    return "+".join(names)


def _recognised(path: Path, state: Mapping[str, Tensor], candidates: Sequence[Candidate]) -> Taken:
    """Raises UsageError when the weights are of no candidate or of several, CheckpointError when they are
    nearly of one."""
    marked = [item for item in candidates if all(key in state for key in item.layout.markers)]
    if not marked:
        known = "; ".join(item.layout.title for item in candidates) or "none"
        raise UsageError(
            f"{path} is of no known layout: its keys are {few(list(state), shown=SHOWN)}. Known: {known}. "
            "A method's file describes its own in LAYOUTS"
        )
    taken: list[Taken] = []
    problems: list[CheckpointError] = []
    for candidate in marked:
        try:
            taken.append(_taken(path, state, candidate))
        except CheckpointError as error:
            problems.append(error)
    if not taken:
        raise problems[0]
    if len(taken) > 1:
        options = " or ".join(f"--method {item.source.method} ({item.source.layout.title})" for item in taken)
        raise UsageError(f"{path}: the same keys occur in weights of several methods. Say whose: {options}")
    return taken[0]


def _taken(path: Path, state: Mapping[str, Tensor], candidate: Candidate) -> Taken:
    """Every key is taken or dropped for a reason, and nothing is missing. Raises CheckpointError."""
    layout = candidate.layout
    kind = f"{path}: {layout.title}"
    cure = f"If this is another release of it, describe it in LAYOUTS of the method {candidate.method}"
    with torch.device("meta"):  # shapes alone
        wanted: Mapping[str, Tensor] = candidate.build(layout.profile, initialise=False).state_dict()
    names: dict[str, str] = {}  # our key -> theirs
    dropped: dict[str, list[str]] = defaultdict(list)
    for key in state:
        why = next((why for pattern, why in layout.dropped.items() if fnmatchcase(key, pattern)), None)
        if why:
            dropped[why].append(key)
        else:
            ours = _renamed(key, layout.renamed)
            if ours in names:
                raise CheckpointError(f"{kind} has {names[ours]} and {key}, which are one of ours. {cure}")
            names[ours] = key
    unknown = [theirs for ours, theirs in names.items() if ours not in wanted]
    if unknown:
        raise CheckpointError(f"{kind} has no keys {few(unknown, shown=SHOWN)}. {cure}")
    weights: dict[str, Tensor] = {}
    missing: list[str] = []
    back = {ours: theirs for theirs, ours in layout.renamed.items()}
    for key, empty in wanted.items():
        if key in names:
            value = state[names[key]]
            if not _same_shape(value, empty):
                shapes = f"the shape {list(empty.shape)}, not {list(value.shape)}"
                raise CheckpointError(f"{kind} has {names[key]} in {shapes}. {cure}")
            if not value.isfinite().all():
                raise CheckpointError(f"{path}: {names[key]} is not finite. Take another epoch's file")
            # a copy, because safetensors refuses tensors that share memory
            weights[key] = value.reshape(empty.shape).to(empty.dtype, copy=True)
        elif key in layout.zeros or key.endswith(COUNTS):
            weights[key] = torch.zeros(empty.shape, dtype=empty.dtype)
        else:
            missing.append(_renamed(key, back))
    if missing:
        raise CheckpointError(f"{kind} has keys that are missing here: {few(missing, shown=SHOWN)}. {cure}")
    return Taken(candidate, weights, dict(dropped))


def _renamed(key: str, renamed: Mapping[str, str]) -> str:
    prefix = max((item for item in renamed if key.startswith(item)), key=len, default=None)
    return key if prefix is None else renamed[prefix] + key.removeprefix(prefix)


def _same_shape(value: Tensor, wanted: Tensor) -> bool:
    """A convolution over single pixels, [out, in, 1], is a linear layer [out, in]."""
    return value.shape[: wanted.ndim] == wanted.shape and value.numel() == wanted.numel()
