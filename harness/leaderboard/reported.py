"""Numbers printed by others, and what ours say of them.

Apart because they are not ours: each has its source and its setting, and is compared with a number of ours
only where both are about the same thing.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness import stats
from harness.errors import BadRecord
from harness.leaderboard.standings import Runs, Standing
from harness.leaderboard.text import HOLE, text_of

HEAD = """## Published numbers

As printed by others, one source per cell; protocols differ (see each setting), and no number here was
computed by this project. A method without a row has no sourced table yet.
"""

METRICS = {
    "AUC": "macro_auroc",
    "AUROC": "macro_auroc",
    "ACC": "accuracy",
    "Dice": "dice",
    "mAP@[0.4:0.75]": "mean_average_precision:skipping",
}
"""What a printed metric is called here. Others are not computed in the way that their source does."""

SETTINGS = ("frozen encoder, linear", "frozen encoder, U-Net", "frozen encoder, YOLOv3")
"""Settings that the published protocol repeats, with the parts that belong to them: those of MGCA's code."""

ROUNDING = 0.05  # points: numbers are printed with one decimal

VARIANTS = "variants.json"
"""Beside the tables: which method of ours a printed method and its variant is, and one of which corpora it
must have been trained on, null being none."""

COLUMNS = "method variant task fraction metric value std setting source note".split()

Printed = dict[str, str]  # a row of a file in results/reported
Ours = dict[tuple[str, str], tuple[str, list[str | None]]]  # (method, variant): (method of ours, corpora)


def section(folder: Path, real: Sequence[Standing]) -> Iterator[str]:
    rows = {path.stem: _read(path) for path in sorted(folder.glob("*.csv"))}
    if not rows:
        return
    yield HEAD
    yield from (_table(kind, found) for kind, found in rows.items())
    yield _verdicts([row for found in rows.values() for row in found], real, _ours(folder / VARIANTS))


def _read(path: Path) -> list[Printed]:
    """Raises BadRecord naming the line that has other columns, or no number where one belongs."""
    rows: list[Printed] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                if list(row) != COLUMNS or None in row.values():
                    raise ValueError(f"a row needs the columns {','.join(COLUMNS)}")
                for number in (row["fraction"].rstrip("%") or "0", row["value"].lstrip("<>")):
                    float(number)
                rows.append(row)
        except (ValueError, csv.Error) as error:
            raise BadRecord(f"{path}, line {reader.line_num}: {error}. Mend it, or remove the row") from error
    return rows


def _ours(path: Path) -> Ours:
    """Raises BadRecord where it says this of no variants."""
    try:
        variants = json.loads(path.read_bytes()) if path.exists() else []
        return {(one["method"], one["variant"]): (one["ours"], one["corpora"]) for one in variants}
    except (ValueError, KeyError, TypeError) as error:
        raise BadRecord(
            f"{path}: {type(error).__name__}: {error}. Mend it: a list of objects with method, variant, ours "
            "and corpora"
        ) from error


def _method(row: Printed) -> str:
    return f"{row['method']} ({row['variant']})" if row["variant"] else row["method"]


def _value(row: Printed) -> str:
    return f"{row['value']} ± {row['std']}" if row["std"] else row["value"]


def _table(kind: str, rows: Sequence[Printed]) -> str:
    """One line per (task, metric, method, source); its fractions side by side, its disagreements below."""
    fractions = sorted({row["fraction"] for row in rows}, key=lambda text: float(text.rstrip("%") or 0))
    lines: dict[tuple[str, ...], Printed] = defaultdict(dict)
    sources: dict[str, int] = {}
    notes = []
    for row in rows:
        source = sources.setdefault(f"{row['source']}. Setting: {row['setting']}", len(sources) + 1)
        lines[row["task"], row["metric"], _method(row), f"[{source}]"][row["fraction"]] = _value(row)
        if row["note"]:
            place = f"{row['task']}, {_method(row)}, {row['fraction']}"
            notes.append(f"- {place}: {row['value']} here; {row['note']}")
    header = ["task", "metric", "method", "source", *(fraction or "value" for fraction in fractions)]
    body = [[*key, *(cells.get(fraction, HOLE) for fraction in fractions)] for key, cells in lines.items()]
    cited = "\n".join(f"{number}. {source}" for source, number in sources.items())
    disagreements = "\nSources that disagree:\n\n" + "\n".join(notes) + "\n" if notes else ""
    return f"### {kind}\n\n{text_of(body, header)}\n{cited}\n{disagreements}"


# --- beside ours -------------------------------------------------------------------------------------


def _verdicts(rows: Iterable[Printed], real: Sequence[Standing], variants: Ours) -> str:
    lines, without = [], Counter[str]()
    for row in rows:
        ours = _intervals(row, real, variants)
        if isinstance(ours, str):
            without[ours] += 1
            continue
        for family, interval in ours:
            value, low, high = (number * 100 for number in interval)
            inside = low - ROUNDING <= float(row["value"]) <= high + ROUNDING
            lines.append(
                [
                    row["task"],
                    _method(row),
                    row["fraction"],
                    row["metric"],
                    _value(row),
                    f"{value:.1f} [{low:.1f}, {high:.1f}]",
                    family,
                    "inside" if inside else "outside",
                ]
            )
    header = ["task", "method", "fraction", "metric", "printed", "ours, published", "checkpoint", "verdict"]
    table = f"{text_of(lines, header)}\n" if lines else ""
    reasons = "".join(f"- {count}: {reason}\n" for reason, count in without.most_common())
    return (
        "### Beside ours\n\nWhether a printed number lies inside our interval of the same setting, method, "
        "pre-training corpus, task, fraction and metric, on real data under the published protocol.\n\n"
        + table
        + (f"Not comparable:\n\n{reasons}" if without else "")
    )


def _intervals(
    row: Printed, real: Sequence[Standing], variants: Ours
) -> list[tuple[str, stats.Interval]] | str:
    """Ours of each checkpoint without its seed, once for each table it is in, or why there is none."""
    if row["setting"].partition(";")[0] not in SETTINGS:  # what follows is of the source
        return "another setting than those that the published protocol repeats"
    if row["metric"] not in METRICS:
        return "the metric is computed in another way, or not at all, here"
    if not row["value"].replace(".", "").isdigit():
        return "no value is printed, only a bound"
    if (row["method"], row["variant"]) not in variants:
        return "a variant of the method that none of ours is"
    method, corpora = variants[row["method"], row["variant"]]
    share = float(row["fraction"].rstrip("%") or 100) / 100
    cells = [
        (standing, cell)
        for standing in real
        for own, found in standing.cells.items()
        for fraction, cell in found.items()
        if (standing.table.task, own.method, fraction) == (row["task"], method, share)
    ]
    if not cells:
        return "no record on the real data; phantoms are never compared with them"
    cells = [(standing, cell) for standing, cell in cells if standing.table.protocol == "published"]
    if not cells:
        return "only a record of the clean protocol, which asks another question"
    cells = [each for each in cells if each[1].records[0].pretraining.profile == "paper"]
    if not cells:
        return "only a record of a demo-sized encoder"
    cells = [each for each in cells if _trained_on(each[1], corpora)]
    if not cells:
        return "only a record of an encoder that was trained on another corpus, or on a phantom"
    metric = METRICS[row["metric"]]
    if metric not in cells[0][1].records[0].metrics:
        return "the metric is computed in another way, or not at all, here"
    return [
        (cell.records[0].pretraining.family, stats.two_level_interval(metric, cell.resampled(metric)))
        for _, cell in cells
    ]


def _trained_on(cell: Runs, corpora: Sequence[str | None]) -> bool:
    origin = cell.records[0].pretraining
    return origin.corpus in corpora and origin.data_kind != "phantom"
