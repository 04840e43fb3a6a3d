"""One cell, from its plan to its record. Knows no argument parser and no Ray.

Apart because everything that runs cells (the command line, the sweep, a notebook) calls this one function.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from harness import account, device, metrics, records, registry, stats
from harness import plan as plans
from harness.account import Arguments
from harness.data import cache, locate, task_data
from harness.data.task_data import TaskData
from harness.evaluate import bank, linear
from harness.evaluate.bank import Bank
from harness.plan import CellPlan
from harness.pretrain import checkpoint, make
from harness.pretrain.checkpoint import Checkpoint
from harness.records import Record
from harness.settings import Settings

REPLICATES = 1000  # resamples of the test persons behind every interval


class Outcome(NamedTuple):
    record: Record
    path: Path


def run(
    plan: CellPlan,
    settings: Settings,
    *,
    chosen: Checkpoint | None = None,
    arguments: Arguments,
) -> Outcome:
    """Encodes the images, fits the head, scores the test split once, writes the record.

    Args:
        chosen: default the newest that fits, else one is made.
        arguments: kept in the record.
    """
    clock = account.Cost()
    place = device.choose(settings.device)
    dataset, card = registry.load("tasks", plan.source), plan.dataset_card
    with clock.step("data"):
        located = locate.find(plan.dataset, card, dataset, settings, plan.method.profile_name)
        data = task_data.load(located, dataset, card, plan.task, plan.protocol, plan.fraction, plan.seed)
        _check_classes(plan, data)
    chosen = chosen or _fitting(plan, settings)
    clock.cached["checkpoint"] = chosen is not None
    profile = chosen.card.profile if chosen else plan.method.profile
    with clock.step("images"):
        images = cache.open_images(
            plan.dataset,
            data.frame["image_id"].tolist(),
            [Path(path) for path in data.frame["path"]],
            side=profile.preprocessing.stored,
            geometry=profile.preprocessing.geometry,
            folder=settings.images,
            workers=settings.workers,
        )
        clock.cached["images"] = images.cached
    with clock.step("checkpoint"):
        if chosen is None:
            chosen = _made(plan, settings)
    with clock.step("features"):
        features = bank.open_bank(
            _source(plan, chosen), images, folder=settings.banks, device=place, dtype=settings.bank_dtype
        )
        clock.cached["features"] = features.cached
    with clock.step("probe"):
        probe = linear.fit(
            _labelled(data, features, data.used, place),
            _labelled(data, features, data.parts.validation, place),
            plan.task.labels,
        )
    with clock.step("test"):
        test = data.parts.test
        scored = data.frame.iloc[test]
        kept = records.sorted_predictions(
            scored["image_id"].tolist(),
            scored["person_id"].tolist(),
            data.labels[test],
            probe.scores(torch.from_numpy(features.features[test])),
        )
        # of what is kept, so that anyone can compute the same from the files
        measured = stats.person_bootstrap(
            kept.truth, kept.scores, kept.persons, replicates=REPLICATES, seed=plan.seed
        )
    record = account.record(
        plan=plan,
        data=data,
        images=images,
        checkpoint=chosen,
        bank=features,
        probe=probe,
        measured=measured,
        cost=clock,
        device=device.describe(place),
        arguments=arguments,
    )
    return Outcome(record, records.write(settings.results, record, kept))


def _check_classes(plan: CellPlan, data: TaskData) -> None:
    """Before anything is decoded or trained: raises EmptyClass naming what a part lacks."""
    for rows, name, cure in (
        (data.used, "the training images of this draw", "Use a larger --fraction or another --seed"),
        (data.parts.validation, "the validation images", "Use a dataset with more persons"),
        (data.parts.test, "the test images", "Use a dataset with more persons"),
    ):
        metrics.require_both_classes(data.labels[rows], plan.task.labels, name, cure)


def _fitting(plan: CellPlan, settings: Settings) -> Checkpoint | None:
    method = plan.method
    fitting = checkpoint.fitting(
        settings.checkpoints, method.name, method.card.version, method.profile_name, method.profile
    )
    if method.profile.recipe is None:  # every seed has initial weights of its own
        fitting = [item for item in fitting if item.card.seed == plan.seed]
    return fitting[0] if fitting else None


def _made(plan: CellPlan, settings: Settings) -> Checkpoint:
    if plan.method.profile.recipe is None:
        return make.untrained(plan.method, settings, seed=plan.seed)
    corpus = plans.corpus(plan.method, None)
    stand_in = plan.method.profile_name == "demo"
    return make.trained(plan.method, corpus, settings, seed=0, stand_in=stand_in)


def _source(plan: CellPlan, chosen: Checkpoint) -> bank.Source:
    card = chosen.card
    return bank.Source(
        card.method,
        card.method_version,
        card.weights,
        card.profile.preprocessing,
        lambda: make.load(plan.method, chosen),
    )


def _labelled(data: TaskData, features: Bank, rows: np.ndarray, place: torch.device) -> linear.Labelled:
    return linear.Labelled(torch.from_numpy(features.features[rows]).to(place), data.labels[rows])
