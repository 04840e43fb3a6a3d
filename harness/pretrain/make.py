"""From a method's name to a checkpoint in the store: data, network, training, folder.

Apart because it is the only place where the parts of pre-training meet; `pretrain` and `run` both call it.
"""

from __future__ import annotations

import datetime
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn

from harness import device, provenance, registry
from harness.data import locate, table
from harness.files import clear, locked, replacing, sync
from harness.parallel import cores
from harness.plan import CorpusPlan, MethodPlan
from harness.pretrain import checkpoint, corpus, health, optimisation, reading
from harness.pretrain.batches import Batches
from harness.pretrain.checkpoint import Checkpoint
from harness.pretrain.corpus import Corpus
from harness.pretrain.engine import Outcome, Training
from harness.pretrain.state import STATE
from harness.pretrain.team import Alone
from harness.provenance import Code
from harness.settings import Settings

logger = logging.getLogger(__name__)

LOCK = "first.lock"  # held by the first of several processes
UNTRAINED = Outcome(0, {}, {}, (), 0.0, None)


def network(plan: MethodPlan, seed: int) -> nn.Module:
    """The method's untrained network; the same seed gives the same weights."""
    torch.manual_seed(seed)
    built: nn.Module = registry.load("methods", plan.source).build(plan.profile, initialise=True)
    return built


def load(plan: MethodPlan, stored: Checkpoint) -> nn.Module:
    """The network of a checkpoint, with its weights."""
    module = registry.load("methods", plan.source)
    model: nn.Module = module.build(stored.card.profile, initialise=False)
    checkpoint.load_weights(stored, model)
    return model


def untrained(plan: MethodPlan, settings: Settings, *, seed: int) -> Checkpoint:
    """The checkpoint of a method that has nothing to train: its initial weights."""
    target = settings.checkpoints / _name(plan, None, seed)
    with locked(settings.checkpoints / f".{target.name}.lock"):
        if not target.exists():
            with replacing(target) as folder:
                _write(folder, plan, network(plan, seed), seed, None, UNTRAINED, "cpu")
    return checkpoint.read(target)


def require_same(plan: MethodPlan, stored: Checkpoint) -> None:
    """See `checkpoint.require_same`. Published weights stay what they are, and the hub is not asked again."""
    if plan.profile.image.pretrained:
        return
    try:
        now = network(plan, stored.card.seed)
    except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
        reason = f"{type(error).__name__}: {error}"
        logger.warning("%s cannot be compared with %s: %s. It is used", stored.name, plan.source, reason)
        return
    checkpoint.require_same(stored, now)


def trained(
    plan: MethodPlan,
    source: CorpusPlan,
    settings: Settings,
    *,
    seed: int,
    stand_in: bool,
    processes: int = 1,
) -> Checkpoint:
    """The checkpoint of this method, corpus and seed: from the store, or trained now by so many processes,
    going on from where a run before was cut off. `stand_in`: see `locate.find`."""
    assert plan.profile.recipe is not None
    _code(plan)  # read here, because hours later git may tell of code that did not run
    optimisation.check(plan.profile.recipe, f"{plan.source}, profile {plan.profile_name}")
    place = device.choose(settings.device)
    device.require_one_each(processes, place, cores())
    model = network(plan, seed)
    model.to(place)  # a frozen text encoder reads the corpus there
    _ = model.text_key  # a missing one is said now, not after an hour of decoding
    data = _corpus(plan, source, model, settings, stand_in)
    target = settings.checkpoints / _name(plan, data.fingerprint, seed)
    folder = settings.checkpoints / f".{target.name}.training"
    with locked(folder.with_suffix(".lock")):
        if not target.exists():
            pairs = len(data.train)
            logger.info("pre-training %s on %d pairs of %s (%s)", target.name, pairs, data.name, data.kind)
            if processes == 1:
                _train(plan, model, data, seed, folder, Alone(), place)
            else:
                from harness.pretrain import distributed  # here, because Ray takes a second to import

                member = partial(_member, plan, source, settings, seed, stand_in, folder)
                steps = Batches(data, plan.profile, seed, place).total
                model.cpu()
                torch.cuda.empty_cache()  # for those who train
                distributed.run(member, processes, gpu=place.type == "cuda", folder=folder, steps=steps)
            (folder / LOCK).unlink(missing_ok=True)
            folder.replace(target)
            sync(target.parent)
            (target / STATE).unlink(missing_ok=True)  # last: a kill before costs disk space, not the training
    return checkpoint.read(target)


def _member(
    plan: MethodPlan,
    source: CorpusPlan,
    settings: Settings,
    seed: int,
    stand_in: bool,
    folder: Path,
    team: Alone,
    place: torch.device,
) -> None:
    """What one of several processes does. Its corpus comes from the caches that the first reading filled."""
    _code(plan)  # of this process, as in `trained`
    model = network(plan, seed)
    data = _corpus(plan, source, model, settings, stand_in)
    with locked(folder / LOCK) if team.rank == 0 else nullcontext():
        team.wait()  # processes of a job that was killed live on for seconds: none may write from here on
        _train(plan, model, data, seed, folder, team, place)


def _train(
    plan: MethodPlan,
    model: nn.Module,
    data: Corpus,
    seed: int,
    folder: Path,
    team: Alone,
    place: torch.device,
) -> None:
    if team.rank == 0:
        clear(folder)  # a state is large, and each kill may leave one half written
    code = _code(plan)
    training = Training(
        model,
        data,
        plan.profile,
        seed=seed,
        device=place,
        folder=folder,
        team=team,
        commit=code.commit,
        dirty=code.dirty,
        text_sample=reading.sample(model) if team.rank == 0 else (),  # type: ignore[arg-type]
    )
    outcome = training.run()
    if team.rank == 0:
        health.write(folder, outcome, memory_mib=device.memory_peaks_mib(place), processes=team.size)
        where = device.describe(place)
        _write(folder, plan, model, seed, data, outcome, where, team.size, dirty=training.dirty)


def _code(plan: MethodPlan) -> Code:
    return provenance.code(registry.entry("methods", plan.source).path)


def _name(plan: MethodPlan, fingerprint: str | None, seed: int) -> str:
    return checkpoint.name_of(
        plan.name, plan.card.version, plan.profile_name, plan.profile, fingerprint, seed
    )


def _corpus(
    plan: MethodPlan, source: CorpusPlan, model: nn.Module, settings: Settings, stand_in: bool
) -> Corpus:
    name, module = source.name, registry.load("tasks", source.source)
    found = locate.find(name, source.card, module, settings, plan.profile_name, stand_in=stand_in)
    return corpus.build(
        name,
        found.kind,
        table.read(module, found.root),
        source.split,
        plan.profile,
        model,  # type: ignore[arg-type]
        images=settings.images,
        texts=settings.texts,
        workers=settings.workers,
    )


def _write(
    folder: Path,
    plan: MethodPlan,
    model: nn.Module,
    seed: int,
    data: Corpus | None,
    outcome: Outcome,
    place: str,
    processes: int = 1,
    dirty: bool = False,
) -> None:
    """`dirty`: whether the training says so; other code may be here since it was cut off."""
    code = _code(plan)
    checkpoint.save(
        folder,
        model.state_dict(),
        {
            "written": datetime.datetime.now(datetime.UTC),
            "method": plan.name,
            "method_version": plan.card.version,
            "profile_name": plan.profile_name,
            "profile": plan.profile,
            "seed": seed,
            "corpus": data.name if data else None,
            "corpus_kind": data.kind if data else None,
            "corpus_fingerprint": data.fingerprint if data else None,
            **outcome._asdict(),
            "processes": processes,
            "device": place,
            "commit": code.commit,
            "dirty": code.dirty or dirty,
            "packages": code.packages,
        },
    )
