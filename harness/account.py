"""Builds the record of a cell from what the pipeline produced.

Apart because run.py should read as the pipeline and nothing else.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch

from harness import device, provenance, records, registry
from harness.cost import Cost
from harness.data import balanced, published, transforms
from harness.data.cache import CACHE_VERSION, Images
from harness.data.decode import DECODER_VERSION
from harness.data.task_data import TaskData
from harness.files import hash_lines
from harness.plan import CellPlan
from harness.pretrain.checkpoint import Checkpoint
from harness.provenance import Code
from harness.records import Argument, DrawsBlock, HeadBlock, Measured, Part, Record
from harness.stats import Bootstrap


class Arguments(NamedTuple):
    """What the user gave, and what stood in for what they did not."""

    given: dict[str, Argument]
    defaults: dict[str, Argument]


READING = DECODER_VERSION, CACHE_VERSION, transforms.VERSION
"""Versions of the code that reads pictures now, see `DataBlock.reading`."""


def record(
    *,
    plan: CellPlan,
    data: TaskData,
    images: Images,
    checkpoint: Checkpoint,
    head: HeadBlock,
    measured: Bootstrap,
    cost: Cost,
    place: torch.device,
    arguments: Arguments,
) -> Record:
    card, peaks = checkpoint.card, device.memory_peaks_mib(place)
    labels, split = plan.task.labels, asdict(plan.task.splits[plan.protocol])
    ids = data.frame["image_id"].tolist()
    return Record(
        schema_version=3,
        written=datetime.datetime.now(datetime.UTC),
        cell=records.CellBlock(checkpoint=checkpoint.name, **plan.key),
        task=records.TaskBlock(
            kind=plan.kind,
            version=plan.task.version,
            metric=plan.task.metric,
            labels=labels,
            frontal_only=plan.task.frontal_only,
            uncertain=dict(plan.task.uncertain),
            blank=plan.task.blank,
            exclusive=plan.task.exclusive,
            # a switch that is off is left out, as in records from before there was one
            split={name: value for name, value in split.items() if name != "rules" and value is not False},
            rules=published.in_force(data.rules, plan.kind, plan.task, plan.protocol),
        ),
        metrics={name: Measured(**interval._asdict()) for name, interval in measured.metrics.items()},
        interval=records.IntervalBlock(
            level=measured.level, replicates=measured.replicates, undefined=measured.undefined
        ),
        parts={
            "train": _part(data, data.parts.train, labels),
            "used": _part(data, data.used, labels),
            "validation": _part(data, data.validation, labels),
            "test": _part(data, data.parts.test, labels),
        },
        data=records.DataBlock(
            kind=data.located.kind,
            release=data.release,
            fingerprint=data.fingerprint,
            images=images.fingerprint,
            reading=READING,
            split=data.parts.digest(ids),
            draws=_draws(data, labels) if plan.task.balanced else None,
            fraction=_labelled(plan, data, ids),
            persons_known=data.persons_known,
            shares_pictures=plan.dataset_card.shares_pictures,
        ),
        pretraining=records.PretrainingBlock(
            profile=card.profile_name,
            family=checkpoint.family,
            seed=card.seed,
            imported_from=card.imported.file if card.imported else None,
            corpus=card.corpus,
            data_kind=card.corpus_kind,
            weights=card.weights,
            images_per_second=card.images_per_second,
            seconds=card.seconds,
            method_version=card.method_version,
            device=card.device if card.corpus and not card.imported else None,
            commit=card.commit,
            dirty=card.dirty,
        ),
        preprocessing=records.InputBlock(**asdict(card.profile.preprocessing)),
        head=head,
        code=records.CodeBlock(
            **asdict(code(plan)),
            arguments=arguments.given,
            defaults=arguments.defaults,
        ),
        cost=records.CostBlock(
            device=device.describe(place),
            seconds=cost.seconds,
            peak_memory_mib=peaks["process"],
            peak_gpu_memory_mib=peaks.get("gpu"),
            images_per_second=cost.images_per_second,
            cached=cost.cached,
        ),
    )


def code(plan: CellPlan) -> Code:
    """What runs a cell: the harness, and the files of its method and dataset."""
    method, dataset = registry.entry("methods", plan.method.source), registry.entry("tasks", plan.source)
    return provenance.code(method.path, dataset.path)


def _labelled(plan: CellPlan, data: TaskData, ids: list[str]) -> str:
    """Hash of the ids whose labels the fraction leaves."""
    rows = [*data.used, *data.validation] if plan.cut_validation else data.used
    return hash_lines(sorted(ids[row] for row in rows))


def _draws(data: TaskData, labels: tuple[str, ...]) -> DrawsBlock:
    drawn = balanced.draws_of(data.frame)
    ids = data.frame["image_id"].to_numpy()
    return DrawsBlock(
        per_class=int(drawn[:, 0].sum()) // len(labels),
        hashes=tuple(hash_lines(ids[draw]) for draw in drawn.T),
    )


def _part(data: TaskData, rows: np.ndarray, labels: tuple[str, ...]) -> Part:
    def counted(value: int) -> dict[str, int]:
        return dict(zip(labels, (data.labels[rows] == value).sum(axis=0).tolist(), strict=True))

    return Part(
        images=len(rows),
        persons=data.frame["person_id"].iloc[rows].nunique(),
        positives=counted(1),
        negatives=counted(0),
    )
