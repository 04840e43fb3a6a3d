"""What holds for every dataset: a new file in tasks/ is tested by lying there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness import registry, settings
from harness.contracts import TABLE_COLUMNS, DatasetCard
from harness.data import locate
from harness.evaluate import zero_shot
from harness.phantom import Cohort
from tasks import chexpert, mimic_cxr

NAMES = sorted(registry.entries("tasks"))
PERSONS, SIZE = 24, (48, 56)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / name
    locate.write(registry.load("tasks", name), root, Cohort(name, PERSONS, seed=3, size=SIZE), workers=1)
    return root


@pytest.fixture(scope="module")
def table(name: str, root: Path) -> pd.DataFrame:
    found: pd.DataFrame = registry.load("tasks", name).read(root)
    return found


def test_the_card_is_the_same_read_and_imported(name: str) -> None:
    card: DatasetCard = registry.load("tasks", name).CARD
    assert registry.dataset_card(name) == card
    assert set(card.phantom) == {"demo", "paper"}
    assert card.tasks or card.corpus
    assert all(set(task.uncertain) <= set(task.labels) for task in card.tasks)


def test_the_table_is_as_the_contract_says(name: str, table: pd.DataFrame) -> None:
    assert tuple(table.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    assert table["image_id"].is_unique and table["image_id"].is_monotonic_increasing
    assert list(table.index) == list(range(len(table)))
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in table["path"])
    assert table["frontal"].dtype == bool and table["age"].dtype == float
    assert set(table["view"]) <= {"PA", "AP", "LATERAL", "LL", "RL", ""} and set(table["sex"]) <= {
        "F",
        "M",
        "",
    }
    assert table.attrs["persons_known"] in (True, False)
    assert table.groupby("study_id")["person_id"].nunique().max() == 1
    labels = table.filter(like="label:")
    assert set(map(str, labels.dtypes)) <= {"Int8"}
    assert labels.isin([1, 0, -1]).where(labels.notna(), True).all(axis=None)
    texts = [column for column in ("findings", "impression") if column in table]
    assert table[texts].notna().all(axis=None)


def test_the_card_names_what_the_table_has(name: str, table: pd.DataFrame) -> None:
    card = registry.dataset_card(name)
    scored = [task for task in card.tasks if set(task.kinds) - {"segmentation", "detection"}]
    absent = [name for task in scored if task.balanced for name in task.balanced.absent]
    columns = {f"label:{label}" for label in [*absent, *(name for task in scored for name in task.labels)]}
    assert columns <= set(table.columns)
    for task in scored:
        labels = table[[f"label:{label}" for label in task.labels]]
        assert not task.exclusive or task.balanced or (labels.sum(axis=1) == 1).all()
        assert task.exclusive == (task.metric == "accuracy") or task.kinds == ("retrieval",)
    splits = [split for task in card.tasks for split in task.splits.values()]
    parts = {
        getattr(split, part, "")  # a published split has no name for what it draws
        for split in [*splits, card.corpus]
        for part in ("train", "validation", "test")
    }
    assert {part for part in parts if part and isinstance(part, str)} <= set(table["split"])
    if "segmentation" in card.by_name:
        assert table["mask"].map(type).eq(str).all() and (table["mask"] != "").any()
        assert callable(registry.load("tasks", name).read_mask)
    if card.corpus or any(task.reports for task in card.tasks):
        assert {"findings", "impression"} <= set(table.columns)


def test_each_task_has_an_id_of_its_own_and_the_prompts_it_needs(name: str) -> None:
    tasks = registry.dataset_card(name).tasks
    assert len(registry.dataset_card(name).by_name) == sum(len(task.kinds) for task in tasks)
    for task in (task for task in tasks if "zero-shot" in task.kinds):
        zero_shot.require_prompts(task)
        sentences = zero_shot.prompts(task, zero_shot.ASSERTED + zero_shot.DENIED).ravel()
        assert len(set(sentences)) == len(sentences)


def test_tasks_of_one_benchmark_agree() -> None:
    """5x200 is one rule on two datasets; a card is literals of its own file, so that it stands in both."""
    for part in ("SCORED", "ALSO_ABSENT", "PROMPTS"):
        assert getattr(chexpert, part) == getattr(mimic_cxr, part)


def test_the_phantom_is_found_as_a_download_would_be(name: str, root: Path) -> None:
    card = registry.dataset_card(name)
    assert locate.real(name, card, settings.load(data_root=root.parent)) == locate.Located(root, "phantom")
    stamped = locate.stamp(root)["images"]
    assert isinstance(stamped, dict) and len(stamped) >= PERSONS


@pytest.mark.slow
def test_the_same_cohort_is_the_same_bytes(name: str, root: Path, tmp_path: Path) -> None:
    again = tmp_path / name
    locate.write(registry.load("tasks", name), again, Cohort(name, PERSONS, seed=3, size=SIZE), workers=1)
    assert contents(again) == contents(root)


@pytest.mark.slow
def test_another_seed_is_another_cohort(name: str, root: Path, tmp_path: Path) -> None:
    cohort = Cohort(name, PERSONS, seed=4, size=SIZE)
    locate.write(registry.load("tasks", name), tmp_path / name, cohort, workers=1)
    assert contents(tmp_path / name) != contents(root)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
