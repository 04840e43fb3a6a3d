"""`list methods|tasks|checkpoints|results`: what there is, without importing a method or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import settings
from harness.cli import show
from harness.contracts import PublishedSplit

if TYPE_CHECKING:
    from harness.contracts import Balanced, DatasetCard, Split

app = typer.Typer(help="What there is: methods, tasks, checkpoints, results.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command()
def methods(json: AsJson = False) -> None:
    """Methods with their backbones; --json has their sources, and what their authors trained on, too."""
    from harness import registry
    from harness.contracts import MethodCard

    rows: list[dict[str, Any]] = []
    for name, entry in registry.entries("methods").items():
        card = entry.card if isinstance(entry.card, MethodCard) else None
        rows.append(
            {
                "name": name,
                "title": card.title if card else "",
                "year": card.year if card else None,
                "text": card.has_text if card else None,
                "profiles": {key: item.image.name for key, item in card.profiles.items()} if card else {},
                "trained_on": list(card.trained_on) if card else [],
                "licence": card.licence if card else "",
                "citation": card.citation if card else "",
                "source": card.source if card else "",
                "error": entry.error,
            }
        )
    if json:
        show.as_json(rows)
        return
    lines = [
        [
            str(row["name"]),
            f"cannot be used: {row['error']}" if row["error"] else f"{row['title']} ({row['year']})",
            ", ".join(f"{key}: {name}" for key, name in row["profiles"].items()),
            "yes" if row["text"] else "no",
        ]
        for row in rows
    ]
    show.table("Methods", ["name", "title", "image encoder", "text"], lines)


@app.command()
def tasks(
    json: AsJson = False,
    long: Annotated[bool, typer.Option("--long", help="With licence, citation and source.")] = False,
) -> None:
    """Tasks by id, and the corpora that methods can be pre-trained on."""
    from harness import registry
    from harness.contracts import DatasetCard

    rows: list[dict[str, Any]] = []
    for name, entry in registry.entries("tasks").items():
        card = entry.card
        if not isinstance(card, DatasetCard):
            rows.append({"id": name, "kind": "", "title": "", "error": entry.error})
            continue
        shared = {
            "title": card.title,
            "licence": card.licence,
            "citation": card.citation,
            "source": card.source,
            "releases": {variant.name: variant.images for variant in card.variants},
            "error": "",
        }
        for task_name, (kind, task) in card.by_name.items():
            rows.append(
                {
                    "id": f"{name}:{task_name}",
                    "kind": kind,
                    "labels": list(task.labels),
                    "metric": task.metric,
                    "version": task.version,
                    "protocols": {
                        key: _sizes(card, split, task.balanced) for key, split in task.splits.items()
                    },
                    **shared,
                }
            )
        if card.corpus:
            protocols = {"clean": _sizes(card, card.corpus)}
            rows.append({"id": name, "kind": "corpus", "protocols": protocols, **shared})
    if json:
        show.as_json(rows)
        return
    if long:
        for row in rows:
            _block(row)
        return
    lines = [
        [
            str(row["id"]),
            row["kind"],
            f"cannot be used: {row['error']}" if row["error"] else row["title"],
            row.get("metric", ""),
            ", ".join(row.get("labels", ())),
            "\n".join(
                f"{key}: {' / '.join(sizes.values())}" for key, sizes in row.get("protocols", {}).items()
            ),
        ]
        for row in rows
    ]
    columns = ["id", "kind", "dataset", "metric", "labels", "train / validation / test"]
    show.table("Tasks", columns, lines)
    show.line("Licences, citations and how to obtain the data: list tasks --long")


def _sizes(
    card: DatasetCard, split: Split | PublishedSplit, balanced: Balanced | None = None
) -> dict[str, str]:
    """Each part as an official one with its images in the largest release, or as a share of the persons, or
    under the published protocol of what its code deals out. Of a balanced test part, the draws from it."""
    release = max(card.variants, key=lambda variant: variant.images, default=None)
    parts = {**release.parts, "": release.images} if release else {}

    def told(rule: str | float | None) -> str:
        if rule is None:
            return "none"
        if isinstance(rule, float):
            return f"{rule:.0%} of the persons".replace("%", " %")
        return f"{rule or 'all'} {parts[rule]:,}" if rule in parts else rule or "all"

    if isinstance(split, PublishedSplit):
        unit = "rows" if "parts-drawn-by-csv-row" in split.rules else "images"
        held_out = split.held_out if split.test else split.held_out / 2
        share = f"{held_out * 100:g} % of the" if held_out < 1 else f"{held_out:,.0f}"
        test = told(split.test) if split.test else f"{share} {unit}"
        return {"train": told(split.train), "validation": f"{share} {unit}", "test": test}
    sizes = {part: told(getattr(split, part)) for part in ("train", "validation", "test")}
    if balanced:
        sizes["test"] = f"{balanced.draws} draws of up to {balanced.per_class} a label from {sizes['test']}"
    return sizes


def _block(row: dict[str, Any]) -> None:
    """One task on lines of its own; what a line is about stands before it."""
    show.line(f"{row['id']}  {row['title'] or 'cannot be used: ' + row['error']}")
    facts = {
        "kind": row["kind"],
        "metric": row.get("metric"),
        "labels": ", ".join(row.get("labels", ())),
        **{key: " / ".join(sizes.values()) for key, sizes in row.get("protocols", {}).items()},
        "releases": ", ".join(f"{key} ({images:,})" for key, images in row.get("releases", {}).items()),
        "licence": row.get("licence"),
        "cite": row.get("citation"),
        "obtain": row.get("source"),
    }
    for name, fact in facts.items():
        if fact:
            show.line(f"  {name:<10}{fact}")


@app.command()
def checkpoints(json: AsJson = False) -> None:
    """Trained weights in the store, newest first; a broken folder is listed with its reason."""
    from harness.pretrain import checkpoint

    rows: list[dict[str, Any]] = []
    for item in checkpoint.listing(settings.load().checkpoints):
        if isinstance(item, checkpoint.Broken):
            rows.append({"name": item.folder.name, "error": item.reason})
            continue
        card = item.card
        rows.append(
            {
                "name": item.name,
                "method": card.method,
                "corpus": card.corpus,
                "corpus_kind": card.corpus_kind,
                "imported_from": card.imported.file if card.imported else None,
                "written": f"{card.written:%Y-%m-%d %H:%M}",
                "warnings": list(card.warnings),
                "error": "",
            }
        )
    if json:
        show.as_json(rows)
        return
    lines = [
        [
            row["name"],
            f"cannot be used: {row['error']}" if row["error"] else row["method"],
            f"{row['corpus']} ({row['corpus_kind']})" if row.get("corpus") else "",
            row.get("imported_from") or "",
            row.get("written", ""),
            "; ".join(row.get("warnings", ())),
        ]
        for row in rows
    ]
    columns = ["name", "method", "pre-trained on", "imported from", "written", "warnings"]
    show.table("Checkpoints", columns, lines)


@app.command()
def results(
    json: AsJson = False,
    folder: Annotated[
        Path | None, typer.Option("--results", help="Folder of records. Default: results/")
    ] = None,
) -> None:
    """Records, one line each; `--json` prints them whole."""
    from harness import records

    show.require_folder(folder)
    place = settings.load(results=folder).results
    found = [record for _, record in records.read_all(place)]
    if json:
        show.as_json([record.model_dump(mode="json") for record in found])
        return
    lines = []
    for record in found:
        cell, value = record.cell, record.metrics[record.task.metric]
        lines.append(
            [
                record.data.kind,
                cell.task,
                cell.checkpoint,
                cell.protocol,
                f"{cell.fraction * 100:g} %" if record.parts["used"].images else "none",
                str(cell.seed),
                " ".join(cell.options),
                record.task.metric_title,
                value.text,
                f"{record.written:%Y-%m-%d %H:%M}",
            ]
        )
    columns = "data task checkpoint protocol labels seed options metric value written"
    show.table("Results", columns.split(), lines)
