"""One cell, from its plan to its record. Knows no argument parser and no Ray.

Apart because everything that runs cells (the command line, the sweep, a notebook) calls this one function.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from harness import account, device, records, registry, stats
from harness import plan as plans
from harness.account import Arguments
from harness.contracts import NEEDS_TEXT
from harness.cost import Cost
from harness.data import cache, locate, task_data
from harness.evaluate import bench as benches
from harness.evaluate.bank import Source
from harness.evaluate.bench import Bench
from harness.metrics import score
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
    cost = Cost()
    place = device.choose(settings.device)
    evaluator = benches.evaluator(plan.kind)
    dataset, card = registry.load("tasks", plan.source), plan.dataset_card
    with cost.step("data"):
        located = locate.find(plan.dataset, card, dataset, settings, plan.method.profile_name)
        fraction = None if plan.kind in NEEDS_TEXT else plan.fraction
        data = task_data.load(located, dataset, card, plan.task, plan.protocol, fraction, plan.seed)
        evaluator.check(plan.task, data)
    chosen = chosen or _fitting(plan, settings)
    cost.cached["checkpoint"] = chosen is not None
    profile = chosen.card.profile if chosen else plan.method.profile
    with cost.step("images"):
        images = cache.open_images(
            plan.dataset,
            data.frame["image_id"].tolist(),
            [Path(path) for path in data.frame["path"]],
            side=profile.preprocessing.stored,
            geometry=profile.preprocessing.geometry,
            folder=settings.images,
            workers=settings.workers,
        )
        cost.cached["images"] = images.cached
    with cost.step("checkpoint"):
        if chosen is None:
            chosen = _made(plan, settings)
    bench = Bench(
        encoder=_source(plan, chosen),
        images=images,
        banks=settings.banks,
        device=place,
        dtype=settings.bank_dtype,
        cost=cost,
        read_mask=getattr(dataset, "read_mask", None),
    )
    with cost.step("head"):
        train = benches.examples(bench, data, data.used)
        validation = benches.examples(bench, data, data.parts.validation)
        head = evaluator.fit(bench, plan.task, train, validation, plan.seed)
    with cost.step("test"):
        test = benches.examples(bench, data, data.parts.test)
        # scored as it is kept, so that anyone can compute the same from the files
        kept = records.sorted_predictions(
            test.frame["image_id"].tolist(), test.frame["person_id"].tolist(), head.predict(test)
        )
        measured = stats.person_bootstrap(
            score.of(plan.kind, kept.arrays, plan.task.labels),
            kept.persons,
            replicates=REPLICATES,
            seed=plan.seed,
        )
    record = account.record(
        plan=plan,
        data=data,
        images=images,
        checkpoint=chosen,
        head=head.block,
        measured=measured,
        cost=cost,
        device=device.describe(place),
        arguments=arguments,
    )
    return Outcome(record, records.write(settings.results, record, kept))


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


def _source(plan: CellPlan, chosen: Checkpoint) -> Source:
    card = chosen.card
    recipe = card.profile.recipe
    return Source(
        card.method,
        card.method_version,
        card.weights,
        card.profile.preprocessing,
        lambda: make.load(plan.method, chosen),
        recipe.text_units[-1] if recipe else "",
    )
