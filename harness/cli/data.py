"""`data where|doctor|prepare|phantom`: where datasets lie, whether they are whole, their image cache, and
writing a synthetic one in an official layout."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show

app = typer.Typer(
    help="Where datasets lie, whether they are whole, their image cache; write a phantom.",
    no_args_is_help=True,
)


@app.command()
def where(
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Every dataset: found where, or what was looked for."""
    from harness import registry
    from harness.contracts import DatasetCard
    from harness.data import locate
    from harness.errors import MissingDataset

    current = settings.load(data_root)
    current.require_roots()
    rows = []
    for name, entry in registry.entries("tasks").items():
        if not isinstance(entry.card, DatasetCard):
            rows.append({"dataset": name, "data": "", "place": "", "error": entry.error})
        elif not current.data_roots:
            rows.append({"dataset": name, "data": "phantom", "place": "written when first used", "error": ""})
        else:
            try:
                found = locate.real(name, entry.card, current)
                rows.append({"dataset": name, "data": found.kind, "place": str(found.root), "error": ""})
            except MissingDataset as error:
                rows.append({"dataset": name, "data": "missing", "place": "", "error": str(error)})
    if json:
        show.as_json(rows)
        return
    show.line(f"data roots: {', '.join(map(str, current.data_roots)) or 'none (phantoms stand in)'}")
    show.line(f"caches, phantoms, checkpoints: {current.home}")
    lines = [[row["dataset"], row["data"], row["place"] or row["error"]] for row in rows]
    show.table("Datasets", ["dataset", "data", "place"], lines)


@app.command()
def doctor(
    dataset: Annotated[str, typer.Argument(help="Name, or path of a dataset's file.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Open all pictures: a sample shows hardly any duplicate.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare a download with what it should hold; look at its pictures. Exit 1 if results would change."""
    from harness import registry

    card, name = registry.dataset_card(dataset), registry.entry("tasks", dataset).name
    from harness.data import doctor, locate

    current, reader = settings.load(data_root), registry.load("tasks", dataset)
    located = locate.find(name, card, reader, current, "demo")
    report = doctor.examine(name, card, reader, located, everything=everything, workers=current.workers)
    if json:
        show.as_json({**asdict(report), "root": str(report.root), "sound": report.sound})
    else:
        release = report.release or ("synthetic" if report.kind == "phantom" else "no known release")
        show.line(f"{card.title} ({report.kind}, {release}) in {report.root}")
        if report.images:  # else they could not be read
            show.line(f"{report.images:,} pictures in its tables, {report.looked_at:,} of them opened")
        rows = [
            [
                finding.name,
                "yes" if finding.matters else "no",
                f"{finding.count:,}",
                "\n".join((finding.says, *finding.examples)),
                finding.cure,
            ]
            for finding in report.findings
        ]
        if rows:
            show.table("", ["finding", "changes results", "count", "what, and examples", "cure"], rows)
        show.line("nothing that would change a result" if report.sound else "results would change: see above")
    raise typer.Exit(0 if report.sound else 1)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Name, or path of a dataset's file.")],
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Whose input to prepare; may be repeated. Default: all methods.")
    ] = None,
    profile: Annotated[str, typer.Option(help="demo or paper.")] = "demo",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate only.")] = False,
) -> None:
    """Decode all pictures into the cache that run and pretrain read; goes on where it was cut off.

    Methods with input of the same size and geometry share a cache, so that all methods need only a few.
    """
    from harness import plan, registry

    card, name = registry.dataset_card(dataset), registry.entry("tasks", dataset).name
    if method:
        plans = [plan.method(source, profile) for source in method]
    else:
        plans, without = plan.usable(profile)
        for other, reason in without.items():
            show.say(f"left out: {other}: {reason}")
    from harness import prepare
    from harness.data import locate, table
    from harness.errors import readable_size

    current, reader = settings.load(data_root), registry.load("tasks", dataset)
    located = locate.find(name, card, reader, current, plans[0].profile_name)
    caches = prepare.cache_plans(name, card, located, table.read(reader, located.root), plans)
    estimates = [prepare.estimate(each.asked, current) for each in caches]
    show.table(
        f"{name}, {profile} profile",
        ["square", "for", "pictures", "to decode", "disk", "time, about"],
        [
            [
                f"{each.asked.side} {each.asked.geometry}",
                ", ".join(each.methods),
                f"{len(each.asked.ids):,}",
                f"{found.pictures:,}",
                readable_size(found.size),
                str(timedelta(seconds=round(found.seconds))),
            ]
            for each, found in zip(caches, estimates, strict=True)
        ],
    )
    prepare.check_disk(sum(found.size for found in estimates), current)
    if not dry_run:
        prepare.fill([each.asked for each in caches], current)
        show.line("ready")


@app.command()
def phantom(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    root: Annotated[Path, typer.Option(help="New folder to write.")],
    persons: Annotated[int | None, typer.Option(help="Default: as many as the demo uses.", min=1)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    contrast: Annotated[float, typer.Option(help="Strength of the findings' signs.", min=0)] = 1.0,
    noise: Annotated[float, typer.Option(help="Strength of the pixels' noise.", min=0)] = 1.0,
    label_noise: Annotated[float, typer.Option(help="Share of flipped labels.", min=0, max=1)] = 0.0,
    confound: Annotated[
        bool, typer.Option("--confound", help="Let where a picture comes from follow from its class.")
    ] = False,
) -> None:
    """Write synthetic patients in the official layout of a dataset, stamped with PHANTOM.json."""
    from harness import registry
    from harness.errors import UsageError

    card, name = registry.dataset_card(dataset), registry.entry("tasks", dataset).name
    for dial, turned in (("label_noise", label_noise > 0), ("confound", confound)):
        if turned and dial not in card.dials:
            raise UsageError(f"the phantom of {name} has no dial --{dial.replace('_', '-')}. Leave it out")
    if not math.isfinite(contrast + noise):
        raise UsageError("--contrast and --noise are finite numbers")
    from harness.data import locate
    from harness.phantom import Cohort, Dials

    root = root.expanduser().resolve()
    size = locate.phantom_size(name, card, "demo")
    cohort = Cohort(
        name,
        persons or size.persons,
        seed,
        (size.height, size.width),
        Dials(contrast, noise, label_noise, confound),
    )
    locate.write(registry.load("tasks", dataset), root, cohort, settings.load().workers)
    show.line(f"{cohort.persons} persons written to {root}")
