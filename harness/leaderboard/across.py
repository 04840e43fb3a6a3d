"""What is said of several tables at once: mean ranks, and the clean protocol beside the published one.

Apart because a rank or a difference is only as good as what its two sides have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.leaderboard import standings
from harness.leaderboard.standings import Ranks, Runs, Standing
from harness.leaderboard.text import DIRTY, HOLE, counted, percent, text_of


def all_kinds(tables: Sequence[Standing]) -> Iterator[str]:
    ranks = standings.ranks(tables)
    if ranks is None:
        return
    order = sorted(range(len(ranks.rows)), key=lambda k: (ranks.ranking.mean[k], ranks.rows[k]))
    lines = [
        [
            ranks.rows[k].family,
            f"{ranks.ranking.mean[k]:.2f}",
            *(HOLE if j == k else f"{ranks.ranking.wins[k, j] * 100:.0f} %" for j in order),
        ]
        for k in order
    ]
    header = ["checkpoint", "mean rank", *(f"beats {ranks.rows[k].family}" for k in order)]
    beats = "`beats`: the share of the blocks in which the row ranks above the column, a tie counting half."
    yield f"### All kinds\n\n{text_of(lines, header)}\n{beats} {explained(ranks)}\n"


def explained(ranks: Ranks) -> str:
    """What a rank is, and what the ranks tell."""
    without = f" ({ranks.left_out} more lack one of them, or runs of common seeds)" if ranks.left_out else ""
    names = ", ".join(row.family for row in ranks.unranked)
    unranked = f" Not ranked, for want of tasks or runs that these have: {names}." if names else ""
    together = "; ".join(" with ".join(names) for names in ranks.blocks if len(names) > 1)
    joined = f", and so are those of datasets with test persons in common ({together})" if together else ""
    doubtful = (
        f" Of {', '.join(ranks.doubtful)} not all persons are known: some may be in other blocks too."
        if ranks.doubtful
        else ""
    )
    return (
        f"Ranks of the clean protocol at default settings, over the {counted(ranks.tasks, 'task')} in which "
        f"all {len(ranks.rows)} stand{without}, in each by the mean over the fractions and seeds that they "
        f"share. The tasks of a dataset are one block, by their mean rank{joined}: {len(ranks.blocks)} "
        f"blocks.{doubtful}{unranked} {_told(ranks)}"
    )


def _told(ranks: Ranks) -> str:
    found, rows = ranks.ranking, len(ranks.rows)
    overall, pairwise = ("Friedman", "Nemenyi") if rows > 2 else ("sign test", "sign test")
    if found.critical >= rows - 1:  # the largest difference that there can be
        return f"Ranks over {len(ranks.blocks)} blocks cannot tell {rows} apart ({pairwise})."
    first, *others = found.mean.argsort(kind="stable")
    close = [ranks.rows[k].family for k in others if found.mean[k] - found.mean[first] <= found.critical]
    return (
        f"That all are alike: p = {found.p:.2g} ({overall}). Mean ranks more than "
        f"{found.critical:.2f} apart differ ({pairwise}). Not told apart from {ranks.rows[first].family}: "
        f"{', '.join(close) or 'no other'}."
    )


def protocols(tables: Sequence[Standing]) -> Iterator[str]:
    """Clean beside published, where both are there, of the same data: what the faults of a protocol are
    worth."""
    clean: dict[tuple[str, str], Standing] = {}
    for standing in tables:
        if standing.ranked:
            clean.setdefault((standing.table.task, standing.table.data), standing)
    pairs = [
        (clean[standing.table.task, standing.table.data], standing)
        for standing in tables
        if standing.table.protocol == "published" and (standing.table.task, standing.table.data) in clean
    ]
    fractions = sorted({fraction for pair in pairs for fraction in pair[1].fractions})
    lines, alike = [], []
    for one, other in pairs:
        rows = [row for row in one.order if row in other.cells]
        if not rows:
            continue
        changes = [
            [_change(one.cells[row].get(fraction), other.cells[row].get(fraction)) for fraction in fractions]
            for row in rows
        ]
        known = [change for of_row in changes for change in of_row if change]
        if known and all(change.clean == change.published for change in known):
            alike.append(one.table.task)
            continue
        lines += [
            [one.table.task, row.family, *(change.text if change else HOLE for change in of_row)]
            for row, of_row in zip(rows, changes, strict=True)
        ]
    if not lines and not alike:
        return
    same = f"\nThe same under both protocols: {', '.join(alike)}.\n" if alike else ""
    yield (
        "### Clean beside published\n\nWhat the published protocol changes by its split (test pictures too), "
        "its sampling, its head and its way of counting, as far as the rules of its table go: points above "
        "the clean number, by the runs that both have. Kinds that use no label stand at "
        "100 %. A difference of one run is that of one draw of labels and one training.\n\n"
        + (text_of(lines, ["task", "checkpoint", *map(percent, fractions)]) if lines else "")
        + same
    )


class _Change(NamedTuple):
    clean: float
    published: float
    runs: int
    dirty: bool

    @property
    def text(self) -> str:
        one, other = self.clean * 100, self.published * 100
        dirty = DIRTY if self.dirty else ""
        return f"{one:.1f} → {other:.1f} ({other - one:+.1f}, {counted(self.runs, 'run')}){dirty}"


def _change(clean: Runs | None, published: Runs | None) -> _Change | None:
    """Change of the mean over the runs that both have; None where there are none."""
    if clean is None or published is None or not (shared := set(clean.runs) & set(published.runs)):
        return None
    one, other = (float(cell.part(shared.__contains__).values.mean()) for cell in (clean, published))
    return _Change(one, other, len(shared), clean.dirty or published.dirty)
