"""`data where|phantom`: where datasets lie, and writing a synthetic one in an official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show

app = typer.Typer(help="Where datasets lie; write a phantom.", no_args_is_help=True)


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
def phantom(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    root: Annotated[Path, typer.Option(help="New folder to write.")],
    persons: Annotated[int | None, typer.Option(help="Default: as many as the demo uses.", min=1)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    contrast: Annotated[float, typer.Option(help="Of the findings' signs.", min=0)] = 1.0,
    noise: Annotated[float, typer.Option(help="Of the picture.", min=0)] = 1.0,
    label_noise: Annotated[float, typer.Option(help="Share of flipped labels.", min=0, max=1)] = 0.0,
) -> None:
    """Write synthetic patients in the official layout of a dataset, stamped with PHANTOM.json."""
    from harness import registry

    card, name = registry.dataset_card(dataset), registry.entry("tasks", dataset).name
    from harness.data import locate
    from harness.phantom import Cohort, Dials

    size = locate.phantom_size(name, card, "demo")
    cohort = Cohort(
        name,
        persons or size.persons,
        seed,
        (size.height, size.width),
        Dials(contrast, noise, label_noise),
    )
    locate.write(registry.load("tasks", dataset), root, cohort, settings.load().workers)
    show.line(f"{cohort.persons} persons written to {root}")
