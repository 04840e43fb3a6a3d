"""`audit`: what the parts of a task share under each protocol, or what datasets share with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import settings
from harness.cli import show
from harness.contracts import ProfileName
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.data.audit import Shared
    from harness.settings import Settings

PHANTOM: ProfileName = "demo"  # size of one that stands in


def audit(
    datasets: Annotated[list[str] | None, typer.Argument(help="With --across: datasets to compare.")] = None,
    task: Annotated[str | None, typer.Option(help="Dataset, or dataset:kind.")] = None,
    across: Annotated[bool, typer.Option("--across", help="Find pictures that datasets share.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Count what leaks: `audit --task rsna`, or `audit --across rsna covidx`."""
    if across == (task is not None) or across != bool(datasets):
        raise UsageError("give either --task TASK, or --across with the names of datasets")
    current = settings.load(data_root)
    if task is not None:
        _task(task, current, json=json)
    else:
        _across(datasets or [], current, json=json)


def _task(task: str, current: Settings, *, json: bool) -> None:
    from harness import registry
    from harness.data import audit, locate, published, table, task_data

    source = task.partition(":")[0]
    found, card = registry.task_of(task), registry.dataset_card(source)
    dataset = registry.load("tasks", source)
    located = locate.find(found.dataset, card, dataset, current, PHANTOM)
    whole = table.read(dataset, located.root)
    protocols: dict[str, Any] = {}
    for protocol in found.task.splits:
        pool = task_data.of_table(whole, located, card, found.task, protocol)
        rules = published.in_force(pool.rules, found.kind, found.task, protocol)
        protocols[protocol] = {
            "rules": {rule: published.RULES[rule] for rule in rules},
            "parts": {name: len(rows) for name, rows in pool.parts._asdict().items()},
            "persons_known": pool.persons_known,
            "shared": audit.shared(pool.frame, pool.parts),
        }
    if json:
        for facts in protocols.values():
            facts["shared"] = [item._asdict() for item in facts["shared"]]
        show.as_json({"task": found.id, "data": located.kind, "protocols": protocols})
        return
    for name, facts in protocols.items():
        sizes = ", ".join(f"{part} {count:,}" for part, count in facts["parts"].items())
        if not facts["parts"]["train"]:
            show.line(
                f"{found.id}, {name} ({located.kind}): {sizes}. Nothing is fitted on this dataset, so that "
                "no two parts can share anything. What the method was pre-trained on is not looked at here: "
                f"`audit --across {found.dataset} CORPUS` finds pictures that two datasets share"
            )
        else:
            lines = [_line(item) for item in facts["shared"]]
            columns = ["parts", "images of the second", "also in the first", "their rows of labels"]
            columns += ["persons in both", "their images", "from sources of both"]
            show.table(f"{found.id}, {name} ({located.kind}): {sizes}", columns, lines)
        for rule, sentence in facts["rules"].items():
            show.line(f"  {rule}: {sentence}")
        if not facts["persons_known"]:
            show.line("  It is not known of every image whose it is: persons in two parts may go unnoticed.")


def _line(item: Shared) -> list[str]:
    return [
        f"{item.first} and {item.second}",
        f"{item.of:,}",
        _share(item.images, item.of),
        "" if item.rows is None else f"{item.rows:,}",
        f"{item.persons:,}",
        _share(item.images_of_persons, item.of),
        "" if item.images_of_sources is None else _share(item.images_of_sources, item.of),
    ]


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})" if count else "0"


def _across(sources: list[str], current: Settings, *, json: bool) -> None:
    from harness import registry
    from harness.data import audit, cache, locate, table
    from harness.data.lookalikes import BITS, CORRELATION, RADIUS, SIDE

    tables = {}
    for source in dict.fromkeys(sources):
        name, card = registry.entry("tasks", source).name, registry.dataset_card(source)
        dataset = registry.load("tasks", source)
        located = locate.find(name, card, dataset, current, PHANTOM)
        tables[name] = table.read(dataset, located.root)
    collections = []
    for name, frame in tables.items():  # all of which are there, before hours of decoding
        asked = cache.wanted(name, frame, SIDE, "stretch")
        images = cache.open_images(asked, folder=current.images, workers=current.workers)
        collections.append(audit.Collection(name, frame, images.pixels))
    overlaps = audit.across(collections, current.workers)
    if json:
        thresholds = {"radius": RADIUS, "correlation": CORRELATION}
        show.as_json([{**item._asdict(), **thresholds} for item in overlaps])
        return
    lines = [
        [
            item.first if item.first == item.second else f"{item.first} and {item.second}",
            " and ".join(f"{count:,}" for count in dict.fromkeys(item.of)),
            f"{item.alike:,}",
            f"{item.identical:,}",
            "; ".join(f"{parts}: {count:,}" for parts, count in item.parts.items()),
            "; ".join(f"{part or 'all'}: {count:,}" for part, count in item.named.items()),
            f"{item.named_found:,}" if item.named else "",
        ]
        for item in overlaps
    ]
    columns = ["datasets", "images", "pairs alike", "of these identical", "in parts", "named as source"]
    show.table("Pictures that are there twice", [*columns, "of these found by id"], lines)
    show.line(
        f"  Alike: perceptual hashes that differ in at most {RADIUS} of {BITS} bits, of pictures that "
        f"correlate by {CORRELATION} or more at {SIDE} x {SIDE} pixels."
    )
