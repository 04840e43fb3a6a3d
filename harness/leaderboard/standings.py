"""The numbers of the leaderboard: which records belong together, their means, intervals and tie groups.

Apart from the text, because here it is decided what may be compared with what.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

from harness import comparison, grouping, records, stats
from harness.contracts import DataKind
from harness.errors import BadRecord
from harness.grouping import Row, Table
from harness.metrics import score
from harness.metrics.score import Score
from harness.parallel import parallel_map
from harness.records import Predictions, Record, TaskBlock
from harness.stats import Interval, Resampled, Run


@dataclass
class Runs:
    """The runs of one row at one fraction: all of the same test images."""

    paths: tuple[Path, ...]
    records: tuple[Record, ...]  # by seed of the labels, then of the checkpoint

    @property
    def runs(self) -> tuple[Run, ...]:
        seeds: dict[str, int] = {}  # of weights that are the same under several seeds, the first
        return tuple(
            Run(seeds.setdefault(record.pretraining.weights, record.pretraining.seed), record.cell.seed)
            for record in self.records
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of the labels of each run."""
        return tuple(run.seed for run in self.runs)

    def has(self, seeds: Sequence[int]) -> bool:
        """Whether there are runs of just these seeds, each as often, maybe beside those of others."""
        return tuple(seed for seed in self.seeds if seed in seeds) == tuple(seeds)

    def part(self, keep: Callable[[Run], bool]) -> Resampled:
        """Some of the runs."""
        places = [place for place, run in enumerate(self.runs) if keep(run)]
        return self.main._replace(
            runs=tuple(self.runs[place] for place in places),
            values=self.main.values[places],
            draws=self.main.draws[places],
        )

    @property
    def dirty(self) -> bool:
        """Whether some of it, weights or numbers, was made by code that no commit holds."""
        return any(
            record.code.dirty or not record.code.commit or record.pretraining.dirty for record in self.records
        )

    @cached_property
    def main(self) -> Resampled:
        """Raises BadRecord where a record's number is not what its predictions give."""
        found = self.resampled(self.records[0].task.metric)
        for path, record, value in zip(self.paths, self.records, found.values, strict=True):
            if wrong := records.contradiction(path, record, value):
                raise BadRecord(wrong)
        return found

    @cached_property
    def interval(self) -> Interval:
        """The task's own metric, over the runs and the test persons."""
        return stats.two_level_interval(self.records[0].task.metric, self.main)

    def resampled(self, metric: str) -> Resampled:
        """Raises BadRecord where runs were scored on other test images."""
        first = records.predictions(self.paths[0])
        scores = self._scores(first, metric)
        seed = self.runs[0].seed if len(self.runs) == 1 else 0  # of a single run, the interval it printed
        replicates = stats.REPLICATES
        return stats.resampled(self.runs, scores, first.persons, metric, replicates=replicates, seed=seed)

    def _scores(self, first: Predictions, metric: str) -> Iterator[Score]:
        for path, record in zip(self.paths, self.records, strict=True):
            found = first if path == self.paths[0] else records.predictions(path)
            if not records.same_test(first, found):
                raise BadRecord(
                    f"{path} has other test images, persons or truths than {self.paths[0]}, so that their "
                    "mean is about no one test set. Run the seeds again on the same data"
                )
            yield score.of(record.task.kind, found.arrays, record.task.labels, metric)


@dataclass(frozen=True)
class Standing:
    """One table."""

    table: Table
    cells: Mapping[Row, Mapping[float, Runs]]
    replaced: Sequence[Record]  # earlier runs, on checkpoints that were lent to their seeds

    @cached_property
    def runs(self) -> list[Runs]:
        """The runs of all rows and fractions."""
        return [cell for row in self.cells.values() for cell in row.values()]

    @cached_property
    def every(self) -> list[Record]:
        return [record for cell in self.runs for record in cell.records]

    @property
    def ranked(self) -> bool:
        """The clean protocol, every head at its default settings and selected on all validation labels."""
        table = self.table
        return table.protocol == "clean" and not table.cut_validation and not table.tuned

    @property
    def task(self) -> TaskBlock:
        return self.every[0].task

    @property
    def own_people(self) -> bool:
        """Whether its persons are in no other dataset: those of phantoms, if under ids that others have."""
        return self.every[0].data.kind == "phantom"

    def shares_persons(self, other: Standing) -> bool:
        """Whether somebody is in the test parts of both, as far as their ids tell. Of datasets that have no
        pictures in common, equal ids are those of strangers."""
        related = any(
            table.dataset in record.data.shares_pictures
            for table, record in ((self.table, other.every[0]), (other.table, self.every[0]))
        )
        if self.own_people or not related:
            return False
        one, two = (table.runs[0].main.persons for table in (self, other))
        return bool(np.isin(one, two).any())

    @property
    def fractions(self) -> list[float]:
        return sorted({fraction for row in self.cells.values() for fraction in row})

    @cached_property
    def order(self) -> list[Row]:
        """Rows from the best to the worst, each at its largest fraction; those of a smaller one come
        after."""

        def place(row: Row) -> tuple[float, float, Row]:
            last = max(self.cells[row])
            return -last, -self.cells[row][last].interval.value, row

        return sorted(self.cells, key=place)

    @cached_property
    def usual(self) -> tuple[int, ...]:
        """Seeds of the labels by which rows are grouped, at the largest fraction. Of each row's own seeds and
        the common ones of each two rows, those that most runs of the table have; two seeds in two rows are
        preferred."""
        cells = list(self._last.values())
        shared = (
            tuple(seed for seed in one.seeds if seed in other.seeds)
            for one, other in itertools.combinations(cells, 2)
        )

        def numbers(seeds: tuple[int, ...]) -> tuple[bool, bool, int, int]:
            rows = sum(cell.has(seeds) for cell in cells)
            return rows > 1 and len(seeds) > 1, rows > 1, rows * len(seeds), len(seeds)

        return max((*(cell.seeds for cell in cells), *filter(None, shared)), key=numbers)

    @cached_property
    def groups(self) -> dict[Row, int]:
        """Tie groups at the largest fraction, by the usual runs of the rows that have them. Empty where only
        one of several rows has them, or where there is one usual seed: by one run, the test would tell a
        method from itself.

        Raises BadRecord where rows were scored on other test persons."""
        runs = {
            row: cell.part(lambda run: run.seed in self.usual)
            for row, cell in self._last.items()
            if cell.has(self.usual)
        }
        if len(self.usual) == 1 or len(runs) == 1 < len(self.cells):
            return {}
        alike = sorted(runs, key=lambda row: (-runs[row].values.mean(), row))  # as they are tested
        for row in alike:
            if not np.array_equal(runs[row].persons, runs[alike[0]].persons):
                raise BadRecord(
                    f"{self._last[row].paths[0]} and {self._last[alike[0]].paths[0]} have other persons for "
                    "the same test images, so that they cannot be compared. Keep them in two folders of "
                    "results, or run one again with the map of persons of the other"
                )
        pairs = list(itertools.combinations(alike, 2))
        p = [comparison.paired_difference(runs[one], runs[other]).p for one, other in pairs]
        adjusted = dict(zip(map(frozenset, pairs), comparison.holm(p).tolist(), strict=True))
        return comparison.tie_groups(alike, adjusted, 1 - stats.LEVEL)

    @cached_property
    def _last(self) -> dict[Row, Runs]:
        last = self.fractions[-1]
        return {row: found[last] for row, found in self.cells.items() if last in found}

    def side_by_side(self, rows: Sequence[Row], fraction: float) -> np.ndarray:
        """[K] means of `rows` over the runs whose seeds all of them have."""
        cells = [self.cells[row][fraction] for row in rows]
        shared = set.intersection(*(set(cell.seeds) for cell in cells))
        return np.array([cell.part(lambda run: run.seed in shared).values.mean() for cell in cells])

    @property
    def missing(self) -> Iterator[tuple[str, float, list[int]]]:
        """Seeds that a row lacks at a fraction, or one of its checkpoints where these share seeds, and that
        the table has anywhere."""
        wanted = {run.seed for cell in self.runs for run in cell.runs}
        for fraction in self.fractions:
            for row in self.cells:
                for name, found in self._seeds(row, fraction):
                    if lacking := wanted - found:
                        yield name, fraction, sorted(lacking)

    def _seeds(self, row: Row, fraction: float) -> Iterator[tuple[str, set[int]]]:
        """Seeds by checkpoint where checkpoints are crossed with seeds, else by family."""
        cells = self.cells[row]
        here = set(cells[fraction].runs) if fraction in cells else set()
        every = {run for cell in cells.values() for run in cell.runs}
        if len(every) == len({run.seed for run in every}):
            yield row.family, {run.seed for run in here}
            return
        for checkpoint in sorted({run.checkpoint for run in every}):
            yield f"{row.family}-s{checkpoint}", {run.seed for run in here if run.checkpoint == checkpoint}


_Shared = tuple[Table, float, int]  # a fraction of a table and a seed, which several rows may have


class Ranks(NamedTuple):
    rows: list[Row]
    unranked: list[Row]  # that lack too much
    blocks: list[list[str]]  # datasets, those together that have test persons in common
    doubtful: list[str]  # datasets whose persons may be in other blocks too, and nobody knows
    tasks: int  # in which all rows stand
    left_out: int  # tasks in which some row does not
    ranking: comparison.Ranking


def read(results: Path) -> dict[DataKind, list[Standing]]:
    """All tables by track. Raises BadRecord on the first record that breaks the schema, or that does not lie
    together with the others."""
    tables: dict[tuple[DataKind, Table], dict[Row, dict[float, list[tuple[Path, Record]]]]] = {}
    kept, replaced = grouping.without_lent(grouping.checked(records.read_all(results)))
    before: dict[tuple[DataKind, Table], list[Record]] = defaultdict(list)
    for _, record in replaced:
        before[_place(record)].append(record)
    for path, record in kept:
        rows = tables.setdefault(_place(record), {})
        cells = rows.setdefault(grouping.row_of(record), defaultdict(list))
        cells[record.cell.fraction].append((path, record))
    found: dict[DataKind, list[Standing]] = {"phantom": [], "real": []}
    for (kind, table), rows in sorted(tables.items()):
        cells_of = {row: {share: _cell(items) for share, items in rows[row].items()} for row in rows}
        found[kind].append(Standing(table, cells_of, before[kind, table]))
    return found


def _place(record: Record) -> tuple[DataKind, Table]:
    return record.data.kind, grouping.table_of(record)


def _cell(items: Sequence[tuple[Path, Record]]) -> Runs:
    ordered = sorted(items, key=lambda item: (item[1].cell.seed, item[1].pretraining.seed))
    paths, found = zip(*ordered, strict=True)
    return Runs(paths, found)


def measure(standings: Sequence[Standing], workers: int) -> None:
    """Resamples every cell, which takes a core a minute for a thousand records; whoever asks later has it at
    once."""
    cells = [cell for standing in standings for cell in standing.runs]
    resampled = parallel_map(attrgetter("main"), cells, workers=workers, label="measuring", unit="cells")
    for cell, main in zip(cells, resampled, strict=True):
        cell.main = main


def ranks(standings: Sequence[Standing]) -> Ranks | None:
    """Ranks of the rows that share most runs; None where fewer than two rows or blocks are left. In a task,
    rows are ranked by the mean over the fractions and seeds that they have in common. Tasks with test persons
    in common are one block, by the mean rank over them: the tests of ranks are about blocks that are
    independent."""
    runs: dict[Row, set[_Shared]] = defaultdict(set)
    for standing in standings:
        for row, found in standing.cells.items():
            for fraction, cell in found.items():
                runs[row].update((standing.table, fraction, seed) for seed in cell.seeds)
    rows, shared = _comparable(runs)
    tasks: list[tuple[Standing, np.ndarray]] = []  # with the ranks in it
    for standing in standings:
        if fractions := sorted({fraction for table, fraction, _ in shared if table == standing.table}):
            means = [standing.side_by_side(rows, fraction) for fraction in fractions]
            tasks.append((standing, rankdata(-np.mean(means, axis=0))))
    ranked = [standing for standing, _ in tasks]
    blocks = _independent(ranked) if tasks else []
    if len(blocks) < 2:
        return None
    ranking = comparison.ranking(
        -np.array([np.mean([tasks[place][1] for place in block], axis=0) for block in blocks])
    )
    datasets = [sorted({tasks[place][0].table.dataset for place in block}) for block in blocks]
    unranked = sorted(set(runs).difference(rows))
    doubtful = {one.table.dataset for one in ranked if not (one.own_people or one.table.persons_known)}
    left_out = len(standings) - len(tasks)
    return Ranks(rows, unranked, datasets, sorted(doubtful), len(tasks), left_out, ranking)


def _independent(standings: Sequence[Standing]) -> list[list[int]]:
    """Their places, those together that are of one dataset or have test persons in common."""
    meet = [
        [one.table.dataset == other.table.dataset or one.shares_persons(other) for other in standings]
        for one in standings
    ]
    count, labels = connected_components(np.array(meet), directed=False)
    return [np.flatnonzero(labels == block).tolist() for block in range(count)]


def _comparable(runs: Mapping[Row, set[_Shared]]) -> tuple[list[Row], set[_Shared]]:
    """Rows, and the runs that all of them have: of the fullest two, three, ... the choice with most numbers,
    so that a row of which little was run costs the others nothing."""
    fullest = sorted(runs, key=lambda row: (-len(runs[row]), row))
    choices = [sorted(fullest[:count]) for count in range(2, len(fullest) + 1)]
    shared = [(rows, set.intersection(*(runs[row] for row in rows))) for rows in choices]
    return max(shared, key=lambda found: (len(found[0]) * len(found[1]), len(found[0])), default=([], set()))
