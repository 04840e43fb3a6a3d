"""Whether a training went well, as a file for machines and a picture for people, beside its weights.

Apart because it only reads: the log of steps and that of epochs say it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from harness.files import write_json, write_text
from harness.pretrain import log
from harness.pretrain.engine import Outcome

REPORT, PLOT = "health.json", "health.svg"

WIDTH, HEIGHT, MARGIN, LEGEND = 460, 220, 52, 150  # of a panel, in pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
CHANCE = "chance@"  # what a random order would recall
POINTS = 400  # of a curve; more do not show

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def write(folder: Path, outcome: Outcome, *, memory_mib: Mapping[str, float], processes: int) -> None:
    """`health.json` and `health.svg` from the logs in `folder`. `memory_mib`: peaks of the first process."""
    steps, epochs = log.read(folder / log.STEPS), log.read(folder / log.EPOCHS)
    write_json(
        folder / REPORT,
        {
            "kept_steps": outcome.steps,
            "steps": len(steps),
            "loss": outcome.loss,
            "epochs": epochs,
            "warnings": outcome.warnings,
            "images_per_second": outcome.images_per_second,
            "seconds": outcome.seconds,
            "peak_memory_mib": dict(memory_mib),
            "processes": processes,
        },
    )
    write_text(folder / PLOT, _page(_panels(steps, epochs)))


def _panels(steps: Sequence[Mapping[str, float]], epochs: Sequence[Mapping[str, float]]) -> dict[str, Curves]:
    def curves(rows: Sequence[Mapping[str, float]], *names: str) -> Curves:
        chosen = rows[:: -(-len(rows) // POINTS)]
        where = [row["step"] for row in chosen]
        return {name: (where, [row[name] for row in chosen]) for name in names if name in rows[0]}

    terms = [name for name in steps[0] if name not in ("step", "learning_rate", "gradient")]
    if len(terms) == 2:  # the loss and its only term are one curve
        terms = terms[1:]
    panels = {
        "training loss": curves(steps, *terms),
        "validation loss": curves(epochs, *terms),
        "retrieval on validation": curves(epochs, *(name for name in epochs[0] if "@" in name)),
        "mean cosine of two embeddings": curves(epochs, "cosine_image", "cosine_text"),
        "alignment and uniformity": curves(epochs, "alignment", "uniformity_image", "uniformity_text"),
        "effective rank": curves(epochs, "rank_image", "rank_text"),
        "learning rate": curves(steps, "learning_rate"),
        "norm of the gradient": curves(steps, "gradient"),
    }
    return {title: drawn for title, drawn in panels.items() if drawn}


def _page(panels: Mapping[str, Curves]) -> str:
    """Panels in two columns, as SVG."""
    wide, high = WIDTH + LEGEND, HEIGHT + MARGIN
    drawn = [
        f'<g transform="translate({number % 2 * wide},{number // 2 * high})">{_panel(title, curves)}</g>'
        for number, (title, curves) in enumerate(panels.items())
    ]
    size = f'width="{2 * wide}" height="{-(-len(panels) // 2) * high}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _panel(title: str, curves: Curves) -> str:
    values = [value for _, column in curves.values() for value in column]
    last = max((x for where, _ in curves.values() for x in where), default=0)
    low, high = min(values, default=0), max(values, default=0)
    if 0 < low < high / 100:  # the last rate of a cosine: all but zero, and so it is written
        low = 0
    span = (high - low) or 1

    def place(x: float, y: float) -> str:
        across, up = x / (last or 1), (y - low) / span
        return f"{MARGIN + across * (WIDTH - MARGIN):.1f},{HEIGHT - up * (HEIGHT - MARGIN):.1f}"

    lines = [
        f'<text x="{MARGIN}" y="{MARGIN - 14}" font-size="13">{escape(title)}</text>',
        f'<path d="M{MARGIN},{MARGIN} V{HEIGHT} H{WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{MARGIN - 4}" y="{HEIGHT}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{MARGIN - 4}" y="{MARGIN + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{MARGIN}" y="{HEIGHT + 14}">0</text>',
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">step {last:.0f}</text>',
    ]
    colours: dict[str, str] = {}  # of "recall@5", and dashed of "chance@5", what it is measured against
    for number, (name, (where, column)) in enumerate(curves.items()):
        chance = name.startswith(CHANCE)
        kin = name.removeprefix(CHANCE) if chance else name.partition("@")[2] or name
        colour = colours.setdefault(kin, COLOURS[len(colours) % len(COLOURS)])
        dashes = ' stroke-dasharray="4 3"' if chance else ""
        points = " ".join(place(x, y) for x, y in zip(where, column, strict=True))
        lines += [
            f'<polyline points="{points}" fill="none" stroke="{colour}"{dashes}/>',
            f'<text x="{WIDTH + 8}" y="{MARGIN + 8 + 15 * number}" fill="{colour}">{escape(name)}</text>',
        ]
    return "".join(lines)
