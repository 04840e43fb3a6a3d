"""One cell, from its plan to its record. Knows no argument parser and no Ray.

Apart because everything that runs cells (the command line, the sweep, a notebook) calls this one file.
"""

from __future__ import annotations

import logging
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness import account, device, identity, quarantine, records, registry, stats, weights
from harness.account import Arguments
from harness.contracts import WITH_FIGURES
from harness.cost import Cost
from harness.data import cache, locate, task_data
from harness.data.task_data import TaskData, TaskPool
from harness.errors import BadRecord, NewerRecord, UsageError
from harness.evaluate import bench as benches
from harness.evaluate import figures as drawings
from harness.evaluate.bench import Bench, Evaluator, Examples, Head, Tunable
from harness.evaluate.figures import Drawable
from harness.evaluate.search import Configuration, Report
from harness.metrics import score
from harness.plan import CellPlan
from harness.pretrain.checkpoint import Checkpoint
from harness.records import HeadBlock, Record, SearchBlock
from harness.settings import Settings

logger = logging.getLogger(__name__)

ROOM = 2**22  # bytes that there must be for a record with its predictions; those of boxes are the largest


class Outcome(NamedTuple):
    record: Record
    path: Path
    figures: list[Path]


class Prepared(NamedTuple):
    """What the cells of one checkpoint on one task share, whatever their fraction and seed."""

    settings: Settings
    pool: TaskPool
    chosen: Checkpoint
    bench: Bench


def run(
    plan: CellPlan,
    settings: Settings,
    *,
    chosen: Checkpoint | None = None,
    arguments: Arguments,
    figures: Path | None = None,
) -> Outcome:
    """Encodes the images, fits the head, scores the test split once, writes the record.

    Args:
        chosen: default see `weights.current`; if it finds none, one is made.
        arguments: kept in the record.
        figures: folder for drawings of some test images; raises UsageError for kinds that have none.
    """
    if figures and plan.kind not in WITH_FIGURES:
        raise UsageError(
            f"there is nothing to draw for {plan.task_id}: leave --save-figures out, or choose a task of "
            f"kind {' or '.join(sorted(WITH_FIGURES))}"
        )
    require_results(settings.results)
    cost = Cost()
    return finish(prepare(plan, settings, chosen, cost), plan, arguments, cost, figures)


def prepare(plan: CellPlan, settings: Settings, chosen: Checkpoint | None, cost: Cost) -> Prepared:
    """Everything up to the encoder's features. Whether the cell can be scored is checked before anything
    is decoded or trained."""
    # read and imported here, because hours later they may tell of code that did not run
    account.code(plan)
    registry.load("methods", plan.method.source)
    weights.code(plan.method)
    if chosen:
        require_words(plan, chosen)
    place = device.choose(settings.device)
    dataset, card = registry.load("tasks", plan.source), plan.dataset_card
    device.forget_memory_peaks(place)
    with cost.step("data"):
        located = locate.find(plan.dataset, card, dataset, settings, plan.method.profile_name)
        pool = task_data.load(located, dataset, card, plan.task, plan.protocol)
        doctor = shlex.quote(plan.source) + settings.data_option
        task_data.say_release(plan.dataset, card, located, pool.release, doctor)
        evaluator(plan).check(plan.task, _sampled(pool, plan))
    chosen = chosen or weights.current(plan.method, settings, plan.seed, located.kind)
    cost.cached["checkpoint"] = chosen is not None
    if chosen:
        _before(settings, pool, chosen, plan)  # refuses to replace one of a newer harness
    elif plan.method.profile.recipe is None:  # at once; a training comes after the pictures
        with cost.step("checkpoint"):
            chosen = weights.made(plan.method, settings, plan.seed)
    if chosen:
        weights.say_what_was_seen(chosen, plan, located.kind)
    square = (chosen.card.profile if chosen else plan.method.profile).preprocessing
    with cost.step("images"):
        images = cache.open_images(
            cache.wanted(plan.dataset, pool.frame, square.stored, square.geometry),
            folder=settings.images,
            workers=settings.workers,
        )
        cost.cached["images"] = images.cached
    with cost.step("checkpoint"):
        if chosen is None:
            chosen = weights.made(plan.method, settings, plan.seed)
            weights.say_what_was_seen(chosen, plan, located.kind)
    bench = Bench(
        encoder=weights.source(plan.method, chosen),
        images=images,
        banks=settings.banks,
        device=place,
        dtype=settings.bank_dtype,
        cost=cost,
        read_mask=getattr(dataset, "read_mask", None),
    )
    return Prepared(settings, pool, chosen, bench)


def require_results(folder: Path) -> None:
    """Makes the folder of results and writes to it, as much as a record may take. Raises UsageError where
    that cannot be, before hours of work find out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise UsageError(
            f"no results can be written to {folder}: {error.strerror}. Cure that, or give --results another "
            "folder"
        ) from error


def require_words(plan: CellPlan, chosen: Checkpoint) -> None:
    """Raises ImpossiblePairing where pictures are compared with words, and the checkpoint is an image encoder
    alone, as imported ones may be."""
    registry.check_pairing(chosen.name, chosen.card.profile.text is not None, plan.task_id, plan.kind)


def attempt(prepared: Prepared, plan: CellPlan, configuration: Configuration, report: Report) -> None:
    """Fits one configuration of a trained head; what it is worth on validation is heard by `report`."""
    seen = _seen(prepared.bench, _sampled(prepared.pool, plan))
    tunable(plan).fit(prepared.bench, plan.task, *seen, plan.seed, configuration, report)


def finish(
    prepared: Prepared,
    plan: CellPlan,
    arguments: Arguments,
    cost: Cost,
    figures: Path | None = None,
    search: SearchBlock | None = None,
) -> Outcome:
    """One cell of what was prepared: `plan` may differ from the one given to `prepare` in fraction and
    seed. Of a tuned one, `search` says which configuration is fitted. Raises NewerRecord where the record of
    a newer harness would be replaced: before anything is fitted, if it is there by then."""
    _before(prepared.settings, prepared.pool, prepared.chosen, plan)
    bench = replace(prepared.bench, cost=cost)
    data = _sampled(prepared.pool, plan)
    evaluator(plan).check(plan.task, data)
    with cost.step("head"):
        head, block = _fitted(bench, plan, data, search)
    with cost.step("test"):
        test = benches.examples(bench, data, data.parts.test)
        arrays = head.predict(test)
        # scored as it is kept, so that anyone can compute the same from the files
        kept = records.sorted_predictions(
            test.frame["image_id"].tolist(), test.frame["person_id"].tolist(), arrays
        )
        measured = stats.person_bootstrap(
            score.of(plan.kind, kept.arrays, plan.task.labels),
            kept.persons,
            replicates=stats.REPLICATES,
            seed=plan.seed,
        )
    record = account.record(
        plan=plan,
        data=data,
        images=bench.images,
        checkpoint=prepared.chosen,
        head=block,
        measured=measured,
        cost=cost,
        place=bench.device,
        arguments=arguments,
    )
    # read again: another process may have written it meanwhile
    if before := _before(prepared.settings, prepared.pool, prepared.chosen, plan):
        _make_room(prepared.settings.results, before, record)
    path = records.write(prepared.settings.results, record, kept)
    saved = drawings.save(figures, head, test, arrays) if figures and isinstance(head, Drawable) else []
    # not the record as read back: its file sorts the metrics, and they are printed in the order of measuring
    written = record.model_copy(update={"predictions": records.read(path).predictions})
    return Outcome(written, path, saved)


def _before(settings: Settings, pool: TaskPool, chosen: Checkpoint, plan: CellPlan) -> Record | None:
    """The record that this cell's will take the place of. None where there is none, or none that can be read:
    nothing is lost by replacing that. Raises NewerRecord."""
    cell = records.CellBlock(checkpoint=chosen.name, **plan.key)
    path = records.place_of(settings.results, pool.located.kind, cell)
    try:
        return records.read(path) if path.is_file() else None
    except NewerRecord:
        raise
    except BadRecord:
        return None


def _make_room(results: Path, before: Record, record: Record) -> None:
    """A cell that is run again takes the place of its record. One of other weights or data is kept."""
    path = records.path_of(results, record)
    if other := identity.of(before).unlike(identity.of(record)):
        aside = quarantine.new(results)
        quarantine.move(path, results, aside)
        logger.warning("%s of %s is of other %s. Put aside in %s", path, before.written.date(), other, aside)
    else:
        logger.warning("%s of %s is replaced by one of the same", path, before.written.date())


def _fitted(
    bench: Bench, plan: CellPlan, data: TaskData, search: SearchBlock | None
) -> tuple[Head, HeadBlock]:
    seen = _seen(bench, data)
    if search:
        head = tunable(plan).fit(bench, plan.task, *seen, plan.seed, search.configuration)
    else:
        head = evaluator(plan).fit(bench, plan.task, *seen, plan.seed)
    return head, head.block.model_copy(update={"version": evaluator(plan).VERSION, "search": search})


def _sampled(pool: TaskPool, plan: CellPlan) -> TaskData:
    return pool.draw(plan.labels_used, plan.seed, cut_validation=plan.cut_validation)


def _seen(bench: Bench, data: TaskData) -> tuple[Examples, Examples]:
    """All that whoever fits and selects is handed: the training and the validation examples."""
    return benches.examples(bench, data, data.used), benches.examples(bench, data, data.validation)


def evaluator(plan: CellPlan) -> Evaluator:
    """What checks such cells and fits their heads."""
    return benches.evaluator(plan.kind, plan.task, plan.protocol)


def tunable(plan: CellPlan) -> Tunable:
    """The evaluator of a cell that is tuned."""
    return benches.tunable(plan.kind, plan.task)
