"""What released code draws: against the libraries that it calls, and against counts of the real files."""

from __future__ import annotations

import gzip
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from harness import registry
from harness.contracts import PublishedSplit
from harness.data import published
from harness.data.published import Published
from harness.data.table import Labelled
from harness.errors import DataError, UsageError
from tasks import _covidx, chexpert, covidx, rsna, siim

LABELS = ("Edema", "Atelectasis")


def make(table: pd.DataFrame, split: PublishedSplit) -> Published:
    """Parts of a table of frontal and lateral images, in the order of their ids."""
    labels = [name.removeprefix("label:") for name in table.filter(like="label:").columns][:2]
    frame = table[table["frontal"]].reset_index(drop=True)
    values = frame[[f"label:{label}" for label in labels]].fillna(0).to_numpy(np.int8)
    return published.make(table, Labelled(frame, values, ""), labels, split)


def ids(table: pd.DataFrame, rows: np.ndarray) -> set[str]:
    frontal = table.loc[table["frontal"], "image_id"].to_numpy()
    return set(frontal[rows])


def official(size: int, seed: int = 0) -> pd.DataFrame:
    """A table in the order of its file, which is not that of its ids; a fifth of it lateral."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "image_id": [f"train/{number:06d}" for number in rng.permutation(size)],
            "split": "train",
            "frontal": rng.random(size) < 0.8,
            **{
                f"label:{name}": pd.array(rng.choice([1, 0, -1, None], size, p=[0.2, 0.2, 0.1, 0.5]), "Int8")
                for name in (*LABELS, "Fracture")
            },
            "rows": [(place,) for place in range(size)],
        }
    )


def by_id(file: pd.DataFrame, *tests: str) -> pd.DataFrame:
    """As a reader hands it over, with images of an official test part."""
    more = pd.DataFrame(
        {"image_id": list(tests), "split": "test", "frontal": True, "rows": [(0,)] * len(tests)}
    )
    return pd.concat([file, more]).sort_values("image_id", ignore_index=True)


# --- against the libraries that the authors' code calls -------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 1_001, 1_003])
def test_halves_are_those_of_scikit_learn(size: int) -> None:
    file = official(size).drop(columns="rows").sort_values("image_id", ignore_index=True)
    made = make(file, PublishedSplit("MGCA", (published.BY_IMAGE, published.FRACTION_SAMPLED), 0.3))
    train, rest = train_test_split(file, test_size=0.3, random_state=0)
    test, validation = train_test_split(rest, test_size=0.5, random_state=0)
    for rows, part in zip(made.parts, (train, validation, test), strict=True):
        assert ids(file, rows) == set(part.loc[part["frontal"], "image_id"])
    sampled = train[train["frontal"]].sample(frac=0.1, random_state=42)
    assert ids(file, made.draw(0.1)) == set(sampled["image_id"])


def test_the_official_part_is_cut_in_the_order_of_its_file() -> None:
    file = official(1_000)
    split = PublishedSplit("MGCA", (published.BY_IMAGE, published.FRACTION_CHOSEN), 0.2, "test", "train")
    table = by_id(file, "test/1", "test/2")
    made = make(table, split)
    train, validation = train_test_split(file, train_size=0.8, random_state=0)
    assert ids(table, made.parts.validation) == set(validation.loc[validation["frontal"], "image_id"])
    assert ids(table, made.parts.test) == {"test/1", "test/2"}
    names = train.loc[train["frontal"], "image_id"].to_numpy()
    rng = np.random.RandomState(42)
    first, second = (rng.choice(len(names), int(0.1 * len(names)), replace=False) for _ in range(2))
    assert ids(table, made.draw(0.1)) == set(names[second]) != set(names[first])


def test_validation_drawn_by_position_and_removed_by_label() -> None:
    """The authors' steps in pandas, whose index is the row label that the fault is about."""
    file = official(2_000)
    split = PublishedSplit(
        "MGCA",
        (published.SET_ASIDE, published.BY_POSITION, published.FRACTION_SAMPLED),
        *(300, "test", "train"),
        set_aside=20,
        size=2_000,
    )
    table = by_id(file, "test/1")
    made = make(table, split)
    said = file.fillna({f"label:{name}": 0 for name in (*LABELS, "Fracture")})
    kept_apart = []
    for label in LABELS:
        others = [f"label:{name}" for name in (*LABELS, "Fracture") if name != label]
        alone = said[said["frontal"] & (said[f"label:{label}"] == 1) & (said[others] == 0).all(axis=1)]
        kept_apart.append(alone.sample(n=20, random_state=0))
    left = file[~file["image_id"].isin(pd.concat(kept_apart)["image_id"])]
    positions = np.random.RandomState(0).choice(len(left), 300, replace=False)
    validation, train = left.iloc[positions], left.drop(positions, errors="ignore")
    validation, train = (part[part["frontal"]] for part in (validation, train))
    assert ids(table, made.parts.validation) == set(validation["image_id"])
    assert ids(table, made.parts.train) == set(train["image_id"])
    assert ids(table, made.draw(0.01)) == set(train.sample(frac=0.01, random_state=42)["image_id"])
    assert len(np.intersect1d(made.parts.train, made.parts.validation)) > 0.7 * len(validation)
    assert made.rules == split.rules


def test_numbers_follow_the_size_and_the_rules_say_so() -> None:
    split = PublishedSplit("MGCA", (published.BY_IMAGE,), 400, "test", "train", size=2_000)
    file = official(500)
    made = make(by_id(file, "test/1"), split)
    _, validation = train_test_split(file, test_size=100, random_state=0)
    assert len(made.parts.validation) == validation["frontal"].sum()
    assert made.rules == (published.BY_IMAGE, published.SCALED)


def test_rows_of_one_image_land_in_several_parts() -> None:
    counts = np.random.default_rng(1).integers(1, 4, 300)
    rows = np.split(np.random.default_rng(2).permutation(counts.sum()), np.cumsum(counts)[:-1])
    table = pd.DataFrame(
        {
            "image_id": [f"{number:03d}" for number in range(300)],
            "split": "",
            "frontal": True,
            "label:Pneumothorax": [int(number % 4 == 0) for number in range(300)],
            "rows": [tuple(places) for places in rows],
        }
    )
    rules = (published.BY_ROW, published.BALANCED, published.FRACTION_CHOSEN)
    made = make(table, PublishedSplit("MGCA", rules, 0.3))
    csv = table.explode("rows").sort_values("rows")
    train, rest = train_test_split(csv, test_size=0.3, random_state=0)
    test, validation = train_test_split(rest, test_size=0.5, random_state=0)
    for places, part in zip(made.parts, (train, validation, test), strict=True):
        assert ids(table, places) == set(part["image_id"])
    rng = np.random.RandomState(42)
    positive = train.loc[train["label:Pneumothorax"] == 1, "image_id"].unique()
    negatives = train[train["label:Pneumothorax"] == 0]

    def drawn() -> set[str]:
        kept = rng.choice(negatives["image_id"].unique(), len(positive), replace=False)
        pool = [*positive, *negatives.loc[negatives["image_id"].isin(kept), "image_id"].unique()]
        return set(rng.choice(pool, int(len(pool) * 0.5), replace=False))

    first, second = drawn(), drawn()
    assert ids(table, made.draw(0.5)) == second != first


# --- against what was counted on the real files ---------------------------------------------------------


def read(images: pd.DataFrame) -> pd.DataFrame:
    images = images.rename_axis("image_id").reset_index()
    return images.assign(split="", frontal=True).sort_values("image_id", ignore_index=True)


@pytest.fixture(scope="module")
def pneumonia(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("rsna") / "stage_2_train_labels.csv"
    with zipfile.ZipFile(realdata / "labels" / "kaggle_stage_2_train_labels.csv.zip") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("labels.csv")]
        path.write_bytes(archive.read(name))
    persons = pd.read_csv(realdata / "rsna_person_map.csv.gz", dtype=str, index_col="patientId")
    table = read(rsna.read_labels(path))
    return table.assign(person_id=table["image_id"].map(persons["nih_patient"]))


@pytest.mark.parametrize(
    ("split", "sizes", "positives", "fractions", "shared"),
    [
        (rsna.PUBLISHED, (18_678, 4_003, 4_003), None, (187, 1_868), 2_749),
        (rsna.PUBLISHED_DENSE, (16_010, 5_337, 5_337), (3_579, 1_182, 1_251), (160, 1_601), 3_579),
    ],
    ids=["classification", "dense"],
)
def test_rsna(
    pneumonia: pd.DataFrame,
    split: PublishedSplit,
    sizes: tuple[int, ...],
    positives: tuple[int, ...] | None,
    fractions: tuple[int, int],
    shared: int,
) -> None:
    made = make(pneumonia, split)
    parts = [pneumonia.iloc[rows] for rows in made.parts]
    assert tuple(map(len, parts)) == sizes
    if positives:
        assert tuple(part["label:Pneumonia"].sum() for part in parts) == positives
    assert parts[2]["person_id"].isin(parts[0]["person_id"]).sum() == shared
    assert tuple(len(made.draw(share)) for share in (0.01, 0.1)) == fractions
    assert made.rules == split.rules


@pytest.mark.slow
def test_siim(realdata: Path, tmp_path: Path) -> None:
    packed = realdata / "labels" / "siim-pneumothorax-train-rle.csv.gz"
    (tmp_path / "train-rle.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    table = read(siim.read_codes(tmp_path / "train-rle.csv"))
    train, validation, test = (set(rows) for rows in make(table, siim.PUBLISHED).parts)
    assert (len(train & test), len(train & validation), len(validation & test)) == (154, 161, 62)
    cut = published._parts(table, ("Pneumothorax",), siim.PUBLISHED)  # an image once for each row
    assert tuple(map(len, cut)) == (9_067, 1_944, 1_943)
    rows = table["rows"].map(len).to_numpy()
    incomplete = [(np.bincount(part, minlength=len(rows)) % rows > 0).sum() for part in cut]
    assert incomplete == [282, 190, 183]  # images with outlines in another part


def test_covidx(realdata: Path, tmp_path: Path) -> None:
    parts = []
    for part in ("train", "test"):
        lines = gzip.decompress((realdata / "labels" / "covidx" / f"{part}_COVIDx9A.txt.gz").read_bytes())
        (tmp_path / f"{part}.txt").write_bytes(lines)
        rows = _covidx.read_list(tmp_path / f"{part}.txt", "covidx", {}).reset_index(drop=True)
        places = [(place,) for place in rows.index]
        parts.append(rows.assign(image_id=part + "/" + rows["file"], split=part, rows=places))
    table = pd.concat(parts).sort_values("image_id", ignore_index=True).assign(frontal=True)
    for name in covidx.CARD.tasks[0].labels:
        table[f"label:{name}"] = (table["class"].str.lower() == name.lower()).astype("Int8")
    made = make(table, covidx.PUBLISHED)
    assert tuple(map(len, made.parts)) == (24_104, 6_026, 400)
    assert (len(made.draw(0.01)), len(made.draw(0.1))) == (241, 2_410)
    train, validation, _ = (table.iloc[rows] for rows in made.parts)
    covid = validation[validation["label:COVID-19"] == 1]
    assert covid["id"].isin(train["id"]).mean() == pytest.approx(
        0.9, abs=0.02
    )  # 2,929 of 3,268 by another shuffle


@pytest.mark.slow
def test_chexpert_at_its_official_size() -> None:
    """Labels cannot be had here, so other images are set aside: what follows from where they stand holds for
    the counts of the real file up to that."""
    file = official(223_414)
    file = file.rename(
        columns=dict(zip([f"label:{name}" for name in LABELS], ("label:A", "label:B"), strict=True))
    )
    split = replace(chexpert.PUBLISHED, set_aside=500, test="test")
    table = by_id(file.assign(frontal=True), "test/1")
    made = make(table, split)
    shared = np.intersect1d(made.parts.train, made.parts.validation)
    assert len(made.parts.validation) == 5_000
    assert len(made.parts.train) == pytest.approx(217_433, abs=15)  # 5,000 less those whose row was set aside
    assert len(shared) == pytest.approx(4_907, abs=40)
    assert made.rules == split.rules


# --- what is refused --------------------------------------------------------------------------------------


def test_an_unknown_rule_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"no published rule 'by-luck'.*parts-drawn-by-image"):
        make(official(50), PublishedSplit("MGCA", ("by-luck",), 0.3))


def test_a_release_without_rows_cannot_be_split_by_row() -> None:
    with pytest.raises(DataError, match=r"MGCA deals out the rows .* or the clean protocol"):
        make(official(50).drop(columns="rows"), PublishedSplit("MGCA", (published.BY_ROW,), 0.3))


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match="train part is empty"):
        make(official(1), PublishedSplit("MGCA", (published.BY_IMAGE,), 0.3))


def test_every_rule_of_every_card_is_explained() -> None:
    named = {
        rule
        for name in registry.entries("tasks")
        for task in registry.dataset_card(name).tasks
        for split in task.splits.values()
        if isinstance(split, PublishedSplit)
        for rule in split.rules
    }
    assert named and named <= set(published.RULES)
    assert {rule for rules in published.HEADS.values() for rule in rules} <= set(published.RULES)
    assert all(sentence.endswith(".") for sentence in published.RULES.values())
